"""Finds, loads, isolates and lists plugins.

A plugin is a package with an entry point in the group `modalbind`. pluggy isolates nothing, so
each gets a manager of its own, and whatever it does wrong, `sys.exit` at import included, becomes
a `PluginFailure` while the others go on. Nothing heavy is imported here: factories are import
strings, opened by `build` when a run needs them.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib.metadata import Distribution, EntryPoint, distributions, entry_points
from typing import Any, cast

import pluggy

from modalbind import hookspecs
from modalbind.errors import (
    PluginLoadError,
    UnknownModalityError,
    UnknownNameError,
)
from modalbind.interfaces import (
    AnchorSpec,
    AugmentationSpec,
    DatasetSpec,
    EncoderSpec,
    ModalitySpec,
    ObjectiveSpec,
    Spec,
)
from modalbind.plugin_checks import (
    KINDS,
    InvalidPluginError,
    broken_promise,
    check_spec,
    overlap,
    serves,
)

GROUP = "modalbind"
CORE = "modalbind"
PIP_NAMES = {  # where the import name is not what pip knows it by
    "PIL": "pillow",
    "cv2": "opencv-python",
    "faiss": "faiss-cpu",
    "open_clip": "open_clip_torch",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "PyYAML",
}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedPlugin:
    """A plugin that works.

    Attributes:
        name: Name of its entry point.
        distribution: What pip knows it by.
        version: Of the distribution.
        package: Module that the entry point names.
        specs: What it offers, by kind (`modality`, `encoder` …).
    """

    name: str
    distribution: str
    version: str
    package: str
    specs: Mapping[str, tuple[Spec, ...]]

    def offers(self) -> tuple[tuple[str, str], ...]:
        """Return all that it adds, as `(kind, name)`."""
        return tuple((kind, spec.name) for kind, specs in self.specs.items() for spec in specs)


@dataclass(frozen=True, slots=True)
class PluginFailure:
    """A plugin that is installed and cannot be used.

    Attributes:
        name: Name of its entry point.
        distribution: What pip knows it by.
        version: Of the distribution.
        cause: What it raised, or what was found wrong with it.
        hint: What to do, as a command where there is one.
        offered: `(kind, name)` of what it offered before it failed.
    """

    name: str
    distribution: str
    version: str
    cause: BaseException
    hint: str
    offered: tuple[tuple[str, str], ...] = ()

    @property
    def reason(self) -> str:
        """The cause in one line."""
        return describe_cause(self.cause)

    def is_for(self, kind: str, name: str) -> bool:
        """Say whether `name` would probably have come from this plugin."""
        names = (name, f"{GROUP}-{name}")
        is_named_so = self.name in names or normalise(self.distribution) in names
        return (kind, name) in self.offered or is_named_so


@dataclass(frozen=True)
class Plugins:
    """Everything that is installed, and what of it works.

    Invariant: a name is offered once within its kind, and for encoders, data sets and
    augmentations once for each modality.
    """

    loaded: tuple[LoadedPlugin, ...]
    failures: tuple[PluginFailure, ...] = ()

    def specs(self, kind: str) -> tuple[Spec, ...]:
        """Return all specs of one kind (`modality`, `encoder` …), the core's first."""
        return tuple(spec for plugin in self.loaded for spec in plugin.specs.get(kind, ()))

    @property
    def modalities(self) -> tuple[ModalitySpec, ...]:
        """All modalities."""
        return cast(tuple[ModalitySpec, ...], self.specs("modality"))

    @property
    def anchors(self) -> tuple[AnchorSpec, ...]:
        """All kinds of anchor space."""
        return cast(tuple[AnchorSpec, ...], self.specs("anchor"))

    @property
    def objectives(self) -> tuple[ObjectiveSpec, ...]:
        """All objectives."""
        return cast(tuple[ObjectiveSpec, ...], self.specs("objective"))

    def modality(self, name: str) -> ModalitySpec:
        """Return the modality of that name.

        Raises:
            UnknownModalityError: If nothing installed offers it; the message lists what is.
            PluginLoadError: If its plugin is installed and broken, from the cause.
        """
        return cast(ModalitySpec, self._find("modality", name, None))

    def encoder(self, name: str, modality: str) -> EncoderSpec:
        """Return an encoder for `modality`; raises as `modality` does."""
        return cast(EncoderSpec, self._find("encoder", name, modality))

    def dataset(self, name: str, modality: str) -> DatasetSpec:
        """Return a data set with samples of `modality`; raises as `modality` does."""
        return cast(DatasetSpec, self._find("dataset", name, modality))

    def augmentation(self, name: str, modality: str) -> AugmentationSpec:
        """Return an augmentation for `modality`; raises as `modality` does."""
        return cast(AugmentationSpec, self._find("augmentation", name, modality))

    def anchor(self, kind: str) -> AnchorSpec:
        """Return a kind of anchor space; raises as `modality` does."""
        return cast(AnchorSpec, self._find("anchor", kind, None))

    def objective(self, name: str) -> ObjectiveSpec:
        """Return an objective; raises as `modality` does."""
        return cast(ObjectiveSpec, self._find("objective", name, None))

    def owner(self, spec: Spec) -> LoadedPlugin:
        """Return the plugin that offers `spec`."""
        return next(p for p in self.loaded for own in p.specs.values() if spec in own)

    def plugin(self, name: str) -> LoadedPlugin:
        """Return a plugin by its own name, its distribution's or that of a modality it brings.

        Raises:
            UnknownNameError: If there is none; the message lists those that work.
            PluginLoadError: If it is broken, from the cause.
        """
        for plugin in self.loaded:
            names = {plugin.name, *(spec.name for spec in plugin.specs.get("modality", ()))}
            if name in names or normalise(name) == normalise(plugin.distribution):
                return plugin
        self._raise_if_broken("plugin", name)
        raise self._unknown("plugin", name, None, [plugin.name for plugin in self.loaded])

    def _find(self, kind: str, name: str, modality: str | None) -> Spec:
        fitting = [spec for spec in self.specs(kind) if serves(spec, modality)]
        for spec in fitting:
            if spec.name == name:
                return spec
        self._raise_if_broken(kind, name)
        raise self._unknown(kind, name, modality, [spec.name for spec in fitting])

    def _raise_if_broken(self, kind: str, name: str) -> None:
        for failure in self.failures:
            if failure.is_for(kind, name):
                raise PluginLoadError(
                    f"{kind} '{name}' asked for; plugin {failure.distribution} "
                    f"{failure.version} is broken: {failure.reason}; {failure.hint}"
                ) from failure.cause

    def _unknown(
        self, kind: str, name: str, modality: str | None, available: Sequence[str]
    ) -> UnknownNameError:
        wanted = f"{kind} '{name}'" + (f" for modality '{modality}'" if modality else "")
        found = f"installed: {', '.join(sorted(available)) or 'none'}"
        if self.failures:
            broken = ", ".join(failure.distribution for failure in self.failures)
            found += f" (broken: {broken}; see modalbind plugins)"
        near = nearest(name, available)
        remedy = f"did you mean '{near}'? otherwise " if near else ""
        if hidden := _list_hidden():
            found += f" (MODALBIND_PLUGINS hides {', '.join(hidden)})"
            remedy += "unset MODALBIND_PLUGINS, or "
        package = f"{GROUP}-{name}"
        error = UnknownModalityError if kind == "modality" else UnknownNameError
        return error(f"{wanted} not found; {found}; {remedy}try: pip install {package}")


