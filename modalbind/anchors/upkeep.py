"""What lies in the cache, and what of it can go: only files that modalbind writes are seen here.

The folder may hold other things. A space is a folder that is named by a fingerprint and holds a
file of ours; a file is ours by its place and its name, which is a hash, a fixed word, or that of
a file being written. What is not ours is neither listed, read nor removed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from modalbind.anchors import golden
from modalbind.anchors.notes import read_note
from modalbind.anchors.shards import DAMAGED, STAGED, SUFFIX, DamagedFileError, Shard, is_shard
from modalbind.errors import AnchorError

INDEX = "index"
LOCK = ".lock"
SPACE_NOTE = "space.json"
_HASH = re.compile("[0-9a-f]{64}")
_ABANDONED_S = 3600.0


@dataclass(frozen=True, slots=True)
class CachedSpace:
    """What the cache holds of one space.

    Attributes:
        fingerprint: Of the space.
        name: As it was called when it was first used; empty if unknown.
        rows: Embeddings stored, by modality. After a kill in the middle of a merge some are stored
            twice, and counted twice, until the next merge; they are found once all the same.
        size_bytes: On disk, all files together.
        used_at: When it was last opened, in seconds since 1970.
    """

    fingerprint: str
    name: str
    rows: dict[str, int]
    size_bytes: int
    used_at: float


@dataclass(frozen=True, slots=True)
class Damage:
    """A file that cannot be read as it was written."""

    path: Path
    found: str


@dataclass(frozen=True, slots=True)
class Pruned:
    """What `prune` removed."""

    files: int
    size_bytes: int


def list_spaces(root: Path) -> list[CachedSpace]:
    """List the spaces that have files here, by fingerprint."""
    return [_describe(space) for space in _spaces(root)]


def find_damage(root: Path) -> list[Damage]:
    """Read every file whole; return those that are damaged, or were set aside as such."""
    return _find_damage(_all_files(root))


def prune(root: Path, fingerprint: str | None, unused_for_s: float | None) -> Pruned:
    """Remove damaged and abandoned files, and spaces; see `AnchorCache.prune`."""
    spaces, now = _spaces(root), time.time()
    if fingerprint and not any(space.name.startswith(fingerprint) for space in spaces):
        raise AnchorError(
            f"asked to remove space '{fingerprint}'; {root} has "
            f"{', '.join(space.name[:16] for space in spaces) or 'none'}; name one of these"
        )
    gone = [
        space
        for space in spaces
        if (fingerprint and space.name.startswith(fingerprint))
        or (unused_for_s is not None and now - _used_at(space) >= unused_for_s)
    ]
    unwanted = [path for space in gone for path in _own_files(space)]
    unwanted += _entries_of(root, {space.name for space in gone})
    rest = sorted(set(_all_files(root)).difference(unwanted))
    unwanted += [damage.path for damage in _find_damage(rest)] + _abandoned(rest, now)
    removed = _remove(unwanted)
    _remove_empty(gone, unwanted)
    return removed


def _all_files(root: Path) -> list[Path]:
    return [file for space in _spaces(root) for file in _own_files(space)] + _index_files(root)


def _spaces(root: Path) -> list[Path]:
    return [
        path
        for path in _list(root)
        if _HASH.fullmatch(path.name) and any(p.name != LOCK for p in _own_files(path))
    ]


def _own_files(space: Path) -> list[Path]:
    """Return the files of a space that modalbind has written, its own first."""
    here = _list(space)
    found = [path for path in here if path.name in (SPACE_NOTE, golden.FILE) or _is_staged(path)]
    for path in here:
        found += [file for file in _list(path) if _is_vector_file(file)]
    return [path for path in found if path.is_file()]


def _is_vector_file(path: Path) -> bool:
    if path.name == LOCK:
        with suppress(FileNotFoundError):
            return path.stat().st_size == 0  # a lock of ours holds nothing
        return False
    return is_shard(path.name.removesuffix(DAMAGED)) or _is_staged(path)


def _is_staged(path: Path) -> bool:
    return STAGED.fullmatch(path.name) is not None


def _index_files(root: Path) -> list[Path]:
    return [path for path in _list(root / INDEX) if _is_entry(path) or _is_staged(path)]


def _is_entry(path: Path) -> bool:
    return path.suffix == ".json" and _HASH.fullmatch(path.stem) is not None


def _list(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _find_damage(paths: Iterable[Path]) -> list[Damage]:
    damages = []
    for path in paths:
        try:
            _check(path)
        except DamagedFileError as error:
            damages.append(Damage(path, error.found))
        except FileNotFoundError:  # merged, or replaced, meanwhile
            continue
    return damages


def _check(path: Path) -> None:
    """Read a file of ours whole."""
    if path.name.endswith(DAMAGED):
        raise DamagedFileError(path, "set aside as damaged")
    if path.suffix == SUFFIX:
        Shard(path).check_all()
    elif path.name == golden.FILE:
        golden.read_probes(path)
    elif path.suffix == ".json":
        read_note(path)


def _abandoned(paths: Iterable[Path], now: float) -> list[Path]:
    found = []
    for path in paths:
        with suppress(FileNotFoundError):  # renamed to its place meanwhile
            if _is_staged(path) and now - path.stat().st_mtime > _ABANDONED_S:
                found.append(path)
    return found


def _entries_of(root: Path, fingerprints: set[str]) -> list[Path]:
    found = []
    for path in filter(_is_entry, _index_files(root)):
        with suppress(OSError, DamagedFileError):
            if read_note(path).get("fingerprint") in fingerprints:
                found.append(path)
    return found


def _remove(paths: Iterable[Path]) -> Pruned:
    files, size_bytes = 0, 0
    for path in paths:
        with suppress(FileNotFoundError):  # another process was first
            size = path.stat().st_size
            path.unlink()
            files, size_bytes = files + 1, size_bytes + size
    return Pruned(files, size_bytes)


def _remove_empty(spaces: Iterable[Path], removed: Iterable[Path]) -> None:
    folders = {path.parent for path in removed}
    for space in spaces:
        for folder in (*sorted(folders & set(_list(space))), space):
            with suppress(OSError):  # something else lies there
                folder.rmdir()


def _describe(space: Path) -> CachedSpace:
    name = ""
    with suppress(OSError, DamagedFileError):
        name = str(read_note(space / SPACE_NOTE).get("name", ""))
    rows: dict[str, int] = {}
    size_bytes = 0
    for path in _own_files(space):
        with suppress(OSError, DamagedFileError):
            size_bytes += path.stat().st_size
            if path.suffix == SUFFIX:
                rows[path.parent.name] = rows.get(path.parent.name, 0) + Shard(path).rows
    return CachedSpace(space.name, name, rows, size_bytes, _used_at(space))


def _used_at(space: Path) -> float:
    note = space / SPACE_NOTE
    return (note if note.exists() else space).stat().st_mtime
