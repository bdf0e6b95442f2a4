"""Augmentations of maps, on the sample: values and mask move together.

Each takes a `MapSample` and a `torch.Generator`, draws from nothing else, and returns a new sample.
All can be pickled, for loader processes.
Letters for axes: `height, width` pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

import torch

from modalbind.maps.options import CropOptions, EraseOptions, FlipOptions, NoiseOptions
from modalbind.maps.sample import AnyMap, MapSample, change_values

MapAugmentation: TypeAlias = Callable[[Any, torch.Generator], Any]


def build_flip(options: FlipOptions, modality: Any = None) -> MapAugmentation:
    """Return what mirrors a map with chance `p`."""
    return partial(_flip, options)


def build_crop(options: CropOptions, modality: Any = None) -> MapAugmentation:
    """Return what keeps a random rectangle of a map.

    Source:
        The random resized crop of Szegedy et al. 2014 (arXiv 1409.4842), section 6; here the
        resizing is the modality's own.
    """
    return partial(_crop, options)


def build_erase(options: EraseOptions, modality: Any = None) -> MapAugmentation:
    """Return what marks random rectangles as not measured.

    Source:
        Zhong et al. 2017, Random Erasing (arXiv 1708.04896); here what is erased is missing, not
        replaced by noise.
    """
    return partial(_erase, options)


def build_noise(options: NoiseOptions, modality: Any = None) -> MapAugmentation:
    """Return what adds white noise, in the map's own unit, where it was measured."""
    return partial(_add_noise, options)


def _flip(options: FlipOptions, sample: MapSample, generator: torch.Generator) -> MapSample:
    if _draw(generator) >= options.p:
        return sample
    return replace(sample, values=sample.values.flip(1), valid_mask=sample.valid_mask.flip(1))


def _crop(options: CropOptions, sample: MapSample, generator: torch.Generator) -> MapSample:
    if _draw(generator) >= options.p:
        return sample
    height, width = sample.values.shape
    area = height * width * _draw(generator, options.min_area, 1.0)
    span = math.log(options.max_aspect)
    aspect = math.exp(_draw(generator, -span, span)) * width / height
    rows = min(height, max(1, round(math.sqrt(area / aspect))))
    columns = min(width, max(1, round(math.sqrt(area * aspect))))
    top = _draw_below(generator, height - rows + 1)
    left = _draw_below(generator, width - columns + 1)
    window = (slice(top, top + rows), slice(left, left + columns))
    return replace(
        sample,
        values=sample.values[window].clone(),
        valid_mask=sample.valid_mask[window].clone(),
    )


def _erase(options: EraseOptions, sample: MapSample, generator: torch.Generator) -> MapSample:
    if _draw(generator) >= options.p:
        return sample
    height, width = sample.values.shape
    mask = sample.valid_mask.clone()
    for _ in range(1 + _draw_below(generator, options.holes)):
        side = math.sqrt(_draw(generator, 0.0, options.max_area))
        rows, columns = max(1, round(height * side)), max(1, round(width * side))
        top = _draw_below(generator, height - rows + 1)
        left = _draw_below(generator, width - columns + 1)
        mask[top : top + rows, left : left + columns] = False
    return change_values(replace(sample, valid_mask=mask), sample.values)


def _add_noise(options: NoiseOptions, sample: AnyMap, generator: torch.Generator) -> AnyMap:
    if _draw(generator) >= options.p:
        return sample
    std = _draw(generator, options.min_std, options.max_std)
    noise = torch.randn(sample.values.shape, generator=generator)
    return change_values(sample, sample.values + std * noise)


def _draw(generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _draw_below(generator: torch.Generator, end: int) -> int:
    return int(torch.randint(end, (), generator=generator))
