"""YAML and `key=value` overrides -> `Recipe`; its names and options -> what plugins offer.

Everything is checked before anything heavy is imported, and all mistakes come in one message,
with the path as it is written in the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any

from modalbind.errors import AnchorError, RecipeError, UnknownModalityError, UnknownNameError
from modalbind.interfaces import (
    AnchorSpec,
    AugmentationSpec,
    DatasetSpec,
    EncoderSpec,
    ModalitySpec,
    ObjectiveSpec,
    Options,
    Spec,
)
from modalbind.plugin_manager import Plugins, load_plugins
from modalbind.recipe.anchor_spec import absolute_path, absolute_spec, parse_spec
from modalbind.recipe.catalog import find_recipe
from modalbind.recipe.mistakes import Mistake, Path, check_model, describe
from modalbind.recipe.overrides import apply_overrides
from modalbind.recipe.schema import AnchorSection, Recipe
from modalbind.recipe.yaml_loader import dump_yaml, read_yaml

Find = Callable[[str], Spec]


@dataclass(frozen=True, slots=True)
class Resolved:
    """A recipe whose every name is known and whose every option is checked.

    Attributes:
        recipe: The recipe with the defaults of all options written out.
        modality: What is added; `build(modality, modality_options)`.
        encoder: Its encoder; `build(encoder, encoder_options, modality)`.
        datasets: Spec and options of each, in the order of `data.sources`.
        augmentations: Spec and options of each, in the order of `augment`.
        anchor: Kind of the frozen space; `build(anchor, anchor_source, anchor_tag, options)`.
        objective: What is minimised; `build(objective, objective_options)`.
    """

    recipe: Recipe
    modality: ModalitySpec
    modality_options: Options
    encoder: EncoderSpec
    encoder_options: Options
    datasets: tuple[tuple[DatasetSpec, Options], ...]
    augmentations: tuple[tuple[AugmentationSpec, Options], ...]
    anchor: AnchorSpec
    anchor_source: str
    anchor_tag: str | None
    anchor_options: Options
    objective: ObjectiveSpec
    objective_options: Options


@dataclass(frozen=True, slots=True)
class Request:
    """What the options of `align` ask for; None leaves it to the recipe.

    Attributes:
        modality: May be left out if a recipe is named.
        recipe: Name or file; without it the modality's quick start, or its default if there is
            `data`.
        data: Manifest that takes the place of the recipe's sources.
        anchor: Anchor spec.
        root: Folder of all paths in the data.
        seed: Of everything random.
        device: `auto`, `cpu`, `cuda` …
        overrides: `key=value`, applied last.
    """

    modality: str | None = None
    recipe: str | None = None
    data: str | None = None
    anchor: str | None = None
    root: str | None = None
    seed: int | None = None
    device: str | None = None
    overrides: tuple[str, ...] = ()


def load_recipe(
    name_or_path: str | FilePath, overrides: Sequence[str] = (), plugins: Plugins | None = None
) -> Recipe:
    """Read a recipe and check it whole, the options of plugins included.

    Args:
        name_or_path: Name in the catalogue (`audio/quickstart`) or a YAML file.
        overrides: `key=value` with dotted keys (`augment.0.kind=mixup`) and YAML values.
        plugins: What is installed; None loads it.

    Raises:
        RecipeError: If there is no such recipe, or with all its mistakes.
        PluginError: If it asks for a plugin that is broken.
    """
    plugins = load_plugins() if plugins is None else plugins
    path = find_recipe(name_or_path, plugins)
    return check_recipe(apply_overrides(read_yaml(path), overrides), str(name_or_path), plugins)


def read_recipe(
    given: Recipe | Mapping[str, Any] | str | FilePath,
    overrides: Sequence[str] = (),
    plugins: Plugins | None = None,
) -> Recipe:
    """Return a recipe from whatever form it is given in, with absolute paths as `build_request`.

    Raises as `load_recipe` does.
    """
    if isinstance(given, (str, FilePath)):
        return _with_absolute_paths(load_recipe(given, overrides, plugins))
    raw = given.model_dump(mode="json") if isinstance(given, Recipe) else given
    plugins = load_plugins() if plugins is None else plugins
    return _with_absolute_paths(check_recipe(apply_overrides(raw, overrides), "given", plugins))


def build_request(request: Request, plugins: Plugins) -> Recipe:
    """Turn the options of `align` into a recipe; raises as `load_recipe` does.

    Paths that start at the current folder become absolute, so that the recipe names the same
    files from wherever its run is opened later. What starts at the data root stays as it is.
    """
    name = _recipe_name(request, plugins)
    raw = read_yaml(find_recipe(name, plugins, request.modality))
    raw = apply_overrides(_apply_request(raw, request), request.overrides)
    recipe = _with_absolute_paths(check_recipe(raw, name, plugins))
    if request.modality not in (None, recipe.modality.name):
        raise RecipeError(
            f"modality '{request.modality}' asked for; recipe {name} is for "
            f"'{recipe.modality.name}'; leave out --modality, or name another recipe"
        )
    if not recipe.data.sources:
        raise RecipeError(f"recipe {name} asked for; its data.sources is empty; give --data FILE")
    return recipe


def check_recipe(raw: Mapping[str, Any], source: str, plugins: Plugins) -> Recipe:
    """Check the content of a recipe; `source` names it in messages.

    Raises:
        RecipeError: With every mistake, those in plugins' options included.
        UnknownModalityError: If nothing installed offers its modality, and that is all.
        PluginLoadError: If it asks for a plugin that is broken.
    """
    recipe, mistakes = check_model(Recipe, raw, ())
    chooser = _Chooser(plugins, raw)
    try:
        chooser.choose(recipe)
    except UnknownModalityError as error:
        if not (mistakes or chooser.mistakes):
            raise
        chooser.mistakes.append(Mistake(("modality", "name"), str(error)))
    raise_mistakes(source, [*mistakes, *chooser.mistakes])
    assert recipe is not None  # else there was a mistake to raise
    return recipe


def resolve(recipe: Recipe, plugins: Plugins | None = None) -> Resolved:
    """Find every spec that a recipe names and check its options; raises as `check_recipe`."""
    plugins = load_plugins() if plugins is None else plugins
    chooser = _Chooser(plugins, recipe.model_dump(mode="json"))
    resolved = chooser.choose(recipe)
    raise_mistakes(recipe.name or "given", chooser.mistakes)
    assert resolved is not None  # else there was a mistake
    return replace(resolved, recipe=_written_out(recipe, resolved))


def dump_recipe(recipe: Recipe) -> str:
    """Return the recipe as YAML that `load_recipe` reads back as the same recipe."""
    return dump_yaml(recipe.model_dump(mode="json"))


def raise_mistakes(source: str, mistakes: Sequence[Mistake]) -> None:
    """Raise one `RecipeError` that lists all mistakes, if there are any."""
    if mistakes:
        raise RecipeError(describe(source, mistakes))


class _Chooser:
    """Looks up what the raw sections name, and keeps going after a mistake.

    It works on the raw mapping, so that it can tell mistakes in options even where the schema
    refuses the recipe; what the schema will complain about, it passes over in silence.
    """

    def __init__(self, plugins: Plugins, raw: Mapping[str, Any]) -> None:
        self.plugins = plugins
        self.raw = raw
        self.mistakes: list[Mistake] = []

    def choose(self, recipe: Recipe | None) -> Resolved | None:
        """Return all that is chosen, or None after a mistake, the schema's (no recipe) included."""
        plugins, raw = self.plugins, self.raw
        section = _mapping(raw.get("modality"))
        name = section.get("name")
        anchor = self._anchor(_mapping(raw.get("anchor")))
        objective = self._choice(
            ("objective",), raw.get("objective", {"kind": "infonce"}), plugins.objective
        )
        if not isinstance(name, str):
            return None
        modality = plugins.modality(name)  # without it nothing can be said about the rest
        modality_options = self._options(
            modality, _mapping(section.get("options")), ("modality", "options")
        )
        encoder = self._choice(
            ("encoder",), raw.get("encoder"), lambda kind: plugins.encoder(kind, name)
        )
        sources = _mapping(raw.get("data")).get("sources")
        datasets = self._choices(
            ("data", "sources"), sources, lambda kind: plugins.dataset(kind, name)
        )
        augmentations = self._choices(
            ("augment",), raw.get("augment"), lambda kind: plugins.augmentation(kind, name)
        )
        self._check_sides(_mapping(raw.get("anchor")), objective)
        if recipe is not None and objective:
            self._check_negatives(recipe, objective[0])
        if recipe is None or self.mistakes:
            return None
        chosen: tuple[Any, ...] = (*encoder, datasets, augmentations, *anchor, *objective)
        return Resolved(recipe, modality, modality_options, *chosen)

    def _anchor(self, section: Mapping[str, Any]) -> Any:
        address = section.get("spec", AnchorSection().spec)
        if not isinstance(address, str):
            return None
        try:
            name = parse_spec(address)
            spec = self.plugins.anchor(name.kind)
        except (AnchorError, UnknownNameError) as error:
            self.mistakes.append(Mistake(("anchor", "spec"), str(error)))
            return None
        options = self._options(spec, _mapping(section.get("options")), ("anchor", "options"))
        return spec, name.source, name.tag, options

    def _check_sides(self, anchor: Mapping[str, Any], objective: Any) -> None:
        """Refuse temperatures of anchor sides that the recipe does not train against."""
        named = getattr(objective[1], "side_temperatures", {}) if objective else {}
        sides = _mapping(anchor.get("sides", AnchorSection().sides))
        for side in sorted(set(named) - set(sides)):
            found = f"is none of anchor.sides, {', '.join(map(str, sides))}"
            self.mistakes.append(Mistake(("objective", "side_temperatures", side), found))

    def _check_negatives(self, recipe: Recipe, objective: ObjectiveSpec) -> None:
        """Refuse a bank of negatives for an objective that cannot be computed in parts."""
        if recipe.train.negatives == "bank" and not objective.has_parts:
            found = f"is bank; objective {objective.name} has no use for that; use infonce"
            self.mistakes.append(Mistake(("train", "negatives"), found))

    def _choices(self, path: Path, raw: Any, find: Find) -> tuple[Any, ...]:
        rows = raw if isinstance(raw, list) else []
        return tuple(self._choice((*path, i), row, find) for i, row in enumerate(rows))

    def _choice(self, path: Path, raw: Any, find: Find) -> Any:
        """Return `(spec, options)` of a section with a `kind`, or None after a mistake."""
        section = _mapping(raw)
        kind = section.get("kind")
        if not isinstance(kind, str):
            return None
        try:
            spec = find(kind)
        except UnknownNameError as error:
            self.mistakes.append(Mistake((*path, "kind"), str(error)))
            return None
        given = {key: value for key, value in section.items() if key != "kind"}
        return spec, self._options(spec, given, path)

    def _options(self, spec: Spec, given: Mapping[str, Any], path: Path) -> Any:
        options, mistakes = check_model(spec.options, given, path)
        self.mistakes += mistakes
        return options


