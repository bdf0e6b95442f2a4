from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from modalbind.world import ATTRIBUTES, PICTURE_PERCEIVES, PICTURE_PX, Scene, SceneObject
from modalbind.world.picture import render_picture

SCENE = Scene((SceneObject("bell", 2, "medium"),), "centre", "mid", "warm")


def with_value(name: str, value: str | int) -> Scene:
    if name in ("kind", "count", "size"):
        thing = dataclasses.replace(SCENE.objects[0], **{name: value})
        return dataclasses.replace(SCENE, objects=(thing,))
    return dataclasses.replace(SCENE, **{name: value})


def mean_picture(scene: Scene) -> np.ndarray:
    return np.mean([np.asarray(render_picture(scene, seed), float) for seed in range(24)], axis=0)


def test_size_mode_and_determinism() -> None:
    picture = render_picture(SCENE, 3)
    assert picture.size == (PICTURE_PX, PICTURE_PX)
    assert picture.mode == "RGB"
    assert picture.tobytes() == render_picture(SCENE, 3).tobytes()


def test_another_seed_is_another_view_of_the_same_scene() -> None:
    one, other = (np.asarray(render_picture(SCENE, seed), float) for seed in (1, 2))
    assert np.abs(one - other).mean() > 5  # of 255: every pixel has its nuisance


@pytest.mark.parametrize("name", PICTURE_PERCEIVES)
def test_each_pictured_attribute_changes_the_picture(name: str) -> None:
    pictures = [mean_picture(with_value(name, value)) for value in ATTRIBUTES[name]]
    for index, one in enumerate(pictures):
        for other in pictures[:index]:
            # The mean over seeds has a grain of about 2; a thing covers about 40 pixels.
            assert (np.abs(one - other).max(axis=2) > 25).sum() >= 12


def test_warmth_is_not_seen() -> None:
    # Nuisance follows the whole scene, so single pictures differ; their means must not.
    warmths = [mean_picture(with_value("warmth", value)) for value in ATTRIBUTES["warmth"]]
    again = [mean_picture(with_value("warmth", "warm")), np.mean(warmths, axis=0)]
    spread = max(np.abs(picture - again[1]).mean() for picture in warmths)
    assert spread < 4
    colours = np.stack([picture.mean(axis=(0, 1)) for picture in warmths])
    assert np.ptp(colours, axis=0).max() < 6


def test_both_kinds_of_a_scene_are_shown() -> None:
    scene = Scene(
        (SceneObject("drum", 2, "big"), SceneObject("bird", 2, "big")), "left", "near", "cold"
    )
    pixels = np.asarray(render_picture(scene, 0), int)
    red = (pixels[..., 0] - pixels[..., 2] > 80).sum()
    blue = (pixels[..., 2] - pixels[..., 0] > 80).sum()
    assert red > 100
    assert blue > 60
