"""Closed forms beside a run: what stands in the table is what a run of its own would score."""

from __future__ import annotations

from pathlib import Path

import pytest
import toy

from modalbind import pipeline

FROZEN = {"tower": {"freeze": "encoder"}, "augment": []}


def align(folder: Path, out: Path, **changes):
    return pipeline.align(toy.build_recipe(folder, **changes), out=out).report


def test_a_run_of_its_own_scores_what_the_table_says(toy_world: Path, tmp_path: Path) -> None:
    evaluation = {"closed_forms": True, "bootstrap": 50}
    train = {"solver": "ridge"}
    report = align(toy_world, tmp_path / "run", **FROZEN, train=train, evaluation=evaluation)
    own = [row for row in report.closed_forms if row.is_run]
    again = [
        row
        for row in report.closed_forms
        if not row.is_run and (row.solver, row.centre, row.components) == ("ridge", True, None)
    ]
    assert own and [(r.direction, r.score.value, r.others) for r in own] == [
        (r.direction, r.score.value, r.others) for r in again
    ]
    names = {row.name for row in report.closed_forms}
    assert len(names) == 11, "four solvers, cca twice, each centred and not, and the run"
    other = align(
        toy_world,
        tmp_path / "other",
        **FROZEN,
        train={"solver": "procrustes", "closed_form": {"centre": False}},
        evaluation={"bootstrap": 50},
    )
    (said,) = [
        row
        for row in report.closed_forms
        if row.name == "procrustes, uncentred" and row.target == "image"
    ]
    (scored,) = [r for r in other.retrieval if r.target == "image" and not r.from_anchor
                 and not r.reference]  # fmt: skip
    assert said.score.value == pytest.approx(scored.metrics.recall_at_10.value)


def test_on_other_pairs_there_is_nothing_to_fit_closed_forms_on(
    toy_world: Path, tmp_path: Path
) -> None:
    evaluation = {"closed_forms": True, "bootstrap": 50}
    align(toy_world, tmp_path / "run", **FROZEN, train={"solver": "ridge"}, evaluation=evaluation)
    report = pipeline.evaluate(tmp_path / "run", data=toy_world / "pairs.csv")
    assert report.closed_forms == () and report.retrieval


def test_the_map_of_a_linear_head_is_described(toy_world: Path, tmp_path: Path) -> None:
    report = align(toy_world, tmp_path / "run", **FROZEN, train={"solver": "procrustes"})
    assert report.linear_map.rotation == pytest.approx(1, abs=1e-5)
    assert report.linear_map.effective_rank == pytest.approx(
        len(report.linear_map.singular_values), abs=1e-3
    )


def test_an_encoder_that_trains_has_no_closed_form(toy_world: Path, tmp_path: Path) -> None:
    report = align(toy_world, tmp_path / "run", evaluation={"closed_forms": True})
    assert report.closed_forms == ()
    assert any("the encoder was trained" in note for note in report.notes)
