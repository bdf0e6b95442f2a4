"""One immutable file of vectors by content hash, made to be read through a memory map.

Layout, little endian: header (64 bytes) | keys, sorted, 32 bytes each | vectors, float32
`(rows, dim)` | fences: the first key of each block of keys | one CRC-32 for each block of keys,
then for each block of vectors. A block has 64 KiB. Opening reads the header and what follows the
vectors, a few bytes per block; every other byte is checked when its block is first read. A key is
found through the fences, so a search only ever follows bytes that were checked.

It does not know what the vectors mean, nor who else reads or writes: that is `cache.py`.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import re
import secrets
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from modalbind.errors import CorruptFileError, ShapeError

KEY_BYTES = 32
BLOCK_BYTES = 64 * 1024
SUFFIX = ".shard"
DAMAGED = ".damaged"
"""Added to the name of a shard that is set aside."""
STAGED = re.compile(r"\.\d+-[0-9a-f]{12}\.tmp")
"""Names of files that are being written."""
_SHARD = re.compile(r"[0-9a-f]{64}" + re.escape(SUFFIX))
KEYS_PER_BLOCK = BLOCK_BYTES // KEY_BYTES
_MAGIC = b"MBSHARD1"
# magic, rows, dim, CRC of the tail, CRC of all before itself
_HEADER = struct.Struct("<8sQQII")
_HEADER_BYTES = 64

Keys = NDArray[np.bytes_]  # dtype S32: compares like bytes, and is searched without a copy
Vectors = NDArray[np.float32]


class DamagedFileError(CorruptFileError):
    """The bytes of a file in the cache differ from their checksum.

    Args:
        path: The file.
        found: What is wrong with it.
    """

    def __init__(self, path: Path, found: str) -> None:
        super().__init__(
            f"asked to read the cache of anchor embeddings; {found} in {path}; "
            "run `modalbind cache verify` and `modalbind cache prune`"
        )
        self.path = path
        self.found = found

    def __reduce__(self) -> tuple[type[DamagedFileError], tuple[Path, str]]:
        """Pickle by both arguments."""
        return type(self), (self.path, self.found)


def as_keys(hashes: Iterable[bytes]) -> Keys:
    """Return content hashes as one array `(n,)` of 32-byte keys.

    Raises:
        ShapeError: If one has another length.
    """
    hashes = list(hashes)
    for item in hashes:
        if len(item) != KEY_BYTES:
            raise ShapeError(
                f"asked to use a content hash as key; it has {len(item)} bytes; "
                f"give {KEY_BYTES}, such as sha256().digest()"
            )
    return np.frombuffer(b"".join(hashes), dtype=f"S{KEY_BYTES}")


def is_shard(name: str) -> bool:
    """Say whether a file's name is one that `write_shard` gives."""
    return _SHARD.fullmatch(name) is not None


class Shard:
    """A shard, open for reading.

    Args:
        path: The file.

    Raises:
        DamagedFileError: If its header, length or tail is wrong.
        FileNotFoundError: If it is gone.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size < _HEADER_BYTES:
                raise DamagedFileError(path, "a file too short for a header")
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._bytes = np.frombuffer(mapped, dtype=np.uint8)
        self.rows, self.dim, tail_crc = self._read_header()
        vectors_start = _HEADER_BYTES + self.rows * KEY_BYTES
        tail_start = vectors_start + self.rows * self.dim * 4
        key_blocks = _blocks(self.rows * KEY_BYTES)
        blocks = key_blocks + _blocks(self.rows * self.dim * 4)
        if len(self._bytes) != tail_start + key_blocks * KEY_BYTES + blocks * 4:
            raise DamagedFileError(path, f"{len(self._bytes)} bytes, not what its header says")
        tail = self._bytes[tail_start:].tobytes()
        if zlib.crc32(tail) != tail_crc:
            raise DamagedFileError(path, "a wrong checksum of the tail")
        self._fences = np.frombuffer(tail, f"S{KEY_BYTES}", count=key_blocks)
        self._crcs = np.frombuffer(tail, "<u4", offset=key_blocks * KEY_BYTES)
        self._is_checked = np.zeros(blocks, dtype=bool)
        self._key_blocks = key_blocks
        self._key_bytes = self._bytes[_HEADER_BYTES:vectors_start]
        self._vector_bytes = self._bytes[vectors_start:tail_start]
        self.keys: Keys = self._key_bytes.view(f"S{KEY_BYTES}")
        self.vectors: Vectors = self._vector_bytes.view("<f4").reshape(self.rows, self.dim)

    def _read_header(self) -> tuple[int, int, int]:
        raw = self._bytes[: _HEADER.size].tobytes()
        magic, rows, dim, tail_crc, header_crc = _HEADER.unpack(raw)
        if magic != _MAGIC or zlib.crc32(raw[:-4]) != header_crc:
            raise DamagedFileError(self.path, "a wrong header")
        return rows, dim, tail_crc

    def find(self, keys: Keys) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Find keys.

        Args:
            keys: Any order, duplicates allowed, `(n,)`.

        Returns:
            Positions in `keys` of those that are here, and their rows; equal lengths.

        Raises:
            DamagedFileError: If a block that had to be read is damaged.
        """
        block_of = np.searchsorted(self._fences, keys, side="right") - 1
        order = np.argsort(block_of, kind="stable")
        blocks, starts = np.unique(block_of[order], return_index=True)
        found: list[NDArray[np.intp]] = []
        rows: list[NDArray[np.intp]] = []
        for block, asked in zip(blocks, np.split(order, starts[1:]), strict=True):
            if block < 0:  # sorts before every key that is here
                continue
            self._check_block(int(block))
            start = int(block) * KEYS_PER_BLOCK
            inside = self.keys[start : start + KEYS_PER_BLOCK]
            position = np.searchsorted(inside, keys[asked])
            position[position == len(inside)] = 0  # past the end: compared, and unequal, below
            hit = inside[position] == keys[asked]
            found.append(asked[hit])
            rows.append(position[hit] + start)
        if not found:
            return np.empty(0, np.intp), np.empty(0, np.intp)
        return np.concatenate(found), np.concatenate(rows)

    def read(self, rows: NDArray[np.intp]) -> Vectors:
        """Return a copy of the vectors of these rows, `(len(rows), dim)`, checked.

        Raises:
            DamagedFileError: If a block that had to be read is damaged.
        """
        row_bytes = self.dim * 4
        first = rows * row_bytes // BLOCK_BYTES
        last = ((rows + 1) * row_bytes - 1) // BLOCK_BYTES
        # A row spans few blocks; walk them in step for all rows.
        for step in range(int((last - first).max(initial=0)) + 1):
            for block in np.unique(np.minimum(first + step, last)):
                self._check_block(self._key_blocks + int(block))
        return np.asarray(self.vectors[rows], dtype=np.float32)

    def check_all(self) -> None:
        """Read every block again.

        Raises:
            DamagedFileError: If one is damaged.
        """
        self._is_checked[:] = False
        for block in range(len(self._crcs)):
            self._check_block(block)

    def _check_block(self, block: int) -> None:
        if self._is_checked[block]:
            return
        region, at = self._key_bytes, block
        if block >= self._key_blocks:
            region, at = self._vector_bytes, block - self._key_blocks
        data = region[at * BLOCK_BYTES : (at + 1) * BLOCK_BYTES]
        if zlib.crc32(data.data) != self._crcs[block]:
            raise DamagedFileError(self.path, f"a wrong checksum of block {block}")
        self._is_checked[block] = True


