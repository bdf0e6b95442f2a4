from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from modalbind.conformance.odd_samples import make_odd_samples
from modalbind.conformance.structure import (
    are_equal,
    change_arrays,
    describe_form,
    find_difference,
)
from modalbind.errors import InputError


@dataclass(frozen=True)
class Ping:
    echo: torch.Tensor
    rate_hz: float = 50.0
    heard: Any = None


class Slotted:
    __slots__ = ("depth_m",)

    def __init__(self, depth_m: Any) -> None:
        self.depth_m = depth_m


PING = Ping(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))


@pytest.mark.parametrize(
    ("first", "second", "path"),
    [
        (PING, replace(PING), ""),
        (PING, replace(PING, echo=PING.echo + 1e-7), "echo"),
        (PING, replace(PING, echo=PING.echo.double()), "echo"),
        (PING, replace(PING, rate_hz=50.5), "rate_hz"),
        (PING, replace(PING, heard=torch.ones(2)), "heard"),
        ([1.0, float("nan")], [1.0, float("nan")], ""),
        ({"a": [1, 2]}, {"a": [1, 3]}, "a.1"),
        ({"a": 1}, {"b": 1}, "a"),
        (Slotted(np.zeros(3)), Slotted(np.ones(3)), "depth_m"),
        (Image.new("L", (2, 2), 3), Image.new("L", (2, 2), 4), "the value"),
        (1, 1.0, "the value"),
        (torch.zeros(2, dtype=torch.bfloat16), torch.ones(2, dtype=torch.bfloat16), "the value"),
    ],
)
def test_a_difference_is_found_wherever_it_lies(first: Any, second: Any, path: str) -> None:
    assert find_difference(first, second) == path
    assert are_equal(first, second) == (path == "")


def test_a_value_that_holds_itself_can_be_compared() -> None:
    knot: list[Any] = [1]
    knot.append(knot)
    assert are_equal(knot, knot)


@pytest.mark.parametrize(
    ("other", "is_same"),
    [
        (replace(PING, echo=torch.zeros(9, 2)), True),
        (replace(PING, rate_hz=1.0), True),
        (replace(PING, echo=torch.zeros(9)), False),
        (replace(PING, echo=PING.echo.double()), False),
        (replace(PING, heard=torch.ones(2)), False),
        (PING.echo, False),
    ],
)
def test_form_is_type_dtype_and_axes_but_no_length(other: Any, is_same: bool) -> None:
    assert (describe_form(PING) == describe_form(other)) == is_same


def test_the_form_of_a_list_is_that_of_its_first_element() -> None:
    assert describe_form([[1.0, 2.0]]) == describe_form([[1.0], [2.0], [3.0]])
    assert describe_form([[1.0]]) != describe_form([["one"]])


@pytest.mark.parametrize(
    "sample",
    [PING, PING.echo.numpy(), [[1.0, 2.0], [3.0, 4.0]], {"echo": (1.0, 2.0)}, Slotted(np.ones(2))],
)
def test_changing_arrays_leaves_the_value_itself_alone(sample: Any) -> None:
    before = repr(describe_form(sample)), repr(sample)
    change_arrays(sample, lambda array: array * 0)
    assert (repr(describe_form(sample)), repr(sample)) == before


def test_arrays_change_wherever_they_lie_and_numbers_beside_them_do_not() -> None:
    changed = change_arrays({"a": PING, "b": [[1.0, 2.0]], "c": 7}, lambda array: array[:1] * 2)
    assert changed["a"].echo.tolist() == [[2.0, 4.0]]
    assert changed["a"].rate_hz == 50.0
    assert (changed["b"], changed["c"]) == ([[2.0, 4.0]], 7)


def test_a_picture_is_cut_as_an_array_is() -> None:
    assert change_arrays(Image.new("L", (4, 6)), lambda array: array[:1]).size == (4, 1)


def test_odd_samples_are_odd_in_the_way_that_they_say() -> None:
    odd = dict(make_odd_samples(PING))
    assert torch.isnan(odd["a sample all not a number"].echo).all()
    assert int(torch.isnan(odd["a sample one value not a number"].echo).sum()) == 1
    assert torch.isinf(odd["a sample infinite"].echo).all()
    assert odd["a sample all zero"].echo.abs().sum() == 0
    assert odd["a sample huge"].echo.min() == pytest.approx(1e30)
    assert odd["a sample of length one"].echo.shape == (1, 2)
    assert odd["a sample of length zero"].echo.shape == (0, 2)
    assert odd["a sample with one axis more"].echo.shape == (1, 2, 2)
    assert odd["a sample with one axis fewer"].echo.shape == (2,)
    assert odd["a sample with its numbers doubled"].rate_hz == 100.0
    assert odd["None instead of a sample"] is None
    assert len(odd) == 14


def test_a_sample_of_integers_has_no_value_that_is_not_a_number() -> None:
    names = [name for name, _ in make_odd_samples(np.arange(6, dtype=np.uint8).reshape(2, 3))]
    assert "a sample all not a number" not in names
    assert "a sample of length zero" in names


@dataclass(frozen=True)
class Checked:
    echo: np.ndarray

    def __post_init__(self) -> None:
        if self.echo.ndim != 1 or not np.isfinite(self.echo).all():
            raise InputError("a finite echo asked for; found another")


def test_what_a_sample_refuses_to_hold_is_not_tried() -> None:
    names = [name for name, _ in make_odd_samples(Checked(np.ones(4)))]
    assert "a sample with one axis more" not in names
    assert "a sample infinite" not in names
    assert "a sample huge" in names