def nearest(name: str, available: Iterable[str]) -> str | None:
    """Return the name that `name` was probably meant to be."""
    close = get_close_matches(name, list(available), n=1)
    return close[0] if close else None


def normalise(distribution: str) -> str:
    """Return a distribution's name as pip compares it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def load_plugins(strict: bool | None = None) -> Plugins:
    """Load every installed plugin, each on its own.

    The core's own offers come first, then distributions that bring the modality they are named
    after (`modalbind-audio`), then the others, by name; so which of two plugins keeps a name does
    not depend on the order of installation, and nobody takes `audio` from `modalbind-audio`.
    `MODALBIND_PLUGINS=a,b` loads only those beside the core, empty loads none.

    Args:
        strict: Whether a broken plugin is an error; None asks `MODALBIND_STRICT_PLUGINS`.

    Raises:
        PluginLoadError: In strict mode, if any plugin is broken; it names all of them.
    """
    allowed = _read_allow_list()
    candidates = [_Candidate(entry) for entry in _sorted_entry_points(allowed)]
    failures = [failure for found in candidates if (failure := _try(found, _open))]
    loaded: list[LoadedPlugin] = []
    opened = [found for found in candidates if found.is_open]
    for candidate in sorted(opened, key=lambda found: not found.is_namesake):
        failure = _try(candidate, lambda found: _check_offers(found, loaded))
        if failure:
            failures.append(failure)
        else:
            loaded.append(candidate.loaded())
    failures.sort(key=lambda failure: normalise(failure.distribution))
    if allowed is not None:
        failures.extend(_missing(allowed, [*loaded, *failures]))
    if strict is None:
        strict = os.environ.get("MODALBIND_STRICT_PLUGINS", "") not in ("", "0")
    if strict and failures:
        found = ", ".join(f"{f.distribution} {f.version} ({f.reason})" for f in failures)
        raise PluginLoadError(
            f"plugins asked for in strict mode; broken: {found}; {failures[0].hint}"
        ) from failures[0].cause
    return Plugins(tuple(loaded), tuple(failures))


def import_factory(spec: Spec) -> Callable[..., Any]:
    """Import the factory that a spec names.

    Raises:
        PluginLoadError: If it cannot be imported; a missing package is named as pip knows it.
    """
    module_name, _, attribute = spec.build.partition(":")
    try:
        factory = importlib.import_module(module_name)
        for part in attribute.split("."):
            factory = getattr(factory, part)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise _broken_factory(spec, error) from error
    return cast(Callable[..., Any], factory)


def build(spec: Spec, *args: Any) -> Any:
    """Import the factory of `spec` and call it.

    Raises:
        PluginLoadError: If it, or something that it imports on the way, cannot be imported.
    """
    factory = import_factory(spec)
    try:
        return factory(*args)
    except ImportError as error:
        raise _broken_factory(spec, error) from error


def describe_cause(cause: BaseException) -> str:
    """Return an exception as one line, with its type unless the message stands by itself."""
    try:
        message = " ".join(str(cause).split())
    except Exception:  # an exception that cannot even be printed
        message = ""
    if isinstance(cause, InvalidPluginError):
        return message
    return f"{type(cause).__name__}: {message}" if message else type(cause).__name__


@dataclass
class _Candidate:
    """A plugin on its way in; filled step by step, so that a failure knows what was offered."""

    entry: EntryPoint
    specs: dict[str, tuple[Spec, ...]] = field(default_factory=dict)
    is_open: bool = False

    @property
    def is_namesake(self) -> bool:
        """True of the core, and of a distribution named after a modality that it brings."""
        names = {f"{GROUP}-{spec.name}" for spec in self.specs.get("modality", ())}
        return normalise(self.distribution) in {CORE, *names}

    @property
    def distribution(self) -> str:
        return _distribution(self.entry)

    @property
    def version(self) -> str:
        return _read_metadata(self.entry.dist, "Version") or "unknown"

    def offers(self) -> tuple[tuple[str, str], ...]:
        """Return what can be told of its offers, whatever its hooks have returned."""
        return tuple(
            (kind, spec.name)
            for kind, specs in self.specs.items()
            for spec in specs
            if isinstance(spec, Spec) and isinstance(spec.name, str)
        )

    def loaded(self) -> LoadedPlugin:
        kept = {kind: specs for kind, specs in self.specs.items() if specs}
        package = self.entry.module
        return LoadedPlugin(self.entry.name, self.distribution, self.version, package, kept)


def _try(candidate: _Candidate, step: Callable[[_Candidate], None]) -> PluginFailure | None:
    """Take one step of loading; return what went wrong, whatever it was but Ctrl-C."""
    printed = io.StringIO()  # a plugin that prints must not spoil the output of --json
    try:
        with contextlib.redirect_stdout(printed):
            step(candidate)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return PluginFailure(
            candidate.entry.name,
            candidate.distribution,
            candidate.version,
            error,
            _hint(candidate, error),
            candidate.offers(),
        )
    finally:
        if printed.getvalue():
            log.debug("plugin %s printed: %s", candidate.entry.name, printed.getvalue().strip())
    return None


def _open(candidate: _Candidate) -> None:
    """Load, register, call the hooks, and check each spec that they return."""
    manager = _register(candidate)
    for kind, (hook, _) in KINDS.items():
        offers: list[Spec] = []
        for returned in getattr(manager.hook, hook)():
            if not isinstance(returned, (list, tuple)):
                raise broken_promise(
                    candidate.distribution, f"{hook} returned {type(returned).__name__}, not a list"
                )
            offers.extend(returned)
        candidate.specs[kind] = tuple(offers)
    for kind, specs in candidate.specs.items():
        for spec in specs:
            check_spec(kind, spec, candidate.distribution)
    candidate.is_open = True


def _register(candidate: _Candidate) -> pluggy.PluginManager:
    """Import the plugin and match its hooks with ours, in a manager of its own."""
    if not _read_metadata(candidate.entry.dist, "Name"):
        folder = getattr(candidate.entry.dist, "_path", "its .dist-info folder")
        raise InvalidPluginError(
            "its metadata is damaged, it has no name", f"delete {folder}, and install it again"
        )
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    plugin = candidate.entry.load()
    try:
        manager.register(plugin, candidate.entry.name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise _mistaken_hook(candidate, str(error)) from error
    if not manager.get_hookcallers(plugin):
        raise InvalidPluginError(
            f"{candidate.entry.value} has no hooks",
            f"mark its functions with @hookimpl, or pip uninstall {candidate.distribution}",
        )
    return manager


def _mistaken_hook(candidate: _Candidate, found: str) -> InvalidPluginError:
    """Return pluggy's complaint in one line and without paths, and what to do about it."""
    hooks = [hook for hook, _ in KINDS.values()]
    named = re.search(rf"'({GROUP}_\w*)'", found)
    name = named[1] if named else ""
    if name in hooks:
        _, definition, complaint = found.split("\n", 2)
        return broken_promise(
            candidate.distribution, f"{definition.removeprefix('hookimpl ')}: {complaint}"
        )
    prefix = f"{GROUP}_"
    if near := nearest(name.removeprefix(prefix), (hook.removeprefix(prefix) for hook in hooks)):
        found = f"modalbind has no hook '{name}', did you mean '{prefix}{near}'?"
        return broken_promise(candidate.distribution, found)
    return InvalidPluginError(
        f"modalbind has no hook '{name}'",
        "it may need a newer core; try: pip install --upgrade modalbind",
    )


