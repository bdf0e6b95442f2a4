"""Intervals: against closed forms, against each other, and by simulated coverage."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from modalbind.errors import NonFiniteError, ShapeError
from modalbind.evaluation.bootstrap import (
    bootstrap_means,
    bootstrap_median,
    number_groups,
    paired_difference,
)

Z2 = 1.959963984540054**2


def interval(values, groups=None, resamples=2000, seed=0):
    values = np.asarray(values, dtype=float)
    numbers = number_groups(groups, len(values))
    return bootstrap_means(values[:, None], numbers, resamples=resamples, seed=seed)[0]


def test_percentiles_agree_with_the_normal_interval_of_many_items():
    values = np.random.default_rng(0).random(2000)
    low, high = interval(values)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_means_over_resampled_groups_agree_with_a_loop():
    generator = np.random.default_rng(3)
    values = generator.random(30)
    groups = [int(g) for g in generator.integers(0, 7, 30)]
    numbers = number_groups(groups, 30)
    drawn = np.random.default_rng(5).integers(0, 7, (200, 7))  # the draws of seed 5
    means = []
    for draw in drawn:
        taken = np.concatenate([values[numbers == group] for group in draw])
        means.append(taken.mean())
    expected = np.percentile(means, [2.5, 97.5])
    assert interval(values, groups, resamples=200, seed=5) == pytest.approx(tuple(expected))


def test_correlated_groups_widen_the_interval():
    generator = np.random.default_rng(1)
    values = np.repeat(generator.integers(0, 2, 40), 25).astype(float)
    groups = [str(g) for g in np.repeat(np.arange(40), 25)]
    by_item = interval(values)
    by_group = interval(values, groups)
    widths = by_item[1] - by_item[0], by_group[1] - by_group[0]
    # 25 equal items a group: the interval over groups is 5 times as wide.
    assert 4 < widths[1] / widths[0] < 6


@pytest.mark.parametrize("n", [1, 2, 10, 300])
def test_all_missed_and_all_hit_give_wilsons_interval(n):
    share = Z2 / (n + Z2)
    assert interval(np.zeros(n)) == pytest.approx((0.0, share))
    assert interval(np.ones(n)) == pytest.approx((1 - share, 1.0))


def test_equal_groups_count_as_one_sample_each():
    assert interval(np.zeros(100), ["a", "b"] * 50)[1] == pytest.approx(Z2 / (2 + Z2))


def test_no_resamples_give_wilsons_interval():
    # Newcombe 1998, table I: 81 of 263, Wilson without continuity correction.
    values = [1.0] * 81 + [0.0] * 182
    assert interval(values, resamples=0) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_same_seed_same_interval_and_another_seed_another():
    values = np.random.default_rng(2).random(50)
    assert interval(values, seed=4) == interval(values, seed=4)
    assert interval(values, seed=4) != interval(values, seed=5)


def test_blocks_of_resamples_do_not_change_the_draws(monkeypatch):
    values = np.random.default_rng(2).random(50)
    whole = interval(values, resamples=300)
    monkeypatch.setattr("modalbind.evaluation.bootstrap._CELLS", 500)
    assert interval(values, resamples=300) == pytest.approx(whole)


def test_median_agrees_with_a_loop():
    generator = np.random.default_rng(8)
    values = generator.integers(1, 50, 24).astype(float)
    numbers = number_groups([int(g) for g in generator.integers(0, 9, 24)], 24)
    groups = int(numbers.max()) + 1
    drawn = np.random.default_rng(7).integers(0, groups, (150, groups))
    medians = [
        np.median(np.concatenate([values[numbers == group] for group in draw])) for draw in drawn
    ]
    expected = tuple(np.percentile(medians, [2.5, 97.5]))
    assert bootstrap_median(values, numbers, resamples=150, seed=7) == pytest.approx(expected)


def test_median_of_one_group_has_no_interval():
    assert bootstrap_median(np.ones(3), np.zeros(3, dtype=np.int64), resamples=9, seed=0) is None


def test_paired_difference_is_tighter_than_two_intervals():
    generator = np.random.default_rng(0)
    base = generator.random(400)
    better = np.clip(base + 0.02 + 0.01 * generator.standard_normal(400), 0, 1)
    found = paired_difference(better, base)
    assert found.difference == pytest.approx((better - base).mean())
    assert 0 < found.low < found.difference < found.high
    assert interval(better)[0] < interval(base)[1]  # unpaired, they overlap


def test_paired_difference_changes_sign_with_its_sides():
    generator = np.random.default_rng(0)
    a, b = generator.random(60), generator.random(60)
    groups = [f"g{i % 12}" for i in range(60)]
    forth, back = paired_difference(a, b, groups), paired_difference(b, a, groups)
    assert forth.difference == -back.difference
    assert (forth.low, forth.high) == pytest.approx((-back.high, -back.low))


def test_equal_systems_leave_room_for_unseen_groups():
    found = paired_difference([1.0, 0.0, 1.0], [1.0, 0.0, 1.0])
    share = Z2 / (3 + Z2)
    assert found == pytest.approx((0.0, -share, share))


def test_wrong_input_is_refused():
    with pytest.raises(ShapeError, match="one group for each of 3 queries; 2 groups"):
        number_groups(["a", "b"], 3)
    with pytest.raises(ShapeError, match="same queries"):
        paired_difference([1.0], [1.0, 0.0])
    with pytest.raises(NonFiniteError, match="finite"):
        paired_difference([1.0, math.nan], [1.0, 0.0])
    with pytest.raises(ValueError, match="at least 1"):
        paired_difference([1.0], [1.0], resamples=0)


def test_thousand_resamples_of_a_thousand_queries_are_quick():
    values = np.random.default_rng(0).random((1000, 7))
    numbers = number_groups(None, 1000)
    start = time.process_time()
    bootstrap_means(values, numbers, resamples=1000, seed=0)
    bootstrap_median(values[:, 0], numbers, resamples=1000, seed=0)
    assert time.process_time() - start < 2.0  # loose: other work may share the machine


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.0, 0.01, 0.05, 0.5, 0.99, 1.0])
def test_intervals_cover_the_truth(rate):
    """200 groups of 2 queries that share their fate: at least 90 % of 95 % intervals hold it."""
    generator = np.random.default_rng(11)
    covered = 0
    for trial in range(400):
        hits = np.repeat(generator.random(200) < rate, 2).astype(float)
        groups = [int(g) for g in np.repeat(np.arange(200), 2)]
        low, high = interval(hits, groups, resamples=500, seed=trial)
        covered += low <= rate <= high
    # At 1 %, about 2 of 200 groups hit: percentiles are known to be short there.
    assert covered / 400 >= (0.85 if rate in (0.01, 0.99) else 0.92)
