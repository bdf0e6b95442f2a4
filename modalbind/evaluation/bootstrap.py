"""Confidence intervals by resampling groups; pure functions of per-query values.

Queries of one group (one recording, one speaker) are not independent, so whole groups are drawn,
never single queries. Nothing here knows what is measured. Letters: `n` queries, `groups` distinct
groups, `resamples` bootstrap draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from modalbind.errors import NonFiniteError, ShapeError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Interval = tuple[float, float]

Z95 = 1.959963984540054
"""Two-sided 95 % point of the normal distribution."""

_CELLS = 4_000_000
"""Weights held at once, so that memory stays at a few tens of MB for any number of groups."""


@dataclass(frozen=True, slots=True)
class MetricScore:
    """One metric in 0..1, beside what knowing nothing would score.

    Attributes:
        value: Mean over queries.
        chance: Expected mean of a random ranking of the same pool.
        ci95: Interval of 95 % over groups of queries.
    """

    value: float
    chance: float
    ci95: Interval


class PairedDifference(NamedTuple):
    """Difference of two means over the same queries, and its interval of 95 %."""

    difference: float
    low: float
    high: float


def number_groups(groups: Sequence[str | int] | None, n: int) -> Ints:
    """Number groups from 0; None makes every query its own group.

    Raises:
        ShapeError: If there is not one group for each of the `n` queries.
    """
    if groups is None:
        return np.arange(n, dtype=np.int64)
    if len(groups) != n:
        raise ShapeError(
            f"one group for each of {n} queries; {len(groups)} groups; pass one for every query"
        )
    numbers: dict[str | int, int] = {}
    return np.array([numbers.setdefault(group, len(numbers)) for group in groups], dtype=np.int64)


def bootstrap_means(
    values: ArrayLike, group_numbers: Ints, *, resamples: int, seed: int
) -> list[Interval]:
    """Interval of 95 % of the mean of each column, by percentiles over resampled groups.

    Two cases leave the percentiles without meaning. With no resamples asked for, the interval is
    Wilson's with the number of groups for the sample size. With a single group, or when all
    groups have the same mean (all hit, all missed, all tied), resampling would claim certainty;
    then up to `z² / (groups + z²)` of all groups may be unseen ones of any value in 0..1, which
    is Wilson's interval exactly when the mean is 0 or 1.

    Args:
        values: Float `(n, columns)` in 0..1.
        group_numbers: Int64 `(n,)`, from 0 without gaps.
        resamples: Bootstrap draws; 0 for Wilson's interval.
        seed: Of the draws.

    Returns:
        `(low, high)` for each column.

    Source:
        Cluster bootstrap: Davison & Hinkley 1997, section 3.8. Wilson 1927.
    """
    table = np.asarray(values, dtype=np.float64)
    sums, sizes = _group_sums(table, group_numbers)
    means = table.mean(axis=0)
    groups = len(sizes)
    if not resamples:
        return [_wilson(float(mean), groups) for mean in means]
    draws = np.concatenate(
        [(w @ sums) / (w @ sizes)[:, None] for w in _group_weights(groups, resamples, seed)]
    )
    lows, highs = np.percentile(draws, [2.5, 97.5], axis=0)
    flat = _is_flat(sums, sizes)
    return [
        _unseen(float(mean), groups, 0.0, 1.0) if same else (float(low), float(high))
        for mean, low, high, same in zip(means, lows, highs, flat, strict=True)
    ]


def bootstrap_median(
    values: Floats, group_numbers: Ints, *, resamples: int, seed: int
) -> Interval | None:
    """Interval of 95 % of the median, resampling groups; None without resamples or groups.

    Args:
        values: Float `(n,)`.
        group_numbers: Int64 `(n,)`, from 0 without gaps.
        resamples: Bootstrap draws.
        seed: Of the draws; the same seed draws the same groups as `bootstrap_means`.
    """
    groups = int(group_numbers.max()) + 1
    if not resamples or groups < 2:
        return None
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    medians = []
    cells = max(groups, len(values))
    for weights in _group_weights(groups, resamples, seed, cells):
        upto = weights[:, group_numbers[order]].cumsum(axis=1)  # (draws, n)
        total = upto[:, -1:]
        below = (upto <= (total - 1) // 2).sum(axis=1)  # index of the lower middle query
        above = (upto <= total // 2).sum(axis=1)
        medians.append((ordered[below] + ordered[above]) / 2)
    low, high = np.percentile(np.concatenate(medians), [2.5, 97.5])
    return float(low), float(high)


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    groups: Sequence[str | int] | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> PairedDifference:
    """Mean of `a - b` over the same queries, with its interval of 95 % over groups.

    When all groups differ by the same amount, the interval allows for unseen groups as
    `bootstrap_means` does, between -1 and 1.

    Args:
        a: Per-query values in 0..1 of one system, `(n,)`.
        b: Of the other, the same queries in the same order.
        groups: Group of each query; None makes each its own.
        resamples: Bootstrap draws, at least 1.
        seed: Of the draws.

    Raises:
        ShapeError: If the two differ in length, or are empty.
        NonFiniteError: If a value is not finite.
        ValueError: If `resamples` is below 1.
    """
    left, right = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if left.shape != right.shape or left.ndim != 1 or not left.size:
        raise ShapeError(
            f"two equally long rows of per-query values; shapes {left.shape} and {right.shape}; "
            "score both systems on the same queries"
        )
    if resamples < 1:
        raise ValueError(f"resamples of at least 1; {resamples}; ask for 1000")
    difference = left - right
    if not np.isfinite(difference).all():
        raise NonFiniteError("finite per-query values; found NaN or infinity; check the scores")
    numbers = number_groups(groups, len(difference))
    sums, sizes = _group_sums(difference[:, None], numbers)
    mean = float(difference.mean())
    if _is_flat(sums, sizes)[0]:
        return PairedDifference(mean, *_unseen(mean, len(sizes), -1.0, 1.0))
    draws = np.concatenate(
        [(w @ sums)[:, 0] / (w @ sizes) for w in _group_weights(len(sizes), resamples, seed)]
    )
    low, high = np.percentile(draws, [2.5, 97.5])
    return PairedDifference(mean, float(low), float(high))


def bootstrap_mean_of_means(
    values: Sequence[ArrayLike],
    groups: Sequence[Sequence[str]],
    *,
    resamples: int,
    seed: int,
    least: float = 0.0,
) -> PairedDifference:
    """Mean of the means of several rows, each over its own items, and its interval of 95 %.

    A group is drawn for all rows at once: its items in every row come and go together.

    Args:
        values: For each row, float `(n,)`.
        groups: For each row, the group of each item.
        resamples: Bootstrap draws; 0 returns the mean for both ends.
        seed: Of the draws.
        least: Smallest value that an item can have; the largest is 1.

    Returns:
        The mean, and both ends. Where all draws are alike, they allow for unseen groups as
        `bootstrap_means` does. In a draw that leaves a row without items, the mean is over the
        others.
    """
    numbers: dict[str, int] = {}
    for names in groups:
        for name in names:
            numbers.setdefault(name, len(numbers))
    sums, sizes = np.zeros((2, len(numbers), len(values)))
    for column, (row, names) in enumerate(zip(values, groups, strict=True)):
        places = np.array([numbers[name] for name in names])
        np.add.at(sums[:, column], places, np.asarray(row, dtype=np.float64))
        np.add.at(sizes[:, column], places, 1.0)
    mean = float((sums.sum(axis=0) / sizes.sum(axis=0)).mean())
    if not resamples:
        return PairedDifference(mean, mean, mean)
    draws = []
    for weights in _group_weights(len(numbers), resamples, seed):
        counts = weights @ sizes
        with np.errstate(invalid="ignore"):
            draws.append(np.nanmean((weights @ sums) / counts, axis=1))
    drawn = np.concatenate(draws)
    if np.ptp(drawn) < 1e-12:
        return PairedDifference(mean, *_unseen(mean, len(numbers), least, 1.0))
    low, high = np.percentile(drawn, [2.5, 97.5])
    return PairedDifference(mean, float(low), float(high))


def _group_sums(table: Floats, group_numbers: Ints) -> tuple[Floats, Floats]:
    """Sum rows by group: `(groups, columns)` and the groups' sizes `(groups,)`."""
    groups = int(group_numbers.max()) + 1
    sums = np.zeros((groups, table.shape[1]))
    np.add.at(sums, group_numbers, table)
    return sums, np.bincount(group_numbers, minlength=groups).astype(np.float64)


