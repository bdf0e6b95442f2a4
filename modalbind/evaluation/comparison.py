"""Two systems on the same test items: the difference of their scores, item by item.

Pure. An item's score is its mean over the runs of a system that scored it: over seeds, which test
the same items. Folds test different items, which are pooled. The interval resamples groups of
items, on both sides alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from modalbind.errors import DataError
from modalbind.evaluation.bootstrap import Floats, PairedDifference, paired_difference
from modalbind.evaluation.protocol import RetrievalRow, ScoredItems, ZeroShotRow

COMPARED = ("recall_at_1", "recall_at_10", "map_at_10")
"""Metrics of a retrieval row that are compared; of a classification it is `top1`."""


class RowKey(NamedTuple):
    """What is scored: a direction of retrieval, or a classification of `query` by `target`.

    Languages and `from_anchor` as in `RetrievalRow`.
    """

    query: str
    target: str
    language: str
    split: str
    metric: str
    anchor_language: str = ""
    from_anchor: bool = False


@dataclass(frozen=True, slots=True)
class ItemScores:
    """One metric of one row, item by item.

    Attributes:
        items: What was scored.
        values: Float64 `(n,)` in 0..1.
    """

    items: ScoredItems
    values: Floats


RunScores = Mapping[RowKey, ItemScores]


def list_item_scores(
    retrieval: Sequence[RetrievalRow], zero_shot: Sequence[ZeroShotRow], split: str
) -> dict[RowKey, ItemScores]:
    """Take the scores of single items out of the rows of a test; controls are left out."""
    found = {
        RowKey(
            row.query,
            row.target,
            row.language,
            row.split,
            metric,
            row.anchor_language,
            row.from_anchor,
        ): ItemScores(row.items, row.score.per_query[metric])
        for row in retrieval
        if row.control == "none"
        for metric in COMPARED
    }
    for row in zero_shot:
        if row.control == "none":
            key = RowKey(row.modality, row.dataset, row.language, split, "top1")
            found[key] = ItemScores(row.items, row.score.per_item)
    return found


@dataclass(frozen=True, slots=True)
class ComparedRow:
    """A score of two systems on the same items.

    Attributes:
        key: What the row says.
        value: Mean of the first system.
        other: Mean of the second.
        difference: First less second, and its interval.
        n_items: Items that both were scored on.
    """

    key: RowKey
    value: float
    other: float
    difference: PairedDifference
    n_items: int


@dataclass(slots=True)
class _Gathered:
    """Scores of a system by item, a list over seeds."""

    values: dict[Any, list[float]] = field(default_factory=dict)
    groups: dict[Any, str] = field(default_factory=dict)


def compare_systems(
    first: Sequence[RunScores], second: Sequence[RunScores], *, resamples: int, seed: int
) -> list[ComparedRow]:
    """Compare every row that both systems have.

    Args:
        first: One mapping for each run of the system: its seeds and folds.
        second: The same of the other; it may have another number of seeds.
        resamples: Bootstrap draws, at least 1.
        seed: Of the draws.

    Raises:
        DataError: If they have no row in common, or were tested on different items.
    """
    left, right = _gather(first), _gather(second)
    common = [key for key in left if key in right]
    if not common:
        raise DataError(
            "two runs with a direction in common asked for; these share none; compare runs of "
            "one modality and one test"
        )
    return [_compare(key, left[key], right[key], resamples, seed) for key in common]


def _gather(runs: Sequence[RunScores]) -> dict[RowKey, _Gathered]:
    found: dict[RowKey, _Gathered] = {}
    for run in runs:
        for key, scores in run.items():
            row = found.setdefault(key, _Gathered())
            items, values = scores.items, scores.values.tolist()
            for item, group, value in zip(items.keys, items.groups, values, strict=True):
                row.values.setdefault(item, []).append(value)
                row.groups[item] = group
    return found


def _compare(
    key: RowKey, left: _Gathered, right: _Gathered, resamples: int, seed: int
) -> ComparedRow:
    if left.values.keys() != right.values.keys():
        missing = len(left.values.keys() ^ right.values.keys())
        raise DataError(
            f"two runs on the same test items asked for; {missing} items of "
            f"{key.query} → {key.target} are in one alone; compare runs with "
            "one test split, or the same folds"
        )
    items = list(left.values)
    a = np.array([np.mean(left.values[item]) for item in items])
    b = np.array([np.mean(right.values[item]) for item in items])
    groups = [left.groups[item] for item in items]
    difference = paired_difference(a, b, groups, resamples=resamples, seed=seed)
    return ComparedRow(key, float(a.mean()), float(b.mean()), difference, len(items))
