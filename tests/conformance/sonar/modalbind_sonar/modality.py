from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from modalbind.api import BrokenSampleError, InputError
from modalbind_sonar.options import SonarOptions

WIDTH = 8
RATE_HZ = 50.0


@dataclass(frozen=True)
class Ping:
    echo: torch.Tensor  # float32 (time, WIDTH)
    heard: torch.Tensor  # bool (time,)
    rate_hz: float = RATE_HZ


class SonarModality:
    is_padded = True

    def __init__(self, options: SonarOptions) -> None:
        self.options = options
        self.silence = 0.0

    def load(self, path: Path, key: str) -> Ping:
        try:
            rows = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            raise BrokenSampleError("missing", f"{path}: no such file") from None
        except (OSError, ValueError) as error:
            raise BrokenSampleError("undecodable", f"{path}: {error}") from None
        echo = torch.tensor(rows, dtype=torch.float32)
        return Ping(echo, torch.ones(len(echo), dtype=torch.bool))

    def render(self, scene: Any, seed: int) -> Ping:
        generator = torch.Generator().manual_seed(1000 * seed + scene["number"])
        length = 6 + scene["number"] % 7
        echo = scene["code"] + 0.4 * torch.randn(length, WIDTH, generator=generator)
        heard = torch.rand(length, generator=generator) > 0.3
        heard[0] = True
        echo[~heard] = 9.0
        return Ping(echo, heard)

    def features(self, sample: Ping) -> torch.Tensor:
        check(sample)
        return sample.echo.masked_fill(~sample.heard.unsqueeze(1), self.silence)

    def windows(self, sample: Ping) -> list[tuple[float, float, Ping]]:
        check(sample)
        size = max(1, round(self.options.window_s * RATE_HZ))
        cuts = range(0, len(sample.echo), size)
        return [
            (
                at / RATE_HZ,
                (at + size) / RATE_HZ,
                Ping(sample.echo[at : at + size], sample.heard[at : at + size]),
            )
            for at in cuts
        ]

    def content_hash(self, path: Path, key: str) -> bytes:
        try:
            return hashlib.sha256(path.read_bytes()).digest()
        except OSError as error:
            raise BrokenSampleError("missing", f"{path}: {error}") from None

    def describe(self, sample: Ping) -> dict[str, float]:
        check(sample)
        return {"duration_s": len(sample.echo) / RATE_HZ}


def check(sample: Any) -> None:
    is_ping = isinstance(sample, Ping) and sample.echo.ndim == 2 and len(sample.echo) > 0
    if not is_ping or sample.echo.shape[1] != WIDTH or not math.isclose(sample.rate_hz, RATE_HZ):
        raise InputError(f"a ping (time, {WIDTH}) at {RATE_HZ} Hz asked for; found {type(sample)}")
    if sample.heard.shape != sample.echo.shape[:1]:
        raise InputError("a mask of the length of its echo asked for; found another")