def _mapping(raw: Any) -> Mapping[str, Any]:
    return raw if isinstance(raw, Mapping) else {}


def _recipe_name(request: Request, plugins: Plugins) -> str:
    if request.recipe is not None:
        return request.recipe
    if request.modality is None:
        names = ", ".join(spec.name for spec in plugins.modalities) or "none"
        raise RecipeError(
            f"nothing asked for; neither a modality (installed: {names}) nor a recipe is named; "
            "give --modality NAME or --recipe NAME"
        )
    spec = plugins.modality(request.modality)
    return spec.quickstart_recipe if request.data is None else spec.default_recipe


def _apply_request(raw: dict[str, Any], request: Request) -> dict[str, Any]:
    """Write the options of the command line into the raw recipe, where a `--set` would."""
    changed = dict(raw)
    if request.data is not None:
        changed["data"] = {
            **_mapping(changed.get("data")),
            "sources": [_name_source(_mapping(changed.get("data")), request.data)],
        }
    if request.root is not None:
        changed["data"] = {**_mapping(changed.get("data")), "root": request.root}
    if request.anchor is not None:
        changed["anchor"] = _with_spec(_mapping(changed.get("anchor")), request.anchor)
    for key in ("seed", "device"):
        if getattr(request, key) is not None:
            changed[key] = getattr(request, key)
    return changed


