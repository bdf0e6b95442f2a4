from __future__ import annotations

import itertools

import pytest

from modalbind.errors import InputError
from modalbind.world import (
    ATTRIBUTES,
    SPLITS,
    Scene,
    SceneObject,
    build_scenes,
    perceived,
    scene_from_key,
    scene_key,
)
from modalbind.world.scenes import COUNTS, KINDS, SIZES, count_scenes, object_split, split_of

RECORDED_KEYS = ["world:1/test/113", "world:1/test/7435", "world:1/test/2244", "world:1/test/2336"]
AUDIBLE = ("kind", "count", "size", "distance")


def test_a_draw_is_the_same_each_time_and_a_longer_one_begins_with_it() -> None:
    assert build_scenes("train", 50, 3, AUDIBLE) == build_scenes("train", 200, 3, AUDIBLE)[:50]
    assert build_scenes("train", 50, 3, AUDIBLE) != build_scenes("train", 50, 4, AUDIBLE)


def test_draws_never_change_between_releases() -> None:
    # Recorded once: keys in manifests and caches depend on it.
    keys = [scene_key(scene) for scene in build_scenes("test", 4, 0, AUDIBLE)]
    assert keys == RECORDED_KEYS


@pytest.mark.parametrize("split", SPLITS)
def test_every_key_names_its_scene(split: str) -> None:
    numbers = {0, 1, 26, 27, count_scenes(split) // 2, count_scenes(split) - 1}
    for number in numbers:
        key = f"world:1/{split}/{number}"
        scene = scene_from_key(key)
        assert scene_key(scene) == key
        assert split_of(scene) == split


@pytest.mark.parametrize(
    "key",
    [
        "world:2/test/1",
        "world:1/dev/1",
        "world:1/test/x",
        "world:1/test/-1",
        "world:1/test/99999",
        "",
    ],
)
def test_a_key_of_nothing_is_refused(key: str) -> None:
    with pytest.raises(InputError, match="does not exist"):
        scene_from_key(key)


def test_objects_of_a_test_scene_were_never_seen_in_training() -> None:
    def combinations(split: str) -> set[SceneObject]:
        scenes = build_scenes(split, 700, 0, AUDIBLE)
        return {thing for scene in scenes for thing in scene.objects}

    held = {split: combinations(split) for split in SPLITS}
    for one, other in itertools.combinations(SPLITS, 2):
        assert held[one].isdisjoint(held[other])
    assert len(held["test"]) == 24


def test_each_pair_of_two_values_is_seen_in_training() -> None:
    train = [
        values
        for values in itertools.product(KINDS, COUNTS, SIZES)
        if object_split(SceneObject(*values)) == "train"
    ]
    assert {(k, c) for k, c, _ in train} == set(itertools.product(KINDS, COUNTS))
    assert {(k, s) for k, _, s in train} == set(itertools.product(KINDS, SIZES))
    assert {(c, s) for _, c, s in train} == set(itertools.product(COUNTS, SIZES))


def test_a_scene_of_two_splits_has_no_key() -> None:
    one, other = SceneObject("bell", 1, "small"), SceneObject("drum", 1, "small")
    assert object_split(one) != object_split(other)
    with pytest.raises(InputError, match="no split holds it"):
        scene_key(Scene((one, other), "left", "near", "cold"))


@pytest.mark.parametrize(
    "perceives", [AUDIBLE, ("kind", "count", "position", "warmth"), tuple(ATTRIBUTES)]
)
def test_a_pool_of_256_is_unique_in_what_is_perceived(perceives: tuple[str, ...]) -> None:
    scenes = build_scenes("test", 256, 0, perceives)
    # Counted another way: as text of the attributes, each scene's objects as a set.
    views = {
        (
            frozenset(
                tuple(getattr(o, a) for a in ("kind", "count", "size") if a in perceives)
                for o in scene.objects
            ),
            tuple(getattr(scene, a) for a in ("position", "distance", "warmth") if a in perceives),
        )
        for scene in scenes
    }
    assert len(views) == 256
    assert len({perceived(scene, perceives) for scene in scenes}) == 256


def test_a_quarter_of_a_pool_shows_one_kind_and_every_value_occurs() -> None:
    scenes = build_scenes("test", 256, 0, AUDIBLE)
    assert sum(len(scene.objects) == 1 for scene in scenes) == 64
    for name in ("kind", "count", "size"):
        seen = {getattr(thing, name) for scene in scenes for thing in scene.objects}
        assert seen == set(ATTRIBUTES[name])
    for name in ("position", "distance", "warmth"):
        assert {getattr(scene, name) for scene in scenes} == set(ATTRIBUTES[name])


def test_more_scenes_than_there_are_is_an_error_with_the_number() -> None:
    with pytest.raises(InputError, match="the world has 846"):
        build_scenes("test", 847, 0, AUDIBLE)


@pytest.mark.parametrize("perceives", [(), ("count",), ("kind", "colour")])
def test_a_wrong_list_of_attributes_is_refused(perceives: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="name kind"):
        build_scenes("test", 4, 0, perceives)


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(InputError, match="train, val, test"):
        build_scenes("dev", 4)
