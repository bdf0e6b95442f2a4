"""The modality itself: sentences, and what a frozen sentence encoder makes of them.

Each sentence is encoded once: its embedding is kept in the cache of frozen spaces, and training
reads it from memory. Letters: `n` sentences, `width` of the sentence encoder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modalbind.api import BrokenSampleError, InputError, TextSample, caption, open_space, text_item
from modalbind_text.options import TextOptions


def build(options: TextOptions) -> TextModality:
    """Factory named by the plugin's `ModalitySpec`."""
    return TextModality(options)


class TextModality:
    """Sentences of any language.

    Attributes:
        options: As the recipe has them.
        is_padded: False: all features are `(width,)`.
    """

    is_padded = False

    def __init__(self, options: TextOptions) -> None:
        """Keep the options; the sentence encoder is opened when it is first needed."""
        self.options = options
        self._rows: dict[TextSample, int] = {}
        self._vectors = torch.empty(0, 0)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open encoder behind; what it has made goes along."""
        kept = ("options", "_rows", "_vectors")
        return {name: value for name, value in vars(self).items() if name in kept}

    @cached_property
    def space(self) -> Any:
        """The frozen space that embeds the sentences.

        Raises:
            AnchorError: If it cannot be opened, or holds no text.
        """
        options = self.options
        return open_space(
            options.encoder,
            options.encoder_options,
            device=options.device,
            batch_size=options.batch_size,
        )

    def prepare(self, samples: Sequence[TextSample]) -> None:
        """Encode sentences, each once, many at a time.

        Args:
            samples: Sentences; those that are known already cost nothing.
        """
        new = [sample for sample in dict.fromkeys(map(_check, samples)) if sample not in self._rows]
        if new:
            items = [text_item(sample.text, sample.language) for sample in new]
            vectors = self.space.embed("text", items)
            first = len(self._rows)
            self._rows.update({sample: first + row for row, sample in enumerate(new)})
            self._vectors = torch.cat([self._vectors, vectors]) if first else vectors

    def load(self, path: Path, key: str) -> TextSample:
        """Return the text itself: the key is no file.

        Raises:
            BrokenSampleError: `empty`, if nothing but spaces is in it.
        """
        if not key.strip():
            raise BrokenSampleError("empty", "a text of no letters")
        return TextSample(key)

    def render(self, scene: Any, seed: int) -> TextSample:
        """Say in English what a generated scene holds."""
        return TextSample(caption(scene, "en", seed=seed), "en")

    def features(self, sample: TextSample) -> Tensor:
        """Return the sentence's embedding in the frozen space, unit norm, float32 `(width,)`."""
        self.prepare([sample])
        return self._vectors[self._rows[sample]]

    def windows(self, sample: TextSample) -> list[tuple[float, float, TextSample]]:
        """Return the sentence itself: it has no length in time."""
        return [(0.0, 0.0, _check(sample))]

    def content_hash(self, path: Path, key: str) -> bytes:
        """Hash the text."""
        return hashlib.sha256(key.encode()).digest()

    def describe(self, sample: TextSample) -> Mapping[str, float]:
        """Return the number of characters and of words between spaces."""
        text = _check(sample).text
        return {"characters": float(len(text)), "words": float(len(text.split()))}


def _check(sample: Any) -> TextSample:
    if not isinstance(sample, TextSample):
        raise InputError(f"texts asked for; found {type(sample).__name__}; give strings")
    return sample


def measure_width(modality: Any) -> int:
    """Return the width of the features that a modality of texts makes.

    Raises:
        InputError: If it is another modality.
    """
    if not isinstance(modality, TextModality):
        raise InputError(
            f"encoder 'frozen' asked for {type(modality).__name__}; it takes features of "
            "sentences; set modality.name to text"
        )
    return int(modality.space.dim)
