"""Read picture files safely. It knows nothing of models or transforms."""

from __future__ import annotations

import warnings
from pathlib import Path

from PIL import Image

from modalbind.errors import BrokenSampleError


def open_picture(path: Path) -> Image.Image:
    """Read a picture whole, as RGB.

    Pillow only warns between its pixel limit and twice that; here both are refused.

    Args:
        path: A file in any format that Pillow reads.

    Returns:
        The decoded picture, mode `RGB`; transparency is dropped, not blended.

    Raises:
        BrokenSampleError: `missing` if there is no such file, `empty` if it has no bytes,
            `too_large` above Pillow's pixel limit, else `undecodable`.
    """
    if not path.is_file():
        raise BrokenSampleError("missing", f"no picture at {path}")
    if path.stat().st_size == 0:
        raise BrokenSampleError("empty", f"{path} has no bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            # Pillow warns of odd metadata and palettes in files that it reads well.
            warnings.simplefilter("ignore", UserWarning)
            with Image.open(path) as picture:
                return picture.convert("RGB")
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise BrokenSampleError("too_large", f"{path}: {error}") from error
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError) as error:
        # Pillow's decoders raise all of these on damaged files, depending on the format.
        raise BrokenSampleError("undecodable", f"{path}: {error}") from error
