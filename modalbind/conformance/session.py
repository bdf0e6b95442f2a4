"""Runs checks: which there are for a plugin, in order, each once; and what became of them."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from modalbind.conformance.catalog import BY_NAME, CHECKS, Check, select
from modalbind.conformance.report import CheckResult, ConformanceReport, Status
from modalbind.conformance.verdict import (
    ContractError,
    NotCheckedError,
    locate,
    locate_in_traceback,
    one_line,
)
from modalbind.errors import InputError
from modalbind.interfaces import Spec
from modalbind.plugin_manager import LoadedPlugin, Plugins, load_plugins, nearest

BENCHES = {
    "plugin": "registration:PluginBench",
    "offer": "registration:OfferBench",
    "modality": "modality:ModalityBench",
    "encoder": "encoder:EncoderBench",
    "augmentation": "augmentation:AugmentationBench",
    "dataset": "dataset:DatasetBench",
    "objective": "objective:ObjectiveBench",
    "anchor": "anchor:AnchorBench",
}
"""What the checks of a kind are given: it builds the subject, once, when a check first asks."""

OnResult = Callable[[CheckResult], None]


@dataclass(frozen=True)
class Subject:
    """What is checked: the plugin itself, or one of its offers.

    Attributes:
        label: Name in the report, such as `encoder beats`.
        kind: `plugin`, or the kind of offer.
        spec: The offer; None for the plugin itself.
    """

    label: str
    kind: str
    spec: Spec | None = None

    def kinds(self) -> tuple[str, ...]:
        """Return the kinds of check that it takes."""
        return ("plugin",) if self.spec is None else ("offer", self.kind)


@dataclass(frozen=True)
class Surroundings:
    """What a bench may look at beside its subject.

    Attributes:
        plugins: Everything installed.
        plugin: Whose offers are checked.
        files: Real sample files that the caller has at hand.
        options: Options that take the place of the subject's own example, or None.
        root: Data root for data sets, or None.
        shared: What benches keep for one another, such as samples that several need.
    """

    plugins: Plugins
    plugin: LoadedPlugin
    files: tuple[Path, ...] = ()
    options: dict[str, Any] | None = None
    root: Path | None = None
    shared: dict[str, Any] = field(default_factory=dict)


class Session:
    """Checks of one plugin; each is run at most once, whoever asks.

    Attributes:
        plugin: What is checked.
    """

    def __init__(
        self,
        name: str,
        *,
        plugins: Plugins | None = None,
        files: Sequence[Path] = (),
        options: dict[str, Any] | None = None,
        root: Path | None = None,
    ) -> None:
        """Find the plugin; nothing of it is built yet.

        Args:
            name: Plugin, distribution or modality.
            plugins: What is installed; None loads it.
            files: Real sample files, for the checks that need some.
            options: Take the place of the example of what is checked.
            root: Data root for data sets.

        Raises:
            PluginError: If there is no such plugin, or it is broken.
        """
        plugins = load_plugins(strict=False) if plugins is None else plugins
        self.plugin = plugins.plugin(name)
        self._around = Surroundings(plugins, self.plugin, tuple(files), options, root)
        self._results: dict[tuple[str, str], CheckResult] = {}
        self._benches: dict[tuple[str, str], Any] = {}

    def give_files(self, files: Sequence[Path]) -> None:
        """Name real sample files; for who has none before the first check runs."""
        self._around = replace(self._around, files=tuple(files))

    def subjects(self) -> list[Subject]:
        """Return the plugin itself and all that it offers."""
        return [Subject(f"plugin {self.plugin.name}", "plugin"), *self._offers()]

    def plan(
        self, *, only: Sequence[str] = (), without: Sequence[str] = ()
    ) -> list[tuple[Subject, Check]]:
        """Return what is to be checked, in order.

        Args:
            only: Names or groups of checks (`encoder.padding`, `quickstart`); empty takes all.
            without: Names or groups that are left out.

        Raises:
            InputError: If there is no such check.
        """
        try:
            chosen = select(tuple(only)) if only else set(BY_NAME)
            chosen -= select(tuple(without))
        except KeyError as error:
            raise _unknown_check(error.args[0]) from None
        return [
            (subject, check)
            for subject in self.subjects()
            for check in CHECKS
            if check.kind in subject.kinds() and check.name in chosen
        ]

    def outcome(self, subject: Subject, check: Check) -> CheckResult:
        """Run a check, and before it those that it needs; the second time it is remembered."""
        place = (subject.label, check.name)
        if place not in self._results:
            blocked = next(self._blocking(subject, check), None)
            if blocked is not None:
                reason = blocked.reason if blocked.is_blocked else f"needs {blocked.check}"
                self._results[place] = CheckResult(
                    check.name, subject.label, "skipped", reason, is_blocked=True
                )
            else:
                self._results[place] = self._run(subject, check)
        return self._results[place]

    def report(
        self, plan: Sequence[tuple[Subject, Check]], on_result: OnResult | None = None
    ) -> ConformanceReport:
        """Run everything planned, telling each result as it comes."""
        results = []
        for subject, check in plan:
            results.append(self.outcome(subject, check))
            if on_result is not None:
                on_result(results[-1])
        plugin = self.plugin
        return ConformanceReport(plugin.name, plugin.distribution, plugin.version, tuple(results))

    def _offers(self) -> Iterator[Subject]:
        for kind, specs in self.plugin.specs.items():
            for spec in specs:
                twins = [other for other in specs if other.name == spec.name]
                of = f" for {getattr(spec, 'modality', '')}" if len(twins) > 1 else ""
                yield Subject(f"{kind} {spec.name}{of}", kind, spec)

    def _blocking(self, subject: Subject, check: Check) -> Iterator[CheckResult]:
        for name in check.needs:
            result = self.outcome(subject, BY_NAME[name])
            if result.status != "passed":
                yield result

    def _run(self, subject: Subject, check: Check) -> CheckResult:
        start = time.perf_counter()
        status, reason, where = self._try(subject, check)
        seconds = round(time.perf_counter() - start, 3)
        return CheckResult(check.name, subject.label, status, reason, where, seconds)

    def _try(self, subject: Subject, check: Check) -> tuple[Status, str, str]:
        """Run the function of a check; whatever a plugin raises is told as its failure."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                function, bench = check.load(), self._bench(subject, check.kind)
                function(bench)
        except NotCheckedError as skip:
            return "skipped", one_line(skip), ""
        except ContractError as error:
            return "failed", one_line(error), locate(error.at) or self._default_place(subject)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - a plugin may raise anything, SystemExit too
            inside = locate_in_traceback(error.__traceback__, self._folder())
            return "failed", one_line(error), inside or self._default_place(subject)
        return "passed", "", ""

    def _bench(self, subject: Subject, kind: str) -> Any:
        place = (subject.label, kind)
        if place not in self._benches:
            module, _, name = BENCHES[kind].partition(":")
            bench = getattr(import_module(f"modalbind.conformance.{module}"), name)
            self._benches[place] = bench(self._around, subject.spec)
        return self._benches[place]

    def _default_place(self, subject: Subject) -> str:
        """Return where the factory of the subject is written, or the plugin's package."""
        from modalbind.plugin_manager import import_factory

        try:
            if subject.spec is not None:
                return locate(import_factory(subject.spec))
            return locate(import_module(self.plugin.package))
        except Exception:  # noqa: BLE001 - it is only where to look
            return ""

    def _folder(self) -> Path | None:
        try:
            spec = find_spec(self.plugin.package)
        except (ImportError, ValueError):
            return None
        return Path(spec.origin).parent if spec is not None and spec.origin else None


def check_plugin(
    name: str,
    *,
    only: Sequence[str] = (),
    without: Sequence[str] = (),
    files: Sequence[Path] = (),
    on_result: OnResult | None = None,
) -> ConformanceReport:
    """Check a plugin whole.

    Args:
        name: Plugin, distribution or modality.
        only: Names or groups of checks; empty takes all.
        without: Names or groups that are left out, such as `quickstart`.
        files: Real sample files of its modality, for the checks that need some.
        on_result: Told each result as it comes.

    Raises:
        PluginError: If there is no such plugin, or it is broken.
        InputError: If there is no such check.
    """
    session = Session(name, files=files)
    return session.report(session.plan(only=only, without=without), on_result)


def _unknown_check(name: str) -> InputError:
    names = [check.name for check in CHECKS] + sorted({check.group for check in CHECKS})
    near = nearest(name, names)
    remedy = f"did you mean '{near}'?" if near else "see docs/plugins/testing.md"
    groups = ", ".join(dict.fromkeys(check.group for check in CHECKS))
    return InputError(f"check '{name}' asked for; there is none; groups: {groups}; {remedy}")
