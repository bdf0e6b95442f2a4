"""Which spec has which fingerprint, as last seen with the weights open.

An entry lets a full cache serve a run on a machine without the weights. It has a checksum, since
one wrong digit in it would bind a run to another space. It records the size and time of the files
that a local folder had, so that a folder that changed is opened again; a folder that is gone is
taken at the entry's word.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from modalbind.anchors.cache import AnchorCache
from modalbind.anchors.notes import read_note, write_note
from modalbind.anchors.spec import AnchorName, local_path
from modalbind.anchors.upkeep import INDEX, SPACE_NOTE

FORMAT = 1
Stamps = dict[str, list[int]]  # path -> [bytes, modification time in ns]


@dataclass(frozen=True, slots=True)
class Identity:
    """What is known of a space without opening it.

    Attributes:
        fingerprint: Hash of weights, tokenizer, preprocessing, dim and normalisation.
        name: What the space calls itself.
        dim: Of its embeddings.
        modalities: That it embeds.
        stamps: Files that it was read from, where they are on this machine.
    """

    fingerprint: str
    name: str
    dim: int
    modalities: tuple[str, ...]
    stamps: Stamps


def stamp_files(name: AnchorName) -> Stamps:
    """Return size and time of each file that the spec names on this machine; empty for a hub."""
    root = local_path(name)
    paths = [root] if root else []
    if name.tag:
        paths.append(Path(name.tag).expanduser().absolute())
    files = [file for path in paths for file in _files(path)]
    return {str(file): [file.stat().st_size, file.stat().st_mtime_ns] for file in files}


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else []


def find_identity(cache: AnchorCache, name: AnchorName, options: dict[str, Any]) -> Identity | None:
    """Return what the cache knows of a spec; None if nothing, or if its files have changed.

    Raises:
        DamagedFileError: If what it knew cannot be trusted any more.
    """
    try:
        entry = read_note(_entry_path(cache, name, options))
    except OSError:
        return None
    identity = Identity(
        fingerprint=entry["fingerprint"],
        name=entry["name"],
        dim=entry["dim"],
        modalities=tuple(entry["modalities"]),
        stamps=entry["stamps"],
    )
    now = stamp_files(name)
    is_same = all(identity.stamps.get(file) == stamp for file, stamp in now.items())
    if not is_same:
        return None
    with suppress(OSError):  # a cache that is read-only still serves
        _mark_used(cache, name, identity)
    return identity


def store_identity(
    cache: AnchorCache, name: AnchorName, options: dict[str, Any], identity: Identity
) -> None:
    """Remember a spec's identity."""
    entry = {"format": FORMAT, "spec": name, "options": options, **asdict(identity)}
    write_note(_entry_path(cache, name, options), entry)
    _describe_space(cache, name, identity)


def _mark_used(cache: AnchorCache, name: AnchorName, identity: Identity) -> None:
    try:
        os.utime(cache.folder(identity.fingerprint) / SPACE_NOTE)
    except FileNotFoundError:  # it was damaged, and pruned
        _describe_space(cache, name, identity)


def _describe_space(cache: AnchorCache, name: AnchorName, identity: Identity) -> None:
    space = {"spec": name, **asdict(identity)}
    del space["stamps"]
    write_note(cache.folder(identity.fingerprint) / SPACE_NOTE, space)


def _entry_path(cache: AnchorCache, name: AnchorName, options: dict[str, Any]) -> Path:
    # An absolute path: the same words in another folder name another space.
    source = str(local_path(name) or name.source)
    words = json.dumps([FORMAT, name.kind, source, name.tag, options], sort_keys=True)
    return cache.root / INDEX / f"{hashlib.sha256(words.encode()).hexdigest()}.json"
