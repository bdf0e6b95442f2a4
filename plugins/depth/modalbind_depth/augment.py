"""The augmentation of depth maps that no other map has: noise that grows with depth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator

from modalbind.api import MapSample, change_values
from modalbind_depth.options import SensorNoiseOptions


@dataclass(frozen=True)
class SensorNoise:
    """Adds noise whose deviation in metres is `std_m` times the square of depth in metres.

    Depth stays above zero, and what was not measured stays so.

    Source:
        Khoshelham and Elberink 2012, Accuracy and Resolution of Kinect Depth Data, eq. 10: the
        random error of a triangulating camera grows with the square of depth.
    """

    options: SensorNoiseOptions

    def __call__(self, sample: MapSample, generator: Generator) -> MapSample:
        """Return a noisy copy."""
        options = self.options
        chance, share = torch.rand(2, generator=generator).tolist()
        if chance >= options.p:
            return sample
        std_m = options.min_std_m + share * (options.max_std_m - options.min_std_m)
        noise = torch.randn(sample.values.shape, generator=generator)
        depth_m = sample.values + std_m * sample.values**2 * noise
        # Far away the deviation can pass the depth itself; the draw is cut, not made missing.
        return change_values(sample, torch.maximum(depth_m, 0.05 * sample.values))


def build_sensor_noise(options: SensorNoiseOptions, modality: Any = None) -> SensorNoise:
    """Factory named by the plugin's `AugmentationSpec`."""
    return SensorNoise(options)
