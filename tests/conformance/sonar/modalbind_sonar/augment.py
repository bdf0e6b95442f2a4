from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Generator, Tensor

from modalbind.api import PairBatch
from modalbind_sonar.modality import Ping
from modalbind_sonar.options import NoiseOptions


def build_hiss(options: NoiseOptions, modality: Any) -> Callable[[Ping, Generator], Ping]:
    def hiss(sample: Ping, generator: Generator) -> Ping:
        noise = options.level_pa * torch.randn(sample.echo.shape, generator=generator)
        return replace(sample, echo=sample.echo + noise)

    return hiss


def build_crackle(options: NoiseOptions, modality: Any) -> Callable[[Tensor, Generator], Tensor]:
    def crackle(features: Tensor, generator: Generator) -> Tensor:
        return features + options.level_pa * torch.randn(features.shape, generator=generator)

    return crackle


def build_swell(
    options: NoiseOptions, modality: Any
) -> Callable[[PairBatch, Generator], PairBatch]:
    def swell(batch: PairBatch, generator: Generator) -> PairBatch:
        level = 1 + options.level_pa * torch.randn(len(batch.features), 1, 1, generator=generator)
        return replace(batch, features=batch.features * level)

    return swell
