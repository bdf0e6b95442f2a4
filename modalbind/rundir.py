"""The run directory: what lies where, who may write, and how it comes to be.

recipe.yaml            the resolved recipe
run.json               format, versions, anchor identity
metrics.jsonl          one line per optimizer step and per score
broken.jsonl           samples left out, if any
checkpoints/step-N/    published by rename
tower.safetensors      the tower, adapters merged; appears when training is done
tower.json             its checksum and the anchor it belongs to
report.json, report.html
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from modalbind.checkpoint import (
    Checkpoints,
    read_json,
    read_lines,
    truncate_lines,
    write_file,
    write_json,
)
from modalbind.errors import CorruptFileError, InputError, RunError
from modalbind.recipe import Recipe, dump_recipe, load_recipe
from modalbind.types import StepResult

FORMAT = 1
RUNS = Path("runs")


class RunDirectory:
    """A folder that one process at a time writes to."""

    def __init__(self, path: Path) -> None:
        """Name the folder; touches nothing."""
        self.path = path
        self.recipe_file = path / "recipe.yaml"
        self.run_file = path / "run.json"
        self.metrics_file = path / "metrics.jsonl"
        self.broken_file = path / "broken.jsonl"
        self.tower_file = path / "tower.safetensors"
        self.tower_note = path / "tower.json"
        self.report_file = path / "report.json"
        self._lock = FileLock(path / ".lock")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for this process; makes it if it is not there.

        Raises:
            RunError: If another process has it, or something that is no run lies there; nothing
                is written then.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"run {self.path} asked for; a file lies there; use another --out")
        self._check_own()
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise RunError(
                f"run {self.path} asked for; another process is writing it; "
                "wait for it, or use another --out"
            ) from None
        try:
            yield
        finally:
            self._lock.release()

    def start(self, recipe: Recipe, *, resume: bool, force: bool) -> bool:
        """Make the folder ready for a run of this recipe.

        Args:
            recipe: What will be run.
            resume: Go on with what is there.
            force: Replace what is there.

        Returns:
            Whether there is something to go on with.

        Raises:
            RunError: If the folder is taken, or was made by another recipe.
        """
        self._remove_leftovers()
        self._check_own()
        if self.recipe_file.exists():
            if resume:
                self._check_same_recipe(recipe)
                return True
            if not force:
                raise RunError(
                    f"run {self.path} asked for; there is a run already; "
                    "use --resume to go on, --force to replace it, or another --out"
                )
            self._clear()
        self.path.mkdir(parents=True, exist_ok=True)
        write_file(self.recipe_file, dump_recipe(recipe).encode())
        return False

    @contextmanager
    def discarded_if_refused(self, *, is_new: bool) -> Iterator[None]:
        """Leave no trace of a new run whose input turns out to be wrong."""
        try:
            yield
        except InputError:
            if is_new:
                self._clear()
                (self.path / ".lock").unlink(missing_ok=True)
                with suppress(OSError):
                    self.path.rmdir()
            raise

    def checkpoints(self, keep: int) -> Checkpoints:
        """Return the run's checkpoints."""
        return Checkpoints(self.path / "checkpoints", keep)

    def read_recipe(self) -> Recipe:
        """Return the recipe that the run was started with.

        Raises:
            RunError: If this is no run.
        """
        if not self.recipe_file.is_file():
            raise RunError(
                f"run {self.path} asked for; it has no recipe.yaml; "
                "name a folder that `modalbind align` has written"
            )
        return load_recipe(self.recipe_file)

    def log_step(self, result: StepResult) -> None:
        """Append a step to metrics.jsonl."""
        self._append({"kind": "step", **asdict(result)})

    def log_score(self, step: int, name: str, value: float) -> None:
        """Append a score on the validation split to metrics.jsonl."""
        self._append({"kind": "score", "step": step, "name": name, "value": value})

    def forget_after(self, step: int) -> None:
        """Drop what was logged after a step, before going on from it."""
        truncate_lines(self.metrics_file, lambda record: record["step"] <= step)

    def read_metrics(self, kind: str) -> list[dict[str, Any]]:
        """Return the logged records of a kind, `step` or `score`."""
        return [record for record in read_lines(self.metrics_file) if record["kind"] == kind]

    def write_identity(self, identity: Mapping[str, Any]) -> None:
        """Write run.json."""
        write_json(self.run_file, {"format": FORMAT, **identity})

    def read_identity(self) -> dict[str, Any]:
        """Return run.json.

        Raises:
            RunError: If it is absent.
            CorruptFileError: If it is damaged, or names no anchor space.
        """
        found = read_json(self.run_file)
        if not isinstance(found, dict) or not isinstance(found.get("anchor"), dict):
            raise CorruptFileError(
                f"{self.run_file} asked for; it names no anchor space; restore it"
            )
        return found

    def write_broken(self, broken: tuple[tuple[str, str, str], ...]) -> None:
        """List the samples that were left out."""
        names = ("sample", "reason", "detail")
        rows = [json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in broken]
        if rows:
            write_file(self.broken_file, "".join(rows).encode())

    def _append(self, record: Mapping[str, Any]) -> None:
        with self.metrics_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, allow_nan=False) + "\n")

    def _check_same_recipe(self, recipe: Recipe) -> None:
        there = self.read_recipe()
        if there != recipe:
            changed = sorted(_differences(there.model_dump(), recipe.model_dump()))
            raise RunError(
                f"resuming {self.path} asked for; it was started with another recipe "
                f"({', '.join(changed)}); repeat the options it was started with"
            )

    def _clear(self) -> None:
        """Remove a run's own files, and nothing else that may lie in the folder."""
        import shutil

        for name in ("checkpoints", "controls"):
            shutil.rmtree(self.path / name, ignore_errors=True)
        for file in self._own_files():
            file.unlink(missing_ok=True)

    def _own_files(self) -> tuple[Path, ...]:
        """Return all files of a run, the recipe last: as long as it is there, so is the run."""
        return (
            self.report_file,
            self.path / "report.html",
            self.tower_note,
            self.tower_file,
            self.metrics_file,
            self.broken_file,
            self.run_file,
            self.recipe_file,
        )

    def _check_own(self) -> None:
        """Refuse a folder that holds other things than a run."""
        if self.recipe_file.exists() or not self.path.is_dir():
            return
        if set(self.path.iterdir()) - {self.path / ".lock", *self._leftovers()}:
            raise RunError(
                f"run {self.path} asked for; the folder is not empty and not a run; "
                "use another --out"
            )

    def _remove_leftovers(self) -> None:
        for left in self._leftovers():
            left.unlink(missing_ok=True)

    def _leftovers(self) -> list[Path]:
        """Return what a killed process had staged; nothing else is ever named so."""
        return [
            left for file in self._own_files() for left in self.path.glob(f".{file.name}.*.tmp")
        ]