def _group_weights(
    groups: int, resamples: int, seed: int, cells: int | None = None
) -> Iterator[Floats]:
    """Yield how often each group is drawn, `(draws, groups)`, a bounded number of draws at once."""
    generator = np.random.default_rng(seed)
    step = max(1, _CELLS // (cells or groups))
    for first in range(0, resamples, step):
        draws = min(step, resamples - first)
        drawn = generator.integers(0, groups, (draws, groups))
        drawn += np.arange(draws)[:, None] * groups
        counts = np.bincount(drawn.ravel(), minlength=draws * groups)
        yield counts.reshape(draws, groups).astype(np.float64)


def _is_flat(sums: Floats, sizes: Floats) -> NDArray[np.bool_]:
    """Say for each column whether all groups have the same mean."""
    means = sums / sizes[:, None]
    return np.asarray(np.ptp(means, axis=0) < 1e-12)


def _unseen(mean: float, groups: int, least: float, most: float) -> Interval:
    """Mix the mean with the largest share of unseen groups, at their worst and at their best."""
    share = Z95**2 / (groups + Z95**2)
    return mean + share * (least - mean), mean + share * (most - mean)


def _wilson(mean: float, n: int) -> Interval:
    """Wilson's interval; conservative for a mean of values that lie inside 0..1."""
    z2 = Z95**2
    centre = (mean + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * np.sqrt(mean * (1 - mean) / n + z2 / (4 * n * n))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))
