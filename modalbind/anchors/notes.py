"""Small JSON files beside the vectors, each with a checksum of what it says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modalbind.anchors.shards import DamagedFileError, write_whole

_CHECKSUM = "sha256"


def write_note(path: Path, content: Mapping[str, Any]) -> None:
    """Write a note, whole or not at all; makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    note = {**content, _CHECKSUM: _sum_up(content)}
    write_whole(path, json.dumps(note, indent=1, sort_keys=True).encode())


def read_note(path: Path) -> dict[str, Any]:
    """Return what a note says.

    Raises:
        OSError: If it is absent or may not be read.
        DamagedFileError: If it is no note, or says something else than its checksum.
    """
    try:
        note = json.loads(path.read_bytes())
        stored = note.pop(_CHECKSUM)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedFileError(path, "no checksum") from error
    if stored != _sum_up(note):
        raise DamagedFileError(path, "a wrong checksum")
    found: dict[str, Any] = note
    return found


def _sum_up(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
