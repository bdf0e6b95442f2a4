"""modalbind adds a modality to a frozen embedding space, and measures what emerges.

    run = modalbind.align("audio/quickstart")
    space = modalbind.load(run.path)

Importing this imports nothing heavy: each name below is imported when it is first used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modalbind.recipe import Recipe, load_recipe
    from modalbind.run import Run, load

    __version__: str

__all__ = ["Recipe", "Run", "__version__", "align", "load", "load_recipe"]

_HOMES = {
    "Recipe": "modalbind.recipe",
    "Run": "modalbind.run",
    "load": "modalbind.run",
    "load_recipe": "modalbind.recipe",
}


def align(
    recipe: Recipe | str | Path | Mapping[str, Any],
    *,
    overrides: Sequence[str] = (),
    out: str | Path | None = None,
    resume: bool = False,
    force: bool = False,
) -> Run:
    """Train a tower for a new modality into a frozen space, and measure what emerged.

    Args:
        recipe: A recipe, its name (`audio/quickstart`), a YAML file, or its content.
        overrides: `key=value` as for `--set`.
        out: Run directory; default `runs/<recipe>-<time>`.
        resume: Go on with the run in `out`, or with the latest one.
        force: Replace the run in `out`.

    Raises:
        InputError: If recipe, data, anchor or run directory cannot be used.
    """
    from modalbind import pipeline
    from modalbind.recipe.load import read_recipe

    return pipeline.align(
        read_recipe(recipe, overrides),
        out=None if out is None else Path(out),
        resume=resume,
        force=force,
        console=None,
    )


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("modalbind")
    if name not in _HOMES:
        raise AttributeError(f"module 'modalbind' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
