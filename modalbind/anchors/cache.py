"""Anchor embeddings on disk, by what they are of: computed once, shared by every run.

    <root>/<fingerprint>/space.json               what the space is called, for people
    <root>/<fingerprint>/golden.safetensors       its golden probes (`golden.py`)
    <root>/<fingerprint>/<modality>/<hash>.shard  vectors by content hash (`shards.py`)
    <root>/index/<hash>.json                      which spec has which fingerprint (`index.py`)

Each file has a checksum.

Shards never change. A writer adds one under a lock, after leaving out what is there already, so
two processes lose nothing and the first vector of a key is the one that stays. Small shards are
merged as they add up. Readers take no lock. Nothing here opens a model. Listing, checking and
removing are in `upkeep.py`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from modalbind.anchors.shards import (
    DAMAGED,
    DamagedFileError,
    Keys,
    Shard,
    Vectors,
    is_shard,
    write_shard,
)
from modalbind.anchors.upkeep import (
    LOCK,
    CachedSpace,
    Damage,
    Pruned,
    find_damage,
    list_spaces,
    prune,
)
from modalbind.cache_root import ROOT_VARIABLE, default_root
from modalbind.errors import ModalbindError

logger = logging.getLogger(__name__)

# A merge rewrites what it merges: shards above this many rows are left alone, and the small
# ones are merged when there are this many, so a row is rewritten about five times in its life.
SMALL_ROWS = 262_144
MAX_SMALL_SHARDS = 8
_MERGE_ROWS = 8192


@dataclass(slots=True)
class _Folder:
    """The shards of one space and modality that are open in this process."""

    path: Path
    shards: dict[str, Shard] = field(default_factory=dict)

    def refresh(self) -> bool:
        """Open new shards and forget those that are gone; True if anything changed."""
        before = set(self.shards)
        for _ in range(10):
            try:
                self._match(_shard_names(self.path))
                return set(self.shards) != before
            except FileNotFoundError:  # merged by another process since it was listed
                continue
        raise ModalbindError(
            f"asked to read {self.path}; its files keep disappearing; "
            "wait until no other process prunes this cache"
        )

    def _match(self, names: list[str]) -> None:
        self.shards = {name: self.shards.get(name) or Shard(self.path / name) for name in names}


def _shard_names(folder: Path) -> list[str]:
    try:
        return sorted(filter(is_shard, os.listdir(folder)))
    except FileNotFoundError:
        return []


class AnchorCache:
    """Vectors of frozen spaces under one folder; safe for several processes at once.

    Making one is free: nothing is read or created before it is used.

    Args:
        root: The folder; default `default_root()`.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = root if root is not None else default_root()
        self._folders: dict[tuple[str, str], _Folder] = {}

    def folder(self, fingerprint: str) -> Path:
        """Return the folder of a space; it may not exist."""
        return self.root / fingerprint

    def lookup(
        self, fingerprint: str, modality: str, keys: Keys
    ) -> tuple[NDArray[np.bool_], Vectors]:
        """Find vectors.

        Args:
            fingerprint: Of the space.
            modality: Of the content.
            keys: Content hashes, any order, duplicates allowed, `(n,)` (`shards.as_keys`).

        Returns:
            Which keys are here, `(n,)`, and their vectors in that order, float32 `(found, dim)`.

        Raises:
            DamagedFileError: If a block that had to be read is damaged.
        """
        folder = self._folder(fingerprint, modality)
        folder.refresh()
        while True:
            found, vectors = _search(folder.shards.values(), keys)
            # A listing taken while another process merges may miss rows: look again if it moved.
            if found.all() or not folder.refresh():
                return found, vectors

    def append(self, fingerprint: str, modality: str, keys: Keys, vectors: Vectors) -> None:
        """Store vectors; keys that are here already keep theirs.

        Args:
            fingerprint: Of the space.
            modality: Of the content.
            keys: Content hashes, any order, `(n,)`.
            vectors: Float32 `(n, dim)`.

        Raises:
            ModalbindError: If the files cannot be written.
        """
        folder = self._folder(fingerprint, modality)
        with self.storing(), self._writing(folder.path):
            self._append(fingerprint, modality, keys, vectors)
            self._merge_small(folder)

    @contextmanager
    def storing(self) -> Iterator[None]:
        """Turn a full disk, or a folder that may not be written, into one line.

        Raises:
            ModalbindError: From the OSError.
        """
        try:
            yield
        except OSError as error:
            raise ModalbindError(
                f"asked to store anchor embeddings in {self.root}; {error.strerror or error}; "
                f"make room, or set {ROOT_VARIABLE} to another folder"
            ) from error

    def _append(self, fingerprint: str, modality: str, keys: Keys, vectors: Vectors) -> None:
        distinct, first = np.unique(keys, return_index=True)
        while True:
            try:
                found, _ = self.lookup(fingerprint, modality, distinct)
                break
            except DamagedFileError as error:
                self.quarantine(error)
        new = first[~found]
        if len(new):
            write_shard(self._folder(fingerprint, modality).path, keys[new], [vectors[new]])

    def quarantine(self, damage: DamagedFileError) -> None:
        """Take a damaged shard out of use, so that what it held is computed again."""
        logger.warning("%s; it is set aside as %s%s", damage, damage.path.name, DAMAGED)
        with suppress(FileNotFoundError):
            damage.path.rename(damage.path.with_name(damage.path.name + DAMAGED))

    def _merge_small(self, folder: _Folder) -> None:
        folder.refresh()
        small = [shard for shard in folder.shards.values() if shard.rows < SMALL_ROWS]
        if len(small) <= MAX_SMALL_SHARDS:
            return
        try:
            for shard in small:
                shard.check_all()
            merged = _merge(folder.path, small)
        except DamagedFileError as error:
            self.quarantine(error)
            return
        for shard in small:
            if shard.path != merged:
                # Readers that have it open keep reading; where the system forbids it, it stays.
                with suppress(OSError):
                    shard.path.unlink()
        folder.refresh()

    def _folder(self, fingerprint: str, modality: str) -> _Folder:
        where = (fingerprint, modality)
        if where not in self._folders:
            self._folders[where] = _Folder(self.root / fingerprint / modality)
        return self._folders[where]

    @contextmanager
    def _writing(self, folder: Path) -> Iterator[None]:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / LOCK):
            yield

    def spaces(self) -> list[CachedSpace]:
        """List the spaces that have files here, by fingerprint."""
        return list_spaces(self.root)

    def verify(self) -> list[Damage]:
        """Read every file whole; return those that are damaged, or were set aside as such."""
        return find_damage(self.root)

    def prune(self, fingerprint: str | None = None, unused_for_s: float | None = None) -> Pruned:
        """Remove damaged and abandoned files, and the spaces that are asked for.

        What modalbind has not written stays, and so does a folder that holds such things. Every
        file that stays is read whole, as `verify` does.

        Args:
            fingerprint: Remove this space, given whole or by its first letters.
            unused_for_s: Remove spaces that were not opened for so many seconds.

        Returns:
            How much was removed.

        Raises:
            AnchorError: If no space here has that fingerprint; nothing is removed.
        """
        removed = prune(self.root, fingerprint, unused_for_s)
        self._folders.clear()  # opened anew when next needed
        return removed