def is_sweep(path: Path) -> bool:
    """Say whether a folder is a sweep: no run itself, with a summary of those in it."""
    return (path / "summary.json").is_file() and not (path / "recipe.yaml").exists()


def list_runs(path: Path) -> list[Path]:
    """Return the finished runs of a sweep, or the run itself."""
    if not is_sweep(path):
        return [path]
    return sorted(found.parent for found in path.glob("*/report.json"))


def default_run_path(recipe: Recipe) -> Path:
    """Return `runs/<recipe>-<time>`, not taken yet."""
    base = f"{recipe.name or recipe.modality.name}-{datetime.now():%Y%m%d-%H%M%S}".replace("/", "-")
    candidates = [RUNS / base, *(RUNS / f"{base}-{number}" for number in range(2, 100))]
    return next(path for path in candidates if not path.exists())


def latest_run_path() -> Path:
    """Return the run that `runs/latest` names.

    Raises:
        RunError: If there is none.
    """
    pointer = RUNS / "latest"
    if not pointer.is_file():
        raise RunError("the latest run asked for; runs/latest is absent; name a run with --out")
    return RUNS / pointer.read_text("utf-8").strip()


def point_latest(path: Path) -> None:
    """Let `runs/latest` name this run, if it lies in `runs`."""
    if path.resolve().parent == RUNS.resolve():
        write_file(RUNS / "latest", path.name.encode() + b"\n")


def _differences(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> set[str]:
    found: set[str] = set()
    for key in a.keys() | b.keys():
        left, right = a.get(key), b.get(key)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            found |= _differences(left, right, f"{prefix}{key}.")
        elif left != right:
            found.add(prefix + key)
    return found
