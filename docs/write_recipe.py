"""Writes `docs/reference/recipe.md` from the models that check a recipe.

    python docs/write_recipe.py

A test compares the page with what this renders, so it cannot go stale.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from modalbind.plugin_manager import CORE, load_plugins
from modalbind.recipe.schema import Choice, Recipe

PAGE = Path(__file__).parent / "reference" / "recipe.md"
HEAD = """# The recipe

Written by `python docs/write_recipe.py` from the models that check a recipe. Unknown keys are
refused, with the nearest known one; `modalbind recipes check FILE` names all mistakes at once, and
`modalbind recipes show NAME --json` writes out every default. On the command line a key is its
path: `--set train.lr=1e-4`.

A section with a `kind` takes the options of what it names, beside it:

```yaml
modality: {name: audio}
encoder: {kind: beats, layers: 2}
objective: {kind: infonce, temperature: 0.05, learn: false}
data:
  sources:
    - {kind: manifest, path: pairs.csv}
```

Options of modalities, encoders, augmentations and data sets that plugins bring are in the plugins'
own READMEs; those of the core stand below.
"""


def render() -> str:
    """Return the page."""
    plugins = load_plugins(strict=False)
    kinds = {"dataset": "data.sources", "anchor": "anchor.options", "objective": "objective"}
    parts = [HEAD, *_sections("recipe", Recipe)]
    for kind, place in kinds.items():
        for spec in plugins.specs(kind):
            if plugins.owner(spec).distribution == CORE:
                heading = f"## {kind} `{spec.name}`"
                parts.append(f"{heading}\n\n{spec.summary} In `{place}`.\n\n{_table(spec.options)}")
                parts += _inner_sections(place, spec.options)
    return "\n".join(parts)


def _sections(path: str, model: type[BaseModel]) -> Iterator[str]:
    """Yield a model's own table, then those of the sections in it."""
    summary = " ".join((model.__doc__ or "").split())
    yield f"## `{path}`\n\n{summary}\n\n{_table(model)}"
    yield from _inner_sections("" if path == "recipe" else path, model)


def _inner_sections(path: str, model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        inner = _model(field.annotation)
        if inner is not None and not issubclass(inner, Choice):
            yield from _sections(f"{path}.{name}".removeprefix("."), inner)


def _table(model: type[BaseModel]) -> str:
    rows = [
        f"| `{name}` | {_default(field)} | {_meaning(field)} |"
        for name, field in model.model_fields.items()
    ]
    return "\n".join(["| key | default | what |", "|---|---|---|", *rows]) + "\n"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, Choice):
        return f"`{value.kind}`"
    if isinstance(value, BaseModel):
        return "its own"
    return "none" if value is None else f"`{json.dumps(value)}`"


def _meaning(field: FieldInfo) -> str:
    inner = _model(field.annotation)
    text = field.description or ""
    if not text and inner is not None:
        text = (inner.__doc__ or "").partition("\n")[0]
    if choices := [f"`{choice}`" for choice in _choices(field.annotation)]:
        text += f" One of {', '.join(choices)}."
    return " ".join(text.split()).replace("|", "\\|")


def _choices(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return [str(choice) for choice in get_args(annotation)]
    return [choice for inner in get_args(annotation) for choice in _choices(inner)]


def _model(annotation: Any) -> type[BaseModel] | None:
    """Return the model in an annotation such as `tuple[Section, ...]` or `Section | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model(inner) for inner in get_args(annotation))
    return next((model for model in found if model is not None), None)


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
