"""A whole modality in one small file: sequences of four numbers, one JSON list per sample."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import Field

from modalbind.api import (
    API_VERSION,
    AugmentationSpec,
    BrokenSampleError,
    EncoderSpec,
    ModalitySpec,
    Options,
    hookimpl,
)

WIDTH = 4


class ToyOptions(Options):
    window: int = Field(default=8, ge=1, description="Longest sample embedded whole, in steps.")


class ToyEncoderOptions(Options):
    width: int = Field(default=16, ge=1, description="Width of the hidden layer.")
    dropout: float = Field(default=0.2, ge=0, lt=1, description="After the hidden layer.")


class JitterOptions(Options):
    std: float = Field(default=0.05, ge=0, description="Of the noise added to features.")


@hookimpl
def modalbind_modalities() -> list[ModalitySpec]:
    return [
        ModalitySpec(
            name="toy",
            summary="Sequences of four numbers.",
            api_version=API_VERSION,
            build="toy_modality:ToyModality",
            options=ToyOptions,
            unit="none",
            suffixes=(".json",),
            default_recipe="toy/default",
            quickstart_recipe="toy/default",
        )
    ]


@hookimpl
def modalbind_encoders() -> list[EncoderSpec]:
    return [
        EncoderSpec(
            name="toy",
            summary="One hidden layer, mean over time.",
            api_version=API_VERSION,
            build="toy_modality:build_encoder",
            options=ToyEncoderOptions,
            modality="toy",
        )
    ]


@hookimpl
def modalbind_augmentations() -> list[AugmentationSpec]:
    return [
        AugmentationSpec(
            name="jitter",
            summary="Gaussian noise on features.",
            api_version=API_VERSION,
            build="toy_modality:build_jitter",
            options=JitterOptions,
            modality="toy",
            stage="features",
        )
    ]


class ToyModality:
    is_padded = True

    def __init__(self, options: ToyOptions) -> None:
        self.options = options

    def load(self, path: Any, key: str) -> list[list[float]]:
        try:
            rows: list[list[float]] = json.loads(path.read_text())
        except OSError:
            raise BrokenSampleError("missing", f"{path}: no such file") from None
        except ValueError:
            raise BrokenSampleError("undecodable", f"{path}: not JSON") from None
        if not rows:
            raise BrokenSampleError("empty", f"{path}: no rows")
        return rows

    def render(self, scene: Any, seed: int) -> Any:
        raise BrokenSampleError("undecodable", "no renderer")

    def features(self, sample: list[list[float]]) -> Any:
        import torch

        return torch.tensor(sample, dtype=torch.float32).reshape(-1, WIDTH)

    def windows(self, sample: list[list[float]]) -> list[tuple[float, float, Any]]:
        size = self.options.window
        starts = range(0, len(sample), size)
        return [(float(i), float(min(i + size, len(sample))), sample[i : i + size]) for i in starts]

    def content_hash(self, path: Any, key: str) -> bytes:
        try:
            return hashlib.sha256(path.read_bytes()).digest()
        except OSError:
            raise BrokenSampleError("missing", f"{path}: no such file") from None

    def describe(self, sample: list[list[float]]) -> dict[str, float]:
        return {"steps": float(len(sample))}


def build_encoder(options: ToyEncoderOptions, modality: ToyModality) -> Any:
    from torch import nn

    class ToyEncoder(nn.Module):
        lora_targets = ("hidden",)

        def __init__(self) -> None:
            super().__init__()
            self.width = options.width
            self.hidden = nn.Linear(WIDTH, options.width)
            self.dropout = nn.Dropout(options.dropout)

        def forward(self, features: Any, valid_mask: Any) -> Any:
            weights = valid_mask.float().unsqueeze(-1)
            hidden = self.dropout(self.hidden(features).tanh()) * weights
            return hidden.sum(dim=1) / weights.sum(dim=1)

        def layer_groups(self) -> Any:
            return [[self.hidden]]

        def portable_options(self) -> ToyEncoderOptions:
            return options

    return ToyEncoder()


def build_jitter(options: JitterOptions, modality: ToyModality) -> Any:
    import torch

    def jitter(features: Any, generator: Any) -> Any:
        return features + options.std * torch.randn(features.shape, generator=generator)

    return jitter
