"""Keys of samples that are texts: the language and the text, in one string.

One text may be two samples: "Taxi." is English and German.
"""

from __future__ import annotations

import hashlib

from modalbind.data.files import SampleReader
from modalbind.interfaces import Modality
from modalbind.types import TextSample

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
