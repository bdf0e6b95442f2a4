"""Where the things of a scene stand, shared by every renderer that has a view of it.

The picture and whatever joins it later (depth, heat) look through one camera, so a thing is at the
same place in each of them. Fractions are of the view's width and height, `(0, 0)` top left.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from modalbind.world.scenes import Scene, scene_key

HORIZON = 0.3
"""Height of the horizon in the view, a fraction from the top."""

_RANGE_M = {"near": 2.0, "mid": 4.0, "far": 8.0}
_SHRINK = {"near": 1.0, "mid": 0.8, "far": 0.62}
_GROUND = {"near": 0.68, "mid": 0.53, "far": 0.38}
_RADIUS = {"small": 0.052, "medium": 0.074, "big": 0.104}
_PITCH = 0.215
_MARGIN = 0.12
_ROW_GAP = 0.25


@dataclass(frozen=True, slots=True)
class Placement:
    """One thing in the view.

    Attributes:
        kind: What it is.
        x: Centre, fraction of the width.
        y: Centre, fraction of the height.
        radius: Half its extent, fraction of the width.
        range_m: Distance from the camera in metres.
    """

    kind: str
    x: float
    y: float
    radius: float
    range_m: float


def scene_rng(scene: Scene, seed: int, purpose: str) -> np.random.Generator:
    """Return the random stream of one purpose, fixed by scene and seed."""
    return np.random.default_rng([zlib.crc32(f"{purpose}/{scene_key(scene)}".encode()), seed])


def layout(scene: Scene, seed: int = 0) -> list[Placement]:
    """Place every thing of a scene: one row a kind, aligned left, centred or right.

    Which kind stands in the upper row, and small shifts, are nuisance and follow the seed.
    """
    rng = scene_rng(scene, seed, "layout")
    shrink = _SHRINK[scene.distance]
    ground = _GROUND[scene.distance] + rng.uniform(-0.02, 0.02)
    rows = rng.permutation(len(scene.objects))
    placements = []
    for thing, row in zip(scene.objects, rows, strict=True):
        y = ground + (float(row) - (len(rows) - 1) / 2) * _ROW_GAP * shrink
        xs = _row(scene.position, thing.count, _PITCH * shrink)
        jitter = rng.uniform(-0.018, 0.018, size=(thing.count, 2)) * shrink
        scale = rng.uniform(0.95, 1.05, size=thing.count) * shrink * _RADIUS[thing.size]
        range_m = _RANGE_M[scene.distance] * rng.uniform(0.93, 1.07)
        placements += [
            Placement(thing.kind, x + float(dx), y + float(dy), float(radius), range_m)
            for x, (dx, dy), radius in zip(xs, jitter, scale, strict=True)
        ]
    return placements


def _row(position: str, count: int, pitch: float) -> list[float]:
    length = (count - 1) * pitch
    start = {"left": _MARGIN, "centre": 0.5 - length / 2, "right": 1 - _MARGIN - length}[position]
    return [start + index * pitch for index in range(count)]
