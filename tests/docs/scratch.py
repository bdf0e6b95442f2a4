"""A scratch environment: what is installed here can be imported, what it installs stays in it."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

MODALBIND = """#!{python}
import sys

from modalbind.cli import main

sys.exit(main())
"""
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_NO_BUILD_ISOLATION": "0",  # pip takes the value of this one the other way round
    "PIP_NO_DEPS": "1",
    "PIP_NO_INDEX": "1",
}
WIDTH = "100"
TIMEOUT_S = 500


@dataclass(frozen=True)
class Scratch:
    """An environment in `root`, with a folder of the reader's in it."""

    root: Path

    @property
    def folder(self) -> Path:
        """Where the reader works."""
        return self.root / "modalbind-imu"

    def create(self) -> Scratch:
        """Make it, without copying any package."""
        self.folder.mkdir(parents=True)
        place = self.root / "env"
        venv.create(place, symlinks=True, with_pip=False)
        paths = sysconfig.get_paths(vars={"base": str(place), "platbase": str(place)})
        outer = sysconfig.get_paths()["purelib"]
        # addsitedir, not the bare path: it also reads what editable installs left there.
        line = f"import site; site.addsitedir({outer!r})\n"
        (Path(paths["purelib"]) / "outer.pth").write_text(line, encoding="utf-8")
        script = place / "bin" / "modalbind"
        script.write_text(MODALBIND.format(python=place / "bin" / "python"), encoding="utf-8")
        script.chmod(0o755)
        return self

    def run(self, line: str) -> subprocess.CompletedProcess[str]:
        """Run a line in a shell, both outputs in one."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("MODALBIND_", "PYTEST_", "PYTHONPATH", "VIRTUAL_ENV"))
        }
        own = {
            "COLUMNS": WIDTH,
            "MODALBIND_CACHE": str(self.root / "cache"),
            "MODALBIND_PLUGINS": "imu",  # the reader has no other
            "OMP_NUM_THREADS": "1",
            "PATH": os.pathsep.join([str(self.root / "env" / "bin"), os.environ["PATH"]]),
        }
        return subprocess.run(
            ["sh", "-c", line],
            cwd=self.folder,
            env={**kept, **OFFLINE, **own},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=TIMEOUT_S,
            check=False,
        )


def missing_tools() -> list[str]:
    """Return what the environment lacks to install a package offline."""
    found = [name for name in ("pip", "hatchling", "editables") if _is_missing(name)]
    return found if sys.platform != "win32" else [*found, "a shell"]


def _is_missing(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is None
