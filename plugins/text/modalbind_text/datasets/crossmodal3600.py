"""Crossmodal-3600: captions of 3 600 pictures in 36 languages, written by speakers of each.

`captions.jsonl`, one picture a line, and `images/KEY.jpg`. Captions of two languages are no
translations of one another: they speak of the same picture. Source: Thapliyal et al. 2022
(arXiv 2205.12522).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from modalbind.api import Pair, PairedDataset, Publication, PublishedFolder, text_dataset, text_pair
from modalbind_text.datasets.options import Crossmodal3600Options

CROSSMODAL = Publication(
    "Crossmodal-3600",
    "captions: CC BY 4.0; pictures: Open Images, CC BY 2.0",
    "https://google.github.io/crossmodal-3600/",
)
FILE = "captions.jsonl"


def build(options: Crossmodal3600Options, root: Path | None) -> PairedDataset:
    """Read the captions in the languages that are asked for.

    Raises:
        ManifestError: If the file is absent, or a line is not as published.
    """
    source = PublishedFolder(CROSSMODAL, options, root)
    content = source.open_path(FILE).read_bytes()
    return text_dataset(
        CROSSMODAL.name,
        CROSSMODAL.licence,
        source.folder,
        list(_list_pairs(source, options, content)),
        hashlib.sha256(content).hexdigest(),
    )


def _list_pairs(
    source: PublishedFolder, options: Crossmodal3600Options, content: bytes
) -> Iterator[Pair]:
    for number, line in enumerate(content.decode("utf-8-sig").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            key = str(row["image/key"])
            captions = {
                language: [str(text).strip() for text in found["caption"]]
                for language, found in row.items()
                if isinstance(found, dict)
            }
        except (ValueError, KeyError, TypeError) as error:
            raise source.error(
                f"line {number} of {FILE} asked for",
                f"it is not as published ({type(error).__name__}: {error})",
                f"get it anew from {CROSSMODAL.homepage}",
            ) from error
        image = options.image.format(key=key)
        for language in options.languages or tuple(captions):
            for text in captions.get(language, ()):
                yield text_pair(
                    text, language, image=image, split="test", group=key, positive_key=key
                )
