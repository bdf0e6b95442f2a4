"""One depth map with its camera, and the numbers of files as metres."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modalbind.api import BrokenSampleError, MapSample, read_map, split_valid
from modalbind_depth.options import Encoding


@dataclass(frozen=True, slots=True, eq=False)
class DepthSample(MapSample):
    """A depth map: `values` are metres along the optical axis, zero where nothing was measured.

    Attributes:
        focal_px: Focal length in pixels of the map as it was read; None if unknown.
        baseline_m: Distance of the camera's two eyes in metres; None if unknown.
    """

    focal_px: float | None = None
    baseline_m: float | None = None


def read_depth(
    path: Path,
    encoding: Encoding,
    *,
    max_pixels: int,
    focal_px: float | None = None,
    baseline_m: float | None = None,
) -> DepthSample:
    """Read a file of depth.

    Args:
        path: What `modalbind.api.read_map` reads.
        encoding: What its numbers are.
        max_pixels: Largest number of pixels.
        focal_px: Of the camera, for the sample.
        baseline_m: Of the camera, for the sample.

    Raises:
        BrokenSampleError: As `read_map`; `wrong_encoding` if the numbers cannot be of that
            encoding; `nothing_measured` if no pixel is above zero.
    """
    numbers = read_map(path, max_pixels=max_pixels)
    metres = compute_metres(numbers, encoding, str(path))
    return build_sample(metres, str(path), focal_px=focal_px, baseline_m=baseline_m)


def build_sample(
    metres: NDArray[Any],
    place: str,
    *,
    focal_px: float | None = None,
    baseline_m: float | None = None,
) -> DepthSample:
    """Return metres as a sample: what is not finite, or not above zero, was not measured.

    Args:
        metres: Float `(height, width)`.
        place: Where they come from, for the message.
        focal_px: Of the camera.
        baseline_m: Of the camera.

    Raises:
        BrokenSampleError: `nothing_measured` if no pixel is left.
    """
    values, valid_mask = split_valid(metres, np.greater(metres, 0))
    if not bool(valid_mask.any()):
        raise BrokenSampleError("nothing_measured", f"{place}: no pixel has a depth above zero")
    return DepthSample(values, valid_mask, focal_px, baseline_m)


def compute_metres(
    numbers: NDArray[Any], encoding: Encoding, place: str = "the map"
) -> NDArray[np.float32]:
    """Return the numbers of a file as metres; what is missing stays zero or not finite.

    Args:
        numbers: As they are stored, `(height, width)`.
        encoding: What they are.
        place: Where they come from, for the message.

    Raises:
        BrokenSampleError: `wrong_encoding` if their dtype or range is not that of the encoding.

    Source:
        `sunrgbd`: SUNRGBDtoolbox, read3dPoints.m: `bitor(bitshift(d, -3), bitshift(d, 16 - 3))`
        of 16-bit numbers, over 1000.
    """
    _check_dtype(numbers, encoding, place)
    if encoding == "metres":
        return numbers.astype(np.float32)
    if encoding == "sunrgbd":
        stored = numbers.astype(np.uint16)
        numbers = (stored >> 3) | (stored << 13)
    return numbers.astype(np.float32) / np.float32(1000)


def _check_dtype(numbers: NDArray[Any], encoding: Encoding, place: str) -> None:
    wants_floats = encoding == "metres"
    if wants_floats != (numbers.dtype.kind == "f"):
        other = "`millimetres` or `sunrgbd`" if wants_floats else "`metres`"
        raise _wrong_encoding(place, encoding, f"{numbers.dtype} numbers", f"say {other} if so")
    if wants_floats:
        return
    if numbers.dtype.itemsize == 1:
        raise _wrong_encoding(
            place, encoding, "8-bit numbers", "give the 16-bit file; one made to look at is none"
        )
    if encoding == "sunrgbd" and not (0 <= numbers.min() and numbers.max() < 2**16):
        raise _wrong_encoding(place, encoding, "numbers outside 16 bits", "say `millimetres` if so")


def _wrong_encoding(place: str, encoding: Encoding, found: str, todo: str) -> BrokenSampleError:
    return BrokenSampleError(
        "wrong_encoding",
        f"{place}: modality.options.encoding is '{encoding}'; found {found}; {todo}",
    )
