"""From what was measured to the report."""

from __future__ import annotations

from pathlib import Path

import pytest
import toy

from modalbind import pipeline
from modalbind.recipe.schema import Choice
from modalbind.report.html import render_html
from modalbind.reporting import LOSS_POINTS, _loss_curve, read_commit, read_versions
from modalbind.rundir import RunDirectory
from modalbind.types import StepResult


def test_versions_name_what_results_depend_on() -> None:
    versions = read_versions()
    assert {"python", "modalbind", "torch", "numpy"} <= versions.keys()
    commit = read_commit()
    assert commit is None or len(commit) == 40


def test_the_loss_curve_is_thinned_out_and_keeps_both_ends(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    for step in range(1, 1001):
        directory.log_step(StepResult(step, 0, 1 / step, None, 0.1, 1.0, 1.0, 2))
    points = _loss_curve(directory)
    assert len(points) <= LOSS_POINTS + 1
    assert (points[0].step, points[-1].step) == (1, 1000)
    assert all(point.loss == 1 / point.step and point.chance_loss is None for point in points)
    steps = [point.step for point in points]
    assert steps == sorted(set(steps))


@pytest.mark.parametrize("distance", ["mse", "cosine"])
def test_a_loss_without_a_known_chance_level_is_reported_without(
    toy_world: Path, tmp_path: Path, distance: str
) -> None:
    recipe = toy.build_recipe(toy_world, train={"max_steps": 4})
    objective = Choice.model_validate({"kind": "regression", "distance": distance})
    recipe = recipe.model_copy(update={"objective": objective})
    run = pipeline.align(recipe, out=tmp_path / "run")
    chance = {"mse": None, "cosine": 1.0}[distance]
    assert [point.chance_loss for point in run.report.loss] == [chance] * 4
    page = render_html(run.report)
    assert ("embeddings that know nothing" in page) == (distance == "cosine")


def test_a_side_of_pictures_alone_is_trained(toy_world: Path, tmp_path: Path) -> None:
    lines = (toy_world / "pairs.csv").read_text().splitlines()
    rows = [line.split(",") for line in lines]
    place = {name: i for i, name in enumerate(rows[0])}
    out = [["toy", "image", "split"]]
    out += [[r[place["toy"]], f"{r[place['kind']]}.png", r[place["split"]]] for r in rows[1:]]
    (toy_world / "pictures.csv").write_text("\n".join(",".join(row) for row in out) + "\n")
    recipe = toy.build_recipe(
        toy_world,
        anchor={"sides": {"image": 1.0}},
        data={"sources": [{"kind": "manifest", "path": str(toy_world / "pictures.csv")}]},
        evaluation={"links": [], "zero_shot": []},
        train={"max_steps": 2},
    )
    report = pipeline.align(recipe, out=tmp_path / "run").report
    assert {(row.query, row.target): row.trained for row in report.retrieval} == {
        ("toy", "image"): True,
        ("image", "toy"): True,
    }


def test_other_pairs_are_trained_or_emergent_as_the_run_was(
    toy_world: Path, tmp_path: Path
) -> None:
    recipe = toy.build_recipe(toy_world, train={"max_steps": 2})
    run = pipeline.align(recipe, out=tmp_path / "run")
    report = pipeline.evaluate(run.path, data=toy_world / "pairs.csv")
    trained = {(r.target, r.language) for r in report.retrieval if r.query == "toy" and r.trained}
    assert trained == {("text", "en")}
