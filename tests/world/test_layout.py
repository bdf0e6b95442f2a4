from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from modalbind.world import ATTRIBUTES, Scene, SceneObject, build_scenes, layout, scene_rng

SCENE = Scene((SceneObject("bell", 3, "medium"),), "centre", "mid", "warm")


def mean(scene: Scene, name: str) -> float:
    return float(
        np.mean([getattr(place, name) for seed in range(20) for place in layout(scene, seed)])
    )


def test_same_seed_same_places_another_seed_others() -> None:
    assert layout(SCENE, 1) == layout(SCENE, 1)
    assert layout(SCENE, 1) != layout(SCENE, 2)


def test_everything_is_placed_once_and_inside_the_view() -> None:
    for scene in build_scenes("train", 300):
        places = layout(scene, 5)
        assert sorted(place.kind for place in places) == sorted(
            thing.kind for thing in scene.objects for _ in range(thing.count)
        )
        for place in places:
            # A big near thing at the side may lose half a pixel of 64.
            assert place.radius - 0.008 < place.x < 1.008 - place.radius
            assert place.radius < place.y < 1 - place.radius


@pytest.mark.parametrize(
    ("attribute", "measured"), [("position", "x"), ("distance", "range_m"), ("size", "radius")]
)
def test_each_attribute_moves_its_own_measure(attribute: str, measured: str) -> None:
    values = []
    for value in ATTRIBUTES[attribute]:
        if attribute == "size":
            thing = dataclasses.replace(SCENE.objects[0], size=value)
            scene = dataclasses.replace(SCENE, objects=(thing,))
        else:
            scene = dataclasses.replace(SCENE, **{attribute: value})
        values.append(mean(scene, measured))
    assert values == sorted(values)
    assert len(set(values)) == len(values) > 1


def test_streams_of_different_purposes_differ() -> None:
    one, other = scene_rng(SCENE, 0, "a").random(), scene_rng(SCENE, 0, "b").random()
    assert one != other
