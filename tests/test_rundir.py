"""The run directory: who may write to it, and what it refuses."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from modalbind import rundir
from modalbind.errors import CorruptFileError, InputError, RunError
from modalbind.recipe import Recipe
from modalbind.rundir import RunDirectory, default_run_path, latest_run_path, point_latest
from modalbind.types import StepResult


def make_recipe(**changes: Any) -> Recipe:
    raw = {"name": "toy", "modality": {"name": "toy"}, "encoder": {"kind": "toy"}, **changes}
    return Recipe.model_validate(raw)


def make_step(step: int, chance: float | None = 2.0) -> StepResult:
    return StepResult(step, 0, 1.0 / 3, chance, 0.1, 10.0, 1.0, 4)


@pytest.fixture
def run(tmp_path: Path, toy_world: Path) -> RunDirectory:
    return RunDirectory(tmp_path / "run")


def start(run: RunDirectory, recipe: Recipe | None = None, **options: bool) -> bool:
    with run.lock():
        return run.start(recipe or make_recipe(), **{"resume": False, "force": False, **options})


def test_a_new_run_holds_its_recipe(run: RunDirectory) -> None:
    assert start(run) is False
    assert run.read_recipe() == make_recipe()
    assert {p.name for p in run.path.iterdir()} <= {"recipe.yaml", ".lock"}


def test_resuming_goes_on_or_starts(run: RunDirectory) -> None:
    assert start(run, resume=True) is False
    assert start(run, resume=True) is True


def test_a_run_that_is_there_is_refused_unless_forced(run: RunDirectory) -> None:
    start(run)
    run.log_step(make_step(1))
    with pytest.raises(RunError, match="--resume to go on, --force to replace it"):
        start(run)
    assert run.read_metrics("step")
    assert start(run, make_recipe(seed=1), force=True) is False
    assert not run.metrics_file.exists() and run.read_recipe().seed == 1


def test_resuming_another_recipe_names_what_differs(run: RunDirectory) -> None:
    start(run)
    with pytest.raises(RunError, match=r"another recipe \(encoder.width, seed, train.lr\)"):
        other = {"encoder": {"kind": "toy", "width": 3}, "seed": 2, "train": {"lr": 0.5}}
        start(run, make_recipe(**other), resume=True)


@pytest.mark.parametrize("options", [{}, {"force": True}, {"resume": True}])
def test_a_folder_of_something_else_is_never_touched(
    run: RunDirectory, options: dict[str, bool]
) -> None:
    run.path.mkdir()
    (run.path / "thesis.txt").write_text("irreplaceable")
    with pytest.raises(RunError, match="not empty and not a run"):
        start(run, **options)
    assert [p.name for p in run.path.iterdir()] == ["thesis.txt"]
    assert (run.path / "thesis.txt").read_text() == "irreplaceable"


def test_what_a_kill_left_before_the_recipe_does_not_take_the_folder(run: RunDirectory) -> None:
    run.path.mkdir()
    for name in (".lock", ".recipe.yaml.1-a.tmp"):
        (run.path / name).write_text("")
    assert start(run) is False
    assert {p.name for p in run.path.iterdir()} <= {"recipe.yaml", ".lock"}


def test_force_leaves_what_is_not_the_runs_own(run: RunDirectory) -> None:
    start(run)
    (run.path / "notes.txt").write_text("mine")
    for name in ("checkpoints/step-1", "controls/shuffled"):
        (run.path / name).mkdir(parents=True)
    for name in ("report.json", "report.html", "tower.safetensors", "tower.json", "run.json"):
        (run.path / name).write_text("{}")
    start(run, force=True)
    assert {p.name for p in run.path.iterdir()} - {".lock"} == {"recipe.yaml", "notes.txt"}


def test_a_file_in_its_place_is_refused(run: RunDirectory) -> None:
    run.path.write_text("x")
    with pytest.raises(RunError, match="a file lies there"), run.lock():
        raise AssertionError("not reached")


def test_another_process_is_kept_out(run: RunDirectory) -> None:
    start(run)
    code = (
        "import sys, filelock\n"
        "with filelock.FileLock(sys.argv[1], timeout=0): print('held', flush=True); input()"
    )
    command = [sys.executable, "-c", code, str(run.path / ".lock")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        with pytest.raises(RunError, match="another process is writing it"):
            start(run, resume=True)
        process.communicate("\n", timeout=30)
    assert start(run, resume=True), "the lock goes with the process that held it"


def test_what_a_killed_process_left_does_not_stand_in_the_way(run: RunDirectory) -> None:
    run.path.mkdir()
    (run.path / ".recipe.yaml.123.tmp").write_text("half")
    (run.path / ".mine.123.tmp").write_text("not ours")
    with pytest.raises(RunError, match="not a run"):
        start(run)
    (run.path / ".mine.123.tmp").unlink()
    assert start(run) is False
    (run.path / ".tower.safetensors.123.tmp").write_text("half")
    assert start(run, resume=True) is True
    assert not list(run.path.glob(".*.tmp"))


@pytest.mark.parametrize("is_new", [True, False])
def test_a_new_run_with_wrong_input_leaves_no_trace(run: RunDirectory, is_new: bool) -> None:
    start(run)
    with pytest.raises(InputError), run.discarded_if_refused(is_new=is_new):
        raise InputError("wrong")
    assert run.path.exists() != is_new


def test_other_failures_leave_a_run_to_resume(run: RunDirectory) -> None:
    start(run)
    with pytest.raises(KeyboardInterrupt), run.discarded_if_refused(is_new=True):
        raise KeyboardInterrupt
    assert start(run, resume=True)


def test_no_run_no_recipe(run: RunDirectory) -> None:
    with pytest.raises(RunError, match=r"it has no recipe\.yaml"):
        run.read_recipe()
    with pytest.raises(RunError, match="no such file"):
        run.read_identity()


def test_metrics_are_told_apart_and_forgotten_after_a_step(run: RunDirectory) -> None:
    start(run)
    assert run.read_metrics("step") == []
    for step in (1, 2, 3):
        run.log_step(make_step(step, None if step == 2 else 2.0))
        run.log_score(step, "val_map_at_10", step / 10)
    with run.metrics_file.open("a") as file:
        file.write('{"kind": "step", "step": 4, "lo')
    assert [r["chance_loss"] for r in run.read_metrics("step")] == [2.0, None, 2.0]
    run.forget_after(2)
    assert [r["step"] for r in run.read_metrics("step")] == [1, 2]
    assert [r["value"] for r in run.read_metrics("score")] == [0.1, 0.2]
    assert run.read_metrics("step")[0]["loss"] == 1.0 / 3
    assert run.metrics_file.read_text().endswith("}\n")


def test_not_a_number_is_never_logged(run: RunDirectory) -> None:
    start(run)
    with pytest.raises(ValueError, match="not JSON compliant"):
        run.log_score(1, "x", math.nan)
    assert run.read_metrics("score") == []


def test_identity_and_broken_samples_are_kept(run: RunDirectory) -> None:
    start(run)
    run.write_identity({"anchor": {"dim": 3}})
    assert run.read_identity() == {"format": 1, "anchor": {"dim": 3}}
    for damaged in ("{}", "[]", '{"anchor": 3}'):
        run.run_file.write_text(damaged)
        with pytest.raises(CorruptFileError, match=r"run.json asked for; it names no anchor"):
            run.read_identity()
    run.write_broken(())
    assert not run.broken_file.exists()
    run.write_broken((("a.wav", "empty", "no bytes"),))
    assert run.broken_file.read_text() == (
        '{"sample": "a.wav", "reason": "empty", "detail": "no bytes"}\n'
    )


def test_latest_names_the_last_run_of_the_runs_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match="runs/latest is absent"):
        latest_run_path()
    path = default_run_path(make_recipe(name="audio/quick"))
    assert path.parent == rundir.RUNS and path.name.startswith("audio-quick-2")
    path.mkdir(parents=True)
    point_latest(path)
    assert latest_run_path() == path
    point_latest(tmp_path / "elsewhere")
    assert latest_run_path() == path


def test_a_default_path_is_never_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths = set()
    for _ in range(3):
        path = default_run_path(make_recipe(name=""))
        path.mkdir(parents=True)
        paths.add(path)
    assert len(paths) == 3 and all(path.name.startswith("toy-") for path in paths)
