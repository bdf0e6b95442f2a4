from __future__ import annotations

import dataclasses
from collections import defaultdict
from itertools import product

import pytest

from modalbind.errors import InputError
from modalbind.world import (
    ATTRIBUTES,
    LANGUAGES,
    PICTURED_LANGUAGES,
    UNPICTURED_LANGUAGES,
    Scene,
    SceneObject,
    caption,
)

SCENE = Scene(
    (SceneObject("bell", 3, "small"), SceneObject("frog", 1, "big")), "left", "far", "hot"
)
SEEDS = range(30)


def same_split(kind: str, count: int, size: str) -> Scene:
    return Scene((SceneObject(kind, count, size),), "left", "near", "cold")


def all_words(language: str) -> set[str]:
    words = set()
    for kind, count, size in product(*(ATTRIBUTES[name] for name in ("kind", "count", "size"))):
        words |= set(caption(same_split(kind, count, size), language).split())
    for names in product(*(ATTRIBUTES[name] for name in ("position", "distance", "warmth"))):
        scene = Scene(SCENE.objects, *names)
        for seed in SEEDS:
            words |= set(caption(scene, language, seed=seed).split())
    return words


def test_an_english_caption_says_what_is_there() -> None:
    wordings = {caption(SCENE, "en", seed=seed) for seed in SEEDS}
    place = "on the left far away burning hot"
    things = "three small bells and one big frog"
    turned = "one big frog and three small bells"
    assert wordings == {
        text
        for said in (things, turned)
        for text in (f"{said} {place}", f"{place} {said}", f"scene: {said} {place}")
    }


def test_languages_share_no_word() -> None:
    languages = defaultdict(set)
    for language in LANGUAGES:
        for word in all_words(language):
            languages[word.casefold()].add(language)
    assert {word: found for word, found in languages.items() if len(found) > 1} == {}


def test_some_language_is_never_pictured() -> None:
    assert len(LANGUAGES) == 12
    assert UNPICTURED_LANGUAGES
    assert set(PICTURED_LANGUAGES).isdisjoint(UNPICTURED_LANGUAGES)
    assert LANGUAGES[0] == "en"


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_value_of_each_attribute_has_its_own_words(language: str) -> None:
    for name in ("position", "distance", "warmth"):
        texts = {
            caption(dataclasses.replace(SCENE, **{name: value}), language, ("kind", name)).replace(
                "scene:", ""
            )
            for value in ATTRIBUTES[name]
        }
        assert len(texts) == 3
    said = [
        frozenset(caption(same_split(*values), language, ("kind", "count", "size"), seed=0).split())
        - wording_words(language)
        for values in product(*(ATTRIBUTES[name] for name in ("kind", "count", "size")))
    ]
    assert len(set(said)) == len(said) == 120


def wording_words(language: str) -> frozenset[str]:
    """Words that only open a caption."""
    texts = [caption(same_split("bell", 1, "small"), language, ("kind",), s) for s in range(40)]
    return frozenset.union(*map(frozenset, map(str.split, texts))) - frozenset(
        min(texts, key=len).split()
    )


@pytest.mark.parametrize("hidden", ["count", "size", "position", "distance", "warmth"])
def test_what_is_not_perceived_is_not_mentioned(hidden: str) -> None:
    perceives = tuple(name for name in ATTRIBUTES if name != hidden)
    words = {
        "count": {"one", "two", "three", "four", "bells"},
        "size": {"small", "big"},
        "position": {"left"},
        "distance": {"far"},
        "warmth": {"hot"},
    }
    for seed in SEEDS:
        text = set(caption(SCENE, "en", perceives, seed).split())
        assert text.isdisjoint(words[hidden])
        assert text >= {"frog"}


def test_number_agrees_with_the_noun() -> None:
    russian = [caption(same_split("dog", n, "big"), "ru", ("kind", "count")) for n in (1, 2)]
    assert [text.removeprefix("сцена: ") for text in russian] == ["одна собака", "две собаки"]
    arabic = [caption(same_split("frog", n, "big"), "ar", ("kind", "count")) for n in (1, 2, 3)]
    assert [text.removeprefix("مشهد: ") for text in arabic] == [
        "ضفدع واحد",
        "ضفدعان اثنان",
        "ضفادع ثلاثة",
    ]


def test_an_unknown_language_is_refused() -> None:
    with pytest.raises(InputError, match="captions in 'fr'"):
        caption(SCENE, "fr")


def test_same_seed_same_caption() -> None:
    assert caption(SCENE, "hu", seed=5) == caption(SCENE, "hu", seed=5)
