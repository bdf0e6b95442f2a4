"""Each mutant fails its own check and no other; the good plugin fails none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from mutants import DEAF, MUTANTS, Mutant

from modalbind.conformance import CHECKS, check_plugin

Install = Callable[[Mutant | None], None]
PROBED = (
    "registration.light-import",
    "registration.import-time",
    "registration.no-network",
    "registration.no-files",
)
NO_FILES_AT_HAND = "modality.cut-files"


def failures(*without: str) -> set[tuple[str, str]]:
    report = check_plugin("sonar", without=without)
    return {(result.subject, result.check) for result in report.failed}


def test_the_good_plugin_passes_every_check_but_the_one_that_needs_a_file(install: Install) -> None:
    install(None)
    report = check_plugin("sonar")
    assert report.ok
    not_passed = {result.check for result in report.results if result.status != "passed"}
    assert not_passed == {NO_FILES_AT_HAND}
    assert {result.check for result in report.results} == {check.name for check in CHECKS}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_fails_its_own_check_and_no_other(install: Install, mutant: Mutant) -> None:
    install(mutant)
    # What an import does is looked at in a process of its own, which only __init__.py can change.
    probed = () if mutant.file in ("__init__.py", "options.py") else PROBED
    assert failures("quickstart", *probed) == {(mutant.subject, mutant.check)}


def test_a_quick_start_that_cannot_learn_fails_its_own_check(install: Install) -> None:
    install(DEAF)
    assert failures(*PROBED) == {(DEAF.subject, DEAF.check)}


def test_every_check_of_the_contract_is_failed_by_a_mutant() -> None:
    caught = {mutant.check for mutant in (*MUTANTS, DEAF)}
    # What reads a file that was cut short is in tests/test_testing.py, which has files.
    assert {check.name for check in CHECKS} - caught == {NO_FILES_AT_HAND}
    assert len({mutant.name for mutant in (*MUTANTS, DEAF)}) == len(MUTANTS) + 1
