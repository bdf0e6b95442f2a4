"""What is to be written, checked before anything is: the name, what it clashes with, the folder.

Writes nothing, and imports neither torch nor copier.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from modalbind.data.manifest import KNOWN_COLUMNS
from modalbind.errors import InputError
from modalbind.plugin_checks import serves
from modalbind.plugin_manager import GROUP, LoadedPlugin, Plugins, normalise
from modalbind.recipe.catalog import list_recipes

KINDS = ("modality", "encoder", "dataset", "augmentation", "anchor", "objective")
FOR_A_MODALITY = ("encoder", "dataset", "augmentation")
LONGEST_NAME = 30
_SPEC_NAMES = {"dataset": "data set"}


@dataclass(frozen=True, slots=True)
class Plan:
    """A plugin that may be written.

    Attributes:
        name: Of what it offers, and of its entry point.
        kind: One of `KINDS`.
        modality: The installed modality that it is for; None if it brings its own or needs none.
        folder: Where it goes.
    """

    name: str
    kind: str
    modality: str | None
    folder: Path

    @property
    def distribution(self) -> str:
        """What pip will know it by."""
        return f"{GROUP}-{self.name}"

    @property
    def package(self) -> str:
        """What is imported."""
        return self.distribution.replace("-", "_")


def plan_plugin(name: str, kind: str, modality: str | None, out: Path, plugins: Plugins) -> Plan:
    """Check a request for a new plugin.

    Args:
        name: Wanted.
        kind: What it offers, one of `KINDS`.
        modality: Installed one that it is for: needed by encoders, data sets and augmentations;
            for an anchor or objective, the one whose quick start its recipe follows.
        out: Folder that the plugin's own folder goes into.
        plugins: What is installed.

    Raises:
        InputError: If the name cannot be one or is taken, if the kind and the modality do not go
            together, or if the plugin's folder has something in it.
        UnknownModalityError: If the modality is not installed.
        PluginLoadError: If its plugin is broken.
    """
    _check_name(name, kind)
    _check_modality(name, kind, modality, plugins)
    plan = Plan(name, kind, modality, out / f"{GROUP}-{name}")
    for holder in _holders(plan, plugins):
        raise InputError(f"{_words(kind)} '{name}' asked for; {holder}; choose another name")
    _check_folder(plan.folder)
    return plan


def _words(kind: str) -> str:
    return f"new {_SPEC_NAMES.get(kind, kind)}"


def _check_name(name: str, kind: str) -> None:
    problem = ""
    if not re.fullmatch(r"[a-z0-9]+([_-][a-z0-9]+)*", name):
        problem = "it is not lower-case letters and digits, with single '-' or '_' between them"
    elif len(name) > LONGEST_NAME:
        problem = f"it has {len(name)} characters, more than {LONGEST_NAME}"
    elif keyword.iskeyword(name):
        problem = "it is a word of Python's own"
    elif kind == "modality" and name in KNOWN_COLUMNS:
        problem = "a manifest's column of that name holds something else"
    if problem:
        raise InputError(
            f"{_words(kind)} '{name}' asked for; {problem}; take a name such as imu or eeg-64"
        )


def _check_modality(name: str, kind: str, modality: str | None, plugins: Plugins) -> None:
    if kind == "modality" and modality is not None:
        raise InputError(
            f"new modality '{name}' asked for, with --modality '{modality}'; it brings a modality "
            "of its own; leave out --modality, or give --kind"
        )
    if kind in FOR_A_MODALITY and modality is None:
        installed = ", ".join(spec.name for spec in plugins.modalities) or "none"
        raise InputError(
            f"{_words(kind)} '{name}' asked for; it is not said for which modality; add --modality "
            f"NAME, installed: {installed}"
        )
    if modality is not None:
        plugins.modality(modality)


def _holders(plan: Plan, plugins: Plugins) -> Iterator[str]:
    """Yield who has the name already, as half a sentence."""
    for plugin in plugins.loaded:
        if _offers(plugin, plan):
            yield f"{plan.kind} '{plan.name}' is offered by {plugin.distribution}"
        names = (plugin.name, normalise(plugin.distribution))
        if plan.name in names or normalise(plan.distribution) in names:
            yield f"plugin '{plugin.name}' is installed, from {plugin.distribution}"
    for failure in plugins.failures:
        if failure.is_for(plan.kind, plan.name):
            yield f"plugin '{failure.name}' of {failure.distribution} is installed, and broken"
    for entry in list_recipes(plugins):
        if entry.name.startswith(f"{plan.name}/"):
            yield f"recipe '{entry.name}' is offered by {entry.distribution}"


def _offers(plugin: LoadedPlugin, plan: Plan) -> bool:
    specs = plugin.specs.get(plan.kind, ())
    return any(spec.name == plan.name and serves(spec, plan.modality) for spec in specs)


def _check_folder(folder: Path) -> None:
    is_taken = folder.exists() or folder.is_symlink()
    if is_taken and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(
            f"new plugin in {folder} asked for; something is there already, and nothing is "
            "overwritten; move it away, or name another place with --out"
        )
