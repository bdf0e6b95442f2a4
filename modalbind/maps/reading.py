"""Reads files of maps as the numbers that stand in them: PNG, TIFF, PGM, JPEG and NumPy arrays.

Knows no unit, and never guesses one. Decoding is bounded: size is read before pixels are.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from modalbind.errors import BrokenSampleError

MAP_SUFFIXES = (".jpeg", ".jpg", ".npy", ".pgm", ".png", ".tif", ".tiff")
"""What `read_map` reads."""

MAX_PIXELS = 2**24
"""Larger maps are refused: 16.8 million pixels."""

_GREY_MODES = ("L", "I;16", "I;16B", "I;16L", "I;16N", "I", "F")
_COLOUR_MODES = ("RGB", "RGBA", "P", "LA")

# NumPy reads the header as a Python literal, and lets through what its parser raises.
_DAMAGED_ARRAY = (
    OSError,
    ValueError,
    EOFError,
    SyntaxError,
    TypeError,
    OverflowError,
    TokenError,
)


def read_map(path: Path, *, mixes_colours: bool = False, max_pixels: int = MAX_PIXELS) -> Any:
    """Read the numbers of a map, as they are stored.

    Args:
        path: A picture file of one channel, or a `.npy` array `(height, width)`.
        mixes_colours: Take the mean of the colours of a picture that has them; else refuse it.
        max_pixels: Largest number of pixels.

    Returns:
        Array `(height, width)` of uint8, uint16, int32, float16, float32 or float64.

    Raises:
        BrokenSampleError: `missing`, `empty`, `too_large`, `wrong_shape` if it is not one channel
            of numbers, `undecodable` if it is damaged or of another kind.
    """
    if not path.is_file():
        raise BrokenSampleError("missing", f"no map at {path}")
    if path.stat().st_size == 0:
        raise BrokenSampleError("empty", f"{path} has no bytes")
    if path.suffix.lower() not in MAP_SUFFIXES:
        raise BrokenSampleError(
            "undecodable", f"{path}: suffix '{path.suffix}' is none of {', '.join(MAP_SUFFIXES)}"
        )
    reads_array = path.suffix.lower() == ".npy"
    found = _read_array(path, max_pixels) if reads_array else _read_picture(path, max_pixels)
    if found.ndim == 3 and mixes_colours and not reads_array:
        # Unweighted: a grey picture that was saved in colour has three equal channels.
        found = found.mean(axis=2, dtype=np.float32)
    if found.ndim != 2 or found.size == 0:
        raise BrokenSampleError("wrong_shape", f"{path}: {found.shape} is not (height, width)")
    return found


def _read_array(path: Path, max_pixels: int) -> NDArray[Any]:
    try:
        # Mapped first: the header says shape and kind before anything of that size is read.
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except _DAMAGED_ARRAY as error:
        raise BrokenSampleError("undecodable", f"{path}: {error}") from error
    if not isinstance(mapped, np.ndarray) or mapped.dtype.kind not in "fui":
        raise BrokenSampleError("undecodable", f"{path}: not an array of real numbers")
    _check_pixels(path, mapped.size, max_pixels)
    return np.array(mapped)


def _read_picture(path: Path, max_pixels: int) -> NDArray[Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            # Pillow warns of odd metadata in files that it reads well.
            warnings.simplefilter("ignore", UserWarning)
            with Image.open(path) as picture:
                _check_pixels(path, picture.width * picture.height, max_pixels)
                if picture.mode in _COLOUR_MODES:
                    return np.asarray(picture.convert("RGB"))
                if picture.mode not in _GREY_MODES:
                    raise BrokenSampleError("wrong_shape", f"{path}: colours of '{picture.mode}'")
                return np.asarray(picture)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise BrokenSampleError("too_large", f"{path}: {error}") from error
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError) as error:
        # Pillow's decoders raise all of these on damaged files, depending on the format.
        raise BrokenSampleError("undecodable", f"{path}: {error}") from error


def _check_pixels(path: Path, found: int, max_pixels: int) -> None:
    if found > max_pixels:
        raise BrokenSampleError("too_large", f"{path}: {found} pixels, at most {max_pixels}")
