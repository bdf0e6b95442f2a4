"""Renders the template of a plugin, whole or not at all; needs copier, and no network or git."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from modalbind.errors import InputError
from modalbind.plugin_checks import KINDS
from modalbind.plugin_manager import CORE, Plugins
from modalbind.recipe.yaml_loader import dump_yaml
from modalbind.scaffold.following import (
    FeatureShape,
    FollowedRecipe,
    follow_recipe,
    look_at_features,
)
from modalbind.scaffold.plan import Plan

TEMPLATE = Path(__file__).parent / "template"

_SUMMARIES = {
    "modality": "Recordings of several channels as a modality",
    "encoder": "An encoder for the modality {}",
    "dataset": "A data set of the modality {}",
    "augmentation": "An augmentation for the modality {}",
    "anchor": "A kind of anchor space",
    "objective": "An objective",
}
_OFFERS = {"modality": ("modality", "encoder", "augmentation", "dataset")}
_ENCODERS = {
    "frames_encoder": "Convolutions over frames, mean and maximum over time; from scratch.",
    "grid_encoder": "Convolutions that halve a grid, mean over its cells; from scratch.",
}


def write_plugin(plan: Plan, plugins: Plugins) -> list[Path]:
    """Write a plugin.

    Args:
        plan: Checked by `plan_plugin`.
        plugins: What is installed.

    Returns:
        The files that were written, sorted.

    Raises:
        InputError: If copier is not installed, or the folder cannot be written.
        ModalbindError: If the quick start of the modality that it is for cannot be read.
    """
    copy = _import_copier()
    shape = None
    if plan.kind == "encoder" and plan.modality is not None:
        shape = look_at_features(plan.modality, plugins)
    recipe = follow_recipe(plan, plugins)
    parts = list_parts(plan, shape, recipe)
    data = describe_plugin(plan, parts, shape, recipe)
    try:
        _render(copy, plan.folder, parts, data)
    except OSError as error:
        raise InputError(
            f"new plugin in {plan.folder} asked for; {error.strerror or error}; name a folder that "
            "can be written with --out"
        ) from error
    return sorted(path for path in plan.folder.rglob("*") if path.is_file())


def list_parts(
    plan: Plan, shape: FeatureShape | None, recipe: FollowedRecipe | None
) -> tuple[str, ...]:
    """Return the folders of the template that make up a plugin."""
    parts = {
        "modality": ("modality", "frames_encoder", "augmentation", "dataset"),
        "encoder": ("grid_encoder" if shape and not shape.is_padded else "frames_encoder",),
    }.get(plan.kind, (plan.kind,))
    return ("every", *parts, *(("recipe",) if recipe else ()))


def describe_plugin(
    plan: Plan,
    parts: Sequence[str],
    shape: FeatureShape | None,
    recipe: FollowedRecipe | None,
) -> dict[str, Any]:
    """Return what the template is filled with."""
    offers = _OFFERS.get(plan.kind, (plan.kind,))
    encoders = [summary for part, summary in _ENCODERS.items() if part in parts]
    data = {
        "name": plan.name,
        "yaml_name": dump_yaml(plan.name).splitlines()[0],
        "kind": plan.kind,
        "distribution": plan.distribution,
        "package": plan.package,
        "modality": plan.modality or plan.name,
        "core_version": version(CORE),
        "summary": f"{_SUMMARIES[plan.kind].format(plan.modality)}.",
        "parts": list(parts),
        "specs": sorted(KINDS[kind][1].__name__ for kind in offers),
        "encoder_summary": encoders[0] if encoders else "",
        "has_recipe": recipe is not None,
    }
    return data | _describe_shape(shape) | _describe_recipe(plan, recipe)


def _describe_shape(shape: FeatureShape | None) -> dict[str, Any]:
    if shape is None:
        return {}
    if shape.is_padded:
        named = ", ".join(("time", *map(str, shape.shape[1:])))
        # (time,) alone is one number in a frame.
        return {"inputs": math.prod(shape.shape[1:]), "feature_shape": f"({named})"}
    # A grid without channels has one; encoders see every grid as (channels, height, width).
    channels = shape.shape[0] if len(shape.shape) == 3 else 1
    return {"inputs": channels, "shape": shape.shape, "feature_shape": str(shape.shape)}


def _describe_recipe(plan: Plan, recipe: FollowedRecipe | None) -> dict[str, Any]:
    if recipe is None:
        return {"recipe_file": "quickstart"}
    is_data = plan.kind == "dataset"
    needs = "The data set, and what that recipe needs." if is_data else "What that recipe needs."
    return {
        "recipe": recipe.text,
        "recipe_file": recipe.name,
        "recipe_source": recipe.source,
        "recipe_needs": needs,
        "recipe_arguments": " --root FOLDER" if is_data else "",
    }


def _import_copier() -> Any:
    try:
        from copier import run_copy
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "copier":
            raise
        raise InputError(
            "a new plugin asked for; copier, which writes it, is not installed; try: pip install "
            "'modalbind[author]'"
        ) from None
    return run_copy


def _render(copy: Any, folder: Path, parts: Sequence[str], data: Mapping[str, Any]) -> None:
    """Render beside `folder`, then move there in one step."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as staging:
        made = Path(staging) / folder.name
        for part in parts:
            copy(
                str(TEMPLATE),
                made,
                data={**data, "part": part},
                defaults=True,
                quiet=True,
                overwrite=True,
            )
        if folder.is_dir():
            folder.rmdir()  # it is empty, or this fails and nothing is lost
        os.rename(made, folder)
