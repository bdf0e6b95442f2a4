"""`modalbind.testing`: the contract as tests, and checks of single offers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent / "conformance"))

import mutants

from modalbind import testing
from modalbind.errors import UnknownNameError

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def do(name: str | None = None) -> None:
        forget()
        mutant = next((each for each in mutants.MUTANTS if each.name == name), None)
        mutants.write(tmp_path / "installed", mutant)
        monkeypatch.syspath_prepend(str(tmp_path / "installed"))
        monkeypatch.setenv("MODALBIND_PLUGINS", "sonar")

    yield do
    forget()


def forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == mutants.PACKAGE]:
        del sys.modules[name]


def cases(test: Any) -> dict[str, tuple[Any, ...]]:
    mark = next(mark for mark in test.pytestmark if mark.name == "parametrize")
    return {case.id: case.values for case in mark.args[1]}


@pytest.fixture
def folders(tmp_path_factory: pytest.TempPathFactory) -> pytest.TempPathFactory:
    return tmp_path_factory


def test_a_contract_has_one_test_for_each_check_of_each_offer(
    install: Install, folders: pytest.TempPathFactory
) -> None:
    install()
    test = testing.contract("sonar", only=["objective", "registration.options"])
    found = cases(test)
    assert "objective-hail-objective.gradient" in found
    assert sum(name.endswith("registration.options") for name in found) == 9
    assert len(found) == 5 + 9
    for subject, check in found.values():
        test(subject, check, folders)


def test_a_check_that_fails_fails_its_test_with_the_place(
    install: Install, folders: pytest.TempPathFactory
) -> None:
    install("moves the anchor embeddings")
    test = testing.contract("sonar", only=["objective"])
    with pytest.raises(pytest.fail.Exception) as raised:
        test(*cases(test)["objective-hail-objective.gradient"], folders)
    lines = str(raised.value).splitlines()
    assert lines[0] == "objective hail: objective.gradient failed"
    assert lines[2] == "found: the gradient reaches the anchor embeddings"
    assert "hail.py:" in lines[3]


def test_a_check_that_cannot_be_tried_skips_its_test(
    install: Install, folders: pytest.TempPathFactory
) -> None:
    install()
    test = testing.contract("sonar", only=["modality.cut-files"])
    with pytest.raises(pytest.skip.Exception, match="no real file is at hand"):
        test(*next(iter(cases(test).values())), folders)


def test_files_are_written_once_and_let_more_be_checked(
    install: Install, folders: pytest.TempPathFactory
) -> None:
    install()
    calls = []

    def write(folder: Path) -> list[Path]:
        calls.append(folder)
        (folder / "ping.json").write_text(json.dumps([[0.5] * 8] * 5))
        return [folder / "ping.json"]

    test = testing.contract("sonar", files=write, only=["modality.cut-files", "modality.builds"])
    assert calls == []
    for subject, check in cases(test).values():
        test(subject, check, folders)
    assert len(calls) == 1


def test_a_contract_of_nothing_installed_is_an_error_when_collected(install: Install) -> None:
    install()
    with pytest.raises(UnknownNameError, match="plugin 'tonar' not found"):
        testing.contract("tonar")


def test_files_let_more_be_checked(install: Install, tmp_path: Path) -> None:
    install()
    files = []
    for number in range(2):
        files.append(tmp_path / f"ping{number}.json")
        files[-1].write_text(json.dumps([[0.5 * number] * 8] * 5))
    report = testing.check_modality("sonar", files=files)
    assert {result.status for result in report.results} == {"passed"}
    assert "modality.cut-files" in {result.check for result in report.results}


def test_a_modality_that_reads_half_a_file_is_caught(install: Install, tmp_path: Path) -> None:
    install("gives a random sample for a broken file")
    whole = tmp_path / "ping.json"
    whole.write_text(json.dumps([[0.5] * 8] * 5))
    report = testing.check_modality("sonar", files=[whole])
    failed = {result.check: result.reason for result in report.failed}
    assert set(failed) == {"modality.bad-files", "modality.cut-files"}
    assert failed["modality.cut-files"].endswith("BrokenSampleError asked for; a Ping came back")


def test_a_data_set_is_checked_with_options_of_the_callers_own(install: Install) -> None:
    install()
    report = testing.check_dataset("seabed", {"train": 1, "test": 1})
    assert report.ok
    assert {r.subject for r in report.results} == {"dataset seabed"}
    refused = testing.check_dataset("seabed", {"trains": 1})
    first = next(r for r in refused.results if r.check == "dataset.builds")
    assert (first.status, "trains" in first.reason) == ("skipped", True)


def test_an_encoder_is_checked_with_options_of_the_callers_own(install: Install) -> None:
    install()
    report = testing.check_encoder("echo", {"width": 5, "dropout": 0.5}, modality="sonar")
    assert report.ok
    assert report.counts()["skipped"] == 0


def test_an_offer_that_is_not_there_is_named(install: Install) -> None:
    install()
    with pytest.raises(UnknownNameError, match="dataset 'seabeds' asked for"):
        testing.check_dataset("seabeds")


def test_collecting_a_contract_imports_nothing_heavy(install: Install, tmp_path: Path) -> None:
    install()
    code = (
        "import sys; from modalbind.testing import contract; contract('sonar'); "
        "print([n for n in ('torch', 'numpy', 'PIL') if n in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": ":".join(sys.path), "MODALBIND_PLUGINS": "sonar"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == "[]"


def test_names_are_sorted_and_there() -> None:
    assert list(testing.__all__) == sorted(testing.__all__)
    assert all(hasattr(testing, name) for name in testing.__all__)
