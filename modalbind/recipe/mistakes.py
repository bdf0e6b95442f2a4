"""Turns pydantic's errors into mistakes that name a place as it is written in the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from modalbind.plugin_manager import nearest

ModelT = TypeVar("ModelT", bound=BaseModel)
Path = tuple[str | int, ...]
MAX_SHOWN = 40  # characters of a wrong value in a message


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong.

    Attributes:
        path: Keys and positions from the top of the file.
        problem: What is wrong there, and what would be right.
    """

    path: Path
    problem: str

    def __str__(self) -> str:
        """Return `train.lr: problem`."""
        place = ".".join(map(str, self.path))
        return f"{place}: {self.problem}" if place else self.problem


def describe(source: str, mistakes: Sequence[Mistake]) -> str:
    """Return all mistakes of one recipe in one line."""
    if len(mistakes) == 1:
        return f"recipe {source} asked for; {mistakes[0]}; correct it"
    numbered = " ".join(f"({i}) {mistake}" for i, mistake in enumerate(mistakes, 1))
    return f"recipe {source} asked for; {len(mistakes)} mistakes: {numbered}; correct them"


def check_model(
    model: type[ModelT], raw: Mapping[str, Any], prefix: Path
) -> tuple[ModelT | None, list[Mistake]]:
    """Validate `raw`.

    Args:
        model: What it should be.
        raw: As read from the file.
        prefix: Where in the file it stands.

    Returns:
        The model, or None with its mistakes: one for each place in the file.
    """
    try:
        return model.model_validate(raw), []
    except ValidationError as error:
        return None, list(_mistakes(model, raw, prefix, error))


def _mistakes(
    model: type[BaseModel], raw: Mapping[str, Any], prefix: Path, error: ValidationError
) -> Iterator[Mistake]:
    problems: dict[Path, list[str]] = {}
    for detail in error.errors(include_url=False):
        path = _written_path(raw, detail)
        problem = _problem(model, path, detail)
        if problem not in problems.setdefault(path, []):
            problems[path].append(problem)
    for path, found in problems.items():
        # A value that fits no part of a union has one error a part: it is still one mistake.
        yield Mistake((*prefix, *path), " or ".join(found))


def _written_path(raw: Any, detail: ErrorDetails) -> Path:
    """Return where it stands in the file: pydantic's location less the tags of unions."""
    path: list[str | int] = []
    place = raw
    last = len(detail["loc"]) - 1
    for position, step in enumerate(detail["loc"]):
        if isinstance(place, Mapping) and step in place:
            place = place[step]
        elif isinstance(place, (list, tuple)) and isinstance(step, int) and step < len(place):
            place = place[step]
        elif not (detail["type"] == "missing" and position == last):
            continue
        path.append(step)
    return tuple(path)


def _problem(model: type[BaseModel], path: Path, detail: ErrorDetails) -> str:
    if detail["type"] == "extra_forbidden":
        known = _fields(model, path[:-1])
        near = nearest(str(path[-1]), known)
        remedy = f"did you mean '{near}'?" if near else f"known: {', '.join(sorted(known))}"
        return f"unknown key, {remedy}"
    if detail["type"] == "missing":
        return "is missing"
    message = detail["msg"].removeprefix("Value error, ").replace("Input should", "should")
    if detail["type"] == "value_error":
        return message
    shown = repr(detail["input"])
    shown = shown if len(shown) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]}…"
    return f"{message}, is {shown}"


def _fields(model: type[BaseModel], path: Path) -> list[str]:
    """Return the names that the model at `path` knows; none where it is not a model."""
    models = [model]
    for step in path:
        fields = [inner.model_fields[str(step)] for inner in models if step in inner.model_fields]
        if fields:
            models = [found for field in fields for found in _models(field.annotation)]
        elif not isinstance(step, int):  # a position keeps the models of its tuple
            models = []
    return [name for inner in models for name in inner.model_fields]


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)
