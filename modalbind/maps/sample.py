"""One map: numbers on a pixel grid, and where they were measured.

Letters for axes: `height, width` pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from modalbind.errors import InputError, ShapeError


@dataclass(frozen=True, slots=True, eq=False)
class MapSample:
    """A measured map. Plugins may add fields of their own in a subclass.

    Invariant: `values` is finite everywhere, and zero where `valid_mask` is False.

    Attributes:
        values: Float32 `(height, width)`, in the unit that the modality states.
        valid_mask: Bool `(height, width)`, True = measured.
    """

    values: Tensor
    valid_mask: Tensor


AnyMap = TypeVar("AnyMap", bound=MapSample)


def split_valid(
    numbers: NDArray[Any] | Tensor, valid_mask: NDArray[Any] | Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Take numbers apart into values and mask: what is not finite was not measured.

    Args:
        numbers: Any real dtype, `(height, width)`.
        valid_mask: Bool, same shape: what else was not measured is False.

    Returns:
        Values, float32 and zero where nothing was measured, and the mask.

    Raises:
        ShapeError: If it is no map, or the mask has another shape.
    """
    values = torch.as_tensor(np.array(numbers) if isinstance(numbers, np.ndarray) else numbers)
    values = values.to(torch.float32)
    if values.ndim != 2 or not values.numel():
        raise ShapeError(
            f"a map of (height, width) asked for; found {tuple(values.shape)}; "
            "give one channel of at least one pixel"
        )
    measured = torch.isfinite(values)
    if valid_mask is not None:
        mask = torch.as_tensor(valid_mask)
        if mask.shape != values.shape:
            raise ShapeError(
                f"a mask of {tuple(values.shape)} asked for; found {tuple(mask.shape)}; "
                "give one that fits the map"
            )
        measured = measured & mask.to(torch.bool)
    return torch.where(measured, values, 0.0), measured


def change_values(sample: AnyMap, values: Tensor) -> AnyMap:
    """Return the map with other numbers where it was measured, and zero elsewhere."""
    return replace(sample, values=torch.where(sample.valid_mask, values, 0.0))


def resize_map(sample: AnyMap, size_px: int) -> AnyMap:
    """Return the map as a square of `size_px`: the mean of what was measured under each pixel.

    A pixel is measured if at least half of what lies under it was. Missing pixels take no part in
    a mean, so no edge of a hole is blended with zero. Enlarging repeats the nearest pixel.
    """
    values, mask = sample.values[None, None], sample.valid_mask[None, None].float()
    height, width = sample.values.shape
    if (height, width) == (size_px, size_px):
        return sample
    if height >= size_px and width >= size_px:
        covered = F.adaptive_avg_pool2d(mask, size_px)
        total = F.adaptive_avg_pool2d(values * mask, size_px)
        valid = covered >= 0.5
        mean = torch.where(valid, total / covered.clamp_min(1e-6), 0.0)
        return replace(sample, values=mean[0, 0], valid_mask=valid[0, 0])
    # Small or narrow maps: no pixel is invented between two measured ones.
    resized = F.interpolate(values, size=(size_px, size_px), mode="nearest-exact")
    valid = F.interpolate(mask, size=(size_px, size_px), mode="nearest-exact") > 0.5
    return replace(sample, values=torch.where(valid, resized, 0.0)[0, 0], valid_mask=valid[0, 0])


def check_map(sample: Any, unit: str) -> MapSample:
    """Return the sample if it is a map that keeps its invariant.

    Args:
        sample: What a modality was given.
        unit: For the message.

    Raises:
        InputError: If it is something else; numbers alone do not say what is missing.
        ShapeError: If it has no pixel, or a mask of another shape.
    """
    if not isinstance(sample, MapSample):
        raise InputError(
            f"a map in {unit} asked for; found {type(sample).__name__}; give a file's path, or "
            "modalbind.api.MapSample"
        )
    values, mask = split_valid(sample.values, sample.valid_mask)
    is_kept = sample.values.dtype == values.dtype and sample.valid_mask.dtype == mask.dtype
    if is_kept and torch.equal(mask, sample.valid_mask) and torch.equal(values, sample.values):
        return sample
    return replace(sample, values=values, valid_mask=mask)
