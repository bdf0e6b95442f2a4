"""Several runs of one recipe as one: pooled over folds, spread over seeds. Pure.

Folds test different items, so their scores are pooled by their number of queries. Seeds test the
same items, so more seeds never shrink the uncertainty over items, only that over seeds.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

from pydantic import Field

from modalbind.errors import AnchorMismatchError, RunError
from modalbind.report.models import (
    RetrievalMetrics,
    RetrievalRow,
    RunReport,
    ZeroShotMetrics,
    ZeroShotRow,
)
from modalbind.report.parts import Interval, Metric, Part

_Z975 = 1.959964
_T975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""97.5 % points of Student's t for 1 to 10 degrees of freedom."""


class Spread(Metric):
    """A score over several runs: mean over seeds, interval over seeds and items."""

    std: float | None = Field(default=None, description="Over seeds; null with a single one.")
    values: tuple[float, ...] = Field(default=(), description="One for each seed.")


class SweepRetrievalMetrics(RetrievalMetrics):
    """Metrics of one row of retrieval over several runs."""

    recall_at_1: Spread
    recall_at_5: Spread
    recall_at_10: Spread
    hit_at_1: Spread
    hit_at_5: Spread
    hit_at_10: Spread
    map_at_10: Spread


class SweepRetrievalRow(RetrievalRow):
    """One direction over several runs; queries are those of all folds of one seed."""

    metrics: SweepRetrievalMetrics
    n_runs: int


class SweepZeroShotMetrics(ZeroShotMetrics):
    """Metrics of one classification over several runs."""

    top1: Spread


class SweepZeroShotRow(ZeroShotRow):
    """One classification over several runs; items are those of all folds of one seed."""

    metrics: SweepZeroShotMetrics
    n_runs: int


class SweepSummary(Part):
    """What several runs of one recipe say together: `summary.json`."""

    format: Literal[1] = 1
    name: str = ""
    command: str = ""
    space: str
    fingerprint: str
    data: str
    licence: str
    seeds: tuple[int, ...]
    folds: tuple[str, ...]
    n_runs: int
    seconds: float
    retrieval: tuple[SweepRetrievalRow, ...]
    zero_shot: tuple[SweepZeroShotRow, ...]


Row = TypeVar("Row", RetrievalRow, ZeroShotRow)


def summarise(reports: Sequence[RunReport], *, name: str = "", command: str = "") -> SweepSummary:
    """Pool the runs of a sweep, row by row.

    A row's value is pooled over folds by number of queries, then averaged over seeds. Its
    interval joins two independent parts on each side: the half width over items (of a seed;
    root mean square over seeds) and that over seeds (Student's t).

    Args:
        reports: One for each run; no two with the same seed and fold.
        name: Of the sweep; default: the first run's.
        command: That made it.

    Raises:
        RunError: If there are no runs, two with the same seed and fold, or different data.
        AnchorMismatchError: If the runs are bound to different anchor spaces.

    Source:
        Joining half widths: Zou & Donner 2008, "Construction of confidence limits about effect
        measures" (MOVER).
    """
    _check_runs(reports)
    first = reports[0]
    return SweepSummary(
        name=name or first.name,
        command=command or first.command,
        space=first.anchor.space,
        fingerprint=first.anchor.fingerprint,
        data=first.data.name,
        licence=first.data.licence,
        seeds=tuple(sorted({report.environment.seed for report in reports})),
        folds=tuple(sorted({report.data.fold for report in reports if report.data.fold})),
        n_runs=len(reports),
        seconds=sum(report.cost.seconds for report in reports),
        retrieval=_pool(reports, lambda r: r.retrieval, _retrieval_key, _pool_retrieval),
        zero_shot=_pool(reports, lambda r: r.zero_shot, _zero_shot_key, _pool_zero_shot),
    )


def _check_runs(reports: Sequence[RunReport]) -> None:
    if not reports:
        raise RunError("summary of a sweep; no runs; name at least one")
    spaces = {(report.anchor.space, report.anchor.fingerprint) for report in reports}
    if len(spaces) > 1:
        found = ", ".join(f"{space} ({fingerprint[:12]})" for space, fingerprint in sorted(spaces))
        raise AnchorMismatchError(
            f"summary over one anchor space; found {found}; summarise them one by one"
        )
    data = sorted({report.data.name for report in reports})
    if len(data) > 1:
        raise RunError(
            f"summary over one data set; found {', '.join(data)}; summarise them one by one"
        )
    runs = [(report.environment.seed, report.data.fold) for report in reports]
    repeated = sorted({f"seed {s} fold {f}" for s, f in runs if runs.count((s, f)) > 1})
    if repeated:
        raise RunError(
            f"one run for each seed and fold; repeated: {', '.join(repeated)}; leave one out"
        )


