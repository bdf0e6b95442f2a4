from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mutants import Mutant
from pydantic import Field

from modalbind.api import API_VERSION, ObjectiveSpec, Options
from modalbind.conformance import check_plugin, import_probe
from modalbind.conformance.registration import OfferBench, check_factory, check_options
from modalbind.conformance.verdict import ContractError, NotCheckedError


class Section(Options):
    length: float = Field(description="How long it is.")


def bench(model: type[Options] = Options, build: str = "nowhere:build") -> OfferBench:
    spec = ObjectiveSpec(name="x", summary="x", api_version=API_VERSION, build=build, options=model)
    around: Any = SimpleNamespace(plugin=SimpleNamespace(package="modalbind_x"))
    return OfferBench(around, spec)


def options(annotation: Any, name: str, description: str | None, **bounds: float) -> type[Options]:
    field = Field(default=None, description=description, **bounds)
    kind = {"__annotations__": {name: annotation}, name: field, "__module__": __name__}
    return type("Made", (Options,), kind)


@pytest.mark.parametrize(
    "model",
    [
        options(float, "window_s", "Longest sample embedded whole."),
        options(float, "level", "Of the noise, in dB."),
        options(float, "level", "Factor on the waveform."),
        options(float, "dropout", "After each layer.", ge=0, lt=1),
        options(int, "layers", "How many there are."),
        options(str, "path", "Where it lies on disk."),
        options(float | None, "cut_hz", "Left out above this."),
        options(dict[str, float], "weights", "How much each counts."),
    ],
)
def test_documented_options_pass(model: type[Options]) -> None:
    check_options(bench(model))


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (options(int, "layers", None), "no description"),
        (options(int, "layers", "n"), "no description"),
        (options(float, "level", "Of the noise that is added."), "without a unit"),
        (options(float | None, "level", "Of the noise that is added."), "without a unit"),
        (options(tuple[float, float], "range", "Lowest and highest."), "without a unit"),
        (options(float, "dropout", "After each layer.", ge=0, lt=2), "without a unit"),
        (options(float, "seconds", "Longest that is kept."), "without a unit"),
        (options(Section, "section", "More about it."), "option 'length' of Section"),
        (options(list[Section], "sections", "More about it."), "option 'length' of Section"),
    ],
)
def test_an_option_that_does_not_say_what_it_is_fails(model: type[Options], found: str) -> None:
    with pytest.raises(ContractError, match=found):
        check_options(bench(model))


def test_a_package_that_is_not_installed_is_no_failure_of_the_plugin(tmp_path: Path) -> None:
    (tmp_path / "modalbind_x.py").write_text("import not_installed_anywhere\n")
    sys.path.insert(0, str(tmp_path))
    try:
        with pytest.raises(NotCheckedError, match="not-installed-anywhere"):
            check_factory(bench(build="modalbind_x:build"))
    finally:
        sys.path.remove(str(tmp_path))


def test_a_factory_that_is_no_function_fails() -> None:
    with pytest.raises(ContractError, match="is a float"):
        check_factory(bench(build="math:pi"))


def probe(tmp_path: Path, source: str) -> dict[str, Any]:
    (tmp_path / "probed.py").write_text(source)
    run = subprocess.run(
        [sys.executable, "-B", "-P", import_probe.__file__, "probed"],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": f"{tmp_path}:{':'.join(sys.path)}"},
    )
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


def test_the_probe_sees_what_hooks_do_and_reads_no_print(tmp_path: Path) -> None:
    found = probe(
        tmp_path,
        "print('hello')\n"
        "def modalbind_modalities():\n"
        "    import pyarrow\n"
        "    import os, pathlib\n"
        "    open(os.devnull, 'w').close()\n"
        "    open(__file__).close()\n"
        f"    pathlib.Path({str(tmp_path)!r}, 'made').mkdir()\n",
    )
    assert found["heavy"] == ["pyarrow"]
    assert found["network"] == []
    assert [entry.partition(" ")[0] for entry in found["written"]] == ["os.mkdir"]
    assert 0 < found["own_s"]
    assert 0.02 < found["bare_s"]  # the yardstick was not imported before the clock ran


def test_a_plugin_whose_package_cannot_be_found_alone_fails_and_names_the_error(
    install: Callable[[Mutant | None], None],
) -> None:
    line = "from modalbind_sonar import options\n"
    alone = f"{line}\nif __import__('sys').argv[-1] == 'modalbind_sonar':\n    raise KeyError(7)\n"
    install(Mutant("breaks alone", "", "", "__init__.py", line, alone))
    report = check_plugin("sonar", only=["registration.no-files"])
    assert [(r.status, "KeyError: 7" in r.reason) for r in report.results] == [("failed", True)]