def _blocks(size: int) -> int:
    return -(-size // BLOCK_BYTES)


def write_shard(folder: Path, keys: Keys, vectors: Iterable[Vectors]) -> Path:
    """Write a shard, whole or not at all.

    Ordinary writes, not a memory map: on a full disk they raise, where a map kills the process.

    Args:
        folder: Where; must exist.
        keys: Sorted, distinct, `(rows,)`.
        vectors: Float32 pieces that make up `(rows, dim)` in the order of the keys.

    Returns:
        Path of the shard; its name is the hash of its content.

    Raises:
        ShapeError: If keys and vectors differ in number.
        OSError: If it could not be written; nothing is left behind.
    """
    with _temporary(folder) as file:
        name = _write_content(file, keys, vectors) + SUFFIX
        _publish(file, folder / name)
    return folder / name


def write_whole(path: Path, content: bytes) -> None:
    """Write a small file whole or not at all; its folder must exist."""
    with _temporary(path.parent) as file:
        file.write(content)
        _publish(file, path)


@contextmanager
def _temporary(folder: Path) -> Iterator[BinaryIO]:
    path = folder / f".{os.getpid()}-{secrets.token_hex(6)}.tmp"
    try:
        with path.open("xb") as file:
            yield file
    finally:
        path.unlink(missing_ok=True)


def _publish(file: BinaryIO, path: Path) -> None:
    file.flush()
    os.fsync(file.fileno())
    file.close()  # Windows renames no open file
    Path(file.name).replace(path)
    _sync_folder(path.parent)


def _write_content(file: BinaryIO, keys: Keys, vectors: Iterable[Vectors]) -> str:
    digest = hashlib.sha256()
    file.write(bytes(_HEADER_BYTES))  # filled in at the end, when the checksums are known
    crcs: list[int] = []
    for block in _cut([keys.tobytes()]):
        crcs.append(_put(file, digest, block))
    size = 0
    for block in _cut(np.ascontiguousarray(piece, "<f4").tobytes() for piece in vectors):
        crcs.append(_put(file, digest, block))
        size += len(block)
    rows = len(keys)
    dim, rest = divmod(size // 4, rows) if rows else (0, 0)
    if rest or not rows:
        raise ShapeError(
            f"asked to store {rows} vectors; got {size // 4} numbers; give one vector per key"
        )
    tail = keys[::KEYS_PER_BLOCK].tobytes() + np.array(crcs, "<u4").tobytes()
    file.write(tail)
    head = _HEADER.pack(_MAGIC, rows, dim, zlib.crc32(tail), 0)[:-4]
    file.seek(0)
    file.write(head + struct.pack("<I", zlib.crc32(head)))
    return digest.hexdigest()


def _cut(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the same bytes in blocks; only the last may be shorter."""
    held = bytearray()
    for piece in pieces:
        held += piece
        whole = len(held) - len(held) % BLOCK_BYTES
        for start in range(0, whole, BLOCK_BYTES):
            yield bytes(held[start : start + BLOCK_BYTES])
        del held[:whole]
    if held:
        yield bytes(held)


def _put(file: BinaryIO, digest: hashlib._Hash, block: bytes) -> int:
    file.write(block)
    digest.update(block)
    return zlib.crc32(block)


def _sync_folder(folder: Path) -> None:
    # Only so does a rename inside it survive a power cut; Windows has no such call.
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
