"""Applies `key=value` to the raw content of a recipe.

Keys are dotted, with numbers for the items of a list (`augment.0.kind`); values are YAML. Whether
a key exists is for the schema to say, which knows the names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from itertools import pairwise
from typing import Any

from modalbind.errors import RecipeError
from modalbind.recipe.yaml_loader import parse_yaml


def apply_overrides(raw: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return a copy of `raw` with every override written into it, the last one of a key winning.

    Raises:
        RecipeError: With every override that is not `key=value`, or has no place.
    """
    content = deepcopy(dict(raw))
    mistakes = []
    for override in overrides:
        try:
            _apply(content, override)
        except RecipeError as error:
            mistakes.append(str(error))
    if len(mistakes) > 1:
        numbered = " ".join(f"({i}) {text}" for i, text in enumerate(mistakes, 1))
        raise RecipeError(f"overrides asked for; {len(mistakes)} mistakes: {numbered}; mend them")
    if mistakes:
        raise RecipeError(mistakes[0])
    return content


def _apply(content: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    steps = [step.strip() for step in key.split(".")]
    if not equals or not all(steps):
        raise RecipeError(
            f"override '{override}' asked for; it is not key=value; "
            "write for example --set train.lr=1e-4"
        )
    place: Any = content
    for step, following in pairwise(steps):
        empty: Any = [] if following.isdecimal() else {}
        inner = _get(place, step, override)
        if inner is None:
            inner = empty
            _put(place, step, inner, override)
        place = inner
    _put(place, steps[-1], parse_yaml(value, f"--set {override}"), override)


def _get(place: Any, step: str, override: str) -> Any:
    """Return what stands at `step`, or None if nothing does."""
    if isinstance(place, dict):
        return place.get(step)
    index = _index(place, step, override)
    return place[index] if index < len(place) else None


def _put(place: Any, step: str, value: Any, override: str) -> None:
    if isinstance(place, dict):
        place[step] = value
        return
    index = _index(place, step, override)
    place[index : index + 1] = [value]  # one past the end appends


def _index(place: Any, step: str, override: str) -> int:
    if not isinstance(place, list):
        raise RecipeError(
            f"override '{override}' asked for; '{step}' would lie inside the single value "
            f"{place!r}; name a key above it"
        )
    if not step.isdecimal() or int(step) > len(place):
        raise RecipeError(
            f"override '{override}' asked for; '{step}' is not an item of a list of "
            f"{len(place)}; use 0 to {len(place)}"
        )
    return int(step)
