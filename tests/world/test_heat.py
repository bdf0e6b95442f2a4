from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from modalbind.world import (
    ATTRIBUTES,
    HEAT_PERCEIVES,
    HEAT_PX,
    Scene,
    SceneObject,
    build_scenes,
    layout,
    render_heat,
    render_picture,
)

SCENE = Scene((SceneObject("drum", 2, "big"),), "centre", "near", "warm")
SEEDS = range(12)


def with_value(name: str, value: str | int) -> Scene:
    if name in ("kind", "count", "size"):
        thing = dataclasses.replace(SCENE.objects[0], **{name: value})
        return dataclasses.replace(SCENE, objects=(thing,))
    return dataclasses.replace(SCENE, **{name: value})


def centre_pixels(scene: Scene, seed: int) -> list[tuple[int, int]]:
    """Row and column of the pixel in the middle of each thing, by the layout."""
    return [(int(t.y * HEAT_PX), int(t.x * HEAT_PX)) for t in layout(scene, seed)]


def contrasts_c(scene: Scene, seed: int) -> list[float]:
    """How much warmer the middle of each thing is than the rest of its row."""
    heat_c = render_heat(scene, seed)
    return [
        float(heat_c[row, column] - np.median(heat_c[row]))
        for row, column in centre_pixels(scene, seed)
    ]


def test_shape_unit_range_and_determinism() -> None:
    for scene in build_scenes("train", 60):
        heat_c = render_heat(scene, 1)
        assert heat_c.shape == (HEAT_PX, HEAT_PX)
        assert heat_c.dtype == np.float32
        assert np.isfinite(heat_c).all()
        # Weather on earth, and things up to 50 degrees hotter than it.
        assert -30 < heat_c.min() < heat_c.max() < 90
        assert heat_c.tobytes() == render_heat(scene, 1).tobytes()


def test_another_seed_is_another_day_and_other_noise() -> None:
    one, other = render_heat(SCENE, 1), render_heat(SCENE, 2)
    assert abs(float(np.median(one) - np.median(other))) > 0.05
    assert (one != other).mean() > 0.99


@pytest.mark.parametrize(
    ("warmth", "low_c", "high_c"), [("cold", -13, -3), ("warm", 3, 13), ("hot", 17, 31)]
)
def test_warmth_can_be_read_from_the_numbers(warmth: str, low_c: float, high_c: float) -> None:
    # Bounds are the stated contrast, less or more 4 degrees: things differ, and drift and patches.
    found = [c for seed in SEEDS for c in contrasts_c(with_value("warmth", warmth), seed)]
    assert low_c < min(found) and max(found) < high_c
    assert np.ptp(found) > 1, "things of one warmth differ"


def test_things_are_hot_where_the_picture_has_colour() -> None:
    # The same layout seen twice: red drums on a grey ground, warm ones on a mild ground.
    scene = dataclasses.replace(SCENE, warmth="hot")
    for seed in SEEDS:
        red, green, _ = np.moveaxis(np.asarray(render_picture(scene, seed), float), 2, 0)
        is_red = red - green > 90
        heat_c = render_heat(scene, seed)
        is_hot = heat_c - np.median(heat_c, axis=1, keepdims=True) > 3
        assert is_red.sum() > 100
        assert (is_red & is_hot).sum() / (is_red | is_hot).sum() > 0.8


@pytest.mark.parametrize(
    ("kind", "rows", "columns"),
    [("bell", 1, 0), ("drum", -1, 0), ("trumpet", 0, 1), ("flute", 0, -1)],
)
def test_kinds_are_warmest_in_their_own_part(kind: str, rows: int, columns: int) -> None:
    # A bell at its lower rim, a drum at its skin, a trumpet and a flute at one end.
    scene = dataclasses.replace(with_value("kind", kind), warmth="hot")
    for seed in SEEDS:
        heat_c = render_heat(scene, seed)
        for thing in layout(scene, seed):
            step = 0.6 * thing.radius
            there, opposite = (
                heat_c[
                    int((thing.y + sign * rows * step) * HEAT_PX),
                    int((thing.x + sign * columns * step) * HEAT_PX),
                ]
                for sign in (1, -1)
            )
            assert there > opposite + 8


@pytest.mark.parametrize("name", HEAT_PERCEIVES)
def test_each_attribute_changes_the_picture(name: str) -> None:
    means = [
        np.mean([render_heat(with_value(name, value), seed) for seed in range(24)], axis=0)
        for value in ATTRIBUTES[name]
    ]
    for index, one in enumerate(means):
        for other in means[:index]:
            # The air of 24 days differs by about 2 degrees: what is common is no difference.
            difference_c = (one - other) - np.median(one - other)
            assert (np.abs(difference_c) > 2).sum() >= 12


def test_the_sky_is_colder_than_the_ground_and_the_near_ground_warmest() -> None:
    rows_c = np.mean([np.median(render_heat(SCENE, seed), axis=1) for seed in SEEDS], axis=0)
    sky_c, far_c, near_c = rows_c[:10].mean(), rows_c[28:34].mean(), rows_c[-6:].mean()
    assert sky_c < far_c - 8
    assert near_c > far_c + 0.5


def test_edges_are_blurred_by_the_optics_and_columns_differ() -> None:
    # Between ground and thing there is a pixel that is neither, on each side of a row through it.
    scene = with_value("warmth", "hot")
    row, column = centre_pixels(scene, 0)[0]
    line_c = render_heat(scene, 0)[row]
    ground_c, top_c = np.median(line_c), line_c[column]
    share = (line_c - ground_c) / (top_c - ground_c)
    assert ((share > 0.1) & (share < 0.9)).sum() >= 2
    # Offsets of columns go through all rows: the mean over a column has not the noise of a pixel.
    sky_c = render_heat(SCENE, 0)[:12]
    smooth_c = sky_c - np.median(sky_c, axis=1, keepdims=True)
    columns_c = np.diff(smooth_c.mean(axis=0))
    pixels_c = np.diff(smooth_c, axis=1) - columns_c
    assert columns_c.std() > 2 * pixels_c.std() / np.sqrt(len(sky_c))


def test_the_world_with_heat_imports_no_torch() -> None:
    code = "import sys, modalbind.world; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
