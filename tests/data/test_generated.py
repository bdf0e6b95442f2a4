"""The generated world as a data set of a modality that perceives some of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from PIL import Image

from modalbind.data.generated import WorldDataset, build
from modalbind.data.options import WorldOptions
from modalbind.errors import AnchorError, InputError
from modalbind.interfaces import ModalitySpec
from modalbind.types import Pair
from modalbind.world import LANGUAGES, Scene, caption, perceived, scene_from_key

PERCEIVES = ("kind", "count", "distance")


class Renderer:
    """Renders a scene as what it perceives of it."""

    def render(self, scene: Scene, seed: int) -> Any:
        return (*perceived(scene, PERCEIVES), seed)


def make(
    perceives: tuple[str, ...] = PERCEIVES, is_text: bool = False, **options: Any
) -> WorldDataset:
    spec = ModalitySpec(
        name="sonar", summary="", api_version=1, build="x:y", unit="", suffixes=(),
        default_recipe="", quickstart_recipe="", perceives=perceives, is_text=is_text,
    )  # fmt: skip
    return build(WorldOptions(**{"train": 12, "val": 4, "test": 6, **options}), None, spec)


@pytest.fixture(scope="module")
def pairs() -> Sequence[Pair]:
    return make(captions=2).pairs()


@pytest.fixture(scope="module")
def keys(pairs: Sequence[Pair]) -> tuple[str, str]:
    first, second = list(dict.fromkeys(pair.sample for pair in pairs))[:2]
    return first, second


def test_splits_have_as_many_scenes_and_wordings_as_asked(pairs: Sequence[Pair]) -> None:
    assert Counter(p.split for p in pairs) == {"train": 24, "val": 8, "test": 6 * len(LANGUAGES)}
    assert {p.language for p in pairs if p.split != "test"} == {"en"}
    assert {p.language for p in pairs if p.split == "test"} == set(LANGUAGES)
    for split, count in (("train", 12), ("val", 4), ("test", 6)):
        assert len({p.sample for p in pairs if p.split == split}) == count


def test_a_scene_is_its_own_group_picture_and_key(pairs: Sequence[Pair]) -> None:
    for pair in pairs:
        assert pair.sample == pair.image == pair.group == pair.positive_key
        assert pair.sample.startswith(f"world:1/{pair.split}/")


def test_captions_say_what_is_perceived_and_no_two_scenes_look_alike(
    pairs: Sequence[Pair],
) -> None:
    test = [p for p in pairs if p.split == "test" and p.language == "en"]
    for pair in test:
        assert pair.text == caption(scene_from_key(pair.sample), "en", PERCEIVES, 0)
    assert len({perceived(scene_from_key(p.sample), PERCEIVES) for p in test}) == len(test)


def test_the_seed_draws_other_scenes(pairs: Sequence[Pair]) -> None:
    again, other = make(captions=2).pairs(), make(seed=1, captions=2).pairs()
    assert again == pairs
    assert {p.sample for p in other} != {p.sample for p in pairs}


def test_samples_are_rendered_by_the_plugin_and_hashed_by_key(keys: tuple[str, str]) -> None:
    dataset, modality, (first, second) = make(), Renderer(), keys
    sample = dataset.load_sample(first, modality)  # type: ignore[arg-type]
    assert sample[:-1] == perceived(scene_from_key(first), PERCEIVES)
    assert sample == dataset.load_sample(first, modality)  # type: ignore[arg-type]
    hashes = {dataset.sample_hash(key, modality) for key in (first, first, second)}  # type: ignore[arg-type]
    assert len(hashes) == 2 and {len(digest) for digest in hashes} == {32}


def test_of_a_modality_of_texts_each_caption_is_a_sample_in_its_language() -> None:
    world, scenes = make(is_text=True, captions=2), make(captions=2)
    assert [(p.text, p.image, p.split, p.positive_key) for p in world.pairs()] == [
        (p.text, p.image, p.split, p.positive_key) for p in scenes.pairs()
    ]
    tested = [pair for pair in world.pairs() if pair.split == "test"]
    assert Counter(pair.sample_language for pair in tested) == dict.fromkeys(LANGUAGES, 6)
    for pair in tested[:3]:
        sample = world.load_sample(pair.sample, Renderer())  # type: ignore[arg-type]
        assert (sample.text, sample.language) == (pair.text, pair.language)
    hashes = {world.sample_hash(pair.sample, Renderer()) for pair in tested}  # type: ignore[arg-type]
    assert len(hashes) == len({pair.sample for pair in tested})


def test_anchor_items_are_texts_and_pictures(keys: tuple[str, str]) -> None:
    dataset, (first, second) = make(), keys
    text = dataset.anchor_item("text", "a dog", "en")
    assert (text.load(), text.language) == ("a dog", "en")
    one, two = dataset.anchor_item("image", first), dataset.anchor_item("image", second)
    assert isinstance(one.load(), Image.Image) and one.content_hash != two.content_hash
    assert dataset.anchor_item("image", first).content_hash == one.content_hash
    with pytest.raises(AnchorError, match="depth"):
        dataset.anchor_item("depth", first)


def test_a_modality_without_a_renderer_is_told_to_bring_pairs() -> None:
    with pytest.raises(InputError, match=r"'sonar'.*cannot render.*--data"):
        make(perceives=())
