"""The report of a run: `report.json` for programs, `report.html` and tables for people."""

from modalbind.report.comparison import Ablation, AblationVariant, Comparison, ComparisonRow
from modalbind.report.files import (
    read_report,
    read_summary,
    write_report,
    write_summary,
)
from modalbind.report.models import (
    AnchorReport,
    BoundRun,
    CostReport,
    DataReport,
    EnvironmentReport,
    GapRow,
    LossPoint,
    RetrievalMetrics,
    RetrievalRow,
    RunReport,
    SumRow,
    ZeroShotMetrics,
    ZeroShotRow,
)
from modalbind.report.parts import Metric
from modalbind.report.sweep import SweepSummary, summarise
from modalbind.report.terminal import (
    render_ablation_terminal,
    render_comparison_terminal,
    render_summary_terminal,
    render_terminal,
)

__all__ = [
    "Ablation",
    "AblationVariant",
    "AnchorReport",
    "BoundRun",
    "Comparison",
    "ComparisonRow",
    "CostReport",
    "DataReport",
    "EnvironmentReport",
    "GapRow",
    "LossPoint",
    "Metric",
    "RetrievalMetrics",
    "RetrievalRow",
    "RunReport",
    "SumRow",
    "SweepSummary",
    "ZeroShotMetrics",
    "ZeroShotRow",
    "read_report",
    "read_summary",
    "render_ablation_terminal",
    "render_comparison_terminal",
    "render_summary_terminal",
    "render_terminal",
    "summarise",
    "write_report",
    "write_summary",
]
