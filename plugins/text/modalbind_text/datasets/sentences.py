"""Sentences of a plain text file, each paired with itself."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from pathlib import Path

from modalbind.api import ManifestError, PairedDataset, text_dataset, text_pair
from modalbind_text.datasets.options import SentencesOptions


def build(options: SentencesOptions, root: Path | None) -> PairedDataset:
    """Read the file; lines that repeat, and lines of nothing but spaces, count once and never.

    Raises:
        ManifestError: If it cannot be read, or has fewer sentences than are asked for.
    """
    path = Path(options.path).expanduser()
    path = path if root is None else root / path
    try:
        content = path.read_bytes()
        lines = content.decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(
            f"sentences in {path} asked for; {error}; give a text file in UTF-8"
        ) from error
    sentences = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    kept = draw(sentences, options.limit, options.seed, path)
    return text_dataset(
        options.name or path.stem,
        options.licence,
        path.parent if root is None else root,
        [text_pair(text, options.language, split=options.split) for text in kept],
        hashlib.sha256(content).hexdigest(),
    )


def draw(sentences: Sequence[str], limit: int | None, seed: int, path: Path) -> list[str]:
    """Return so many of the sentences, in their order.

    Args:
        sentences: All there are.
        limit: How many; None for all.
        seed: Which.
        path: Where they come from, for messages.

    Raises:
        ManifestError: If there are fewer, or fewer than two.
    """
    wanted = len(sentences) if limit is None else limit
    if not 2 <= wanted <= len(sentences):
        raise ManifestError(
            f"{max(wanted, 2)} sentences of {path} asked for; it has {len(sentences)}; "
            "lower `limit`, or give a longer file"
        )
    drawn = sorted(random.Random(seed).sample(range(len(sentences)), wanted))
    return [sentences[row] for row in drawn]
