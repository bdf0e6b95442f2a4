"""Reads the one string that names an anchor space: `kind:source[@tag]`.

Does not open anything, and does not know which kinds exist.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from modalbind.errors import AnchorError

LOCAL_DIR = "local-dir:"
_PATH_STARTS = ("/", "./", "../", "~", ".\\", "..\\")


class AnchorName(NamedTuple):
    """An anchor spec, taken apart.

    Attributes:
        kind: Which kind of anchor space, as `modalbind plugins` lists it.
        source: Model name, `hf-hub:ORG/NAME`, `local-dir:PATH`, folder, or files by comma.
        tag: Pretrained tag or revision; None if the spec has none.
    """

    kind: str
    source: str
    tag: str | None


def parse_spec(spec: str) -> AnchorName:
    """Take `kind:source[@tag]` apart.

    The kind ends at the first colon, so a source may hold more of them. A source that is a path,
    or exists as one, keeps every `@`; a table of vectors never has a tag.

    Raises:
        AnchorError: If the kind or the source is missing, or a tag is empty.

    Example:
        >>> parse_spec("openclip:ViT-B-32@laion2b_s34b_b79k").tag
        'laion2b_s34b_b79k'
        >>> parse_spec("openclip:local-dir:/models/a@b").source
        'local-dir:/models/a@b'
    """
    kind, colon, rest = spec.strip().partition(":")
    if not (kind and colon and rest):
        raise AnchorError(
            f"asked for anchor {spec!r}; it is not of the form kind:source[@tag]; "
            "write for example openclip:world or precomputed:FILE.npz"
        )
    if "@" not in rest or kind == "precomputed" or is_path(rest):
        return AnchorName(kind, rest, None)
    source, _, tag = rest.partition("@")
    if not (source and tag):
        raise AnchorError(
            f"asked for anchor {spec!r}; the part before or after '@' is empty; "
            "write kind:source@tag, or kind:source"
        )
    return AnchorName(kind, source, tag)


def is_path(source: str) -> bool:
    """Say whether a source is a path on this machine, by its form or because it exists."""
    if source.startswith((LOCAL_DIR, *_PATH_STARTS)):
        return True
    return Path(source).exists()
