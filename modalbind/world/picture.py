"""Renders a scene as a small picture; warmth is not seen.

Kind is shape and colour, size and distance are extent, haze and height in the view. Background,
light, grain and small shifts are nuisance. Letters: `u, v` run over -1..1 across a thing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from modalbind.world.layout import HORIZON, Placement, layout, scene_rng
from modalbind.world.scenes import Scene

PICTURE_PX = 64
PICTURE_PERCEIVES = ("kind", "count", "size", "position", "distance")
"""What a picture shows."""

Array: TypeAlias = NDArray[Any]
_HAZE = {"near": 0.0, "mid": 0.22, "far": 0.44}
_HAZE_COLOUR = np.array([0.72, 0.75, 0.78], np.float32)
_CENTRES = (np.arange(PICTURE_PX, dtype=np.float32) + 0.5) / PICTURE_PX

# Level sets: at most 1 inside the shape.
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
_COLOURS = {
    "bell": (0.95, 0.80, 0.10),
    "drum": (0.85, 0.10, 0.12),
    "trumpet": (1.00, 0.50, 0.05),
    "flute": (0.98, 0.98, 0.98),
    "bird": (0.15, 0.30, 1.00),
    "frog": (0.10, 0.70, 0.15),
    "bee": (0.08, 0.08, 0.08),
    "dog": (0.50, 0.25, 0.08),
    "cat": (0.60, 0.20, 0.85),
    "clock": (0.10, 0.85, 0.90),
}


def render_picture(scene: Scene, seed: int = 0) -> Image.Image:
    """Return the picture of a scene, RGB, `PICTURE_PX` square; same scene and seed, same bytes."""
    rng = scene_rng(scene, seed, "picture")
    haze = _HAZE[scene.distance]
    pixels = _background(rng, haze)
    for thing in layout(scene, seed):
        _paint(pixels, thing, haze, float(rng.uniform(0.9, 1.05)))
    pixels *= rng.uniform(0.9, 1.1)
    pixels += rng.normal(0.0, 0.025, size=pixels.shape).astype(np.float32)
    return Image.fromarray((pixels.clip(0, 1) * 255).astype(np.uint8))


def _background(rng: np.random.Generator, haze: float) -> Array:
    """Sky over ground in muted colours, with a coarse texture; `(height, width, 3)`."""
    sky = np.array([0.62, 0.68, 0.74], np.float32) + rng.uniform(-0.06, 0.06, 3)
    ground = np.array([0.46, 0.46, 0.42], np.float32) + rng.uniform(-0.06, 0.06, 3)
    horizon = HORIZON + rng.uniform(-0.03, 0.03)
    mix = ((_CENTRES - horizon) * 20).clip(0, 1)[:, None, None]
    texture = rng.normal(0.0, 0.03, size=(8, 8)).repeat(8, axis=0).repeat(8, axis=1)
    pixels = sky * (1 - mix) + ground * mix + texture[:, :, None]
    return np.asarray(pixels * (1 - haze) + haze * _HAZE_COLOUR, np.float32)


def _paint(pixels: Array, thing: Placement, haze: float, shade: float) -> None:
    """Blend one thing into the picture, with edges soft over one pixel."""
    columns, rows = _span(thing.x, thing.radius), _span(thing.y, thing.radius)
    u = ((_CENTRES[columns] - thing.x) / thing.radius)[None, :]
    v = ((_CENTRES[rows] - thing.y) / thing.radius)[:, None]
    level = _SHAPES[thing.kind](u, v)
    cover = ((1 - level) * thing.radius * PICTURE_PX + 0.5).clip(0, 1)[:, :, None]
    colour = np.array(_COLOURS[thing.kind], np.float32) * shade
    colour = colour * (1 - haze) + haze * _HAZE_COLOUR
    window = pixels[rows, columns]
    window += cover.astype(np.float32) * (colour - window)


def _span(centre: float, radius: float) -> slice:
    """Return the pixels that a thing can touch along one axis."""
    first = (centre - 1.1 * radius) * PICTURE_PX - 1
    last = (centre + 1.1 * radius) * PICTURE_PX + 1
    return slice(max(0, int(first)), min(PICTURE_PX, int(last) + 1))