def kind_of_data(path: str) -> str:
    """Return the kind of data set that a path given as the data is: shards, or a manifest."""
    return "webdataset" if path.lower().endswith(".tar") else "manifest"


def _name_source(data: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return the source for the user's file; the recipe's own, if it is of that kind, stays."""
    kind, sources = kind_of_data(path), data.get("sources")
    if isinstance(sources, list) and len(sources) == 1:
        source = _mapping(sources[0])
        if source.get("kind") == kind:
            return {**source, "path": path}
    return {"kind": kind, "path": path}


def _with_spec(anchor: Mapping[str, Any], spec: str) -> dict[str, Any]:
    """Change the anchor's spec; options written for another kind of anchor do not fit it."""
    kept = dict(anchor)
    if str(anchor.get("spec", "")).partition(":")[0] != spec.partition(":")[0]:
        kept.pop("options", None)
    return {**kept, "spec": spec}


def _with_absolute_paths(recipe: Recipe) -> Recipe:
    content = recipe.model_dump(mode="json")
    data = content["data"]
    for source in data["sources"]:
        if source["kind"] in ("manifest", "webdataset", "hf") and _is_here(source):
            source["path"] = absolute_path(source["path"])
    if data["root"] is not None:
        data["root"] = absolute_path(data["root"])
    data["exclude"] = [absolute_path(path) for path in data["exclude"]]
    content["anchor"]["spec"] = absolute_spec(content["anchor"]["spec"])
    return Recipe.model_validate(content)


def _is_here(source: Mapping[str, Any]) -> bool:
    """Say whether a source's path is one of this machine: no URL, no name on a hub."""
    if source["kind"] == "hf":
        return FilePath(source["path"]).expanduser().exists()
    return "://" not in source["path"]


def _written_out(recipe: Recipe, resolved: Resolved) -> Recipe:
    """Put the defaults of all options into the recipe, so that it means the same for ever."""

    def full(spec: Spec, options: Options) -> dict[str, Any]:
        return {"kind": spec.name, **_dump_options(options)}

    content = recipe.model_dump(mode="json")
    content["modality"]["options"] = _dump_options(resolved.modality_options)
    content["anchor"]["options"] = _dump_options(resolved.anchor_options)
    content["encoder"] = full(resolved.encoder, resolved.encoder_options)
    content["objective"] = full(resolved.objective, resolved.objective_options)
    content["augment"] = [full(*chosen) for chosen in resolved.augmentations]
    content["data"]["sources"] = [full(*chosen) for chosen in resolved.datasets]
    return Recipe.model_validate(content)


def _dump_options(options: Options) -> dict[str, Any]:
    """Return options with their defaults, unless their model minds which ones were given.

    A model may refuse an option beside another one, even at its default: then what was not given
    stays unsaid.
    """
    complete = options.model_dump(mode="json")
    read_back, _ = check_model(type(options), complete, ())
    if read_back == options:
        return complete
    return options.model_dump(mode="json", exclude_unset=True)
