"""Plans: counted as a run counts, written nowhere, and near what a run then costs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import toy

from modalbind import pipeline, planning
from modalbind.cli import main
from modalbind.errors import InputError
from modalbind.planning import UTILISATION, list_devices, plan_run
from modalbind.recipe import Recipe, dump_recipe


def list_files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def test_a_plan_counts_what_a_run_does_and_leaves_nothing(
    toy_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = toy.build_recipe(toy_world)
    monkeypatch.chdir(tmp_path)
    before = list_files(tmp_path)
    plan = plan_run(recipe)
    assert list_files(tmp_path) == before
    described = pipeline.describe(recipe)
    assert plan.steps == described["steps"] == 24
    assert plan.missing_anchors == {}, "a table has all its vectors"
    assert plan.seconds == pytest.approx(sum(plan.stages.values()))
    assert set(plan.stages) == {"inputs", "anchor embeddings", "training", "evaluation"}
    low, median, high = plan.step_s[1], plan.step_s[0], plan.step_s[2]
    assert 0 < low <= median <= high
    assert 0 <= plan.waiting_share < 1 and 0 < plan.padding_share < 1
    assert 0 < plan.flops_per_step < 1e6


def test_a_plan_is_of_the_order_of_what_the_run_then_costs(toy_world: Path, tmp_path: Path) -> None:
    """Loose, as tests run on busy machines; docs/planning.md has measured runs."""
    recipe = toy.build_recipe(toy_world, train={"epochs": 100})
    plan = plan_run(recipe)
    cost = pipeline.align(recipe, out=tmp_path / "run").report.cost
    assert set(cost.stages) == {"inputs", "training", "waiting", "evaluation"}
    assert cost.stages["waiting"] <= cost.stages["training"] <= cost.seconds
    assert plan.stages["training"] / 5 < cost.stages["training"] < plan.stages["training"] * 5


def test_levers_are_factors_on_a_step(toy_world: Path) -> None:
    plan = plan_run(toy.build_recipe(toy_world))
    assert "encoder.patch_drop=0.5" not in plan.levers, "this encoder has no tokens"
    assert "train.precision=bf16" not in plan.levers, "half precision is no help to a CPU"
    assert all(factor >= 1.1 for factor in plan.levers.values())


def test_a_device_elsewhere_is_arithmetic(toy_world: Path) -> None:
    plan = plan_run(toy.build_recipe(toy_world), elsewhere="l4")
    assert plan.elsewhere is not None
    step = plan.flops_per_step / (30.3e12 * UTILISATION)
    assert plan.elsewhere["step_s"] == pytest.approx(step)
    assert plan.elsewhere["training_s"] == pytest.approx(24 * step)
    assert plan.elsewhere["kwh"] == pytest.approx(24 * step * 72 / 3.6e6)


@pytest.mark.parametrize("device", list(list_devices().values()), ids=list(list_devices()))
def test_devices_say_all_that_a_plan_needs(device: dict[str, Any]) -> None:
    assert set(device) == {"name", "fp32", "bf16", "memory_gib", "watts"}
    assert 0 < device["fp32"] <= device["bf16"]


@pytest.mark.parametrize(
    "changes",
    [
        {"train": {"solver": "ridge"}, "augment": []},
        {"train": {"head_start": "ridge", "select_every": 2}, "data": {"val_fraction": 0.3}},
        {"tower": {"freeze": "encoder"}, "augment": []},
        {"train": {"negatives": "bank", "lengths": {}, "max_steps": 3}},
        {"data": {"workers": 1, "memory_mib": 0}},
    ],
)
def test_every_kind_of_run_can_be_planned(toy_world: Path, changes: dict[str, Any]) -> None:
    plan = plan_run(toy.build_recipe(toy_world, **changes))
    assert plan.stages["training"] > 0
    assert (plan.steps == 0) == (changes.get("train", {}).get("solver") == "ridge")


@pytest.mark.parametrize(("freeze", "fits"), [("encoder", 10), ("none", 0)])
def test_closed_forms_beside_a_run_are_counted(
    toy_world: Path, monkeypatch: pytest.MonkeyPatch, freeze: str, fits: int
) -> None:
    """As a run does: four solvers, one of them in two sizes, each centred and not."""
    timed = []
    monkeypatch.setattr(planning, "fit_solver", lambda solver, *_: timed.append(solver))
    changes = {"tower": {"freeze": freeze}, "evaluation": {"closed_forms": True}, "augment": []}
    plan_run(toy.build_recipe(toy_world, **changes))
    assert len(timed) == fits and (not fits or timed.count("cca") == 4)


def write(recipe: Recipe, folder: Path) -> str:
    path = folder / "recipe.yaml"
    path.write_text(dump_recipe(recipe))
    return str(path)


def test_the_command_prints_a_plan(
    toy_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(toy.build_recipe(toy_world), tmp_path)
    assert main(["plan", path, "--json", "--for", "h100"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["steps"] == 24 and found["seconds"] == pytest.approx(sum(found["stages"].values()))
    assert main(["plan", path, "--set", "train.max_steps=5"]) == 0
    shown = capsys.readouterr().out
    assert "whole run" in shown and "5 steps of" in shown and "energy" in shown
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--for", "abacus"], "device 'abacus' asked for; known: h100"),
        (["--set", "train.lrr=1"], "train.lrr"),
        (["--set", "data.test_split=none"], "split 'none' asked for"),
    ],
)
def test_wrong_input_is_one_line(
    toy_world: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    found: str,
) -> None:
    path = write(toy.build_recipe(toy_world), tmp_path)
    assert main(["plan", path, *arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert found in lines[-1] and [line for line in lines if "error" in line] == lines[-1:]


def test_a_bad_device_is_refused_before_anything_is_read() -> None:
    recipe = Recipe.model_validate({"modality": {"name": "none"}, "encoder": {"kind": "none"}})
    with pytest.raises(InputError, match="device 'abacus'"):
        plan_run(recipe, elsewhere="abacus")


def test_embeddings_that_lack_are_counted_and_timed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """On a real anchor, whose cache is empty: each distinct text once, none the second time."""
    pytest.importorskip("modalbind_audio", reason="modalbind-audio is not installed")
    from modalbind.plugin_manager import load_plugins
    from modalbind.recipe.load import Request, build_request

    sizes = ("data.sources.0.train=24", "data.sources.0.test=8", "evaluation.languages=[en]")
    request = Request(modality="audio", overrides=(*sizes, "train.epochs=1", "train.batch_size=8"))
    recipe = build_request(request, load_plugins())
    plan = plan_run(recipe)
    assert plan.missing_anchors["image"] == 8
    assert 24 <= plan.missing_anchors["text"] <= 40
    assert plan.disk_mib["anchor cache"] > 0
    pipeline.align(recipe, out=tmp_path / "run")
    assert plan_run(recipe).missing_anchors == {}
    assert os.environ["MODALBIND_CACHE"]
