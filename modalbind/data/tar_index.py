"""Where the members of a tar shard lie, found out once and kept in the cache.

A shard is read by its headers alone, never unpacked: no name in it becomes a path, and what is no
plain file is refused. The contents of its small texts (`.json`, `.txt`) are kept with the places,
so that a run opens no shard before it reads samples.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from modalbind.cache_root import default_root
from modalbind.data.manifest import MAX_CELL_CHARACTERS
from modalbind.errors import BrokenSampleError, CorruptFileError, ManifestError

logger = logging.getLogger(__name__)

FORMAT = 1
FOLDER = "shards"
TEXT_SUFFIXES = (".json", ".txt")
BLOCK_BYTES = 512  # of the tar format; one that is all zeros ends an archive


class Member(NamedTuple):
    """A file in a shard: its name, where its bytes are, and what it says if it is a text."""

    name: str
    offset: int
    size: int
    text: str | None


@dataclass(frozen=True, slots=True)
class Shard:
    """A tar file as it was when it was indexed.

    Attributes:
        path: Absolute.
        size: In bytes.
        mtime_ns: When it was last written, in ns since 1970.
    """

    path: Path
    size: int
    mtime_ns: int

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes of the shard.

        Raises:
            BrokenSampleError: If it is gone, or has changed since it was indexed.
        """
        try:
            with self.path.open("rb", buffering=0) as file:
                if _stamp(self.path, file) != self:
                    raise BrokenSampleError("changed", f"{self.path} was written to during the run")
                file.seek(offset)
                return _read_exactly(file, size)
        except OSError as error:
            raise BrokenSampleError("missing", f"{self.path}: {error.strerror}") from None


def index_shard(path: Path) -> tuple[Shard, list[Member]]:
    """Return the members of a shard in order, from the cache if it has not changed.

    Raises:
        ManifestError: If it is no plain, whole tar of plain files with names that stay inside.
    """
    path = path.absolute()
    try:
        with path.open("rb") as file:
            shard = _stamp(path, file)
            kept = (
                default_root() / FOLDER / f"{hashlib.sha256(str(path).encode()).hexdigest()}.json"
            )
            members = _read_kept(kept, shard)
            if members is not None:
                with suppress(OSError):  # a cache that is only read serves as well
                    os.utime(kept)  # by which `modalbind cache prune` sees that it is in use
            else:
                members = list(_scan(path, file))
                _keep(kept, shard, members)
    except OSError as error:
        raise ManifestError(
            f"shard {path} asked for; {error.strerror or error}; check the path"
        ) from error
    return shard, members


def _stamp(path: Path, file: Any) -> Shard:
    found = os.fstat(file.fileno())
    return Shard(path, found.st_size, found.st_mtime_ns)


def _read_exactly(file: Any, size: int) -> bytes:
    parts = []
    while size and (part := file.read(size)):
        parts.append(part)
        size -= len(part)
    if size:
        raise BrokenSampleError("truncated", f"{file.name} ends {size} bytes early")
    return b"".join(parts)


def _scan(path: Path, file: BinaryIO) -> Iterator[Member]:
    """Read all headers."""
    seen: set[str] = set()
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (info := tar.next()) is not None:
                # It would hold every header of a large shard; the stubs do not know it.
                tar.members.clear()  # type: ignore[attr-defined]
                if info.isdir():
                    continue
                name = _check_member(info, path)
                if name in seen:
                    raise _refusal(path, f"'{name}' is in it twice", "make it anew")
                seen.add(name)
                yield Member(name, info.offset_data, info.size, _read_text(file, info, path))
            end = tar.offset
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        # The last three are what hostile headers lead tarfile to.
        raise _refusal(
            path,
            f"it is no plain, whole tar ({error})",
            "unpack a compressed one with gunzip; get a broken one anew",
        ) from error
    # tarfile takes a damaged header behind the first for the end of the archive.
    file.seek(end)
    if file.read(BLOCK_BYTES) != bytes(BLOCK_BYTES):
        raise _refusal(path, f"it is cut short or damaged at byte {end}", "get it anew")


def _check_member(info: tarfile.TarInfo, path: Path) -> str:
    """Return the name of a plain file; refuse all else."""
    name = info.name.removeprefix("./")
    if not info.isreg() or info.issparse():
        raise _refusal(
            path, f"{name!r} is a link or another thing than a file", "pack plain files alone"
        )
    is_inside = not name.startswith("/") and ".." not in name.split("/")
    if not name or not is_inside or not name.isprintable():
        raise _refusal(path, f"{name!r} is no name of a sample's file", "rename it")
    return name


def _read_text(file: BinaryIO, info: tarfile.TarInfo, path: Path) -> str | None:
    if not info.name.lower().endswith(TEXT_SUFFIXES) or info.size > MAX_CELL_CHARACTERS:
        return None
    file.seek(info.offset_data)
    content = file.read(info.size)
    with suppress(UnicodeDecodeError):
        return content.decode("utf-8-sig")
    raise _refusal(path, f"'{info.name}' is not UTF-8", "mend it")


def _refusal(path: Path, found: str, todo: str) -> ManifestError:
    return ManifestError(f"shard {path} asked for; {found}; {todo}")


def _keep(kept: Path, shard: Shard, members: list[Member]) -> None:
    """Write an index whole or not at all; a cache that cannot be written to costs time alone."""
    content = json.dumps(members).encode()
    head = {**_describe(shard), "sha256": hashlib.sha256(content).hexdigest()}
    staged = kept.with_name(f".{kept.name}-{secrets.token_hex(6)}.tmp")
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        staged.write_bytes(json.dumps(head).encode() + b"\n" + content)
        staged.replace(kept)
    except OSError as error:
        logger.warning("index of %s cannot be kept: %s", shard.path, error)
    finally:
        with suppress(OSError):
            staged.unlink(missing_ok=True)


def _read_kept(kept: Path, shard: Shard) -> list[Member] | None:
    """Return what was kept of a shard; None if nothing was, or not of what it is now."""
    try:
        told, members = read_index(kept)
    except (OSError, CorruptFileError):
        return None
    return members if told == _describe(shard) else None


def read_index(kept: Path) -> tuple[dict[str, Any], list[Member]]:
    """Return what a kept index says of its shard, and the members of that.

    Raises:
        OSError: If it is not there.
        CorruptFileError: If it is damaged.
    """
    try:
        head, _, content = kept.read_bytes().partition(b"\n")
        told = json.loads(head)
        if told.pop("sha256") != hashlib.sha256(content).hexdigest():
            raise ValueError("its content is not what its checksum says")
        return told, [Member(*each) for each in json.loads(content)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptFileError(
            f"index {kept} of a shard asked for; {error}; try: modalbind cache prune"
        ) from None


def _describe(shard: Shard) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "shard": str(shard.path),
        "bytes": shard.size,
        "mtime_ns": shard.mtime_ns,
    }
