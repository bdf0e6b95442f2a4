from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modalbind.errors import InputError, ShapeError
from modalbind.maps.sample import MapSample, change_values, check_map, resize_map, split_valid

NAN = float("nan")
MAPS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
    elements=st.floats(-100, 100, width=32) | st.just(NAN),
)


@dataclass(frozen=True, slots=True, eq=False)
class Marked(MapSample):
    mark: str = ""


def sample_of(rows: list[list[float]]) -> MapSample:
    return MapSample(*split_valid(np.array(rows, np.float64)))


def test_what_is_not_finite_was_not_measured() -> None:
    values, mask = split_valid(np.array([[1.5, NAN], [np.inf, -np.inf], [0, -2]]))
    assert values.tolist() == [[1.5, 0], [0, 0], [0, -2]]
    assert mask.tolist() == [[True, False], [False, False], [True, True]]
    assert (values.dtype, mask.dtype) == (torch.float32, torch.bool)


def test_a_mask_takes_more_away_and_gives_nothing_back() -> None:
    values, mask = split_valid(np.array([[1, NAN, 3]]), np.array([[True, True, False]]))
    assert mask.tolist() == [[True, False, False]]
    assert values.tolist() == [[1, 0, 0]]


def test_numbers_of_files_are_copied_whole() -> None:
    numbers = np.array([[0, 65535], [40000, 1]], np.uint16)
    values, mask = split_valid(numbers)
    assert values.tolist() == [[0, 65535], [40000, 1]]
    assert mask.all()
    numbers[:] = 7
    assert values[0, 1] == 65535


@pytest.mark.parametrize("shape", [(3,), (2, 2, 2), (0, 4), ()])
def test_no_map_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="height, width"):
        split_valid(np.zeros(shape))


def test_a_mask_of_another_shape_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(2, 2\).*\(2, 3\)"):
        split_valid(np.zeros((2, 2)), np.ones((2, 3), bool))


def test_changed_values_stay_zero_where_nothing_was_measured() -> None:
    sample = Marked(*split_valid(np.array([[1, NAN]])), mark="kept")
    changed = change_values(sample, torch.tensor([[5.0, 9.0]]))
    assert changed.values.tolist() == [[5, 0]]
    assert changed.mark == "kept"
    assert sample.values.tolist() == [[1, 0]]


def test_a_smaller_map_is_the_mean_of_what_was_measured() -> None:
    sample = sample_of([[1, 3, NAN, NAN], [5, NAN, NAN, 8], [2, 2, 4, NAN], [2, 2, NAN, 6]])
    small = resize_map(sample, 2)
    # (1 + 3 + 5) / 3; one of four is too little; 2; (4 + 6) / 2, of two of four.
    assert small.values.tolist() == [[3, 0], [2, 5]]
    assert small.valid_mask.tolist() == [[True, False], [True, True]]


def test_a_larger_map_repeats_pixels() -> None:
    large = resize_map(sample_of([[1, NAN], [3, 4]]), 4)
    assert large.values.tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [3, 3, 4, 4], [3, 3, 4, 4]]
    assert large.valid_mask.sum() == 12


def test_the_same_size_is_the_same_sample() -> None:
    sample = sample_of([[1, NAN], [3, 4]])
    assert resize_map(sample, 2) is sample


@settings(max_examples=60, deadline=None)
@given(MAPS, st.integers(1, 24))
def test_resizing_invents_nothing(numbers: np.ndarray, size_px: int) -> None:
    sample = MapSample(*split_valid(numbers))
    resized = resize_map(sample, size_px)
    assert resized.values.shape == resized.valid_mask.shape == (size_px, size_px)
    assert torch.isfinite(resized.values).all()
    assert (resized.values[~resized.valid_mask] == 0).all()
    if not resized.valid_mask.any():
        return
    measured = sample.values[sample.valid_mask]
    found = resized.values[resized.valid_mask]
    slack = 1e-4 * (1 + measured.abs().max())
    assert found.min() >= measured.min() - slack
    assert found.max() <= measured.max() + slack


@settings(max_examples=40, deadline=None)
@given(MAPS, st.integers(1, 24))
def test_nothing_measured_stays_so_and_all_measured_stays_so(
    numbers: np.ndarray, size_px: int
) -> None:
    empty = MapSample(*split_valid(np.full_like(numbers, NAN)))
    assert not resize_map(empty, size_px).valid_mask.any()
    full = MapSample(*split_valid(np.nan_to_num(numbers)))
    assert resize_map(full, size_px).valid_mask.all()


def test_a_good_map_is_passed_on_unchanged() -> None:
    sample = sample_of([[1, NAN], [3, 4]])
    assert check_map(sample, "metres") is sample
    doubles = MapSample(sample.values.double(), sample.valid_mask)
    assert check_map(doubles, "metres").values.dtype == torch.float32


def test_a_map_that_breaks_its_promise_is_mended_in_a_copy() -> None:
    values = torch.tensor([[1.0, NAN, 7.0]])
    sample = Marked(values, torch.tensor([[True, True, False]]), mark="kept")
    mended = check_map(sample, "metres")
    assert mended.values.tolist() == [[1, 0, 0]]
    assert mended.valid_mask.tolist() == [[True, False, False]]
    assert isinstance(mended, Marked) and mended.mark == "kept"
    assert sample.values is values


@pytest.mark.parametrize("other", [None, "map.png", np.zeros((2, 2)), torch.zeros(2, 2)])
def test_numbers_alone_are_refused(other: object) -> None:
    with pytest.raises(InputError, match=f"a map in metres.*{type(other).__name__}"):
        check_map(other, "metres")
