"""Translations line by line: the n-th line of each language's file says the same.

What many data sets publish, and the layout to bring one's own captions in: one text file for each
language, and a list of pictures if there are any.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modalbind.api import Pair, PairedDataset, Publication, PublishedFolder, text_dataset, text_pair
from modalbind_text.datasets.options import LinesOptions

OWN = Publication("translations", "", "your own files")


@dataclass(frozen=True, slots=True)
class Lines:
    """Where the translations of a data set lie.

    Attributes:
        files: Of each language, relative to the folder; `.gz` is read too.
        images: File with the name of a picture on each line; empty if there are none.
        split: That the rows count as.
    """

    files: Mapping[str, str]
    images: str = ""
    split: str = "test"


def build(options: LinesOptions, root: Path | None) -> PairedDataset:
    """Read one's own translations.

    Raises:
        ManifestError: If a file is absent, or they have not the same number of lines.
    """
    publication = Publication(options.name or OWN.name, options.licence, OWN.homepage)
    source = PublishedFolder(publication, options, root)
    lines = Lines(options.files, options.images, options.split)
    return build_lines(source, lines, lambda name: f"{options.image_folder}/{name}")


def build_lines(
    source: PublishedFolder, lines: Lines, locate: Callable[[str], str]
) -> PairedDataset:
    """Read translations line by line.

    Args:
        source: The folder.
        lines: The files in it.
        locate: From the name of a picture to its path in the folder.

    Raises:
        ManifestError: If a file is absent, or they have not the same number of lines.
    """
    digest = hashlib.sha256()
    texts = {language: _read(source, name, digest) for language, name in lines.files.items()}
    names = _read(source, lines.images, digest) if lines.images else []
    counts = {name: len(found) for name, found in texts.items()}
    if names:
        counts["pictures"] = len(names)
    if len(set(counts.values())) != 1:
        told = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise source.error(
            "files with the same number of lines asked for", told, "give files that belong together"
        )
    images: list[str | None] = [locate(name) for name in names]
    images = images or [None] * len(next(iter(texts.values())))
    publication = source.publication
    return text_dataset(
        publication.name,
        publication.licence,
        source.folder,
        _list_pairs(publication.name, texts, images, lines.split),
        digest.hexdigest(),
    )


def _read(source: PublishedFolder, name: str, digest: Any) -> list[str]:
    packed = f"{name}.gz"
    is_packed = not source.has(name) and source.has(packed)
    content = source.open_path(packed if is_packed else name).read_bytes()
    try:
        text = (gzip.decompress(content) if is_packed else content).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        todo = f"get it anew from {source.publication.homepage}"
        raise source.error(f"file {name} asked for", str(error), todo) from error
    digest.update(content)
    return [line.strip() for line in text.splitlines()]


def _list_pairs(
    name: str,
    texts: Mapping[str, Sequence[str]],
    images: Sequence[str | None],
    split: str,
) -> Iterator[Pair]:
    for row, image in enumerate(images):
        key = image or f"{name} {row + 1}"
        for language, found in texts.items():
            if found[row]:
                yield text_pair(
                    found[row], language, image=image, split=split, group=key, positive_key=key
                )
