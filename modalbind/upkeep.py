"""What the cache folder holds, what is damaged and what can go: the work of `modalbind cache`.

Three kinds of things lie there: anchor embeddings, which `modalbind.anchors.upkeep` knows, plain
features, and indexes of tar shards. As there, only files that modalbind writes are seen: what has
another name, or lies elsewhere, is neither listed, read nor removed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from modalbind.anchors.cache import AnchorCache
from modalbind.anchors.upkeep import CachedSpace, Damage, Pruned
from modalbind.cache_root import FEATURES
from modalbind.data import tar_index
from modalbind.errors import AnchorError, CorruptFileError

_FRONT_END = re.compile("[a-z0-9][a-z0-9_.-]*-[0-9a-f]{64}")
_OURS = {
    FEATURES: re.compile(r"[0-9a-f]{32}\.safetensors"),
    tar_index.FOLDER: re.compile(r"[0-9a-f]{64}\.json"),
}
_STAGED = re.compile(r"\.(.+)[.-][0-9a-f]+\.tmp")
_ABANDONED_S = 3600.0
_DAMAGED = "it is not as it was written"


@dataclass(frozen=True, slots=True)
class KeptFeatures:
    """Plain features of one front end.

    Attributes:
        name: Modality, and hash of the front end's options.
        samples: Whose features are there; a damaged file's are not counted.
        size_bytes: On disk.
        used_at: When a run last asked for them, in seconds since 1970.
    """

    name: str
    samples: int
    size_bytes: int
    used_at: float


@dataclass(frozen=True, slots=True)
class KeptIndex:
    """Where the members of one tar shard lie.

    Attributes:
        shard: The tar file; empty if the index is damaged.
        size_bytes: Of the index.
        used_at: When a run last asked for it, in seconds since 1970.
    """

    shard: str
    size_bytes: int
    used_at: float


@dataclass(frozen=True, slots=True)
class Contents:
    """All that a cache folder holds."""

    root: Path
    spaces: list[CachedSpace]
    features: list[KeptFeatures]
    shard_indexes: list[KeptIndex]


def list_contents(root: Path) -> Contents:
    """List what a cache folder holds."""
    return Contents(
        root,
        AnchorCache(root).spaces(),
        [_describe_features(folder) for folder in _front_ends(root)],
        [_describe_index(path) for path in _ours(root / tar_index.FOLDER)],
    )


def verify_contents(root: Path) -> list[Damage]:
    """Read every file whole; return those that are damaged."""
    return AnchorCache(root).verify() + _find_damage(root)


def prune_contents(
    root: Path, name: str | None = None, unused_for_s: float | None = None
) -> Pruned:
    """Remove damaged and abandoned files, and what is asked for.

    Args:
        root: The cache folder.
        name: Remove the spaces and the features whose names start like this.
        unused_for_s: Remove what was not used for so many seconds.

    Returns:
        How much was removed.

    Raises:
        AnchorError: If nothing has that name; nothing is removed.
    """
    now = time.time()
    folders = _front_ends(root)
    named = [folder for folder in folders if name and folder.name.startswith(name)]
    spaces = [space.fingerprint for space in AnchorCache(root).spaces()]
    is_space = name is not None and any(space.startswith(name) for space in spaces)
    if name and not named and not is_space:
        found = ", ".join([space[:16] for space in spaces] + [f.name for f in folders])
        raise AnchorError(
            f"asked to remove '{name}'; {root} has {found or 'none'}; name one of these"
        )
    unwanted = {damage.path for damage in _find_damage(root)} | set(_abandoned(root, now))
    for folder in folders:
        if folder in named or _is_unused(folder, unused_for_s, now):
            unwanted.update(_ours(folder))
    unwanted.update(
        path for path in _ours(root / tar_index.FOLDER) if _is_unused(path, unused_for_s, now)
    )
    of_spaces = AnchorCache(root).prune(name if is_space else None, unused_for_s)
    files, size_bytes = of_spaces.files, of_spaces.size_bytes
    for path in sorted(unwanted):
        with suppress(FileNotFoundError):  # another process was first
            size = path.stat().st_size
            path.unlink()
            files, size_bytes = files + 1, size_bytes + size
    for folder in (*folders, root / FEATURES, root / tar_index.FOLDER):
        with suppress(OSError):  # something lies there
            folder.rmdir()
    return Pruned(files, size_bytes)


def _front_ends(root: Path) -> list[Path]:
    return [
        folder
        for folder in _list(root / FEATURES)
        if _FRONT_END.fullmatch(folder.name) and (_ours(folder) or list(_staged(folder)))
    ]


def _ours(folder: Path) -> list[Path]:
    """Return the files of a folder that modalbind has written, by the kind of folder."""
    name = _OURS[FEATURES if folder.parent.name == FEATURES else folder.name]
    return [path for path in _list(folder) if name.fullmatch(path.name) and path.is_file()]


def _staged(folder: Path) -> Iterator[Path]:
    name = _OURS[FEATURES if folder.parent.name == FEATURES else folder.name]
    for path in _list(folder):
        found = _STAGED.fullmatch(path.name)
        if found and name.fullmatch(found[1]):
            yield path


def _list(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _find_damage(root: Path) -> list[Damage]:
    from modalbind.feature_cache import check_features  # imports torch

    damages = []
    for folder in _front_ends(root):
        for path in _ours(folder):
            try:
                check_features(path)
            except CorruptFileError:
                damages.append(Damage(path, _DAMAGED))
    for path in _ours(root / tar_index.FOLDER):
        try:
            tar_index.read_index(path)
        except CorruptFileError:
            damages.append(Damage(path, _DAMAGED))
        except FileNotFoundError:  # replaced meanwhile
            continue
    return damages


def _abandoned(root: Path, now: float) -> Iterator[Path]:
    for folder in (*_front_ends(root), root / tar_index.FOLDER):
        for path in _staged(folder):
            with suppress(FileNotFoundError):  # renamed to its place meanwhile
                if now - path.stat().st_mtime > _ABANDONED_S:
                    yield path


def _is_unused(path: Path, unused_for_s: float | None, now: float) -> bool:
    return unused_for_s is not None and now - path.stat().st_mtime >= unused_for_s


def _describe_features(folder: Path) -> KeptFeatures:
    from modalbind.feature_cache import count_features  # imports torch

    samples, size_bytes = 0, 0
    for path in _ours(folder):
        with suppress(FileNotFoundError, CorruptFileError):
            size_bytes += path.stat().st_size
            samples += count_features(path)
    return KeptFeatures(folder.name, samples, size_bytes, folder.stat().st_mtime)


def _describe_index(path: Path) -> KeptIndex:
    shard, stat = "", path.stat()
    with suppress(OSError, CorruptFileError):
        shard = str(tar_index.read_index(path)[0].get("shard", ""))
    return KeptIndex(shard, stat.st_size, stat.st_mtime)
