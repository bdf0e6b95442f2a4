"""What a direction of retrieval scores over many languages. Pure; no language is named here.

The same things are said in every language, so languages are not independent: groups of items are
resampled once for all of them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from modalbind.evaluation.bootstrap import MetricScore, PairedDifference, bootstrap_mean_of_means
from modalbind.evaluation.protocol import RetrievalRow, ScoredItems

AVERAGED = ("recall_at_1", "recall_at_10")
PERMUTATIONS = 10_000
_EXACT_BELOW = 8
"""Up to 7 languages all orders are tried: 5 040."""


class Direction(NamedTuple):
    """What rows of several languages have in common."""

    query: str
    target: str
    anchor_language: str
    from_anchor: bool
    control: str
    split: str


@dataclass(frozen=True, slots=True)
class LanguageMean:
    """One direction, averaged over languages.

    Attributes:
        direction: What was asked of what.
        languages: That were averaged, each counting the same.
        metrics: By name; the interval is over groups of items, the languages are these.
    """

    direction: Direction
    languages: tuple[str, ...]
    metrics: dict[str, MetricScore]


def name_direction(row: RetrievalRow) -> Direction:
    """Return the direction of a row."""
    return Direction(
        row.query, row.target, row.anchor_language, row.from_anchor, row.control, row.split
    )


def mean_over_languages(
    rows: Sequence[RetrievalRow], leave_out: Collection[str], *, resamples: int, seed: int
) -> list[LanguageMean]:
    """Average each direction over its languages.

    Args:
        rows: Of one test.
        leave_out: Languages that training saw.
        resamples: Bootstrap draws; 0 for no more than a rough interval.
        seed: Of the draws.

    Returns:
        One mean for each direction with at least two other languages.
    """
    by_direction: dict[Direction, list[RetrievalRow]] = {}
    for row in rows:
        if row.language and row.language not in leave_out:
            by_direction.setdefault(name_direction(row), []).append(row)
    means = []
    for direction, found in by_direction.items():
        if len(found) < 2:
            continue
        metrics = {}
        for name in AVERAGED:
            value, low, high = bootstrap_mean_of_means(
                [row.score.per_query[name] for row in found],
                [row.items.groups for row in found],
                resamples=resamples,
                seed=seed,
            )
            chance = sum(row.score.metrics[name].chance for row in found) / len(found)
            metrics[name] = MetricScore(value, chance, (low, high))
        means.append(LanguageMean(direction, tuple(row.language for row in found), metrics))
    return means


def mean_difference(
    first: Sequence[Sequence[float]],
    second: Sequence[Sequence[float]],
    items: Sequence[ScoredItems],
    *,
    resamples: int,
    seed: int,
) -> PairedDifference:
    """Average over languages the difference of two systems on the same items.

    Args:
        first: For each language, values by item in 0..1.
        second: Of the other system, in the same order.
        items: For each language, what was scored.
        resamples: Bootstrap draws, at least 1.
        seed: Of the draws.
    """
    differences = [np.subtract(a, b) for a, b in zip(first, second, strict=True)]
    groups = [each.groups for each in items]
    return PairedDifference(
        *bootstrap_mean_of_means(differences, groups, resamples=resamples, seed=seed, least=-1.0)
    )


class RankCorrelation(NamedTuple):
    """Spearman's rank correlation, and how often chance gives one as large."""

    value: float
    p: float
    n: int


def correlate_ranks(
    x: Sequence[float], y: Sequence[float], seed: int = 0
) -> RankCorrelation | None:
    """Return Spearman's correlation of two rows of numbers; ties share their mean rank.

    Args:
        x: At least three numbers.
        y: As many.
        seed: Of the permutations, where not all are tried.

    Returns:
        None if there are fewer than three, or one side is all the same. `p` is two-sided, by
        permutation, the order found counted in.

    Source:
        Spearman 1904; the permutation test as in Good 2005, "Permutation, parametric and
        bootstrap tests of hypotheses".
    """
    if len(x) < 3 or len(set(x)) < 2 or len(set(y)) < 2:
        return None
    a, b = _standard_ranks(x), _standard_ranks(y)
    found = float(a @ b)
    if len(a) < _EXACT_BELOW:
        orders = np.array(list(itertools.permutations(range(len(a)))))
    else:
        generator = np.random.default_rng(seed)
        orders = np.argsort(generator.random((PERMUTATIONS, len(a))), axis=1)
        orders = np.vstack([np.arange(len(a)), orders])
    shuffled = b[orders] @ a
    p = float((np.abs(shuffled) >= abs(found) - 1e-12).mean())
    return RankCorrelation(found, p, len(a))


def _standard_ranks(values: Sequence[float]) -> np.ndarray:
    """Return mean ranks, centred and of unit length."""
    table = np.asarray(values, dtype=np.float64)
    below = (table[:, None] > table[None, :]).sum(axis=1)
    equal = (table[:, None] == table[None, :]).sum(axis=1)
    ranks = below + (equal - 1) / 2
    centred = ranks - ranks.mean()
    return np.asarray(centred / math.sqrt(float(centred @ centred)))
