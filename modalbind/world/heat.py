"""Renders a scene as a thermal camera would see it: temperature in degrees Celsius.

Kind is outline, and which part of a body is warmest; size and distance are extent and height in the
view; warmth is the difference to what surrounds a thing. Colour is not seen. The air's temperature,
the ground's patches, drift, and the noise of the sensor are nuisance. Letters: `u, v` run over
-1..1 across a thing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from modalbind.world.layout import HORIZON, Placement, layout, scene_rng
from modalbind.world.scenes import Scene
from modalbind.world.shapes import cover_of

Array: TypeAlias = NDArray[Any]

HEAT_PX = 64
HEAT_PERCEIVES = ("kind", "count", "size", "position", "distance", "warmth")
"""What a thermal picture shows: everything."""

AIR_C = (8.0, 24.0)
CONTRAST_C = {"cold": (-9.0, -7.0), "warm": (7.0, 9.0), "hot": (21.0, 27.0)}
"""How much warmer than what surrounds it a thing is, lowest and highest of a scene."""

_WARM_PART: dict[str, Callable[[Array, Array], Array]] = {
    "bell": lambda u, v: v + 0 * u,
    "trumpet": lambda u, v: u + 0 * v,
    "clock": lambda u, v: 1 - 2 * np.hypot(u, v),
    "flute": lambda u, v: -u + 0 * v,
    "drum": lambda u, v: -v + 0 * u,
    "bee": lambda u, v: np.cos(np.pi * v) + 0 * u,
    "frog": lambda u, v: 2 * np.hypot(u, v) - 1,
    "bird": lambda u, v: 1 - 2 * np.abs(u) + 0 * v,
    "dog": lambda u, v: np.zeros_like(u + v),
    "cat": lambda u, v: 2 * np.abs(u) - 1 + 0 * v,
}
"""Where a body is warmer or colder than its mean, -1..1."""

_PART_SHARE = 0.8  # how much more, of its warmth, the warmest part has; the coldest has less
_THING_SHARE = (0.95, 1.05)  # things of one scene are not all alike

_SKY_BELOW_AIR_C = (10.0, 18.0)
_GROUND_ABOVE_AIR_C = (0.0, 3.0)  # at the horizon; it rises towards the camera
_GROUND_RISE_C = (1.0, 4.0)
_PATCH_C = 0.25  # deviation of the ground's patches
_DRIFT_C = 0.6  # deviation of the corners of the slow drift over the sensor
_COLUMN_C = 0.10  # deviation between columns, which are read out by an amplifier each
_PIXEL_C = 0.08  # deviation between pixels, the same in every frame of one camera
_NETD_C = 0.06  # noise-equivalent temperature difference: what changes from frame to frame
_BLUR_PX = 0.45  # deviation of the optics' blur
_CENTRES = (np.arange(HEAT_PX, dtype=np.float32) + 0.5) / HEAT_PX


def render_heat(scene: Scene, seed: int = 0) -> NDArray[np.float32]:
    """Return the temperatures of a scene in degrees Celsius.

    Args:
        scene: What is there.
        seed: Of the nuisance; the picture of the same seed has the same things in the same places.

    Returns:
        Float32 `(HEAT_PX, HEAT_PX)`, every pixel measured; same scene and seed, same bytes.
    """
    rng = scene_rng(scene, seed, "heat")
    heat_c = _background(rng)
    rows_c = np.median(heat_c, axis=1)
    contrast_c = rng.uniform(*CONTRAST_C[scene.warmth])
    for thing in layout(scene, seed):
        _paint(heat_c, thing, rows_c, contrast_c * rng.uniform(*_THING_SHARE))
    blur = _blur_matrix()
    heat_c = blur @ heat_c @ blur.T
    return np.asarray(heat_c + _sensor_noise(rng), np.float32)


def _background(rng: np.random.Generator) -> Array:
    """Return a cold sky over ground that is warmer the nearer it lies, `(height, width)`."""
    air_c = rng.uniform(*AIR_C)
    sky_c = air_c - rng.uniform(*_SKY_BELOW_AIR_C)
    horizon = HORIZON + rng.uniform(-0.03, 0.03)
    below = ((_CENTRES - horizon) / (1 - horizon)).clip(0, 1)
    ground_c = air_c + rng.uniform(*_GROUND_ABOVE_AIR_C) + rng.uniform(*_GROUND_RISE_C) * below
    mix = ((_CENTRES - horizon) * 20).clip(0, 1)
    rows_c = sky_c * (1 - mix) + ground_c * mix
    patches_c = _stretch(rng.normal(0.0, _PATCH_C, size=(9, 9)))
    return np.asarray(rows_c[:, None] + patches_c * mix[:, None])


def _paint(heat_c: Array, thing: Placement, rows_c: Array, contrast_c: float) -> None:
    """Put one thing on what is behind it, with edges soft over one pixel.

    It differs by `contrast_c` from what surrounds it, more or less where it is warmest; `rows_c`,
    `(height,)`, is the background at each height.
    """
    rows, columns, cover = cover_of(thing, HEAT_PX)
    u = ((_CENTRES[columns] - thing.x) / thing.radius)[None, :]
    v = ((_CENTRES[rows] - thing.y) / thing.radius)[:, None]
    body = 1 + _PART_SHARE * _WARM_PART[thing.kind](u, v).clip(-1, 1)
    thing_c = np.median(rows_c[rows]) + contrast_c * body
    window = heat_c[rows, columns]
    window += cover * (thing_c - window)


def _sensor_noise(rng: np.random.Generator) -> Array:
    shape = (HEAT_PX, HEAT_PX)
    drift_c = _stretch(rng.normal(0.0, _DRIFT_C, size=(3, 3)))
    columns_c = rng.normal(0.0, _COLUMN_C, size=HEAT_PX)
    pixels_c = rng.normal(0.0, _PIXEL_C, size=shape) + rng.normal(0.0, _NETD_C, size=shape)
    return np.asarray(drift_c + columns_c + pixels_c)


def _stretch(grid: Array) -> Array:
    """Spread a coarse grid over the view, linearly between its points."""
    weights = _line_matrix(len(grid))
    return np.asarray(weights @ grid @ weights.T)


@cache
def _line_matrix(points: int) -> Array:
    """Return the weight of each of `points` evenly spaced points at each pixel of a line."""
    place = _CENTRES * (points - 1)
    return np.asarray(np.maximum(0, 1 - np.abs(place[:, None] - np.arange(points))))


@cache
def _blur_matrix() -> Array:
    """Return the weight of each pixel of a line in each of its blurred pixels; rows sum to one."""
    distance_px = np.arange(HEAT_PX)[:, None] - np.arange(HEAT_PX)
    weights = np.exp(-0.5 * (distance_px / _BLUR_PX) ** 2)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))
