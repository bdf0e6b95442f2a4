"""Two modalities that see the same generated scenes as a few numbers; one JSON list a sample."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from modalbind.api import (
    API_VERSION,
    BrokenSampleError,
    EncoderSpec,
    ModalitySpec,
    NoOptions,
    hookimpl,
)

KINDS = ("bell", "drum", "trumpet", "flute", "bird", "frog", "bee", "dog", "cat", "clock")
SIZES = ("small", "medium", "big")
DISTANCES = ("near", "mid", "far")
WARMTHS = ("cold", "warm", "hot")
WIDTH = 5 * len(KINDS) + 6
SENSES = {
    "touch": ("kind", "count", "size", "warmth"),
    "smell": ("kind", "count", "size", "distance"),
}


@hookimpl
def modalbind_modalities() -> list[ModalitySpec]:
    return [
        ModalitySpec(
            name=name,
            summary=f"What {name} tells of a scene.",
            api_version=API_VERSION,
            build=f"two_senses:build_{name}",
            unit="none",
            suffixes=(".json",),
            default_recipe=f"{name}/default",
            quickstart_recipe=f"{name}/quickstart",
            perceives=perceives,
        )
        for name, perceives in SENSES.items()
    ]


@hookimpl
def modalbind_encoders() -> list[EncoderSpec]:
    return [
        EncoderSpec(
            name="dense",
            summary="One hidden layer.",
            api_version=API_VERSION,
            build="two_senses:build_encoder",
            modality=name,
        )
        for name in SENSES
    ]


def build_touch(options: NoOptions) -> Sense:
    return Sense("touch")


def build_smell(options: NoOptions) -> Sense:
    return Sense("smell")


class Sense:
    is_padded = False

    def __init__(self, name: str) -> None:
        self.perceives = SENSES[name]

    def load(self, path: Any, key: str) -> list[float]:
        try:
            return [float(number) for number in json.loads(path.read_text())]
        except (OSError, ValueError) as error:
            raise BrokenSampleError("undecodable", f"{path}: {error}") from None

    def render(self, scene: Any, seed: int) -> list[float]:
        numbers = [0.0] * WIDTH
        for thing in scene.objects:
            place = 5 * KINDS.index(thing.kind)
            numbers[place] = 1.0
            numbers[place + 1] = thing.count / 4
            numbers[place + 2 + SIZES.index(thing.size)] = 1.0
        if "distance" in self.perceives:
            numbers[-6 + DISTANCES.index(scene.distance)] = 1.0
        if "warmth" in self.perceives:
            numbers[-3 + WARMTHS.index(scene.warmth)] = 1.0
        return numbers

    def features(self, sample: list[float]) -> Any:
        import torch

        return torch.tensor(sample, dtype=torch.float32)

    def windows(self, sample: list[float]) -> list[tuple[float, float, Any]]:
        return [(0.0, 0.0, sample)]

    def content_hash(self, path: Any, key: str) -> bytes:
        return hashlib.sha256(path.read_bytes()).digest()

    def describe(self, sample: list[float]) -> dict[str, float]:
        return {"sum": sum(sample)}


def build_encoder(options: NoOptions, modality: Sense) -> Any:
    from torch import nn

    class Dense(nn.Module):
        lora_targets = ("0",)
        width = 128

        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(WIDTH, 128), nn.GELU(), nn.Linear(128, 128))

        def forward(self, features: Any, valid_mask: Any) -> Any:
            return self.layers(features)

        def layer_groups(self) -> Any:
            return [[layer] for layer in self.layers]

        def portable_options(self) -> NoOptions:
            return options

    return Dense()
