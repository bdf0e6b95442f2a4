"""Benchmarks are run by hand; that they still compute what they say is checked here, in small."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks import engineering
from tests.benchmarks.contest import Curve
from tests.benchmarks.paired import Times, compare_outcomes, fit_exponent, measure_gemm
from tests.benchmarks.subjects import infonce, large_batch, open_cache, write_sparse_cache


def test_both_ways_to_the_loss_of_a_bank_have_one_gradient() -> None:
    dense, chunked = infonce("dense", 6, 40)(), infonce("chunked", 6, 40)()
    assert abs(dense["rows"]).max() > 1e-3
    assert compare_outcomes(chunked, dense) < 1e-6


@pytest.mark.parametrize("direction", ["modality_to_anchor", "both"])
def test_parts_of_a_batch_have_the_gradient_of_the_whole(direction: str) -> None:
    whole, parts = (large_batch(how, direction, 130, 20)() for how in ("whole", "parts"))  # type: ignore[arg-type]
    assert compare_outcomes(parts, whole) < 1e-5


def test_a_sparse_cache_is_a_cache(tmp_path: Path) -> None:
    write_sparse_cache(tmp_path, 5000)
    open_cache(str(tmp_path), 5000)()


def test_quality_has_to_hold() -> None:
    curve = Curve([(1.0, 0.9), (2.0, 0.7), (3.0, 0.9), (4.0, 0.95), (5.0, 0.9), (6.0, 0.8)])
    assert curve.seconds_to(0.9) == 3.0, "one good score alone does not count"
    assert curve.seconds_to(0.95) == math.inf
    assert Curve([(1.0, 0.5), (2.0, 0.9)]).seconds_to(0.9) == 2.0, "at the end, what is left counts"


def test_a_peak_is_a_rate() -> None:
    assert 0.1 < measure_gemm(64) < 1e6


def test_ratios_are_of_the_same_round() -> None:
    assert Times([2.0, 9.0], [1.0, 3.0]).ratios == [2.0, 3.0]


def test_the_exponent_of_a_power_is_its_power() -> None:
    assert fit_exponent([1, 2, 4, 10], [3 * x**1.5 for x in (1, 2, 4, 10)]) == pytest.approx(1.5)


def test_outcomes_differ_by_the_worst_entry_of_any() -> None:
    expected = {"a": np.array([1.0, -10.0]), "b": np.array([0.5])}
    found = {"a": np.array([2.0, -10.0]), "b": np.array([0.45])}
    assert compare_outcomes(found, expected) == pytest.approx(0.1)


def test_a_bound_is_kept_or_not_or_was_not_measured() -> None:
    row = engineering.at_least("x", 2.0, [1.0, 2.5, 3.0], "")
    assert row.passed and not engineering.at_most("x", 2.0, row.values, "").passed
    assert engineering.skip("x", "absent").passed is None


@pytest.mark.slow
def test_all_of_it_runs_in_small(tmp_path: Path) -> None:
    """About two minutes: each memory figure starts a process of its own."""
    engineering.main(["--quick", "--json", str(tmp_path / "found.json")])
    report = json.loads((tmp_path / "found.json").read_text())
    assert len(report["rows"]) >= 12 and len(report["curves"]) == len(engineering.CURVES)
    assert all(curve["mib"][0] >= 0 for curve in report["curves"])
