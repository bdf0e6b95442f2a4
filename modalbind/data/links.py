"""Anchor-side items that tests may retrieve though no sample was paired with them.

A link names a text or a picture and the positive key that it belongs to: captions in further
languages, pictures of a class. Links are for evaluation; nothing is ever trained on them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from modalbind.data.manifest import read_rows
from modalbind.errors import ManifestError


@dataclass(frozen=True, slots=True)
class Link:
    """One anchor-side item.

    Attributes:
        modality: `text` or `image`.
        key: The text, or the picture's path below the data root.
        positive_key: What it shows or says.
        language: Of a text, else None.
        source: Index of the data set that reads the picture.
    """

    modality: str
    key: str
    positive_key: str
    language: str | None = None
    source: int = 0


def read_links(path: Path) -> list[Link]:
    """Read links from a manifest, JSON `{positive_key: [picture, ...]}`, or English sentences.

    A manifest row gives its text and its picture the row's `positive_key`, which is the text
    itself where that column is empty.

    Raises:
        ManifestError: If the file cannot be read or has neither text nor pictures.
    """
    if is_sentences(path):
        links = list(_from_sentences(path))
    else:
        links = list(_from_json(path) if path.suffix.lower() == ".json" else _from_manifest(path))
    if not links:
        raise ManifestError(f"links in {path} asked for; it names no text and no picture; fill it")
    return list(dict.fromkeys(links))


def is_sentences(path: Path) -> bool:
    """Say whether a file holds English sentences, one a line."""
    return path.suffix.lower() == ".txt"


def _from_sentences(path: Path) -> Iterator[Link]:
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"sentences in {path} asked for; {error}; mend the file") from error
    yield from (Link("text", line.strip(), line.strip(), "en") for line in lines if line.strip())


def _from_json(path: Path) -> Iterator[Link]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ManifestError(f"links in {path} asked for; {error}; mend the file") from error
    if not isinstance(content, dict) or not all(isinstance(v, list) for v in content.values()):
        raise ManifestError(
            f"links in {path} asked for; it is not an object of lists; "
            "write {positive_key: [picture, ...]}"
        )
    for positive_key, pictures in content.items():
        yield from (Link("image", str(picture), positive_key) for picture in pictures)


def _from_manifest(path: Path) -> Iterator[Link]:
    for row in read_rows(path):
        text, image = row.get("text", ""), row.get("image", "")
        positive_key = row.get("positive_key") or text or image
        if text:
            yield Link("text", text, positive_key, row.get("language") or "en")
        if image:
            yield Link("image", image, positive_key)
