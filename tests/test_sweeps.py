"""Several runs at once: seeds and folds, their summary, and two systems item by item."""

from __future__ import annotations

from pathlib import Path

import pytest
import toy

from modalbind import pipeline, sweeps
from modalbind.errors import CorruptFileError, DataError, NonFiniteError, RunError
from modalbind.report import read_summary
from modalbind.rundir import SweepPlan, list_runs


def test_a_sweep_runs_every_seed_and_fold(toy_world: Path, tmp_path: Path) -> None:
    recipe = toy.build_recipe(toy_world, train={"max_steps": 3})
    path = sweeps.sweep(recipe, seeds=(0, 1), folds="all", out=tmp_path / "sweep")
    summary = read_summary(path)
    assert (summary.seeds, summary.folds, summary.n_runs) == ((0, 1), ("0", "1", "2"), 6)
    assert len(list(path.glob("seed-*-fold-*/report.json"))) == 6


def test_a_sweep_is_evaluated_run_by_run_and_summarised_anew(
    toy_world: Path, tmp_path: Path
) -> None:
    recipe = toy.build_recipe(toy_world, train={"max_steps": 3})
    path = sweeps.sweep(recipe, folds="all", out=tmp_path / "sweep")
    before = read_summary(path)
    after = sweeps.evaluate_sweep(path, controls=True)
    assert after == read_summary(path)
    assert {row.control for row in after.retrieval} == {"none", "shuffled", "trivial"}
    assert [row for row in after.retrieval if row.control == "none"] == list(before.retrieval)


def test_runs_are_compared_on_the_same_items(toy_world: Path, tmp_path: Path) -> None:
    learnt = sweeps.sweep(toy.build_recipe(toy_world), folds="all", out=tmp_path / "learnt")
    recipe = toy.build_recipe(toy_world, train={"max_steps": 1})
    untrained = sweeps.sweep(recipe, seeds=(0, 1), folds="all", out=tmp_path / "untrained")
    compared = sweeps.compare(learnt, untrained)
    rows = {(r.query, r.target, r.language, r.metric): r for r in compared.rows}
    row = rows["toy", "toy", "en", "top1"]
    assert row.n_items == 36, "every sample is tested in one fold"
    (own,) = [r for r in read_summary(learnt).zero_shot if r.language == "en"]
    (other,) = [r for r in read_summary(untrained).zero_shot if r.language == "en"]
    assert row.value == pytest.approx(own.metrics.top1.value)
    assert row.other == pytest.approx(other.metrics.top1.value)
    assert row.verdict == "better"
    same = sweeps.compare(learnt, learnt)
    assert {(r.difference, r.verdict) for r in same.rows} == {(0.0, "no difference shown")}
    one = sorted(learnt.glob("seed-*"))[0]
    with pytest.raises(DataError, match="same test items"):
        sweeps.compare(learnt, one)


def test_a_sweep_that_breaks_off_keeps_its_summary_and_goes_on(
    toy_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = toy.build_recipe(toy_world, train={"max_steps": 2})
    path, align = tmp_path / "sweep", pipeline.align

    def fail_on_the_second(one: object, *, out: Path, **rest: object) -> object:
        if out.name.endswith("fold-1"):
            raise NonFiniteError("a finite loss asked for; found nan; lower train.lr")
        return align(one, out=out, **rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(sweeps, "align", fail_on_the_second)
        with pytest.raises(NonFiniteError):
            sweeps.sweep(recipe, folds="all", out=path)
    assert read_summary(path).folds == ("0",)
    assert [run.name for run in list_runs(path)] == ["seed-0-fold-0"]
    first = (path / "seed-0-fold-0" / "tower.safetensors").stat().st_mtime_ns
    plan = SweepPlan.read(path)
    sweeps.sweep(plan.recipe, seeds=plan.seeds, folds=plan.folds, out=path, resume=True)
    assert read_summary(path).folds == ("0", "1", "2")
    assert (path / "seed-0-fold-0" / "tower.safetensors").stat().st_mtime_ns == first


def test_a_seed_without_all_of_its_folds_waits(
    toy_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, align = toy.build_recipe(toy_world, train={"max_steps": 2}), pipeline.align

    def fail_late(one: object, *, out: Path, **rest: object) -> object:
        if out.name == "seed-1-fold-1":
            raise NonFiniteError("a finite loss asked for; found nan; lower train.lr")
        return align(one, out=out, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(sweeps, "align", fail_late)
    with pytest.raises(NonFiniteError):
        sweeps.sweep(recipe, seeds=(0, 1), folds="all", out=tmp_path / "sweep")
    assert (tmp_path / "sweep" / "seed-1-fold-0" / "report.json").exists()
    summary = read_summary(tmp_path / "sweep")
    assert (summary.seeds, summary.folds, summary.n_runs) == ((0,), ("0", "1", "2"), 3)


def test_a_fold_that_is_not_there_is_refused_before_any_is_trained(
    toy_world: Path, tmp_path: Path
) -> None:
    recipe = toy.build_recipe(toy_world, train={"max_steps": 2})
    with pytest.raises(RunError, match="fold 9 asked for; the data has 0, 1, 2"):
        sweeps.sweep(recipe, folds=("0", "9"), out=tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()


def test_a_sweep_keeps_off_what_is_not_its_own(toy_world: Path, tmp_path: Path) -> None:
    recipe = toy.build_recipe(toy_world, train={"max_steps": 2})
    run = pipeline.align(recipe, out=tmp_path / "run")
    with pytest.raises(RunError, match="something else lies there"):
        sweeps.sweep(recipe, seeds=(0, 1), out=run.path)
    path = sweeps.sweep(recipe, seeds=(0, 1), out=tmp_path / "sweep")
    with pytest.raises(RunError, match="there is a sweep already"):
        sweeps.sweep(recipe, seeds=(0, 1), out=path)
    with pytest.raises(RunError, match="other seeds or other folds"):
        sweeps.sweep(recipe, seeds=(0, 2), out=path, resume=True)
    assert sweeps.sweep(recipe, seeds=(0, 1), out=path, resume=True) == path


def test_a_damaged_plan_is_told(tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text('{"format": 1}')
    with pytest.raises(CorruptFileError, match="no plan of a sweep"):
        SweepPlan.read(tmp_path)
