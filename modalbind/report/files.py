"""Reports on disk: whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from modalbind.errors import RunError
from modalbind.report.html import render_html, render_summary_html
from modalbind.report.models import RunReport
from modalbind.report.sweep import SweepSummary

Document = TypeVar("Document", RunReport, SweepSummary)


def write_report(report: RunReport, folder: Path) -> None:
    """Write `report.html` and then `report.json` into an existing folder, each atomically."""
    _publish(folder / "report.html", render_html(report))
    _publish(folder / "report.json", report.model_dump_json(indent=2) + "\n")


def write_summary(summary: SweepSummary, folder: Path) -> None:
    """Write `summary.html` and then `summary.json` into an existing folder, each atomically."""
    _publish(folder / "summary.html", render_summary_html(summary))
    _publish(folder / "summary.json", summary.model_dump_json(indent=2) + "\n")


def read_report(path: Path) -> RunReport:
    """Read a `report.json`, or that of a run directory.

    Raises:
        RunError: If it is absent, or is not a report of this version.
    """
    return _read(path, "report.json", RunReport)


def read_summary(path: Path) -> SweepSummary:
    """Read a `summary.json`, or that of a sweep directory.

    Raises:
        RunError: If it is absent, or is not a summary of this version.
    """
    return _read(path, "summary.json", SweepSummary)


def _read(path: Path, name: str, model: type[Document]) -> Document:
    file = path / name if path.is_dir() else path
    try:
        return model.model_validate_json(file.read_bytes())
    except OSError as error:
        raise RunError(
            f"read {file}; {error.strerror}; name a finished run, or run `modalbind evaluate`"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise RunError(
            f"read {file}; {where}: {first['msg']}; write it again with `modalbind evaluate`"
        ) from error


def _publish(path: Path, text: str) -> None:
    """Write beside the file, flush to disk, rename over it."""
    descriptor, staged = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), 0o644)  # mkstemp's 0600 would hide it from colleagues
        os.replace(staged, path)
    except BaseException:
        Path(staged).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
