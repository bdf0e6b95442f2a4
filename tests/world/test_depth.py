from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from modalbind.world import (
    ATTRIBUTES,
    DEPTH_PERCEIVES,
    DEPTH_PX,
    Placement,
    Scene,
    SceneObject,
    build_scenes,
    layout,
    render_depth,
)
from modalbind.world.depth import MAX_RANGE_M
from modalbind.world.shapes import cover_of

SCENE = Scene((SceneObject("drum", 2, "big"),), "centre", "mid", "warm")
RANGES_M = {"near": (1.86, 2.14), "mid": (3.72, 4.28), "far": (7.44, 8.56)}  # 7 % about 2, 4, 8


def with_value(name: str, value: str | int) -> Scene:
    if name in ("kind", "count", "size"):
        thing = dataclasses.replace(SCENE.objects[0], **{name: value})
        return dataclasses.replace(SCENE, objects=(thing,))
    return dataclasses.replace(SCENE, **{name: value})


def body_m(depth: np.ndarray, thing: Placement) -> np.ndarray:
    """Depths measured where a thing covers the whole pixel."""
    rows, columns, cover = cover_of(thing, DEPTH_PX)
    values = depth[rows, columns][cover == 1]
    return values[np.isfinite(values)]


def mean_map(scene: Scene) -> np.ndarray:
    """Mean over seeds of nearness in 1/m, where what is missing is as far as can be."""
    maps = np.stack([render_depth(scene, seed) for seed in range(64)])
    return np.mean(np.nan_to_num(1 / maps, nan=0.0), axis=0)


def test_shape_dtype_and_same_seed_same_bytes() -> None:
    depth = render_depth(SCENE, 3)
    assert depth.shape == (DEPTH_PX, DEPTH_PX)
    assert depth.dtype == np.float32
    assert depth.tobytes() == render_depth(SCENE, 3).tobytes()


def test_another_seed_is_another_measurement() -> None:
    one, other = render_depth(SCENE, 1), render_depth(SCENE, 2)
    both = np.isfinite(one) & np.isfinite(other)
    assert (one[both] != other[both]).mean() > 0.99
    assert (np.isfinite(one) != np.isfinite(other)).mean() > 0.01  # holes move


@pytest.mark.parametrize("distance", RANGES_M)
def test_things_stand_where_the_layout_says_at_its_range(distance: str) -> None:
    scene = dataclasses.replace(SCENE, distance=distance)
    low, high = RANGES_M[distance]
    for seed in range(6):
        depth = render_depth(scene, seed)
        places = layout(scene, seed)
        assert len(places) == 2
        for place in places:
            found = float(np.median(body_m(depth, place)))
            assert found == pytest.approx(place.range_m, rel=0.03)  # a drum is flat
            assert low * 0.97 < found < high * 1.03


@pytest.mark.parametrize("kind", ATTRIBUTES["kind"])
def test_relief_stays_near_the_body(kind: str) -> None:
    scene = with_value("kind", kind)
    for place in layout(scene, 0):
        found = body_m(render_depth(scene, 0), place)
        deepest = place.range_m * place.radius * 1.3 * 2.5 + 5 * 0.0015 * place.range_m**2
        assert len(found)
        assert np.abs(found - place.range_m).max() <= deepest


def test_a_thing_is_in_front_of_what_is_behind_it() -> None:
    for scene in build_scenes("train", 60, 0, DEPTH_PERCEIVES):
        depth = render_depth(scene, 0)
        for place in layout(scene, 0):
            row = min(DEPTH_PX - 1, int(place.y * DEPTH_PX))
            behind = depth[row][np.isfinite(depth[row])]
            body = body_m(depth, place)
            if len(behind) and len(body):  # far rows may see nothing but things
                assert np.median(body) <= behind.max() + 0.5


def test_noise_grows_with_the_square_of_depth() -> None:
    # The wall of a drum is flat: what differs within it is noise.
    spreads = {}
    for distance, range_m in (("near", 2.0), ("mid", 4.0), ("far", 8.0)):
        scene = dataclasses.replace(SCENE, distance=distance)
        bodies = [
            body_m(render_depth(scene, seed), place)
            for seed in range(60)
            for place in layout(scene, seed)
        ]
        spreads[range_m] = np.sqrt(np.mean([body.var(ddof=1) for body in bodies]))
    for range_m, spread in spreads.items():
        assert spread == pytest.approx(0.0015 * range_m**2, rel=0.15)


def test_holes_are_at_edges_and_here_and_there() -> None:
    edge, inside, elsewhere = [], [], []
    for seed in range(40):
        missing = np.isnan(render_depth(SCENE, seed))
        is_far = np.ones_like(missing)
        for place in layout(SCENE, seed):
            rows, columns, cover = cover_of(place, DEPTH_PX)
            edge.append(missing[rows, columns][(cover > 0) & (cover < 1)])
            inside.append(missing[rows, columns][cover == 1])
            is_far[max(0, rows.start - 3) : rows.stop + 3] = False
        is_far[: DEPTH_PX // 2] = False  # the sky is missing for another reason
        elsewhere.append(missing[is_far])
    shares = [np.concatenate(part).mean() for part in (edge, inside, elsewhere)]
    assert shares[0] > 0.15
    assert shares[1] < 0.05
    assert 0.005 < shares[2] < 0.03


def test_open_sky_is_not_measured_and_a_wall_is() -> None:
    tops = [np.isfinite(render_depth(SCENE, seed)[:8]).mean() for seed in range(30)]
    assert set(np.round(tops)) == {0, 1}
    assert all(top < 0.001 or top > 0.9 for top in tops)


def test_nothing_is_measured_beyond_the_range() -> None:
    for seed in range(10):
        depth = render_depth(SCENE, seed)
        found = depth[np.isfinite(depth)]
        assert found.min() > 1
        assert found.max() < MAX_RANGE_M + 6 * 0.0015 * MAX_RANGE_M**2


def count_changed(one: np.ndarray, other: np.ndarray) -> int:
    """Pixels whose mean nearness differs by more than nuisance leaves in it; see the last test."""
    return int((np.abs(one - other) > 0.03).sum())


@pytest.mark.parametrize("name", DEPTH_PERCEIVES)
def test_each_perceived_attribute_changes_the_map(name: str) -> None:
    maps = [mean_map(with_value(name, value)) for value in ATTRIBUTES[name]]
    for index, one in enumerate(maps):
        assert min((count_changed(one, other) for other in maps[:index]), default=99) >= 40


def test_warmth_is_not_seen() -> None:
    # Nuisance follows the whole scene, so single maps differ; their means must not.
    maps = [mean_map(with_value("warmth", value)) for value in ATTRIBUTES["warmth"]]
    assert max(count_changed(one, other) for one in maps for other in maps) <= 8
