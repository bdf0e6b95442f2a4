"""What a small plugin takes over from the modality that it is for: its recipe, and its features.

The recipe is the modality's own with one section changed. Features are made once, of the first
sample of its quick start, so that a new encoder fits them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from modalbind.errors import DataError
from modalbind.plugin_manager import Plugins
from modalbind.recipe.catalog import find_recipe
from modalbind.recipe.load import load_recipe, resolve
from modalbind.recipe.yaml_loader import dump_yaml, read_yaml
from modalbind.scaffold.plan import Plan

ANCHOR_DIM = 512


@dataclass(frozen=True, slots=True)
class FollowedRecipe:
    """A recipe that uses the new plugin.

    Attributes:
        source: The recipe that it follows.
        name: Last part of its name, `quickstart` or `default`.
        text: Its YAML, without a head.
    """

    source: str
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class FeatureShape:
    """Features of one sample of a modality.

    Attributes:
        is_padded: Whether they are `(time, ...)` of varying length.
        shape: Of this sample.
    """

    is_padded: bool
    shape: tuple[int, ...]


def follow_recipe(plan: Plan, plugins: Plugins) -> FollowedRecipe | None:
    """Return a modality's recipe with the new plugin in it; None without a modality.

    A data set takes the place of the user's own pairs; all else goes into the quick start.
    """
    if plan.modality is None:
        return None
    spec = plugins.modality(plan.modality)
    is_data = plan.kind == "dataset"
    source = spec.default_recipe if is_data else spec.quickstart_recipe
    recipe: dict[str, Any] = dict(read_yaml(find_recipe(source, plugins, plan.modality)))
    name = "default" if is_data else "quickstart"
    changes: dict[str, dict[str, Any]] = {
        "encoder": {"encoder": {"kind": plan.name}},
        "dataset": {"data": {"sources": [{"kind": plan.name}]}},
        "augmentation": {"augment": [*recipe.get("augment", ()), {"kind": plan.name}]},
        "anchor": {"anchor": {"spec": f"{plan.name}:{ANCHOR_DIM}"}},
        "objective": {"objective": {"kind": plan.name}},
    }
    summary = f"As {source}, with the {plan.kind} '{plan.name}'."
    recipe |= {"name": f"{plan.name}-{name}", "summary": summary, **changes[plan.kind]}
    return FollowedRecipe(source, name, dump_yaml(recipe))


def look_at_features(modality: str, plugins: Plugins) -> FeatureShape:
    """Make the features of the first sample of a modality's quick start; imports torch.

    Raises:
        DataError: If the quick start has no samples.
    """
    from modalbind.inputs import build_datasets, build_modality

    spec = plugins.modality(modality)
    resolved = resolve(load_recipe(spec.quickstart_recipe, (), plugins), plugins)
    reader = build_modality(resolved)
    for dataset in build_datasets(resolved)[0]:
        for pair in dataset.pairs():
            features = reader.features(dataset.load_sample(pair.sample, reader))
            return FeatureShape(reader.is_padded, tuple(features.shape))
    raise DataError(
        f"features of modality '{modality}' asked for; its quick start {spec.quickstart_recipe} "
        "has no samples; report it to the authors of its plugin"
    )