def _check_offers(candidate: _Candidate, loaded: Sequence[LoadedPlugin]) -> None:
    for plugin in loaded:
        if plugin.name == candidate.entry.name:
            raise InvalidPluginError(
                f"the plugin name '{plugin.name}' is taken by {plugin.distribution}",
                f"pip uninstall one of {plugin.distribution}, {candidate.distribution}",
            )
    for kind, specs in candidate.specs.items():
        for position, spec in enumerate(specs):
            _check_free(candidate, kind, spec, specs[:position], loaded)


def _check_free(
    candidate: _Candidate,
    kind: str,
    spec: Spec,
    earlier: Sequence[Spec],
    loaded: Sequence[LoadedPlugin],
) -> None:
    holders = [(candidate.distribution, earlier)]
    holders += [(plugin.distribution, plugin.specs.get(kind, ())) for plugin in loaded]
    for distribution, taken in holders:
        if any(other.name == spec.name and overlap(other, spec) for other in taken):
            names = " and ".join((distribution, candidate.distribution))
            raise InvalidPluginError(
                f"{kind} '{spec.name}' is offered by both {names}",
                f"rename one of them, or pip uninstall {candidate.distribution}",
            )


def _hint(candidate: _Candidate, error: BaseException) -> str:
    if isinstance(error, InvalidPluginError):
        return error.hint
    uninstall = f"pip uninstall {candidate.distribution}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        own = candidate.entry.module
        if own == error.name or own.startswith(f"{error.name}."):
            return f"its files are gone, its metadata is left; try: {uninstall}"
        if error.name.partition(".")[0] == own.partition(".")[0]:
            return f"it is incomplete; try: pip install --force-reinstall {candidate.distribution}"
        return f"try: pip install {pip_name(error.name)}"
    if isinstance(error, ImportError) and str(error.name).startswith("modalbind."):
        return "it may need a newer core; try: pip install --upgrade modalbind"
    return f"try: pip install --upgrade {candidate.distribution}, or {uninstall}"