def _search(shards: Iterable[Shard], keys: Keys) -> tuple[NDArray[np.bool_], Vectors]:
    found = np.zeros(len(keys), dtype=bool)
    vectors: Vectors | None = None
    for shard in shards:
        open_positions = np.flatnonzero(~found)
        if not len(open_positions):
            break
        inside, rows = shard.find(keys[open_positions])
        if not len(rows):
            continue
        if vectors is None:
            vectors = np.zeros((len(keys), shard.dim), dtype=np.float32)
        vectors[open_positions[inside]] = shard.read(rows)
        found[open_positions[inside]] = True
    if vectors is None:
        return found, np.zeros((0, 0), dtype=np.float32)
    return found, vectors if found.all() else vectors[found]


def _merge(folder: Path, shards: list[Shard]) -> Path:
    every = np.concatenate([shard.keys for shard in shards])
    shard_of = np.repeat(np.arange(len(shards)), [shard.rows for shard in shards])
    row_of = np.concatenate([np.arange(shard.rows) for shard in shards])
    keys, first = np.unique(every, return_index=True)

    def pieces() -> Iterator[Vectors]:
        for start in range(0, len(first), _MERGE_ROWS):
            chosen = first[start : start + _MERGE_ROWS]
            piece = np.empty((len(chosen), shards[0].dim), dtype=np.float32)
            for number, shard in enumerate(shards):
                mine = shard_of[chosen] == number
                piece[mine] = shard.read(row_of[chosen[mine]])
            yield piece

    return write_shard(folder, keys, pieces())
