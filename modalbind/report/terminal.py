"""Tables of a report for the terminal; colours never carry a meaning that the words do not."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from modalbind.report.comparison import Ablation, Comparison
from modalbind.report.languages import (
    ClosedFormRow,
    LanguageMean,
    LanguageRow,
    LanguagesReport,
)
from modalbind.report.models import GROUPS, CostReport, RetrievalRow, RunReport, SumRow, ZeroShotRow
from modalbind.report.parts import Metric
from modalbind.report.sweep import Spread, SweepSummary

_STYLES = {
    "trained": "bold",
    "bound": "bold",
    "emergent": "bold",
    "anchor": "dim",
    "control": "dim",
}


def _describe_time(cost: CostReport) -> str:
    """Say what a run took, and which of its stages took it."""
    stages = [f"{name} {seconds:.1f}" for name, seconds in cost.stages.items()]
    return f"{cost.seconds:.1f} s" + (f" ({', '.join(stages)})" if stages else "")


def render_terminal(report: RunReport) -> RenderableType:
    """Return the tables of a run: retrieval by group, zero-shot, gap, and what it cost."""
    anchor = report.anchor
    moved = "unchanged" if anchor.is_unmoved else f"CHANGED to {anchor.fingerprint_after[:16]}"
    shown = [row for row in report.retrieval if not report.runs or row.language in (None, "en")]
    parts: list[RenderableType] = [
        *_retrieval_tables(shown),
        *_sum_tables(report.sums),
        *_zero_shot_tables(report.zero_shot),
        *_language_tables(report.languages),
        *_closed_form_tables(report.closed_forms),
    ]
    if report.gap:
        parts.append(_gap_table(report))
    cost = report.cost
    parts.append(
        Text(
            f"anchor {anchor.space} ({anchor.fingerprint[:16]}) {moved}, by {anchor.verified}; "
            f"{cost.pairs_seen:,} pairs seen; {_describe_time(cost)}; "
            f"{cost.anchor_embeddings_computed:,} anchor embeddings computed, "
            f"{cost.anchor_embeddings_reused:,} reused",
            style="" if anchor.is_unmoved else "bold red",
        )
    )
    skipped = ", ".join(f"{count} {reason}" for reason, count in report.data.skipped.items())
    if skipped:
        parts.append(Text(f"skipped rows: {skipped}"))
    parts.extend(Text(f"note: {note}") for note in report.notes)
    if len(shown) < len(report.retrieval):
        hidden = len(report.retrieval) - len(shown)
        parts.append(Text(f"{hidden} rows of other languages are in the report: --out or --json"))
    return Group(*parts)


def render_summary_terminal(summary: SweepSummary) -> RenderableType:
    """Return the tables of a sweep: pooled over folds, mean ± deviation over seeds."""
    folds = f", folds {' '.join(summary.folds)}" if summary.folds else ""
    seeds = " ".join(str(seed) for seed in summary.seeds)
    return Group(
        *_retrieval_tables(summary.retrieval),
        *_zero_shot_tables(summary.zero_shot),
        Text(f"{summary.n_runs} runs: seeds {seeds}{folds}; {summary.seconds:.1f} s"),
    )


def render_comparison_terminal(comparison: Comparison) -> RenderableType:
    """Return one table: recall@10 of every direction, and every classification."""
    rows = [row for row in comparison.rows if row.metric in ("recall_at_10", "top1")]
    columns: dict[str, list[str | Text]] = {
        "": [Text(row.direction, style="bold") for row in rows],
        "lang": [Text(row.language or "") for row in rows],
        "metric": [Text(row.metric) for row in rows],
        "run": [f"{row.value:.3f}" for row in rows],
        "other": [f"{row.other:.3f}" for row in rows],
        "diff": [f"{row.difference:+.3f}" for row in rows],
        "95 %": [f"{row.ci95[0]:+.3f}..{row.ci95[1]:+.3f}" for row in rows],
        " ": [Text("" if row.verdict == "better" else row.verdict) for row in rows],
    }
    title = f"{comparison.run} against {comparison.other}, item by item"
    return Group(_fill_table(title, columns))


def render_ablation_terminal(ablation: Ablation) -> RenderableType:
    """Return one table for each direction: English, mean over languages, pictures; recall@10."""
    first = ablation.comparisons[0]
    shown = [
        row
        for row in first.rows
        if row.metric in ("recall_at_10", "top1") and row.language in (None, "en", "mean")
    ]
    baseline = ablation.variants[0].name
    parts: list[RenderableType] = []
    for row in shown:
        key = (row.direction, row.anchor_language, row.language, row.metric)
        found = [
            (each.run, other)
            for each in ablation.comparisons
            for other in each.rows
            if (other.direction, other.anchor_language, other.language, other.metric) == key
        ]
        columns: dict[str, list[str | Text]] = {
            "variant": [Text(baseline), *(Text(name) for name, _ in found)],
            "score": [f"{row.other:.3f}", *(f"{other.value:.3f}" for _, other in found)],
            "difference": ["", *(f"{other.difference:+.3f}" for _, other in found)],
            "95 %": [
                "",
                *(f"{other.ci95[0]:+.3f}..{other.ci95[1]:+.3f}" for _, other in found),
            ],
            "": [Text(""), *(Text(other.verdict) for _, other in found)],
        }
        language = f", {row.language}" if row.language else ""
        parts.append(_fill_table(f"{row.direction}{language}, {row.metric}", columns))
    seeds = " ".join(map(str, ablation.seeds))
    parts.append(Text(f"differences to {baseline}, item by item; means over seeds {seeds}"))
    return Group(*parts)


def _retrieval_tables(rows: Sequence[RetrievalRow]) -> list[RenderableType]:
    many_splits = len({row.split for row in rows}) > 1
    return [
        _retrieval_table(title, [row for row in rows if row.group == group], many_splits, group)
        for group, title in GROUPS.items()
        if any(row.group == group for row in rows)
    ]


def _retrieval_table(
    title: str, rows: Sequence[RetrievalRow], many_splits: bool, group: str
) -> Table:
    # To fit 80 letters: mean ± deviation and the control's name take the place of other columns.
    is_control = group == "control"
    is_sweep = isinstance(rows[0].metrics.recall_at_10, Spread)
    is_short = is_control or is_sweep or group == "bound"
    columns: dict[str, list[str | Text]] = {
        "direction": [Text(row.direction, style=_STYLES[group]) for row in rows],
        "control": [Text(row.control) for row in rows] if is_control else [],
        "lang": [Text(row.language or "") for row in rows],
        "split": [Text(row.split) for row in rows] if many_splits else [],
        "recall@1": [] if is_short else [_value(row.metrics.recall_at_1) for row in rows],
        "recall@10": [_value(row.metrics.recall_at_10) for row in rows],
        "95 %": [_interval(row.metrics.recall_at_10) for row in rows],
        "chance": [f"{row.metrics.recall_at_10.chance:.3f}" for row in rows],
        "via pictures": [_expected(row) for row in rows] if group == "bound" else [],
        "rank": [] if is_short else [_rank(row.metrics.median_rank) for row in rows],
        "pool": [] if is_control else [str(row.n_targets) for row in rows],
        "": [_verdict(row.metrics.recall_at_10) for row in rows],
    }
    return _fill_table(title, columns)


def _sum_tables(rows: Sequence[SumRow]) -> list[RenderableType]:
    if not rows:
        return []
    columns: dict[str, list[str | Text]] = {
        "sum of two parts": [
            Text(f"{row.first} + {row.second} → {row.target}", style="bold") for row in rows
        ],
        "recall@10": [_value(row.both) for row in rows],
        "95 %": [_interval(row.both) for row in rows],
        "first": [_value(row.first_alone) for row in rows],
        "second alone": [_value(row.second_alone) for row in rows],
        "chance": [f"{row.both.chance:.3f}" for row in rows],
        "pool": [str(row.n_targets) for row in rows],
    }
    return [_fill_table("Arithmetic: each part shows one thing, the whole both", columns)]


def _zero_shot_tables(rows: Sequence[ZeroShotRow]) -> list[RenderableType]:
    if not rows:
        return []
    has_controls = any(row.control != "none" for row in rows)
    columns: dict[str, list[str | Text]] = {
        "modality, data": [Text(f"{row.modality}, {row.dataset}", style="bold") for row in rows],
        "control": [Text(row.control) for row in rows] if has_controls else [],
        "lang": [Text(row.language or "") for row in rows],
        "top-1": [_value(row.metrics.top1) for row in rows],
        "95 %": [_interval(row.metrics.top1) for row in rows],
        "chance": [f"{row.metrics.top1.chance:.3f}" for row in rows],
        "items": [str(row.n_items) for row in rows],
        "": [_verdict(row.metrics.top1) for row in rows],
    }
    return [_fill_table("Zero-shot classification", columns)]


def _language_tables(languages: LanguagesReport | None) -> list[RenderableType]:
    """Return one line for each direction: English, the mean of the others, the worst of them."""
    if languages is None:
        return []
    english = [row for row in languages.rows if row.language in languages.trained]
    shown = [(row, languages.find_mean(row, row.reference)) for row in english]
    told = [(row, mean) for row, mean in shown if mean is not None]
    if not told:
        return []
    worst = [_find_worst(languages, mean) for _, mean in told]
    columns: dict[str, list[str | Text]] = {
        "direction": [
            Text(f"{row.direction}{', anchor alone' if row.reference else ''}") for row, _ in told
        ],
        "trained": [f"{row.recall_at_10.value:.3f}" for row, _ in told],
        "others": [f"{mean.recall_at_10.value:.3f}" for _, mean in told],
        "95 %": [_interval(mean.recall_at_10) for _, mean in told],
        "n": [str(len(mean.languages)) for _, mean in told],
        "worst": [f"{row.recall_at_10.value:.3f}" for row in worst],
        "": [Text(row.language) for row in worst],
    }
    table = _fill_table("Languages, recall@10; others: mean of untrained", columns)
    lines = [
        f"{each.direction}: rank correlation of score and share of pre-training text "
        f"{each.spearman:+.2f} (p {each.p:.2g}, {each.n_languages} languages)"
        for each in languages.correlations
        if not each.from_anchor
    ]
    return [table, *(Text(line) for line in (*lines, *languages.findings))]


def _find_worst(languages: LanguagesReport, mean: LanguageMean) -> LanguageRow:
    rows = [
        row
        for row in languages.rows
        if row.language in mean.languages and languages.find_mean(row, row.reference) is mean
    ]
    return min(rows, key=lambda row: row.recall_at_10.value)


def _closed_form_tables(rows: Sequence[ClosedFormRow]) -> list[RenderableType]:
    """Return one table for each direction, the best first."""
    tables: list[RenderableType] = []
    for direction in dict.fromkeys(row.direction for row in rows):
        found = sorted(
            (row for row in rows if row.direction == direction),
            key=lambda row: -(row.others or row.score).value,
        )
        columns: dict[str, list[str | Text]] = {
            "map": [Text(row.name, style="bold" if row.is_run else "") for row in found],
            "trained": [f"{row.score.value:.3f}" for row in found],
            "others": [f"{row.others.value:.3f}" if row.others else "" for row in found],
            "95 %": [_interval(row.others or row.score) for row in found],
        }
        tables.append(_fill_table(f"Maps, {direction}, recall@10", columns))
    return tables


def _gap_table(report: RunReport) -> Table:
    columns: dict[str, list[str | Text]] = {
        "between": [Text(f"{row.modality_a}, {row.modality_b}", style="bold") for row in report.gap]
    }
    for name in ("centroid_distance", "alignment", "uniformity"):
        columns[name.replace("_", " ")] = [f"{getattr(row, name):.3f}" for row in report.gap]
    return _fill_table("Modality gap", columns)


def _fill_table(title: str, columns: dict[str, list[str | Text]]) -> Table:
    """Make a table of the columns that have cells; strings are numbers and go to the right."""
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
        collapse_padding=True,  # one space between columns: all of them fit 80 letters
    )
    filled = {name: cells for name, cells in columns.items() if cells}
    for name, cells in filled.items():
        table.add_column(
            name, justify="right" if isinstance(cells[0], str) else "left", no_wrap=True
        )
    for row in zip(*filled.values(), strict=True):
        table.add_row(*row)
    return table


def _value(metric: Metric) -> str:
    std = metric.std if isinstance(metric, Spread) else None
    return f"{metric.value:.3f}" + ("" if std is None else f" ±{std:.3f}")


def _expected(row: RetrievalRow) -> str:
    return "" if row.via_pictures is None else f"{row.via_pictures:.3f}"


def _rank(rank: float) -> str:
    return f"{rank:.0f}" if rank >= 100 else f"{rank:.3g}"


def _interval(metric: Metric) -> str:
    return f"{metric.ci95[0]:.3f}..{metric.ci95[1]:.3f}"


def _verdict(metric: Metric) -> Text:
    return Text(metric.verdict, style="yellow")