def pip_name(module: str) -> str:
    """Return what pip calls the package of an imported module."""
    top = module.partition(".")[0]
    return PIP_NAMES.get(top, top.replace("_", "-"))


def _broken_factory(spec: Spec, error: BaseException) -> PluginLoadError:
    kind = next(kind for kind, (_, expected) in KINDS.items() if isinstance(spec, expected))
    package = spec.build.partition(".")[0].partition(":")[0]
    hint = f"try: pip install --upgrade {package.replace('_', '-')}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        hint = f"try: pip install {pip_name(error.name)}"
    return PluginLoadError(
        f"{kind} '{spec.name}' asked for; {spec.build} of plugin {package} cannot be imported: "
        f"{describe_cause(error)}; {hint}"
    )


def _read_allow_list() -> tuple[str, ...] | None:
    value = os.environ.get("MODALBIND_PLUGINS")
    if value is None:
        return None
    return tuple(name.strip() for name in value.split(",") if name.strip())


def _list_hidden() -> list[str]:
    """Return the installed plugins that the allow-list leaves out."""
    shown = {entry.name for entry in _sorted_entry_points(_read_allow_list())}
    return [entry.name for entry in _sorted_entry_points(None) if entry.name not in shown]


def _sorted_entry_points(allowed: Sequence[str] | None) -> list[EntryPoint]:
    def rank(entry: EntryPoint) -> tuple[bool, str, str]:
        distribution = normalise(_distribution(entry))
        return distribution != CORE, distribution, entry.name

    found = sorted(_find_entry_points(), key=rank)
    if allowed is None:
        return found
    return [entry for entry in found if not rank(entry)[0] or _is_allowed(entry, allowed)]


