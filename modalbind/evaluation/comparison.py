"""Two systems on the same test items: the difference of their scores, item by item.

Pure. An item's score is its mean over the runs of a system that scored it: over seeds, which test
the same items. Folds test different items, which are pooled. The interval resamples groups of
items, on both sides alike.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from modalbind.errors import DataError
from modalbind.evaluation.bootstrap import Floats, PairedDifference, paired_difference
from modalbind.evaluation.languages import mean_difference
from modalbind.evaluation.protocol import RetrievalRow, ScoredItems, ZeroShotRow

COMPARED = ("recall_at_1", "recall_at_10", "map_at_10")
"""Metrics of a retrieval row that are compared; of a classification it is `top1`."""

MEAN = "mean"
"""Language of a row that averages those that training did not see."""


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

    def items(self) -> ScoredItems:
        """What was scored, in a fixed order."""
        order = self._order()
        return ScoredItems(tuple(order), tuple(self.groups[item] for item in order))

    def means(self) -> list[float]:
        """Mean over seeds of each item, in the same order."""
        return [float(np.mean(self.values[item])) for item in self._order()]

    def _order(self) -> list[Any]:
        return sorted(self.values, key=repr)


def compare_systems(
    first: Sequence[RunScores],
    second: Sequence[RunScores],
    *,
    resamples: int,
    seed: int,
    trained: Collection[str] = ("en",),
) -> list[ComparedRow]:
    """Compare every row that both systems have, and the mean of those in untrained languages.

    Args:
        first: One mapping for each run of the system: its seeds and folds.
        second: The same of the other; it may have another number of seeds.
        resamples: Bootstrap draws, at least 1.
        seed: Of the draws.
        trained: Languages that training saw; they are left out of the mean.

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
    compared = [_compare(key, left[key], right[key], resamples, seed) for key in common]
    return [*compared, *_compare_means(common, left, right, trained, (resamples, seed))]


def _compare_means(
    keys: Sequence[RowKey],
    left: Mapping[RowKey, _Gathered],
    right: Mapping[RowKey, _Gathered],
    trained: Collection[str],
    draws: tuple[int, int],
) -> Iterator[ComparedRow]:
    """Average the rows of each direction over its untrained languages, at least two."""
    by_direction: dict[RowKey, list[RowKey]] = {}
    for key in keys:
        if key.language and key.language not in trained:
            by_direction.setdefault(key._replace(language=MEAN), []).append(key)
    for key, found in by_direction.items():
        if len(found) < 2:
            continue
        a, b = ([side[each].means() for each in found] for side in (left, right))
        items = [left[each].items() for each in found]
        difference = mean_difference(a, b, items, resamples=draws[0], seed=draws[1])
        mean_a, mean_b = (float(np.mean([np.mean(row) for row in side])) for side in (a, b))
        yield ComparedRow(key, mean_a, mean_b, difference, sum(len(each.keys) for each in items))


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
    a, b, groups = np.array(left.means()), np.array(right.means()), left.items().groups
    difference = paired_difference(a, b, groups, resamples=resamples, seed=seed)
    return ComparedRow(key, float(a.mean()), float(b.mean()), difference, len(a))
