"""Files stay short enough to be read in one sitting."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAX_LINES = 600
PACKAGES = [ROOT / "modalbind", *sorted((ROOT / "plugins").glob("*/modalbind_*"))]
FILES = sorted(path for package in PACKAGES for path in package.rglob("*.py"))
NO_NAMES = {"utils.py", "common.py", "helpers.py", "misc.py"}


def test_there_are_some():
    assert len(PACKAGES) > 1
    assert len(FILES) > 30


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module_is_short_and_named_for_what_it_does(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES
    assert path.name not in NO_NAMES


def test_median_module_is_short():
    lines = sorted(len(path.read_text(encoding="utf-8").splitlines()) for path in FILES)
    assert lines[len(lines) // 2] <= 350