def _find_entry_points() -> list[EntryPoint]:
    """Return the entry points of the group, whatever stands in those of other distributions."""
    try:
        return list(entry_points(group=GROUP))
    except Exception:  # one file that cannot be read spoils the list of all: read each by itself
        pass
    found: dict[str, list[EntryPoint]] = {}
    for distribution in distributions():
        name = normalise(_read_metadata(distribution, "Name"))
        try:
            own = list(distribution.entry_points.select(group=GROUP))
            found.setdefault(name, own)  # of two on the path, the first is what is imported
        except Exception as error:
            hint = f"try: pip install --force-reinstall {name}"
            log.warning("entry points of %s cannot be read: %s; %s", name, error, hint)
    return [entry for entries in found.values() for entry in entries]


def _distribution(entry: EntryPoint) -> str:
    return _read_metadata(entry.dist, "Name") or entry.name


def _read_metadata(distribution: Distribution | None, key: str) -> str:
    """Return what the metadata say, empty if they do not: an interrupted removal leaves none."""
    try:
        metadata: Any = distribution.metadata if distribution else {}
        return str(metadata.get(key) or "")
    except Exception:
        return ""


def _is_allowed(entry: EntryPoint, allowed: Sequence[str]) -> bool:
    distribution = normalise(_distribution(entry))
    return any(name == entry.name or normalise(name) == distribution for name in allowed)


def _missing(
    allowed: Sequence[str], seen: Sequence[LoadedPlugin | PluginFailure]
) -> list[PluginFailure]:
    """Return a failure for each name on the allow-list that nothing installed bears."""
    known = {plugin.name for plugin in seen} | {normalise(plugin.distribution) for plugin in seen}
    return [
        PluginFailure(
            name,
            name,
            "absent",
            InvalidPluginError("named by MODALBIND_PLUGINS and not installed", ""),
            f"try: pip install {name if name.startswith(GROUP) else f'{GROUP}-{name}'}",
        )
        for name in allowed
        if name not in known and normalise(name) not in known
    ]
