"""Which spec has which fingerprint, as last seen with the weights open.

An entry lets a full cache serve a run on a machine without the weights. It records the size and
time of the files that a local folder had, so that a folder that changed is opened again; a folder
that is gone is taken at the entry's word.
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
from modalbind.anchors.shards import write_whole
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
    """Return what the cache knows of a spec; None if nothing, or if its files have changed."""
    path = _entry_path(cache, name, options)
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
        identity = Identity(
            fingerprint=str(entry["fingerprint"]),
            name=str(entry["name"]),
            dim=int(entry["dim"]),
            modalities=tuple(entry["modalities"]),
            stamps=dict(entry["stamps"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        # No entry, or one that cannot be read: the weights are opened, and it is written anew.
        return None
    now = stamp_files(name)
    is_same = all(identity.stamps.get(file) == stamp for file, stamp in now.items())
    if not is_same:
        return None
    with suppress(OSError):  # a cache that is read-only still serves
        os.utime(cache.folder(identity.fingerprint) / SPACE_NOTE)
    return identity


def store_identity(
    cache: AnchorCache, name: AnchorName, options: dict[str, Any], identity: Identity
) -> None:
    """Remember a spec's identity."""
    entry = {"format": FORMAT, "spec": list(name), "options": options, **asdict(identity)}
    _write_json(_entry_path(cache, name, options), entry)
    space = {key: entry[key] for key in ("fingerprint", "name", "dim", "modalities", "spec")}
    _write_json(cache.folder(identity.fingerprint) / SPACE_NOTE, space)


def _entry_path(cache: AnchorCache, name: AnchorName, options: dict[str, Any]) -> Path:
    # An absolute path: the same words in another folder name another space.
    source = str(local_path(name) or name.source)
    words = json.dumps([FORMAT, name.kind, source, name.tag, options], sort_keys=True)
    return cache.root / INDEX / f"{hashlib.sha256(words.encode()).hexdigest()}.json"


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(content, indent=1, sort_keys=True).encode())
