"""Checks of what a plugin says of itself before anything is built: metadata, import, options."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cached_property
from importlib import import_module
from typing import Any, Union, get_args, get_origin

from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from modalbind.conformance import import_probe
from modalbind.conformance.verdict import ContractError, NotCheckedError, one_line, require
from modalbind.errors import ModalbindError, PluginLoadError
from modalbind.interfaces import Spec
from modalbind.plugin_manager import CORE, LoadedPlugin, Plugins, import_factory, normalise
from modalbind.recipe import load_recipe, resolve
from modalbind.recipe.catalog import list_recipes

PROBE_TIMEOUT_S = 120
IMPORT_EXTRA_S = 0.5
"""Import may take as long as a bare `import modalbind.api`, and so many seconds more."""
MIN_DESCRIPTION_LETTERS = 8

UNIT_NAMES = frozenset(
    "b bit bits bytes c celsius cm db deg frames g gb gib h hz k kelvin kg khz km m m_s m_s2 mels "
    "mhz mib min mm ms n ns pa pct percent ppm px rad s steps t tokens us v w".split()
)
"""Last parts of names that are units, or count something named."""
UNIT_WORDS = re.compile(
    r"\b(bytes?|celsius|db|degrees?|g|hertz|hz|kelvin|khz|kib|mib|gib|meters?|metres?|m|m/s2?|mm|cm"
    r"|ms|milliseconds?|minutes?|nats?|newtons?|pa|percent|pixels?|px|rad|radians?|s|seconds?"
    r"|steps?|tesla|us|volts?|watts?)\b|°|µ|²",
    re.IGNORECASE,
)
NUMBER_WORDS = re.compile(
    r"\b(chance|cosine|deviations?|divides|divided|exponent|factors?|fraction|gamma|logarithm|log"
    r"|log-mel|logit|multiplied|multiplies|no unit|periods?|power|probability|ratio|relative|scale"
    r"|share|similarity|speeds?|temperature|times|unchanged|unitless|weight)\b|1 /",
    re.IGNORECASE,
)
"""Words for numbers that have no unit."""


class PluginBench:
    """A plugin as it is installed."""

    def __init__(self, around: Any, spec: None) -> None:
        """Keep what to look at."""
        self.plugin: LoadedPlugin = around.plugin
        self.plugins: Plugins = around.plugins

    @property
    def package(self) -> Any:
        """The package that the entry point names."""
        return import_module(self.plugin.package)

    @cached_property
    def probe(self) -> dict[str, Any]:
        """What importing the package did, in a process of its own."""
        found = self._run_probe()
        if is_slow(found):  # a cold disk, or no compiled files yet: what counts is the next time
            found = min(found, self._run_probe(), key=lambda each: float(each["own_s"]))
        return found

    def _run_probe(self) -> dict[str, Any]:
        # By its path, not as a module: that would import the yardstick before the clock runs.
        code = ["-P", import_probe.__file__, self.plugin.package]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
        done = subprocess.run(
            [sys.executable, *code],
            env=environment,
            capture_output=True,
            text=True,
            timeout=PROBE_TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no output"])[-1]
            raise ContractError(f"its package cannot be imported alone: {last}", self.package)
        found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        return found


class OfferBench:
    """One thing that a plugin offers, not built."""

    def __init__(self, around: Any, spec: Spec) -> None:
        """Keep what to look at."""
        self.spec = spec
        self.package: str = around.plugin.package


def is_slow(probe: dict[str, Any]) -> bool:
    """Say whether the import took longer than it may."""
    return bool(probe["own_s"] > probe["bare_s"] + IMPORT_EXTRA_S)


def check_metadata(bench: PluginBench) -> None:
    """Read version and requirements of the distribution."""
    plugin = bench.plugin
    try:
        Version(plugin.version)
    except InvalidVersion as error:
        raise ContractError(f"version '{plugin.version}' is none", bench.package) from error
    if normalise(plugin.distribution) == CORE:
        return
    stated = importlib.metadata.distribution(plugin.distribution).requires or []
    asked = [Requirement(line) for line in stated]
    ours = [each for each in asked if normalise(each.name) == CORE and not _is_extra(each)]
    require(
        bool(ours),
        f"{plugin.distribution} does not require modalbind; add 'modalbind>=0.1'",
        bench.package,
    )
    operators = {each.operator for own in ours for each in own.specifier}
    require(
        bool(operators & {">=", ">"}),
        f"{plugin.distribution} requires '{ours[0]}', with no lower bound; write 'modalbind>=0.1'",
        bench.package,
    )
    capped = sorted(operators & {"<", "<=", "==", "===", "~="})
    require(
        not capped,
        f"{plugin.distribution} requires '{ours[0]}': {', '.join(capped)} keeps it from newer "
        "versions; state a lower bound alone",
        bench.package,
    )


def _is_extra(requirement: Requirement) -> bool:
    return requirement.marker is not None and "extra" in str(requirement.marker)


def check_light_import(bench: PluginBench) -> None:
    """See which heavy packages the import brought."""
    heavy = bench.probe["heavy"]
    require(
        not heavy, f"importing {bench.plugin.package} imports {', '.join(heavy)}", bench.package
    )


def check_import_time(bench: PluginBench) -> None:
    """Compare the time of the import with that of `modalbind.api`."""
    own_s, bare_s = bench.probe["own_s"], bench.probe["bare_s"]
    require(
        not is_slow(bench.probe),
        f"importing {bench.plugin.package} takes {own_s:.2f} s beside {bare_s:.2f} s for "
        "modalbind.api",
        bench.package,
    )


def check_no_network(bench: PluginBench) -> None:
    """See whether the import asked for a connection."""
    seen = bench.probe["network"]
    require(not seen, f"importing {bench.plugin.package}: {'; '.join(seen[:3])}", bench.package)


def check_no_files(bench: PluginBench) -> None:
    """See whether the import wrote a file."""
    seen = bench.probe["written"]
    require(not seen, f"importing {bench.plugin.package}: {'; '.join(seen[:3])}", bench.package)


def check_recipes(bench: PluginBench) -> None:
    """Resolve each recipe of the plugin, and those that its modalities name."""
    own = [
        entry
        for entry in list_recipes(bench.plugins)
        if entry.distribution == bench.plugin.distribution
    ]
    named = [
        name
        for spec in bench.plugin.specs.get("modality", ())
        for name in (spec.default_recipe, spec.quickstart_recipe)  # type: ignore[attr-defined]
    ]
    places = dict.fromkeys([*(str(entry.path) for entry in own), *named])
    for place in places:
        try:
            resolve(load_recipe(place, (), bench.plugins), bench.plugins)
        except PluginLoadError as error:
            raise NotCheckedError(f"recipe {place}: {error}") from error
        except ModalbindError as error:
            where = f"{place}:1" if place.endswith((".yaml", ".yml")) else bench.package
            raise ContractError(f"recipe {place}: {error}", where) from error


def check_factory(bench: OfferBench) -> None:
    """Import the factory."""
    try:
        factory = import_factory(bench.spec)
    except PluginLoadError as error:
        cause = error.__cause__
        own = bench.package.partition(".")[0]
        if isinstance(cause, ModuleNotFoundError) and (cause.name or own).split(".")[0] != own:
            raise NotCheckedError(one_line(error)) from error
        raise ContractError(str(error), import_module(bench.package)) from error
    require(callable(factory), f"{bench.spec.build} is a {type(factory).__name__}", factory)


def check_options(bench: OfferBench) -> None:
    """Read names, descriptions and bounds of all options, nested ones included."""
    for model, name, field in _walk_options(bench.spec.options):
        place = f"option '{name}' of {model.__name__}"
        text = (field.description or "").strip()
        letters = sum(letter.isalpha() for letter in text)
        require(letters >= MIN_DESCRIPTION_LETTERS, f"{place} has no description", model)
        if _is_fractional(field.annotation) and not _is_share(field):
            says = is_unit_name(name) or UNIT_WORDS.search(text) or NUMBER_WORDS.search(text)
            require(
                bool(says),
                f"{place} is a number without a unit; name it (`{name}_s`), say it ('in dB'), or "
                "say what it is a share, factor or ratio of",
                model,
            )


def is_unit_name(name: str) -> bool:
    """Say whether an option's name ends in its unit.

    Example:
        >>> is_unit_name("window_s"), is_unit_name("window")
        (True, False)
    """
    _, underscore, last = name.rpartition("_")
    return bool(underscore) and last in UNIT_NAMES


def _walk_options(
    model: type[BaseModel], seen: frozenset[type[BaseModel]] = frozenset()
) -> Iterator[tuple[type[BaseModel], str, FieldInfo]]:
    if model in seen:
        return
    for name, field in model.model_fields.items():
        yield _owner(model, name), name, field
        for nested in _models_in(field.annotation):
            yield from _walk_options(nested, seen | {model})


def _owner(model: type[BaseModel], name: str) -> type[BaseModel]:
    """Return the class in which a field is written."""
    owners = [kind for kind in model.__mro__ if name in getattr(kind, "__annotations__", {})]
    return owners[0] if owners else model


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)


def _is_fractional(annotation: Any) -> bool:
    """Say whether an option is a float, or a list or choice of floats."""
    if annotation is float:
        return True
    if get_origin(annotation) in (dict, None) and annotation is not Union:
        return False
    return any(_is_fractional(part) for part in get_args(annotation))


def _is_share(field: FieldInfo) -> bool:
    """Say whether an option's bounds keep it within 0..1."""
    low, high = -1.0, 2.0
    for bound in field.metadata:
        low = max(low, *(float(getattr(bound, each, low)) for each in ("ge", "gt")))
        high = min(high, *(float(getattr(bound, each, high)) for each in ("le", "lt")))
    return low >= 0 and high <= 1
