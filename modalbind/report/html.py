"""A report as one HTML file that needs no network: numbers to coordinates here, drawing in Jinja.

Everything from outside is escaped by the template engine; nothing is marked as safe here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from modalbind.report.languages import (
    ClosedFormRow,
    LanguageMean,
    LanguageRow,
    LanguagesReport,
    LinearMapReport,
)
from modalbind.report.models import GROUPS, LossPoint, RetrievalRow, RunReport, ZeroShotRow
from modalbind.report.parts import Metric
from modalbind.report.sweep import Spread, SweepSummary

_CHART_WIDTH = 760
_PX_PER_LETTER = 7.2
_MAX_POINTS = 500


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: label, score with chance and interval, group for its colour."""

    label: str
    metric: Metric
    group: str


@dataclass(frozen=True, slots=True)
class BarChart:
    """Horizontal bars on a common axis from 0 to `top`."""

    title: str
    bars: tuple[Bar, ...]
    top: float
    left: float
    width: float = _CHART_WIDTH

    def x(self, value: float) -> float:
        """Map a score to pixels."""
        return round(self.left + (self.width - self.left - 70) * min(value, self.top) / self.top, 1)

    @property
    def ticks(self) -> list[float]:
        """Five values along the axis."""
        return [self.top * step / 4 for step in range(5)]


@dataclass(frozen=True, slots=True)
class LossChart:
    """The loss over steps beside that of chance, as SVG polylines."""

    points: str
    chance: str | None
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    last: float
    last_chance: float | None
    width: float = _CHART_WIDTH
    height: float = 240.0


def render_html(report: RunReport) -> str:
    """Return `report.html`."""
    rows = report.retrieval
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            title=report.name or "modalbind run",
            tables=_group_rows(rows),
            many_splits=len({row.split for row in rows}) > 1,
            charts=[*_direction_charts(rows), *_language_charts(rows, report.zero_shot)],
            languages=_lay_out_languages(report.languages),
            maps=_rank_maps(report.closed_forms),
            spectrum=_draw_spectrum(report.linear_map),
            loss=_draw_loss(report.loss),
            counts=_count_above_chance(rows),
            recipe=json.dumps(report.recipe, indent=2, ensure_ascii=False, default=str),
        )
    )


