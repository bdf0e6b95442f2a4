"""Keys of samples that are texts: the language and the text, in one string.

One text may be two samples: "Taxi." is English and German.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from modalbind.data.files import FileDataset, SampleReader
from modalbind.interfaces import Modality
from modalbind.types import Pair, TextSample

SEPARATOR = "|"
"""Between language and text; no language tag has it, so the first one ends the tag."""


def text_key(text: str, language: str | None = None) -> str:
    """Return the key of a text in its language.

    Example:
        >>> text_key("a|b", "en"), split_text_key("en|a|b")
        ('en|a|b', TextSample(text='a|b', language='en'))
    """
    return f"{language or ''}{SEPARATOR}{text}"


def split_text_key(key: str) -> TextSample:
    """Return the text and the language that `text_key` joined.

    A key without a separator is a text in no known language.
    """
    language, found, text = key.partition(SEPARATOR)
    return TextSample(text, language or None) if found else TextSample(key)


def _read(key: str, modality: Modality) -> TextSample:
    return split_text_key(key)


def _hash(key: str, modality: Modality) -> bytes:
    return hashlib.sha256(key.encode()).digest()


TEXT_READER = SampleReader(_read, _hash)
"""Reads samples that are texts; there is nothing that could be broken."""


def text_pair(
    text: str,
    language: str,
    *,
    image: str | None = None,
    split: str = "",
    group: str = "",
    positive_key: str = "",
) -> Pair:
    """Return the pair of a text with itself: the sample, and its own anchor side.

    Args:
        text: The text.
        language: As a BCP 47 style tag.
        image: Key of a picture that it tells of.
        split: `train`, `val`, `test` or empty.
        group: What must not be cut by a split, such as a picture and all its captions.
        positive_key: Joins it with its translations; default: the text itself.
    """
    return Pair(
        sample=text_key(text, language),
        text=text,
        language=language,
        image=image,
        split=split,
        group=group or positive_key or text,
        positive_key=positive_key or text,
        sample_language=language,
    )


def text_dataset(
    name: str, licence: str, root: Path, pairs: Iterable[Pair], content_hash: str = ""
) -> FileDataset:
    """Return pairs of texts as a data set; see `text_pair`.

    Args:
        name: Name in the report.
        licence: Of the texts.
        root: Folder that the keys of pictures start at.
        pairs: All rows, in a fixed order.
        content_hash: Of the files that they were read from, in hex digits; a run that goes on
            refuses another.
    """
    return FileDataset(name, licence, root, tuple(pairs), content_hash, TEXT_READER)
