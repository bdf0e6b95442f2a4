"""Variants of one recipe, each trained over seeds and held against the first, item by item."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from modalbind.checkpoint import write_json
from modalbind.errors import RecipeError
from modalbind.plugin_manager import load_plugins
from modalbind.progress import Progress
from modalbind.recipe import Recipe
from modalbind.recipe.load import read_recipe
from modalbind.report import Ablation, AblationVariant
from modalbind.rundir import default_run_path, point_latest
from modalbind.sweeps import compare, sweep

ABLATION_FILE = "ablation.json"
_NAME = re.compile(r"[\w.+-]+")


def ablate(
    recipe: Recipe,
    *,
    seeds: Sequence[int] = (),
    out: Path | None = None,
    resume: bool = False,
    force: bool = False,
    console: Console | None = None,
) -> Path:
    """Train every variant over the same seeds, and compare each with the first.

    Args:
        recipe: With an `ablation` section.
        seeds: Default: the recipe's own.
        out: Directory; default as for a run.
        resume: Go on with the ablation in `out`.
        force: Replace the runs in `out`.
        console: Where progress is shown.

    Returns:
        The directory: a sweep in each variant's folder, and `ablation.json`.

    Raises:
        RecipeError: If it has no variants, or one of them is no valid recipe; before any trains.
        RunError: If `out` is taken.
    """
    variants = read_variants(recipe)
    path = out or default_run_path(recipe)
    progress = Progress(console)
    for name, one in variants.items():
        progress.say(f"variant {name}")
        goes_on = resume and (path / name).exists()
        sweep(one, seeds=seeds, out=path / name, resume=goes_on, force=force, console=console)
    point_latest(path)
    first, *others = variants
    assert recipe.ablation is not None
    ablation = Ablation(
        name=recipe.name,
        seeds=tuple(seeds) or (recipe.seed,),
        variants=tuple(
            AblationVariant(name=name, changes=changes)
            for name, changes in recipe.ablation.variants.items()
        ),
        comparisons=tuple(
            compare(path / name, path / first, console=console).model_copy(
                update={"run": name, "other": first}
            )
            for name in others
        ),
    )
    write_json(path / ABLATION_FILE, ablation.model_dump(mode="json"))
    return path


def read_ablation(path: Path) -> Ablation:
    """Read what `ablate` wrote."""
    return Ablation.model_validate_json((path / ABLATION_FILE).read_text("utf-8"))


def read_variants(recipe: Recipe) -> Mapping[str, Recipe]:
    """Return the recipe of each variant.

    Raises:
        RecipeError: If there are none, a name cannot be a folder's, or a change is wrong; the
            message names the variant.
    """
    if recipe.ablation is None:
        raise RecipeError(
            f"variants of recipe {recipe.name or 'given'} asked for; it has no section "
            "'ablation'; add ablation.variants, or name another recipe"
        )
    plugins = load_plugins()
    plain = recipe.model_copy(update={"ablation": None})
    variants = {}
    for name, changes in recipe.ablation.variants.items():
        if not _NAME.fullmatch(name) or name.startswith("."):
            raise RecipeError(
                f"variant '{name}' asked for; its runs need a folder of that name; use letters, "
                "digits, '-' and '_'"
            )
        try:
            one = read_recipe(plain, changes, plugins)
        except RecipeError as error:
            raise RecipeError(f"variant '{name}' asked for; {error}") from error
        variants[name] = one.model_copy(update={"name": f"{recipe.name}-{name}"})
    return variants
