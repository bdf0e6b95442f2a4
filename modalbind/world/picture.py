"""Renders a scene as a small picture; warmth is not seen.

Kind is shape and colour, size and distance are extent, haze and height in the view. Background,
light, grain and small shifts are nuisance.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from modalbind.world.layout import HORIZON, Placement, layout, scene_rng
from modalbind.world.scenes import Scene
from modalbind.world.shapes import cover_of

PICTURE_PX = 64
PICTURE_PERCEIVES = ("kind", "count", "size", "position", "distance")
"""What a picture shows."""

Array: TypeAlias = NDArray[Any]
_HAZE = {"near": 0.0, "mid": 0.22, "far": 0.44}
_HAZE_COLOUR = np.array([0.72, 0.75, 0.78], np.float32)
_CENTRES = (np.arange(PICTURE_PX, dtype=np.float32) + 0.5) / PICTURE_PX

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
    rows, columns, cover = cover_of(thing, PICTURE_PX)
    colour = np.array(_COLOURS[thing.kind], np.float32) * shade
    colour = colour * (1 - haze) + haze * _HAZE_COLOUR
    window = pixels[rows, columns]
    window += cover[:, :, None].astype(np.float32) * (colour - window)
