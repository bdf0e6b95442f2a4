"""The run directory: what lies where, who may write, and how it comes to be.

recipe.yaml            the resolved recipe
run.json               format, versions, anchor identity
metrics.jsonl          one line per optimizer step and per score, and what training cost
broken.jsonl           samples left out, if any
checkpoints/step-N/    published by rename
tower.safetensors      the tower, adapters merged; appears when training is done
tower.json             its checksum and the anchor it belongs to
report.json, report.html
trackers/              what trackers write, if any

A sweep is a folder of runs with sweep.json, its plan, and summary.json, summary.html.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
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
from modalbind.errors import CorruptFileError, InputError, PeerError, RunError
from modalbind.plugin_manager import load_plugins
from modalbind.recipe import Recipe, dump_recipe, load_recipe, resolve
from modalbind.report import read_report
from modalbind.types import StepResult

FORMAT = 1
RUNS = Path("runs")
SWEEP_FILE = "sweep.json"
TRACKERS_FOLDER = "trackers"


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
        self.calibration_file = path / "calibration.safetensors"
        self.report_file = path / "report.json"
        self.shuffled = path / "controls" / "shuffled"
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
        self.write_recipe(recipe)
        return False

    def write_recipe(self, recipe: Recipe) -> None:
        """Write the recipe that a run that goes on has to be the same as."""
        write_file(self.recipe_file, dump_recipe(recipe).encode())

    def is_finished(self) -> bool:
        """Say whether the report is there and whole; it is what a run writes last."""
        try:
            read_report(self.path)
        except RunError:
            return False
        return True

    def check_trained(self) -> None:
        """Refuse a run whose tower is not published yet.

        Raises:
            RunError: If there is no tower.
        """
        if not self.tower_note.is_file():
            raise RunError(
                f"the tower of {self.path} asked for; the run is not finished; "
                "go on with `modalbind align --resume`"
            )

    @contextmanager
    def discarded_if_refused(self, *, is_new: bool) -> Iterator[None]:
        """Leave no trace of a new run whose input turns out to be wrong."""
        try:
            yield
        except (InputError, PeerError):
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

    def log_cost(self, cost: Mapping[str, Any]) -> None:
        """Append to metrics.jsonl what training cost; a report that is written later needs it."""
        steps = self.read_metrics("step")
        self._append({"kind": "cost", "step": steps[-1]["step"] if steps else 0, **cost})

    def read_cost(self) -> dict[str, Any]:
        """Return what `log_cost` was last given; empty if it never was."""
        return next(iter(self.read_metrics("cost")[-1:]), {})

    def forget_after(self, step: int) -> None:
        """Drop what was logged after a step, before going on from it."""
        truncate_lines(self.metrics_file, lambda record: record["step"] <= step)

    def read_metrics(self, kind: str) -> list[dict[str, Any]]:
        """Return the logged records of a kind: `step`, `score` or `cost`."""
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
        # Resolved, so that an option which is new since then stands there with its default.
        plugins = load_plugins()
        there = resolve(self.read_recipe(), plugins).recipe
        recipe = resolve(recipe, plugins).recipe
        if there != recipe:
            changed = sorted(_differences(there.model_dump(), recipe.model_dump()))
            raise RunError(
                f"resuming {self.path} asked for; it was started with another recipe "
                f"({', '.join(changed)}); repeat the options it was started with"
            )

    def _clear(self) -> None:
        """Remove a run's own files, and nothing else that may lie in the folder."""
        import shutil

        for name in ("checkpoints", "controls", TRACKERS_FOLDER):
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
            self.calibration_file,
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


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """The runs of a sweep: one recipe over seeds and folds.

    Attributes:
        recipe: What they share.
        seeds: Of the runs.
        folds: That are tested; None is the recipe's own split.
    """

    recipe: Recipe
    seeds: tuple[int, ...]
    folds: tuple[str | None, ...]

    def list_runs(self) -> Iterator[tuple[str, Recipe]]:
        """Yield the folder's name and the recipe of each run."""
        for seed in self.seeds:
            for fold in self.folds:
                section = self.recipe.data.model_copy(update={"test_fold": fold})
                one = self.recipe.model_copy(update={"seed": seed, "data": section})
                yield f"seed-{seed}" + (f"-fold-{fold}" if fold is not None else ""), one

    def start(self, path: Path, *, resume: bool, force: bool) -> None:
        """Make the folder of the sweep, with `sweep.json` in it.

        Raises:
            RunError: If something else lies there, or another sweep that is to be kept.
        """
        if path.exists() and not is_sweep(path) and (not path.is_dir() or any(path.iterdir())):
            raise RunError(f"sweep {path} asked for; something else lies there; use another --out")
        if is_sweep(path) and not (resume or force):
            raise RunError(
                f"sweep {path} asked for; there is a sweep already; use --resume to go on, "
                "--force to replace its runs, or another --out"
            )
        if resume and is_sweep(path) and SweepPlan.read(path) != self:
            raise RunError(
                f"resuming sweep {path} asked for; it was started with another recipe, other "
                "seeds or other folds; repeat what it was started with"
            )
        path.mkdir(parents=True, exist_ok=True)
        recipe = self.recipe.model_dump(mode="json")
        content = {"format": FORMAT, "seeds": self.seeds, "folds": self.folds, "recipe": recipe}
        write_json(path / SWEEP_FILE, content)

    @classmethod
    def read(cls, path: Path) -> SweepPlan:
        """Return the plan of the sweep in a folder.

        Raises:
            RunError: If there is none.
            CorruptFileError: If it cannot be read.
        """
        found = read_json(path / SWEEP_FILE)
        try:
            recipe = resolve(Recipe.model_validate(found["recipe"]), load_plugins()).recipe
            return cls(recipe, tuple(found["seeds"]), tuple(found["folds"]))
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptFileError(
                f"{path / SWEEP_FILE} asked for; it is no plan of a sweep ({error!r}); restore it"
            ) from error


def is_sweep(path: Path) -> bool:
    """Say whether a folder holds a sweep."""
    return (path / SWEEP_FILE).is_file()


def list_runs(path: Path) -> list[Path]:
    """Return the finished runs of a sweep, or the run itself.

    Raises:
        RunError: If none of the sweep is finished.
    """
    if not is_sweep(path):
        return [path]
    runs = [path / name for name, _ in SweepPlan.read(path).list_runs()]
    finished = [run for run in runs if RunDirectory(run).is_finished()]
    if not finished:
        raise RunError(
            f"runs of sweep {path} asked for; none is finished; go on with `modalbind align "
            "--resume`"
        )
    return finished


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


_ABSENT = object()


def _differences(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> set[str]:
    found: set[str] = set()
    for key in a.keys() | b.keys():
        left, right = a.get(key, _ABSENT), b.get(key, _ABSENT)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            found |= _differences(left, right, f"{prefix}{key}.")
        elif left != right:
            found.add(prefix + key)
    return found
