"""The outlines of things, shared by every renderer that has a view of a scene.

Letters: `u, v` run over -1..1 across a thing; a level is at most 1 inside its outline.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from modalbind.world.layout import Placement

Array: TypeAlias = NDArray[Any]

_SHAPES: dict[str, Callable[[Array, Array], Array]] = {
    "bell": lambda u, v: np.maximum(np.abs(u) / (0.7 + 0.3 * v), np.abs(v)),
    "drum": lambda u, v: np.maximum(np.abs(u), np.abs(v)) * 1.1,
    "trumpet": lambda u, v: np.maximum(np.abs(v) * 2 / (1.05 + u), np.abs(u)),
    "flute": lambda u, v: np.maximum(np.abs(u), np.abs(v) * 3),
    "bird": lambda u, v: np.abs(u) + np.abs(v),
    "frog": lambda u, v: np.hypot(u, v * 1.7),
    "bee": lambda u, v: np.hypot(u, v) + 0.5 * (np.abs(v) < 0.2),
    "dog": lambda u, v: np.minimum(
        np.maximum(np.abs(u), np.abs(v) * 2.4), np.maximum(np.abs(v), np.abs(u) * 2.4)
    ),
    "cat": lambda u, v: np.maximum(np.abs(u) * 2 / (1.05 + v), np.abs(v)),
    "clock": lambda u, v: 1.4 * np.abs(np.hypot(u, v) - 0.65) + 0.65,
}


def cover_of(thing: Placement, size_px: int) -> tuple[slice, slice, Array]:
    """Return which pixels of a square view a thing can touch, and how much of each it covers.

    Returns:
        Rows, columns, and the cover, 0..1 with edges soft over one pixel, `(rows, columns)`.
    """
    rows, columns = _span(thing.y, thing.radius, size_px), _span(thing.x, thing.radius, size_px)
    centres = _centres(size_px)
    u = ((centres[columns] - thing.x) / thing.radius)[None, :]
    v = ((centres[rows] - thing.y) / thing.radius)[:, None]
    level = _SHAPES[thing.kind](u, v)
    return rows, columns, ((1 - level) * thing.radius * size_px + 0.5).clip(0, 1)


@cache
def _centres(size_px: int) -> Array:
    return (np.arange(size_px, dtype=np.float32) + 0.5) / size_px


def _span(centre: float, radius: float, size_px: int) -> slice:
    """Return the pixels that a thing can touch along one axis."""
    first = (centre - 1.1 * radius) * size_px - 1
    last = (centre + 1.1 * radius) * size_px + 1
    return slice(max(0, int(first)), min(size_px, int(last) + 1))
