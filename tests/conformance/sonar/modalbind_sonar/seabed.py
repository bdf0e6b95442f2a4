from __future__ import annotations

import hashlib
from itertools import product
from pathlib import Path
from typing import Any

import torch

from modalbind.api import AnchorError, AnchorItem, BrokenSampleError, Modality, Pair
from modalbind_sonar.modality import WIDTH
from modalbind_sonar.options import SeabedOptions

WORDS = (
    ("anchor", "barrel", "cable", "mine", "rock", "wreck"),
    ("small", "large", "huge"),
    ("iron", "stone", "wooden"),
)


def code(words: tuple[str, ...]) -> torch.Tensor:
    total = torch.zeros(WIDTH)
    for word in words:
        generator = torch.Generator().manual_seed(sum(map(ord, word)))
        total += torch.randn(WIDTH, generator=generator)
    return total


class Seabed:
    name = "seabed"
    licence = "none needed: generated"

    def __init__(self, options: SeabedOptions) -> None:
        self.options = options

    def pairs(self) -> list[Pair]:
        rows = []
        for thing, size, stuff in product(*WORDS):
            text = f"a {size} {stuff} {thing}"
            for number in range(self.options.train + self.options.test):
                split = "train" if number < self.options.train else "test"
                key = f"{thing}-{size}-{stuff}-{number}"
                rows.append(Pair(key, text, split=split, group=key, positive_key=text))
        return rows

    def load_sample(self, key: str, modality: Modality) -> Any:
        try:
            *words, number = key.split("-")
            scene = {"code": code(tuple(words)), "number": int(number)}
        except ValueError:
            raise BrokenSampleError("missing", f"'{key}' is no ping") from None
        return modality.render(scene, 1)

    def sample_hash(self, key: str, modality: Modality) -> bytes:
        return hashlib.sha256(key.encode()).digest()

    def anchor_item(self, modality: str, key: str, language: str | None = None) -> AnchorItem:
        if modality != "text":
            raise AnchorError(f"anchor side '{modality}' asked of seabed; it has text; use that")
        return AnchorItem(key, hashlib.sha256(key.encode()).digest(), lambda: key, language)


def build(options: SeabedOptions, root: Path | None) -> Seabed:
    return Seabed(options)
