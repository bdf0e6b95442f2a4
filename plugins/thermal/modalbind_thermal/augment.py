"""Augmentations of thermal pictures that other maps have no use for.

Each takes a `ThermalSample` and a `torch.Generator`, draws from nothing else, and returns a new
sample. Letters for axes: `height, width` pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from modalbind.api import InputError, Modality, change_values
from modalbind_thermal.modality import check_unit
from modalbind_thermal.options import DriftOptions, GainOptions, ThermalOptions, Unit
from modalbind_thermal.reading import ThermalSample

MIDDLE_COUNT = 127.5
"""Contrast is changed about the middle of the 8-bit range."""


@dataclass(frozen=True)
class Drift:
    """Adds a smooth field: microbolometers drift with the temperature of their housing.

    The field is normal at `points` by `points` places and smooth between them.
    """

    options: DriftOptions

    def __call__(self, sample: ThermalSample, generator: Generator) -> ThermalSample:
        """Draw how strong it is, then the field."""
        checked = check_unit(sample, "celsius")
        if _draw(generator) >= self.options.p:
            return checked
        std_c = self.options.max_std_c * _draw(generator)
        points = (1, 1, self.options.points, self.options.points)
        field_c = _spread(std_c * torch.randn(points, generator=generator), checked.values.shape)
        return change_values(checked, checked.values + field_c)


def build_drift(options: DriftOptions, modality: Modality) -> Drift:
    """Factory named by the plugin's `AugmentationSpec`.

    Raises:
        InputError: If the modality reads counts.
    """
    _check_modality("drift", "celsius", modality)
    return Drift(options)


@dataclass(frozen=True)
class Gain:
    """Changes contrast and brightness of counts, and stays within 0..255.

    Cameras choose both anew for each picture (automatic gain), so counts of two pictures do not
    compare.
    """

    options: GainOptions

    def __call__(self, sample: ThermalSample, generator: Generator) -> ThermalSample:
        """Draw both."""
        checked = check_unit(sample, "counts")
        if _draw(generator) >= self.options.p:
            return checked
        span = self.options.max_gain - self.options.min_gain
        gain = self.options.min_gain + span * _draw(generator)
        shift = 255 * self.options.max_shift * (2 * _draw(generator) - 1)
        changed = (checked.values - MIDDLE_COUNT) * gain + MIDDLE_COUNT + shift
        return change_values(checked, changed.clamp(0.0, 255.0))


def build_gain(options: GainOptions, modality: Modality) -> Gain:
    """Factory named by the plugin's `AugmentationSpec`.

    Raises:
        InputError: If the modality has temperatures: a gain would change what they say.
    """
    _check_modality("gain", "counts", modality)
    return Gain(options)


def _check_modality(name: str, unit: Unit, modality: Modality) -> None:
    options = getattr(modality, "options", None)
    if not isinstance(options, ThermalOptions):
        raise InputError(
            f"augmentation '{name}' is for thermal pictures; the modality is "
            f"{type(modality).__name__}; leave it out"
        )
    if options.unit != unit:
        other = "drift" if name == "gain" else "gain"
        raise InputError(
            f"augmentation '{name}' is for {unit}; modality.options.encoding is "
            f"{options.encoding}; use '{other}' or leave it out"
        )


def _spread(grid: Tensor, shape: torch.Size) -> Tensor:
    """Spread a grid `(1, 1, points, points)` over a picture; its outer points lie on the edges."""
    spread = F.interpolate(grid, size=tuple(shape), mode="bicubic", align_corners=True)
    return spread[0, 0]


def _draw(generator: Generator) -> float:
    return float(torch.rand((), generator=generator))
