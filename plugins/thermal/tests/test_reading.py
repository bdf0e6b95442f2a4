"""Units and conversions by hand; every file kind; what is never guessed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from modalbind_thermal.options import ThermalOptions
from modalbind_thermal.reading import ThermalSample, load_thermal

from modalbind.api import BrokenSampleError

NAN = float("nan")


def reason_of(path, **options) -> tuple[str, str]:
    with pytest.raises(BrokenSampleError) as caught:
        load_thermal(path, ThermalOptions(**options))
    assert "\n" not in str(caught.value)
    return caught.value.reason, caught.value.detail


@pytest.mark.parametrize("name", ["a.npy", "a.tiff"])
def test_floats_are_celsius(write, name):
    path = write(name, np.array([[-12.5, 36.6], [NAN, 0.0]], np.float32))
    sample = load_thermal(path, ThermalOptions())
    assert isinstance(sample, ThermalSample)
    assert sample.unit == "celsius"
    assert sample.values.dtype == torch.float32
    torch.testing.assert_close(sample.values, torch.tensor([[-12.5, 36.6], [0.0, 0.0]]))
    assert sample.valid_mask.tolist() == [[True, True], [False, True]]


@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.pgm", "a.npy"])
def test_centikelvin_by_hand(write, name):
    # 273.15 K is 0 C, 310.15 K is 37 C, 233.15 K is -40 C.
    path = write(name, np.array([[27315, 31015, 23315]], np.uint16))
    sample = load_thermal(path, ThermalOptions(encoding="centikelvin"))
    torch.testing.assert_close(sample.values, torch.tensor([[0.0, 37.0, -40.0]]), atol=1e-4, rtol=0)
    assert bool(sample.valid_mask.all())


@pytest.mark.parametrize("name", ["a.png", "a.npy"])
def test_linear_counts_by_hand(write, name):
    # A camera with 0.04 K a count: 7400 counts are 296 K, 22.85 C.
    options = ThermalOptions(encoding="linear", scale_c=0.04, offset_c=-273.15)
    sample = load_thermal(write(name, np.array([[7400, 6829]], np.uint16)), options)
    torch.testing.assert_close(sample.values, torch.tensor([[22.85, 0.01]]), atol=1e-4, rtol=0)


def test_linear_takes_8_bits_and_a_negative_slope(write):
    options = ThermalOptions(encoding="linear", scale_c=-0.5, offset_c=100)
    sample = load_thermal(write("a.png", np.array([[0, 200]], np.uint8)), options)
    assert sample.values.tolist() == [[100.0, 0.0]]


@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.pgm", "a.npy"])
def test_counts_stay_counts(write, name):
    sample = load_thermal(
        write(name, np.array([[0, 7, 255]], np.uint8)), ThermalOptions(encoding="counts8")
    )
    assert sample.unit == "counts"
    assert sample.values.tolist() == [[0.0, 7.0, 255.0]]


def test_grey_saved_in_colour_is_mixed_only_when_asked(write):
    grey = np.full((4, 6), 90, np.uint8)
    colour = np.stack([grey, grey, grey], axis=2)
    colour[1, 2] = (10, 20, 60)  # mean 30
    path = write("a.png", colour)
    mixed = load_thermal(path, ThermalOptions(encoding="counts8", mixes_colours=True))
    assert mixed.values[1, 2] == 30.0
    assert mixed.values[0, 0] == 90.0
    reason, detail = reason_of(path, encoding="counts8")
    assert reason == "wrong_shape"
    assert "mixes_colours" in detail
    jpeg = load_thermal(
        write("b.jpg", np.stack([grey] * 3, 2)),
        ThermalOptions(encoding="counts8", mixes_colours=True),
    )
    torch.testing.assert_close(jpeg.values, torch.full((4, 6), 90.0), atol=1.0, rtol=0)


FILES = {
    "float.npy": np.ones((2, 2), np.float32),
    "float.tiff": np.ones((2, 2), np.float32),
    "half.npy": np.ones((2, 2), np.float16),
    "deep.png": np.full((2, 2), 30000, np.uint16),
    "eight.png": np.full((2, 2), 30, np.uint8),
    "wide.npy": np.full((2, 2), 70000, np.int32),
    "signed.npy": np.full((2, 2), -3, np.int16),
}
FITS = {
    "celsius": {"float.npy", "float.tiff", "half.npy"},
    "centikelvin": {"deep.png"},
    "linear": {"deep.png", "eight.png", "wide.npy", "signed.npy"},
    "counts8": {"eight.png"},
}


@pytest.mark.parametrize("encoding", FITS)
@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_encoding_is_refused_naming_both(write, encoding, name):
    path = write(name, FILES[name])
    linear = {"scale_c": 0.01, "offset_c": -200.0} if encoding == "linear" else {}
    mixes = {"mixes_colours": True} if encoding == "counts8" else {}
    if name in FITS[encoding]:
        load_thermal(path, ThermalOptions(encoding=encoding, **linear))
        return
    for extra in ({}, mixes):
        reason, detail = reason_of(path, encoding=encoding, **linear, **extra)
        assert reason == "wrong_encoding"
        assert f"encoding {encoding} is" in detail
        assert str(FILES[name].dtype) in detail or "int32" in detail
        right = next((other for other, names in FITS.items() if name in names), "none of them")
        assert right in detail


@pytest.mark.parametrize(
    ("number", "is_physical"), [(-273.15, True), (-273.2, False), (3400.0, True), (29315.0, False)]
)
def test_temperatures_that_cannot_be_are_refused(write, number, is_physical):
    path = write("a.npy", np.array([[20.0, number]], np.float32))
    if is_physical:
        assert load_thermal(path, ThermalOptions()).values[0, 1] == pytest.approx(number)
    else:
        reason, detail = reason_of(path)
        assert reason == "not_physical"
        assert "celsius" in detail


def test_a_number_may_say_that_nothing_was_measured(write):
    path = write("a.png", np.array([[0, 29315]], np.uint16))
    sample = load_thermal(path, ThermalOptions(encoding="centikelvin", missing=0))
    assert sample.valid_mask.tolist() == [[False, True]]
    assert sample.values[0, 0] == 0.0
    assert sample.values[0, 1] == pytest.approx(20.0, abs=1e-4)


@pytest.mark.parametrize(
    ("numbers", "reason"),
    [
        (np.full((3, 3), NAN, np.float32), "not_measured"),
        (np.zeros((3, 3, 2), np.float32), "wrong_shape"),
        (np.zeros((0, 3), np.float32), "wrong_shape"),
        (np.zeros((40, 40), np.float32), "too_large"),
    ],
)
def test_broken_arrays(write, numbers, reason):
    assert reason_of(write("a.npy", numbers), max_pixels=1000)[0] == reason


def test_missing_empty_cut_and_strange_files(write, tmp_path):
    whole = write("whole.png", np.full((40, 40), 30000, np.uint16)).read_bytes()
    for name, content, reason in [
        ("empty.png", b"", "empty"),
        ("cut.png", whole[: len(whole) // 2], "undecodable"),
        ("noise.tiff", bytes(range(200)), "undecodable"),
        ("noise.npy", b"\x93NUMPY\x01\x00garbage", "undecodable"),
        ("map.bmp", whole, "undecodable"),
    ]:
        (tmp_path / name).write_bytes(content)
        assert reason_of(tmp_path / name, encoding="centikelvin")[0] == reason, name
    assert reason_of(tmp_path / "gone.png")[0] == "missing"
