"""Paired comparison: seeds are averaged item by item, folds are pooled, groups are resampled."""

from __future__ import annotations

import numpy as np
import pytest

from modalbind.errors import DataError
from modalbind.evaluation.comparison import ItemScores, RowKey, compare_systems
from modalbind.evaluation.protocol import ScoredItems

KEY = RowKey("audio", "text", "en", "test", "recall_at_10")


def run(values: dict[str, float], key: RowKey = KEY, group: str | None = None):
    keys = tuple(values)
    groups = tuple(group or name for name in keys)
    return {key: ItemScores(ScoredItems(keys, groups), np.array(list(values.values())))}


def compare(first, second):
    (row,) = compare_systems(first, second, resamples=2000, seed=0)
    return row


def test_difference_is_item_by_item_whatever_the_order():
    row = compare(
        [run({"a": 1.0, "b": 0.0, "c": 1.0})],
        [run({"c": 0.0, "a": 1.0, "b": 0.5})],
    )
    assert (row.value, row.other) == (pytest.approx(2 / 3), pytest.approx(0.5))
    assert row.difference.difference == pytest.approx((0 - 0.5 + 1) / 3)
    assert row.n_items == 3


def test_seeds_are_averaged_and_folds_pooled():
    first = [run({"a": 1.0}), run({"a": 0.0}), run({"b": 1.0}), run({"b": 1.0})]
    row = compare(first, [run({"a": 0.0}), run({"b": 0.0})])
    assert row.value == pytest.approx(0.75)
    assert row.n_items == 2


def test_interval_is_that_of_a_bootstrap_over_groups():
    rng = np.random.default_rng(3)
    names = [f"i{n}" for n in range(120)]
    a, b = rng.integers(0, 2, 120).astype(float), rng.integers(0, 2, 120).astype(float)
    row = compare([run(dict(zip(names, a, strict=True)))], [run(dict(zip(names, b, strict=True)))])
    draws = rng.integers(0, 120, (4000, 120))
    low, high = np.percentile((a - b)[draws].mean(1), [2.5, 97.5])
    assert row.difference.low == pytest.approx(low, abs=0.02)
    assert row.difference.high == pytest.approx(high, abs=0.02)


def test_one_group_shows_nothing():
    first = [run({"a": 1.0, "b": 1.0}, group="same recording")]
    row = compare(first, [run({"a": 0.0, "b": 0.0}, group="same recording")])
    assert row.difference.low < 0 < row.difference.difference


def test_other_items_and_nothing_in_common_are_refused():
    with pytest.raises(DataError, match="1 items of audio → text are in one alone"):
        compare([run({"a": 1.0, "b": 1.0})], [run({"a": 1.0})])
    other = run({"a": 1.0}, key=KEY._replace(target="image"))
    with pytest.raises(DataError, match="share none"):
        compare([run({"a": 1.0})], [other])
