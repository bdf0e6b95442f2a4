"""Samples, texts and pictures that lie in files under one root.

No path leaves the root: not by `..`, not by an absolute path, not through a link.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from modalbind.data.pictures import open_picture
from modalbind.errors import AnchorError, BrokenSampleError, ManifestError
from modalbind.interfaces import Modality
from modalbind.types import AnchorItem, Pair, text_item


def relative_key(root: Path, key: str) -> str:
    """Return a key as it is known: below `root`, an absolute path is its relative one."""
    path = Path(key)
    if path.is_absolute() and path.is_relative_to(root.absolute()):
        return path.relative_to(root.absolute()).as_posix()
    return key


def join_inside(root: Path, key: str) -> Path:
    """Return the file that `key` names below `root`.

    Raises:
        ManifestError: If it would lie outside.
    """
    key = relative_key(root, key)
    path = root / key
    try:
        is_inside = path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError, ValueError):  # a loop of links; a name no file can have
        is_inside = False
    if Path(key).is_absolute() or not is_inside:
        raise ManifestError(
            f"path '{key}' asked for; it lies outside the data root {root}; "
            "use paths relative to the root, copy what a link leads to, or name a higher folder "
            "with --root"
        )
    return path


def hash_file(path: Path) -> bytes:
    """Return the SHA-256 of a file's bytes.

    Raises:
        BrokenSampleError: If there is no such file.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise BrokenSampleError("missing", f"{path}: {error.strerror}") from None


@dataclass(frozen=True, slots=True)
class SampleReader:
    """How samples are read that are no files of their own, such as rows of one large file.

    All are called from several threads and from worker processes, the first two with a key and the
    modality: they must be picklable (functions of a module, or `functools.partial` of such).

    Attributes:
        load: Returns the plugin's own sample type; raises `BrokenSampleError`.
        hash: Returns 32 bytes that identify the sample's content and all that `load` depends on.
        picture: Returns the picture with that key, or None if it is a file; None: all are files.
    """

    load: Callable[[str, Modality], Any]
    hash: Callable[[str, Modality], bytes]
    picture: Callable[[str], AnchorItem | None] | None = None


@dataclass(frozen=True)
class FileDataset:
    """Pairs whose samples and pictures are files below `root`.

    Attributes:
        manifest_hash: SHA-256 of the list that they were read from, in hex digits.
        reader: Reads samples that are no files of their own; None reads each as a file.
    """

    name: str
    licence: str
    root: Path
    rows: tuple[Pair, ...]
    manifest_hash: str = ""
    reader: SampleReader | None = None

    def pairs(self) -> Sequence[Pair]:
        """Return all rows, in file order."""
        return self.rows

    def load_sample(self, key: str, modality: Modality) -> Any:
        """Read one sample through its plugin."""
        if self.reader is not None:
            return self.reader.load(key, modality)
        return modality.load(join_inside(self.root, key), key)

    def sample_hash(self, key: str, modality: Modality) -> bytes:
        """Return 32 bytes that identify the sample's content."""
        if self.reader is not None:
            return self.reader.hash(key, modality)
        return modality.content_hash(join_inside(self.root, key), key)

    def anchor_item(self, modality: str, key: str, language: str | None = None) -> AnchorItem:
        """Return a text, or a file below the root, as an anchor-side item."""
        if modality == "text":
            return text_item(key, language)
        if modality != "image":
            raise AnchorError(
                f"anchor side '{modality}' asked of data set {self.name}; it pairs samples with "
                "text and image; set anchor.sides to those"
            )
        if self.reader is not None and self.reader.picture is not None:
            found = self.reader.picture(key)
            if found is not None:
                return found
        key = relative_key(self.root, key)
        path = join_inside(self.root, key)
        # A table of vectors knows a picture by its key and needs no file; hashing is tried late.
        digest = hash_file(path) if path.exists() else hashlib.sha256(key.encode()).digest()
        return AnchorItem(key, digest, partial(open_picture, path))
