"""Says what a scene holds, in every language of the world.

The words are a table (`captions.yaml`); this file only puts them together. Which of a language's
wordings is used, and which group of things is named first, is nuisance and follows the seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files

import yaml
from pydantic import BaseModel, ConfigDict, Field

from modalbind.errors import InputError
from modalbind.world.layout import scene_rng
from modalbind.world.scenes import ATTRIBUTES, Scene, SceneObject, check_perceives

PICTURED_LANGUAGES = ("en", "de", "fi", "tr", "hu", "ru", "el", "ar", "hi", "ja")
"""Languages whose captions were paired with pictures when the anchor was trained."""

UNPICTURED_LANGUAGES = ("sw", "ko")
"""Languages that the anchor learnt from sentence pairs with English alone."""

LANGUAGES = PICTURED_LANGUAGES + UNPICTURED_LANGUAGES


class Words(BaseModel):
    """One language: the table's entry, split into words."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    order: str
    numbers: dict[str, str]
    kinds: dict[str, str]
    sizes: dict[str, list[str]]
    conjunction: str = Field(alias="and")
    position: dict[str, str]
    distance: dict[str, str]
    warmth: dict[str, str]
    wordings: list[str]

    def group(self, thing: SceneObject, perceives: Sequence[str]) -> str:
        """Name one group of things; without its count it is named as one thing."""
        count = thing.count if "count" in perceives else 1
        noun_class, *forms = self.kinds[thing.kind].split()
        sizes = self.sizes[thing.size]
        return self.order.format(
            number=self.numbers[noun_class].split()[count - 1] if "count" in perceives else "",
            size=sizes[min(count, len(sizes)) - 1] if "size" in perceives else "",
            kind=forms[min(count, len(forms)) - 1],
        )


def caption(
    scene: Scene,
    language: str = "en",
    perceives: Sequence[str] = tuple(ATTRIBUTES),
    seed: int = 0,
) -> str:
    """Describe a scene.

    Args:
        scene: What to describe.
        language: One of `LANGUAGES`.
        perceives: Attributes that may be mentioned; all of them are.
        seed: Chooses the wording.

    Raises:
        InputError: If the language or an attribute is unknown.
    """
    check_perceives(perceives)
    words = _words(language)
    rng = scene_rng(scene, seed, f"caption/{language}")
    wording = words.wordings[rng.integers(len(words.wordings))]
    groups = [words.group(scene.objects[i], perceives) for i in rng.permutation(len(scene.objects))]
    place = [
        getattr(words, name)[getattr(scene, name)]
        for name in ("position", "distance", "warmth")
        if name in perceives
    ]
    text = wording.format(
        things=f" {words.conjunction} ".join(groups),
        place=" ".join(place),
    )
    return " ".join(text.split())


def _words(language: str) -> Words:
    try:
        return _table()[language]
    except KeyError:
        raise InputError(
            f"captions in '{language}' were asked for; the world has {', '.join(LANGUAGES)}; "
            "name one of them"
        ) from None


@cache
def _table() -> dict[str, Words]:
    text = files("modalbind.world").joinpath("captions.yaml").read_text(encoding="utf-8")
    return {name: Words.model_validate(entry) for name, entry in yaml.safe_load(text).items()}
