"""The generated world as a data set of any modality that can render a scene.

Training scenes have English captions; test scenes have one in every language, and a picture.
A caption mentions only what the modality can sense.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from modalbind.data.options import WorldOptions
from modalbind.data.texts import TEXT_READER, text_key
from modalbind.errors import AnchorError, InputError
from modalbind.interfaces import Modality, ModalitySpec
from modalbind.types import AnchorItem, Pair, text_item
from modalbind.world import LANGUAGES, VERSION, build_scenes, caption, scene_from_key, scene_key
from modalbind.world import render_picture as render

NUISANCE_SEED = 1
"""Seed of the noise in every view of a scene; scenes differ, so their noise does."""


def build(options: WorldOptions, root: Path | None, modality: ModalitySpec) -> WorldDataset:
    """Draw the scenes of each split.

    Raises:
        InputError: If the modality has no renderer.
    """
    if not modality.perceives:
        raise InputError(
            f"generated world asked for modality '{modality.name}'; its plugin cannot render a "
            "scene; name your own pairs with --data"
        )
    return WorldDataset(options, options.perceives or modality.perceives, modality.is_text)


@dataclass(frozen=True)
class WorldDataset:
    """Scenes as pairs; the key of a scene is the key of its sample, its picture and its texts.

    Where the samples are texts, a caption is the sample, keyed as a text in its language.
    """

    options: WorldOptions
    perceives: tuple[str, ...]
    is_text: bool = False
    name: str = field(default=f"generated world, version {VERSION}", init=False)
    licence: str = field(default="none needed: generated", init=False)

    def pairs(self) -> Sequence[Pair]:
        """Return all rows: English for training, every language for the other splits."""
        return list(self._rows())

    def _rows(self) -> Iterator[Pair]:
        counts = {"train": self.options.train, "val": self.options.val, "test": self.options.test}
        for split, count in counts.items():
            for scene in build_scenes(split, count, self.options.seed, self.perceives):
                key = scene_key(scene)
                for language, phrasing in self._wordings(split):
                    text = caption(scene, language, self.perceives, phrasing)
                    yield Pair(
                        text_key(text, language) if self.is_text else key,
                        text,
                        language,
                        key,
                        split,
                        group=key,
                        positive_key=key,
                        sample_language=language if self.is_text else "",
                    )

    def _wordings(self, split: str) -> Iterator[tuple[str, int]]:
        if split == "test":
            yield from ((language, 0) for language in LANGUAGES)
        else:
            yield from (("en", phrasing) for phrasing in range(self.options.captions))

    def load_sample(self, key: str, modality: Modality) -> Any:
        """Render a scene in the modality; a text is its own sample."""
        if self.is_text:
            return TEXT_READER.load(key, modality)
        return modality.render(scene_from_key(key), NUISANCE_SEED)

    def sample_hash(self, key: str, modality: Modality) -> bytes:
        """Return a hash of the key: the world's version stands in it, unless it is a text."""
        if self.is_text:
            return TEXT_READER.hash(key, modality)
        return hashlib.sha256(f"{key}#{NUISANCE_SEED}".encode()).digest()

    def anchor_item(self, modality: str, key: str, language: str | None = None) -> AnchorItem:
        """Return a caption, or the picture of the scene with that key."""
        if modality == "text":
            return text_item(key, language)
        if modality != "image":
            raise AnchorError(
                f"anchor side '{modality}' asked of the generated world; it pairs samples with "
                "text and image; set anchor.sides to those"
            )
        picture = partial(render, scene_from_key(key), NUISANCE_SEED)
        # The pixels themselves, so that a change of the renderer never meets an old embedding.
        return AnchorItem(key, hashlib.sha256(picture().tobytes()).digest(), picture)
