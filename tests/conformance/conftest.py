"""Installs the good plugin of this folder, or a mutant of it, for one test."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import mutants


def forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == mutants.PACKAGE]:
        del sys.modules[name]


@pytest.fixture
def install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[mutants.Mutant | None], None]]:
    def do(mutant: mutants.Mutant | None) -> None:
        forget()
        mutants.write(tmp_path / "installed", mutant)
        monkeypatch.syspath_prepend(str(tmp_path / "installed"))
        monkeypatch.setenv("MODALBIND_PLUGINS", "sonar")

    yield do
    forget()