def _pool(
    reports: Sequence[RunReport],
    get: Callable[[RunReport], Sequence[Row]],
    key: Callable[[Row], tuple[Any, ...]],
    pool: Callable[[list[tuple[int, Row]]], Any],
) -> tuple[Any, ...]:
    """Collect rows with the same key over runs, in the order of the first run."""
    rows: dict[tuple[Any, ...], list[tuple[int, Row]]] = {}
    for report in reports:
        for row in get(report):
            rows.setdefault(key(row), []).append((report.environment.seed, row))
    return tuple(pool(found) for found in rows.values())


def _retrieval_key(row: RetrievalRow) -> tuple[Any, ...]:
    return (
        row.query,
        row.target,
        row.language,
        row.anchor_language,
        row.from_anchor,
        row.split,
        row.trained,
        row.control,
        row.reference,
    )  # fmt: skip


def _zero_shot_key(row: ZeroShotRow) -> tuple[Any, ...]:
    return (row.modality, row.dataset, row.language, row.control)


def _pool_retrieval(rows: list[tuple[int, RetrievalRow]]) -> SweepRetrievalRow:
    weights = [(seed, row.n_queries) for seed, row in rows]
    seeds = len({seed for seed, _ in rows})
    first = rows[0][1]
    spreads = {
        name: _pool_metric(weights, [getattr(row.metrics, name) for _, row in rows])
        for name in SweepRetrievalMetrics.model_fields
        if name != "median_rank"
    }
    total = sum(weight for _, weight in weights)
    rank = sum(row.n_queries * row.metrics.median_rank for _, row in rows) / total
    chance = None
    if all(row.median_rank_chance is not None for _, row in rows):
        chance = sum(row.n_queries * (row.median_rank_chance or 0.0) for _, row in rows) / total
    return SweepRetrievalRow(
        **first.model_dump(
            include={
                "query",
                "target",
                "language",
                "anchor_language",
                "from_anchor",
                "split",
                "trained",
                "control",
                "reference",
            }
        ),
        n_queries=round(total / seeds),
        n_targets=first.n_targets,
        n_skipped=round(sum(row.n_skipped for _, row in rows) / seeds),
        metrics=SweepRetrievalMetrics(**spreads, median_rank=rank),
        median_rank_chance=chance,
        n_runs=len(rows),
    )


def _pool_zero_shot(rows: list[tuple[int, ZeroShotRow]]) -> SweepZeroShotRow:
    weights = [(seed, row.n_items) for seed, row in rows]
    first = rows[0][1]
    return SweepZeroShotRow(
        **first.model_dump(include={"modality", "dataset", "language", "control", "n_classes"}),
        n_items=round(sum(n for _, n in weights) / len({seed for seed, _ in rows})),
        metrics=SweepZeroShotMetrics(
            top1=_pool_metric(weights, [row.metrics.top1 for _, row in rows])
        ),
        n_runs=len(rows),
    )


def _pool_metric(weights: list[tuple[int, int]], metrics: list[Metric]) -> Spread:
    """Pool over folds within each seed, then over seeds."""
    by_seed: dict[int, list[tuple[int, Metric]]] = {}
    for (seed, weight), metric in zip(weights, metrics, strict=True):
        by_seed.setdefault(seed, []).append((weight, metric))
    pooled = [_pool_folds(by_seed[seed]) for seed in sorted(by_seed)]
    values = [metric.value for metric in pooled]
    mean = statistics.fmean(values)
    std = statistics.stdev(values) if len(values) > 1 else None
    over_seeds = 0.0
    if std is not None:
        over_seeds = _student(len(values) - 1) * std / math.sqrt(len(values))
    below = math.sqrt(statistics.fmean((m.value - m.ci95[0]) ** 2 for m in pooled))
    above = math.sqrt(statistics.fmean((m.ci95[1] - m.value) ** 2 for m in pooled))
    return Spread(
        value=mean,
        chance=statistics.fmean(metric.chance for metric in pooled),
        ci95=(
            max(0.0, mean - math.hypot(below, over_seeds)),
            min(1.0, mean + math.hypot(above, over_seeds)),
        ),
        std=std,
        values=tuple(values),
    )


def _pool_folds(folds: list[tuple[int, Metric]]) -> Metric:
    """Join folds of different items: weighted mean, half widths in quadrature."""
    total = sum(weight for weight, _ in folds)
    value = sum(weight * metric.value for weight, metric in folds) / total
    below = math.hypot(*(w * (m.value - m.ci95[0]) for w, m in folds)) / total
    above = math.hypot(*(w * (m.ci95[1] - m.value) for w, m in folds)) / total
    interval: Interval = (max(0.0, value - below), min(1.0, value + above))
    return Metric(value=value, chance=sum(w * m.chance for w, m in folds) / total, ci95=interval)


def _student(freedom: int) -> float:
    """97.5 % point of Student's t; beyond the table by expansion (Abramowitz & Stegun 26.7.5)."""
    if freedom <= len(_T975):
        return _T975[freedom - 1]
    z, v = _Z975, freedom
    return z + (z**3 + z) / (4 * v) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v * v)
