from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from modalbind.errors import BrokenSampleError
from modalbind.maps.reading import MAP_SUFFIXES, read_map

U16 = np.array([[0, 1, 256], [65535, 40000, 7]], np.uint16)


def write_png16(path: Path, numbers: np.ndarray) -> None:
    """Write the format by hand, so that nothing is read by what wrote it."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in numbers)
    height, width = numbers.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def test_png_of_16_bits(tmp_path: Path) -> None:
    path = tmp_path / "map.png"
    write_png16(path, U16)
    assert read_map(path).tolist() == U16.tolist()


def test_pgm_of_16_bits(tmp_path: Path) -> None:
    path = tmp_path / "map.pgm"
    path.write_bytes(b"P5\n3 2\n65535\n" + U16.astype(">u2").tobytes())
    assert read_map(path).tolist() == U16.tolist()


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_tiff_keeps_its_numbers(tmp_path: Path, dtype: type) -> None:
    path = tmp_path / "map.tiff"
    numbers = (U16 / 3).astype(dtype)
    Image.fromarray(numbers).save(path)
    found = read_map(path)
    assert found.dtype == dtype
    assert found.tolist() == numbers.tolist()


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_8_bits_are_not_scaled(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"map.{suffix}"
    numbers = np.array([[0, 100], [200, 255]], np.uint8)
    Image.fromarray(numbers).save(path)
    found = read_map(path)
    assert found.dtype == np.uint8
    assert found.tolist() == numbers.tolist()


@pytest.mark.parametrize("dtype", ["<f8", ">f4", "<f2", "<u2", "<i8", "u1"])
def test_arrays_keep_their_numbers(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "map.npy"
    numbers = np.arange(6).reshape(2, 3).astype(dtype)
    np.save(path, numbers)
    found = read_map(path)
    assert found.dtype == numbers.dtype
    assert found.tolist() == numbers.tolist()


def test_suffixes_may_be_large(tmp_path: Path) -> None:
    np.save(tmp_path / "map.npy", np.ones((2, 2)))
    (tmp_path / "map.npy").rename(tmp_path / "map.NPY")
    assert read_map(tmp_path / "map.NPY").shape == (2, 2)


def test_colours_are_refused_or_their_mean_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "map.png"
    Image.fromarray(np.array([[[30, 60, 90], [0, 0, 1]]], np.uint8)).save(path)
    with pytest.raises(BrokenSampleError) as caught:
        read_map(path)
    assert caught.value.reason == "wrong_shape"
    assert read_map(path, mixes_colours=True)[0] == pytest.approx([60, 1 / 3])


def reason_of(path: Path, **options: object) -> str:
    with pytest.raises(BrokenSampleError) as caught:
        read_map(path, **options)  # type: ignore[arg-type]
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value.reason


def test_files_that_are_no_maps(tmp_path: Path) -> None:
    assert reason_of(tmp_path / "none.png") == "missing"
    assert reason_of(tmp_path) == "missing"
    for suffix in MAP_SUFFIXES:
        empty, noise = tmp_path / f"empty{suffix}", tmp_path / f"noise{suffix}"
        empty.touch()
        noise.write_bytes(np.random.default_rng(0).bytes(500))
        assert reason_of(empty) == "empty"
        assert reason_of(noise) == "undecodable"
    text = tmp_path / "map.csv"
    text.write_text("1,2\n")
    assert reason_of(text) == "undecodable"


@pytest.mark.parametrize("suffix", ["png", "tif", "npy"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_cut_files(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"map.{suffix}"
    numbers = np.random.default_rng(0).integers(0, 65535, (64, 64), np.uint16)
    if suffix == "npy":
        np.save(path, numbers)
    else:
        Image.fromarray(numbers).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert reason_of(path) == "undecodable"


@pytest.mark.parametrize("numbers", [np.zeros(4), np.zeros((2, 2, 2)), np.zeros((0, 3))])
def test_arrays_of_another_shape(tmp_path: Path, numbers: np.ndarray) -> None:
    path = tmp_path / "map.npy"
    np.save(path, numbers)
    assert reason_of(path) in ("wrong_shape", "undecodable")


@pytest.mark.parametrize("numbers", [np.array([["a"]]), np.ones((2, 2), complex), np.eye(2) > 0])
def test_arrays_of_other_things(tmp_path: Path, numbers: np.ndarray) -> None:
    path = tmp_path / "map.npy"
    np.save(path, numbers)
    assert reason_of(path) == "undecodable"


def test_pickles_are_never_opened(tmp_path: Path) -> None:
    path = tmp_path / "map.npy"
    np.save(path, np.array([{"a": 1}], object), allow_pickle=True)
    assert reason_of(path) == "undecodable"


def test_size_is_read_before_pixels_are(tmp_path: Path) -> None:
    path = tmp_path / "map.npy"
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (3, 2)}\n"
    np.save(path, np.zeros((3, 2)))
    assert reason_of(path, max_pixels=5) == "too_large"
    assert read_map(path, max_pixels=6).shape == (3, 2)
    # A file that claims a million rows of which it has none.
    header = header.replace(b"(3, 2)", b"(1000000, 99999)").rjust(118)
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
    assert reason_of(path) in ("too_large", "undecodable")
    picture = tmp_path / "map.png"
    write_png16(picture, U16)
    assert reason_of(picture, max_pixels=5) == "too_large"
