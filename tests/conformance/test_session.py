from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from mutants import MUTANTS, Mutant

from modalbind.cli import main
from modalbind.conformance import CHECKS, Session, check_plugin
from modalbind.conformance.catalog import BY_NAME
from modalbind.errors import InputError

Install = Callable[[Mutant | None], None]


def mutant(name: str) -> Mutant:
    return next(each for each in MUTANTS if each.name == name)


def test_every_check_can_be_imported_and_needs_checks_of_its_own_subject() -> None:
    for check in CHECKS:
        assert callable(check.load())
        for name in check.needs:
            assert BY_NAME[name].kind == check.kind
    assert len(BY_NAME) == len(CHECKS)


def test_a_need_stands_before_what_needs_it() -> None:
    seen: set[str] = set()
    for check in CHECKS:
        assert set(check.needs) <= seen
        seen.add(check.name)


def test_a_check_is_run_once_whoever_asks(install: Install) -> None:
    install(None)
    session = Session("modalbind-sonar")
    plan = session.plan(only=["objective"])
    results = [session.outcome(subject, check) for subject, check in plan]
    again = [session.outcome(subject, check) for subject, check in reversed(plan)]
    assert all(first is second for first, second in zip(results, reversed(again), strict=True))


def test_what_needs_a_failed_check_is_skipped_and_names_it(install: Install) -> None:
    install(mutant("takes a batch for square"))
    report = check_plugin("sonar", only=["objective"])
    found = {result.check: (result.status, result.reason) for result in report.results}
    assert found.pop("objective.loss")[0] == "failed"
    assert set(found.values()) == {("skipped", "needs objective.loss")}
    assert not report.ok
    assert report.counts() == {"passed": 0, "failed": 1, "skipped": 4}


def test_a_check_asked_for_alone_runs_what_it_needs(install: Install) -> None:
    install(mutant("takes a batch for square"))
    report = check_plugin("sonar", only=["objective.gradient"])
    assert [(r.check, r.status) for r in report.results] == [("objective.gradient", "skipped")]
    assert report.ok


def test_a_failure_names_the_line_to_look_at(install: Install, tmp_path: Path) -> None:
    install(mutant("moves the anchor embeddings"))
    report = check_plugin("sonar", only=["objective.gradient"])
    path, _, line = report.failed[0].where.rpartition(":")
    assert Path(path) == tmp_path / "installed" / "modalbind_sonar" / "hail.py"
    assert "def __call__(" in Path(path).read_text().splitlines()[int(line) - 1]


def test_an_unforeseen_error_names_the_line_of_the_plugin_that_raised_it(
    install: Install,
) -> None:
    install(mutant("cannot be built from its quick start"))
    failed = check_plugin("sonar", only=["modality.builds"]).failed[0]
    path, _, line = failed.where.rpartition(":")
    assert failed.reason.startswith("AttributeError: ")
    assert "options.silence" in Path(path).read_text().splitlines()[int(line) - 1]


def test_an_encoder_that_starts_from_a_tower_gets_that_of_the_quick_starts_anchor(
    install: Install,
) -> None:
    checks = ["encoder.builds", "encoder.save-load"]
    install(None)
    report = check_plugin("sonar", only=checks)
    assert {r.status for r in report.results if r.subject == "encoder lent"} == {"passed"}


def test_an_encoder_that_starts_from_a_tower_is_skipped_where_the_anchor_lends_none(
    install: Install,
) -> None:
    install(Mutant("lends nothing", "", "", "chart.py", "def copy_tower", "def keep_tower"))
    report = check_plugin("sonar", only=["encoder.builds"])
    lent = next(r for r in report.results if r.subject == "encoder lent")
    assert (lent.status, "export none" in lent.reason) == ("skipped", True)
    assert report.ok


@pytest.mark.parametrize("name", ["padding", "encoder.pad", "quick-start", ""])
def test_an_unknown_check_is_refused_before_anything_runs(install: Install, name: str) -> None:
    install(None)
    with pytest.raises(InputError, match=r"asked for; there is none; groups: registration,"):
        check_plugin("sonar", only=[name])


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code = main(["plugins", "check", *args])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_command_prints_a_table_and_leaves_with_0(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install(None)
    code, out, err = run(capsys, "sonar", "--only", "objective", "--only", "modality.cut-files")
    assert (code, err) == (0, "")
    assert "objective.* (5)" in out
    assert "no real file is at hand" in out
    assert "modalbind-sonar 1.2: 5 passed, 0 failed, 1 skipped" in out


def test_the_command_leaves_with_1_and_one_line_if_a_check_fails(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install(mutant("moves the anchor embeddings"))
    code, out, err = run(capsys, "sonar", "--only", "objective", "--json")
    report = json.loads(out)
    assert code == 1
    assert err.count("\n") == 1
    assert "1 of 5 checks failed, first objective.gradient of objective hail: " in err
    assert (report["ok"], report["counts"]["failed"]) == (False, 1)
    row = next(row for row in report["results"] if row["status"] == "failed")
    assert row["check"] == "objective.gradient"
    assert row["where"].endswith(f"hail.py:{row['where'].rpartition(':')[2]}")


def test_the_command_leaves_with_2_where_there_is_no_such_check_or_plugin(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install(None)
    assert run(capsys, "sonar", "--without", "quickstat")[0] == 2
    assert run(capsys, "sonars")[0] == 2
