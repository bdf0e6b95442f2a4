"""Distributions as a stranger would publish them: wheels built by hand, installed by pip."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

WHEEL = "Wheel-Version: 1.0\nGenerator: modalbind-tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


@dataclass(frozen=True)
class Distribution:
    """One package with one entry point.

    Attributes:
        name: What pip knows it by; its package is the same with underscores.
        entry: Name of the entry point.
        source: Of the package's `__init__`.
        requires: Distributions that its metadata asks for.
        version: Of the distribution.
    """

    name: str
    entry: str
    source: str
    requires: tuple[str, ...] = ()
    version: str = "1.0"

    @property
    def package(self) -> str:
        return self.name.replace("-", "_")

    def files(self) -> dict[str, str]:
        """Return the content of the wheel by path, all but RECORD."""
        info = f"{self.package}-{self.version}.dist-info"
        metadata = ["Metadata-Version: 2.1", f"Name: {self.name}", f"Version: {self.version}"]
        metadata += [f"Requires-Dist: {name}" for name in self.requires]
        return {
            f"{self.package}/__init__.py": self.source,
            f"{info}/METADATA": "\n".join(metadata) + "\n",
            f"{info}/WHEEL": WHEEL,
            f"{info}/entry_points.txt": f"[modalbind]\n{self.entry} = {self.package}\n",
        }

    def build(self, folder: Path) -> Path:
        """Write the wheel, with the hash and size of every file in its RECORD."""
        rows = io.StringIO()
        record = csv.writer(rows, lineterminator="\n")
        path = folder / f"{self.package}-{self.version}-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as wheel:
            for name, text in self.files().items():
                content = text.encode()
                digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
                record.writerow([name, f"sha256={digest.decode()}", len(content)])
                wheel.writestr(name, content)
            name = f"{self.package}-{self.version}.dist-info/RECORD"
            record.writerow([name, "", ""])
            wheel.writestr(name, rows.getvalue())
        return path


def install(distributions: Sequence[Distribution], wheels: Path, site: Path) -> None:
    """Build the distributions in `wheels`, and have pip install them into `site`."""
    paths = [str(distribution.build(wheels)) for distribution in distributions]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    options = ["--no-compile", "--disable-pip-version-check", "--target", str(site)]
    done = subprocess.run([*command, *options, *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@dataclass(frozen=True)
class Environment:
    """The running environment, with what pip put into `site` on top; `folder` is where runs go."""

    site: Path
    folder: Path

    def modalbind(self, *args: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the command line in a process of its own."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("MODALBIND_")}
        env = {
            **inherited,
            "PYTHONPATH": str(self.site),
            "MODALBIND_CACHE": str(self.folder / "cache"),
            "HF_HUB_OFFLINE": "1",
            "COLUMNS": "500",  # one line a plugin, however much there is to say about it
            **variables,
        }
        command = [sys.executable, "-m", "modalbind", *args]
        return subprocess.run(
            command, capture_output=True, text=True, cwd=self.folder, env=env, timeout=280
        )
