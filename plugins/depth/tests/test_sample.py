from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from modalbind_depth.sample import DepthSample, build_sample, compute_metres, read_depth
from PIL import Image

from modalbind.api import BrokenSampleError

MAX = 2**20


def reason_of(numbers: np.ndarray, encoding: str) -> str:
    with pytest.raises(BrokenSampleError) as caught:
        compute_metres(numbers, encoding, "a.png")  # type: ignore[arg-type]
    assert caught.value.detail.startswith("a.png: ") and "\n" not in caught.value.detail
    assert f"modality.options.encoding is '{encoding}'" in caught.value.detail
    return caught.value.reason


def test_millimetres() -> None:
    found = compute_metres(np.array([[0, 1, 1500, 65535]], np.uint16), "millimetres")
    assert found.dtype == np.float32
    assert found[0].tolist() == pytest.approx([0, 0.001, 1.5, 65.535])


def test_millimetres_in_more_than_16_bits() -> None:
    found = compute_metres(np.array([[70_000, -5]], np.int32), "millimetres")
    assert found[0].tolist() == pytest.approx([70.0, -0.005])


def test_metres_are_left_alone() -> None:
    for dtype in (np.float16, np.float32, np.float64):
        found = compute_metres(np.array([[0.5, np.nan, np.inf]], dtype), "metres")
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, np.array([[0.5, np.nan, np.inf]], np.float32))


@pytest.mark.parametrize(
    "stored, metres",
    [
        (0, 0.0),
        (16_000, 2.0),  # 2000 = 0x07D0; shifted left by three: 0x3E80
        (57_860, 40.0),  # 40000 = 0x9C40; its upper bits 100 come round to the end: 0xE204
        (1, 8.192),  # one, turned right by three, is bit 13
        (7, 57.344),  # 7 << 13
        (8, 0.001),
        (65_535, 65.535),
    ],
)
def test_sun_rgbd_turns_bits_by_three(stored: int, metres: float) -> None:
    for dtype in (np.uint16, np.int32):
        found = compute_metres(np.array([[stored]], dtype), "sunrgbd")
        assert found.item() == pytest.approx(metres, rel=1e-6)


@given(st.lists(st.integers(0, 65_535), min_size=1, max_size=20))
def test_sun_rgbd_is_undone_by_text(depths_mm: list[int]) -> None:
    """What its authors stored: the 16 digits of a number with the first three put last."""
    bits = [f"{depth:016b}" for depth in depths_mm]
    stored = np.array([[int(text[3:] + text[:3], 2) for text in bits]], np.uint16)
    found = compute_metres(stored, "sunrgbd")[0]
    assert found.tolist() == pytest.approx([depth / 1000 for depth in depths_mm], rel=1e-6)


@pytest.mark.parametrize("encoding", ["millimetres", "sunrgbd"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint8, np.int8])
def test_integers_are_never_guessed(encoding: str, dtype: type) -> None:
    assert reason_of(np.ones((2, 2), dtype), encoding) == "wrong_encoding"


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_metres_are_never_guessed(dtype: type) -> None:
    assert reason_of(np.ones((2, 2), dtype), "metres") == "wrong_encoding"


@pytest.mark.parametrize("number", [-1, 65_536])
def test_sun_rgbd_has_16_bits(number: int) -> None:
    assert reason_of(np.array([[5, number]], np.int32), "sunrgbd") == "wrong_encoding"


def test_what_is_not_above_zero_was_not_measured() -> None:
    sample = build_sample(
        np.array([[1.5, 0, -0.0], [-2, np.nan, np.inf]], np.float32), "here", focal_px=500.0
    )
    assert sample.valid_mask.tolist() == [[True, False, False], [False, False, False]]
    assert sample.values.tolist() == [[1.5, 0, 0], [0, 0, 0]]
    assert (sample.focal_px, sample.baseline_m) == (500.0, None)


@pytest.mark.parametrize("value", [0, -1, np.nan, np.inf])
def test_a_map_without_any_depth_is_broken(value: float) -> None:
    with pytest.raises(BrokenSampleError, match="here: no pixel") as caught:
        build_sample(np.full((3, 3), value, np.float32), "here")
    assert caught.value.reason == "nothing_measured"


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm", "npy"])
def test_every_kind_of_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"map.{suffix}"
    depth_mm = np.array([[0, 1250], [3000, 7]], np.uint16)
    if suffix == "npy":
        np.save(path, depth_mm)
    else:
        Image.fromarray(depth_mm).save(path)
    sample = read_depth(path, "millimetres", max_pixels=MAX, focal_px=10.0, baseline_m=0.5)
    assert sample.values.flatten().tolist() == pytest.approx([0, 1.25, 3.0, 0.007])
    assert sample.valid_mask.flatten().tolist() == [False, True, True, True]
    assert (sample.focal_px, sample.baseline_m) == (10.0, 0.5)


@pytest.mark.parametrize("suffix", ["tiff", "npy"])
def test_metres_in_a_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"map.{suffix}"
    depth_m = np.array([[0.5, np.nan], [2.25, 0]], np.float32)
    if suffix == "npy":
        np.save(path, depth_m)
    else:
        Image.fromarray(depth_m).save(path)
    sample = read_depth(path, "metres", max_pixels=MAX)
    assert sample.values.flatten().tolist() == [0.5, 0, 2.25, 0]
    assert sample.valid_mask.flatten().tolist() == [True, False, True, False]


def test_colours_are_no_depth(tmp_path: Path) -> None:
    path = tmp_path / "map.png"
    Image.new("RGB", (4, 4), (10, 20, 30)).save(path)
    with pytest.raises(BrokenSampleError) as caught:
        read_depth(path, "millimetres", max_pixels=MAX)
    assert caught.value.reason == "wrong_shape"


def test_a_sample_goes_to_a_worker() -> None:
    sample = DepthSample(torch.ones(2, 2), torch.ones(2, 2, dtype=torch.bool), 5.0, 0.1)
    copy = pickle.loads(pickle.dumps(sample))
    assert torch.equal(copy.values, sample.values)
    assert (copy.focal_px, copy.baseline_m) == (5.0, 0.1)
