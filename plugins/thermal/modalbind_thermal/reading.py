"""Reads thermal files: numbers as they are stored become degrees Celsius, or stay counts.

What the numbers mean is said by the options and never guessed; a file whose kind of number does
not fit is refused. Letters for axes: `height, width` pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modalbind.api import BrokenSampleError, MapSample, read_map, split_valid
from modalbind_thermal.options import ThermalOptions, Unit

ZERO_C_IN_K = 273.15
PHYSICAL_C = (-ZERO_C_IN_K, 3500.0)
"""Nothing is colder; and what is hotter than any thermal camera reads is another unit (ours)."""

_HAS_COLOURS = (".jpeg", ".jpg", ".png")
"""Files that hold colours and never floats: a mean of colours is no float file."""


@dataclass(frozen=True, slots=True, eq=False)
class ThermalSample(MapSample):
    """A thermal picture that knows its unit.

    Attributes:
        values: Float32 `(height, width)`, degrees Celsius or counts.
        valid_mask: Bool `(height, width)`, True = measured.
        unit: `celsius`, or `counts` (0..255, no temperature).
    """

    unit: Unit = "celsius"


def load_thermal(path: Path, options: ThermalOptions) -> ThermalSample:
    """Read one file.

    Args:
        path: PNG, TIFF, PGM, JPEG or `.npy`.
        options: What its numbers mean.

    Raises:
        BrokenSampleError: `wrong_encoding` if the file's numbers are of another kind than
            `options.encoding`; `not_physical` if a temperature is below absolute zero or above
            3500 degrees C; `not_measured` if no pixel was; and those of `read_map`.
    """
    numbers = _read(path, options)
    _check_encoding(path, numbers, options)
    measured = np.ones(numbers.shape, bool)
    if options.missing is not None:
        measured = numbers != options.missing
    values, valid_mask = split_valid(convert(numbers, options), measured)
    if not bool(valid_mask.any()):
        raise BrokenSampleError("not_measured", f"{path}: no pixel was measured")
    if options.unit == "celsius":
        kept = values[valid_mask]
        lowest_c, highest_c = float(kept.min()), float(kept.max())
        if lowest_c < PHYSICAL_C[0] or highest_c > PHYSICAL_C[1]:
            raise BrokenSampleError(
                "not_physical",
                f"{path}: read as {options.encoding} it has {lowest_c:g} to {highest_c:g} degrees "
                "C; set modality.options.encoding to what its numbers are",
            )
    return ThermalSample(values, valid_mask, options.unit)


def convert(numbers: NDArray[Any], options: ThermalOptions) -> NDArray[np.float64]:
    """Return degrees Celsius, or counts as they are; `(height, width)` stays."""
    exact = numbers.astype(np.float64)
    if options.encoding == "centikelvin":
        return exact / 100 - ZERO_C_IN_K
    if options.scale_c is not None and options.offset_c is not None:
        return exact * options.scale_c + options.offset_c
    return exact


def _read(path: Path, options: ThermalOptions) -> NDArray[Any]:
    mixes_colours = options.mixes_colours and path.suffix.lower() in _HAS_COLOURS
    try:
        numbers: NDArray[Any] = read_map(
            path, mixes_colours=mixes_colours, max_pixels=options.max_pixels
        )
    except BrokenSampleError as error:
        if error.reason == "wrong_shape" and not mixes_colours:
            raise BrokenSampleError(
                "wrong_shape",
                f"{error.detail}; if it is a grey PNG or JPEG saved in colour, set "
                "modality.options.encoding to counts8 and mixes_colours to true",
            ) from error
        raise
    return numbers


def _check_encoding(path: Path, numbers: NDArray[Any], options: ThermalOptions) -> None:
    """Refuse numbers of another kind than the encoding's."""
    kind, bits = numbers.dtype.kind, 8 * numbers.dtype.itemsize
    # A mean of colours is a float; only a picture that was averaged on purpose can give one.
    is_averaged = kind == "f" and path.suffix.lower() in _HAS_COLOURS
    is_integer = kind in "ui"
    fits = {
        "celsius": kind == "f" and not is_averaged,
        # Pillow opens some 16-bit pictures as 32-bit integers.
        "centikelvin": is_integer and bits > 8 and numbers.min() >= 0 and numbers.max() < 2**16,
        "linear": is_integer,
        "counts8": is_averaged or (kind == "u" and bits == 8),
    }
    if fits[options.encoding]:
        return
    wants = {
        "celsius": "floats",
        "centikelvin": "16-bit integers",
        "linear": "integers",
        "counts8": "8-bit integers",
    }
    others = " or ".join(name for name, fit in fits.items() if fit) or "none of them"
    raise BrokenSampleError(
        "wrong_encoding",
        f"{path}: encoding {options.encoding} is {wants[options.encoding]}; found "
        f"{numbers.dtype}; if that is what it is, set modality.options.encoding to {others}",
    )
