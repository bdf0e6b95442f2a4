"""Names of clips cut from YouTube videos, as the data sets spell them."""

from __future__ import annotations

import re

_CLIP_ID = re.compile(r"([A-Za-z0-9_-]{11})(?:_(\d+(?:\.\d+)?))?(?:_\d+(?:\.\d+)?)?")


def split_clip_id(clip_id: str) -> tuple[str, str]:
    """Return the video's id and the start time, as published; an unknown form returns itself.

    Known forms: `ID`, `YID` (PANNs' file names), `ID_START` and `ID_START_LENGTH`, with or without
    a suffix `.wav` or `.flac`. Ids have 11 characters, and may begin with `Y` or hold `_`.

    Example:
        >>> split_clip_id("Y---1_cCGK4M"), split_clip_id("9eUrEyAR3xk_84_10")
        (('---1_cCGK4M', ''), ('9eUrEyAR3xk', '84'))
    """
    stem = re.sub(r"\.(wav|flac)$", "", clip_id)
    # An id of 11 characters wins over `Y` and 10 more; `YID` is one too long to be taken for it.
    match = _CLIP_ID.fullmatch(stem) or _CLIP_ID.fullmatch(stem.removeprefix("Y"))
    return (match[1], match[2] or "") if match else (stem, "")
