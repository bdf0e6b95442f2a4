"""Renders a scene as a small depth map; colour and warmth are not seen.

A depth camera beside the picture's own: things stand where the picture shows them, at the distance
that the layout says. Kind is outline and the relief of the body. Noise, holes and the background
are nuisance. Letters: `u, v` run over -1..1 across a thing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from modalbind.world.layout import HORIZON, Placement, layout, scene_rng
from modalbind.world.scenes import Scene
from modalbind.world.shapes import cover_of

DEPTH_PX = 64
DEPTH_PERCEIVES = ("kind", "count", "size", "position", "distance")
"""What a depth map shows."""

MAX_RANGE_M = 16.0
"""What lies farther is not measured."""

NOISE_PER_M = 0.0015
"""Deviation of the noise at 1 m, in metres; it grows with the square of depth."""

# Ground is this far at the lower edge of the view, if the horizon were at the upper one: chosen so
# that it is behind every thing that the layout can place.
_GROUND_M = 1.9
_WALL_M = (12.0, 15.0)
_SHARE_WITH_WALL = 0.5

# Width of the shadow that a structured-light camera leaves, in pixels times metres: baseline times
# focal length, about 75 mm times 64 px.
_SHADOW_PX_M = 4.8
# Bodies are this many times as deep as they are wide, so that relief is above the noise.
_BODY_DEPTH = 2.5

_EDGE_LOSS = 0.25
_DROPOUT = 0.015

Array: TypeAlias = NDArray[Any]

_CENTRES = (np.arange(DEPTH_PX, dtype=np.float32) + 0.5) / DEPTH_PX

_RELIEF: dict[str, Callable[[Array, Array], Array]] = {
    "bell": lambda u, v: 1.2 + 0 * (u + v),
    "drum": lambda u, v: 0 * (u + v),
    "trumpet": lambda u, v: 1.2 * u + 0 * v,
    "flute": lambda u, v: -1.2 + 0 * (u + v),
    "bird": lambda u, v: 1.3 - np.abs(u) + 0 * v,
    "frog": lambda u, v: 1.2 * v + 0 * u,
    "bee": lambda u, v: np.cos(np.pi * v) + 0 * u,
    "dog": lambda u, v: 1.3 * np.sign(u) * np.sign(v),
    "cat": lambda u, v: -1.2 * v + 0 * u,
    "clock": lambda u, v: -0.9 + 0 * (u + v),
}
"""How far each part of a body stands out towards the camera, in half depths, within -1.3..1.3."""


def render_depth(scene: Scene, seed: int = 0) -> NDArray[np.float32]:
    """Return the depth map of a scene; same scene and seed, same bytes.

    Returns:
        Float32 `(DEPTH_PX, DEPTH_PX)` in metres, NaN where nothing was measured.
    """
    rng = scene_rng(scene, seed, "depth")
    depth = _background(rng)
    is_edge = np.zeros(depth.shape, bool)
    for thing in sorted(layout(scene, seed), key=lambda thing: -thing.range_m):
        _place(depth, is_edge, thing)
    measured = depth + rng.normal(size=depth.shape) * NOISE_PER_M * np.minimum(depth, 1e3) ** 2
    is_lost = is_edge & (rng.random(depth.shape) < _EDGE_LOSS)
    is_lost |= rng.random(depth.shape) < _DROPOUT
    is_lost |= _shadow(depth)
    measured[is_lost | (depth > MAX_RANGE_M)] = np.nan
    result: NDArray[np.float32] = measured.astype(np.float32)
    return result


def _background(rng: np.random.Generator) -> Array:
    """Ground up to the horizon, above it a wall or open sky; `(height, width)`, inf = sky."""
    horizon = HORIZON + rng.uniform(-0.03, 0.03)
    wall_m = rng.uniform(*_WALL_M)
    wall_m = wall_m if rng.random() < _SHARE_WITH_WALL else np.inf
    ground_m = rng.uniform(0.95, 1.05) * _GROUND_M
    below = _CENTRES - horizon
    rows = np.where(below > 0, ground_m / np.maximum(below, 1e-6), np.inf)
    return np.repeat(np.minimum(rows, wall_m)[:, None], DEPTH_PX, axis=1)


def _place(depth: Array, is_edge: Array, thing: Placement) -> None:
    """Put one thing in front of what is there; at its outline a pixel sees both."""
    rows, columns, cover = cover_of(thing, DEPTH_PX)
    u = ((_CENTRES[columns] - thing.x) / thing.radius)[None, :]
    v = ((_CENTRES[rows] - thing.y) / thing.radius)[:, None]
    # The view is as wide as it is deep, so half the extent in metres is radius times range.
    half_m = _BODY_DEPTH * thing.radius * thing.range_m
    body = thing.range_m - half_m * _RELIEF[thing.kind](u, v).clip(-1.3, 1.3)
    window = depth[rows, columns]
    behind = np.where(np.isfinite(window), window, body)
    window[:] = np.where(cover > 0, cover * body + (1 - cover) * behind, window)
    is_edge[rows, columns] |= (cover > 0) & (cover < 1)


def _shadow(depth: Array) -> Array:
    """Say what the camera's projector does not light: a strip on the left of what stands out."""
    inverse = 1 / depth
    is_dark = np.zeros(depth.shape, bool)
    for step in (1, 2):
        gain = inverse[:, step:] - inverse[:, :-step]  # of the pixel `step` to the right
        is_dark[:, :-step] |= gain * _SHADOW_PX_M > step
    return is_dark
