"""The tables of docs/plugins/testing.md say what the code has."""

from __future__ import annotations

import re
from pathlib import Path

from mutants import DEAF, MUTANTS

from modalbind.conformance import CHECKS

PAGE = Path(__file__).parents[2] / "docs" / "plugins" / "testing.md"


def table(heading: str) -> list[tuple[str, ...]]:
    lines = PAGE.read_text("utf-8").splitlines()
    start = lines.index(f"| {heading} |")
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append(tuple(cell.strip() for cell in line.strip("|").split("|")))
    return rows


def test_the_table_of_checks_is_the_catalogue() -> None:
    assert table("check | of | asks") == [
        (f"`{check.name}`", check.kind, check.asks) for check in CHECKS
    ]


def test_the_table_of_mutants_is_what_is_tested() -> None:
    assert table("mutant | subject | fails") == [
        (mutant.name, mutant.subject, f"`{mutant.check}`") for mutant in (*MUTANTS, DEAF)
    ]


def test_every_check_that_the_page_speaks_of_is_there() -> None:
    groups = {check.group for check in CHECKS}
    words = re.findall(r"`([a-z]+\.[a-z-]+)`", PAGE.read_text("utf-8"))
    named = {word for word in words if word.partition(".")[0] in groups}
    assert named <= {check.name for check in CHECKS}
