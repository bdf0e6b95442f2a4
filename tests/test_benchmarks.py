"""Benchmarks are run by hand; that they still compute what they say is checked here, in small."""

from __future__ import annotations

import math

import pytest
import torch
from benchmarks.contest import Curve
from benchmarks.engineering import compute_bank_loss, measure_gemm, take_large_step


def test_both_ways_to_the_loss_of_a_bank_have_one_gradient() -> None:
    _, chunked = compute_bank_loss("chunked", 6, 40, 8)
    _, naive = compute_bank_loss("naive", 6, 40, 8)
    assert float(naive.abs().max()) > 1e-3
    torch.testing.assert_close(chunked, naive, atol=1e-6, rtol=0)


@pytest.mark.parametrize("names", [("bank", "bank-naive"), ("gradcache", "naive")])
def test_parts_of_a_batch_have_the_gradient_of_the_whole(names: tuple[str, str]) -> None:
    parts, whole = (take_large_step(name, 130) for name in names)
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=0)


def test_quality_has_to_hold() -> None:
    curve = Curve([(1.0, 0.9), (2.0, 0.7), (3.0, 0.9), (4.0, 0.95), (5.0, 0.9), (6.0, 0.8)])
    assert curve.seconds_to(0.9) == 3.0, "one good score alone does not count"
    assert curve.seconds_to(0.95) == math.inf
    assert Curve([(1.0, 0.5), (2.0, 0.9)]).seconds_to(0.9) == 2.0, "at the end, what is left counts"


def test_a_peak_is_a_rate() -> None:
    assert 0.1 < measure_gemm(64) < 1e6
