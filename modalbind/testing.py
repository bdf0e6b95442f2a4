"""What plugin authors use in their own tests: the contract as pytest tests, and single checks.

A whole test file of a plugin's contract is

    from modalbind.testing import contract

    test_contract = contract("modalbind-sonar")

The core never imports this module, and it alone imports pytest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from modalbind.conformance import (
    Check,
    CheckResult,
    ConformanceReport,
    Session,
    Subject,
    check_plugin,
)
from modalbind.errors import UnknownNameError

__all__ = [
    "CheckResult",
    "ConformanceReport",
    "check_dataset",
    "check_encoder",
    "check_modality",
    "check_offer",
    "check_plugin",
    "contract",
]


WriteFiles = Callable[[Path], Sequence[Path]]
"""Writes real sample files into a folder and names them."""


def contract(
    name: str,
    *,
    files: WriteFiles | None = None,
    only: Sequence[str] = (),
    without: Sequence[str] = (),
) -> Callable[..., None]:
    """Return a test of a plugin's whole contract, one test id for each check of each offer.

    Collecting it builds nothing and imports nothing heavy. What cannot be tried is skipped with
    the reason.

    Args:
        name: Plugin, distribution or modality.
        files: Function from an empty folder to real sample files of its modality that it has
            written there, for the checks that need some; called once, when the first test runs.
        only: Names or groups of checks; empty takes all.
        without: Names or groups that are left out, such as `quickstart`.

    Raises:
        PluginError: When collected, if the plugin is not installed, or broken.
    """
    session = Session(name)
    asked = [files] if files is not None else []
    cases = [
        pytest.param(subject, check, id=f"{subject.label.replace(' ', '-')}-{check.name}")
        for subject, check in session.plan(only=only, without=without)
    ]

    @pytest.mark.parametrize(("subject", "check"), cases)
    def test_contract(
        subject: Subject, check: Check, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        while asked:
            session.give_files(asked.pop()(tmp_path_factory.mktemp("samples")))
        result = session.outcome(subject, check)
        if result.status == "skipped":
            pytest.skip(result.reason)
        if result.status == "failed":
            pytest.fail(_describe(result, check), pytrace=False)

    return test_contract


def check_offer(
    kind: str,
    name: str,
    options: Mapping[str, Any] | None = None,
    *,
    modality: str | None = None,
    root: Path | None = None,
    files: Sequence[Path] = (),
    without: Sequence[str] = ("quickstart",),
) -> ConformanceReport:
    """Check one thing that an installed plugin offers, with options of your own.

    Args:
        kind: `modality`, `encoder`, `dataset`, `augmentation`, `anchor` or `objective`.
        name: Of the offer.
        options: Take the place of its example's.
        modality: Which, where an encoder, data set or augmentation of that name serves several.
        root: Data root, for a data set.
        files: Real sample files, for a modality.
        without: Names or groups of checks that are left out.

    Raises:
        PluginError: If nothing installed offers it.
    """
    from modalbind.plugin_manager import load_plugins

    plugins = load_plugins(strict=False)
    for plugin in plugins.loaded:
        for spec in plugin.specs.get(kind, ()):
            if spec.name == name and getattr(spec, "modality", modality) in (modality, "*", None):
                return _check_spec(plugin.name, kind, spec, options, root, files, without)
            if spec.name == name and modality is None:
                return _check_spec(plugin.name, kind, spec, options, root, files, without)
    raise UnknownNameError(
        f"{kind} '{name}' asked for; nothing installed offers it; see: modalbind plugins"
    )


def check_modality(
    name: str, options: Mapping[str, Any] | None = None, *, files: Sequence[Path] = ()
) -> ConformanceReport:
    """Check a modality, on the samples of its quick start and on real files if you have some."""
    return check_offer("modality", name, options, files=files)


def check_encoder(
    name: str, options: Mapping[str, Any] | None = None, *, modality: str | None = None
) -> ConformanceReport:
    """Check an encoder, with `options` instead of its quick start's or its example's."""
    return check_offer("encoder", name, options, modality=modality)


def check_dataset(
    name: str,
    options: Mapping[str, Any] | None = None,
    root: Path | None = None,
    *,
    modality: str | None = None,
) -> ConformanceReport:
    """Check a data set on a small made-up copy of it.

    Args:
        name: Of the data set.
        options: Of the data set.
        root: Folder that holds the copy, laid out as it is published.
        modality: Which, if several have a data set of that name.
    """
    return check_offer("dataset", name, options, modality=modality, root=root)


def _check_spec(
    plugin: str,
    kind: str,
    spec: Any,
    options: Mapping[str, Any] | None,
    root: Path | None,
    files: Sequence[Path],
    without: Sequence[str],
) -> ConformanceReport:
    given = None if options is None else dict(options)
    session = Session(plugin, files=files, options=given, root=root)
    chosen = [
        (subject, check)
        for subject, check in session.plan(without=without)
        if subject.kind == kind and subject.spec == spec
    ]
    return session.report(chosen)


def _describe(result: CheckResult, check: Check) -> str:
    lines: Iterable[str] = (
        f"{result.subject}: {result.check} failed",
        f"asks:  {check.asks}",
        f"found: {result.reason}",
        f"look:  {result.where}",
    )
    return "\n".join(lines)
