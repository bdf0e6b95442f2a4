from __future__ import annotations

from pydantic import Field

from modalbind.api import Options


class SonarOptions(Options):
    window_s: float = Field(default=0.4, gt=0, description="Longest sample embedded whole.")


class EchoOptions(Options):
    width: int = Field(default=32, ge=1, description="Width of the hidden states.")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="After the first layer.")


class SeabedOptions(Options):
    weight: float = Field(default=1.0, gt=0, description="Share of its samples in an epoch.")
    train: int = Field(default=8, ge=1, description="Pings of each object to train on.")
    test: int = Field(default=2, ge=1, description="Pings of each object to test on.")


class NoiseOptions(Options):
    level_pa: float = Field(default=0.05, ge=0, description="Deviation of the noise.")