def render_summary_html(summary: SweepSummary) -> str:
    """Return `summary.html`."""
    rows = summary.retrieval
    return (
        _environment()
        .get_template("summary.html.j2")
        .render(
            summary=summary,
            title=summary.name or "modalbind sweep",
            tables=_group_rows(rows),
            many_splits=len({row.split for row in rows}) > 1,
            charts=[*_direction_charts(rows), *_language_charts(rows, summary.zero_shot)],
            counts=_count_above_chance(rows),
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("modalbind.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["fraction"] = lambda value: f"{value:.3f}"
    environment.filters["short"] = lambda value: f"{value:.4g}"
    environment.filters["thousands"] = lambda value: f"{value:,}"
    environment.filters["duration"] = _format_duration
    environment.tests["spread"] = lambda value: isinstance(value, Spread) and value.std is not None
    return environment


def _format_duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


@dataclass(frozen=True, slots=True)
class LanguageGrid:
    """Languages in rows by level, directions in columns; None where a direction lacks one.

    Attributes:
        directions: Headings of the columns.
        groups: Level, and its languages with their cells.
        means: Of the columns, over the languages that training did not see.
    """

    directions: tuple[str, ...]
    groups: tuple[tuple[str, tuple[tuple[str, tuple[LanguageRow | None, ...]], ...]], ...]
    means: tuple[LanguageMean | None, ...]


def _lay_out_languages(report: LanguagesReport | None) -> LanguageGrid | None:
    if report is None:
        return None
    columns = list(dict.fromkeys(map(_column, report.rows)))
    cells = {(row.language, _column(row)): row for row in report.rows}
    means = {_column(mean): mean for mean in report.means}
    return LanguageGrid(
        tuple(name for name, _ in columns),
        tuple(
            (
                level,
                tuple(
                    (language, tuple(cells.get((language, column)) for column in columns))
                    for language in languages
                ),
            )
            for level, languages in report.groups.items()
        ),
        tuple(means.get(column) for column in columns),
    )


def _column(row: LanguageRow | LanguageMean) -> tuple[str, bool]:
    whose = " (anchor alone)" if row.reference else ""
    side = f", {row.anchor_language}" if row.anchor_language else ""
    return f"{row.direction}{side}{whose}", row.reference


def _rank_maps(rows: Sequence[ClosedFormRow]) -> list[tuple[str, list[ClosedFormRow]]]:
    """Return each direction and its maps, the best first."""
    return [
        (
            direction,
            sorted(
                (row for row in rows if row.direction == direction),
                key=lambda row: -(row.others or row.score).value,
            ),
        )
        for direction in dict.fromkeys(row.direction for row in rows)
    ]


def _draw_spectrum(found: LinearMapReport | None) -> str:
    """Return singular values over their largest as the points of a line, 300 by 80 pixels."""
    if found is None or len(found.singular_values) < 2:
        return ""
    values, last = found.singular_values, len(found.singular_values) - 1
    return " ".join(
        f"{300 * place / last:.1f},{80 - 78 * value / values[0]:.1f}"
        for place, value in enumerate(values)
    )


def _group_rows(rows: Sequence[RetrievalRow]) -> list[tuple[str, str, list[RetrievalRow]]]:
    """Return key, heading and rows of each group that has any."""
    found = [(key, title, [r for r in rows if r.group == key]) for key, title in GROUPS.items()]
    return [group for group in found if group[2]]


def _count_above_chance(rows: Sequence[RetrievalRow]) -> list[tuple[str, int, int]]:
    """Return for each group: how many rows lie above chance, of how many that can."""
    counts = []
    for key, _, found in _group_rows(rows):
        verdicts = [row.metrics.recall_at_10.verdict for row in found]
        if told := [verdict for verdict in verdicts if verdict != "chance is 1"]:
            counts.append((key, told.count(""), len(told)))
    return counts


def _direction_charts(rows: Sequence[RetrievalRow]) -> list[BarChart]:
    """One bar for each direction: the language of training, else the first that was scored."""
    charts = []
    for split in dict.fromkeys(row.split for row in rows):
        chosen: dict[tuple[str, ...], RetrievalRow] = {}
        for row in rows:
            if row.split != split:
                continue
            key = (row.direction, row.control, str(row.reference))
            if key not in chosen or (row.trained and not chosen[key].trained):
                chosen[key] = row
        order = list(GROUPS)
        ordered = sorted(chosen.values(), key=lambda row: order.index(row.group))
        bars = tuple(Bar(_label(row), row.metrics.recall_at_10, row.group) for row in ordered)
        charts.append(_bar_chart(f"Recall@10 by direction, {split} split", bars))
    return charts


def _label(row: RetrievalRow) -> str:
    language = f" ({row.language})" if row.language else ""
    control = f", {row.control}" if row.control != "none" else ""
    return f"{row.direction}{language}{control}"


def _language_charts(
    rows: Sequence[RetrievalRow], zero_shot: Sequence[ZeroShotRow]
) -> list[BarChart]:
    """One chart for everything that was scored in several languages, controls apart."""
    charts: dict[str, list[Bar]] = {}
    for row in rows:
        if row.control == "none" and row.language:
            whose = ", the anchor alone" if row.reference else ""
            title = f"{row.direction} by language{whose}, recall@10, {row.split} split"
            charts.setdefault(title, []).append(
                Bar(row.language, row.metrics.recall_at_10, row.group)
            )
    for item in zero_shot:
        if item.control == "none" and item.language:
            title = f"Zero-shot {item.modality}, {item.dataset} by language, top-1"
            bar = Bar(item.language, item.metrics.top1, "zero-shot")
            charts.setdefault(title, []).append(bar)
    return [_bar_chart(title, tuple(bars)) for title, bars in charts.items() if len(bars) > 1]


def _bar_chart(title: str, bars: tuple[Bar, ...]) -> BarChart:
    highest = max((max(b.metric.ci95[1], b.metric.value, b.metric.chance) for b in bars), default=1)
    letters = max((len(bar.label) for bar in bars), default=0)
    return BarChart(title, bars, _round_up(highest), min(330.0, 14 + _PX_PER_LETTER * letters))


def _round_up(value: float) -> float:
    """Return the next round number whose quarters are short numbers too."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    steps = (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 4.8, 6, 8, 10)
    top = next(step * power for step in steps if step * power >= value * (1 - 1e-9))
    return round(top, 10)


def _draw_loss(points: Sequence[LossPoint]) -> LossChart | None:
    """Average the curve to at most `_MAX_POINTS` and map it to pixels."""
    if len(points) < 2:
        return None
    size = math.ceil(len(points) / _MAX_POINTS)
    parts = [points[first : first + size] for first in range(0, len(points), size)]
    steps = [float(part[-1].step) for part in parts]
    losses = [sum(p.loss for p in part) / len(part) for part in parts]
    chances = _mean_chances(parts)
    low = min(0.0, *losses)
    top = low + _round_up(max(*losses, *chances) - low)
    left, right, ceiling, floor = 52.0, _CHART_WIDTH - 24.0, 12.0, 204.0
    first, span = float(points[0].step), max(points[-1].step - points[0].step, 1)

    def x(step: float) -> float:
        return round(left + (right - left) * (step - first) / span, 1)

    def y(loss: float) -> float:
        return round(floor - (floor - ceiling) * (loss - low) / (top - low), 1)

    def line(values: Sequence[float]) -> str:
        return " ".join(f"{x(s)},{y(v)}" for s, v in zip(steps, values, strict=True))

    return LossChart(
        points=line(losses),
        chance=line(chances) if chances else None,
        x_ticks=tuple((x(s), f"{s:.0f}") for s in (first + span * q / 4 for q in range(5))),
        y_ticks=tuple((y(v), f"{v:.3g}") for v in (low + (top - low) * q / 4 for q in range(5))),
        last=losses[-1],
        last_chance=chances[-1] if chances else None,
    )


def _mean_chances(parts: Sequence[Sequence[LossPoint]]) -> list[float]:
    """Average each part; nothing if the objective could not tell its chance level."""
    known = [[p.chance_loss for p in part if p.chance_loss is not None] for part in parts]
    return [sum(part) / len(part) for part in known] if all(known) else []
