"""Calibration of a test whose samples are no texts: their mean comes from training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import toy

from modalbind import load, pipeline
from modalbind.errors import DataError
from modalbind.recipe.schema import CalibrationSection
from modalbind.types import text_item


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_samples_lose_the_mean_of_training_and_anchor_items_that_of_the_named_data(
    toy_world: Path, tmp_path: Path
) -> None:
    """Recall at rank one in each direction, from means taken away by hand."""
    run = pipeline.align(toy.build_recipe(toy_world), out=tmp_path / "run").path
    (toy_world / "named.csv").write_text(
        "text,image\n" + "".join(f"a {name},{name}.png\n" for name in toy.LABELS)
    )
    section = CalibrationSection(data=(str(toy_world / "named.csv"),))
    report = pipeline.evaluate(run, calibration=section)
    space = load(run)
    names = [f"{label}{n}.json" for label in toy.LABELS for n in range(6)]
    rows = space.embed("toy", [str(toy_world / name) for name in names]).double().numpy()
    is_test = np.array([n % 3 == 2 for _ in toy.LABELS for n in range(6)])
    samples = unit(rows[is_test] - rows[~is_test].mean(axis=0))
    pictures = space.anchor.embed(
        "image", [text_item(f"{label}.png") for label in toy.LABELS]
    ).double()
    targets = unit(pictures.numpy() - pictures.numpy().mean(axis=0))
    found = (samples @ targets.T).argmax(axis=1) == np.repeat(np.arange(6), 2)
    (row,) = [r for r in report.retrieval if r.target == "image" and not r.reference]
    assert row.metrics.recall_at_1.value == pytest.approx(found.mean())
    (note,) = [note for note in report.notes if "calibrated" in note]
    assert "samples by those of training" in note and "unlabelled" not in note
    assert torch.isfinite(torch.tensor([row.metrics.map_at_10.value]))


def test_on_other_pairs_the_named_data_must_have_samples(toy_world: Path, tmp_path: Path) -> None:
    run = pipeline.align(
        toy.build_recipe(toy_world, train={"max_steps": 2}), out=tmp_path / "run"
    ).path
    section = CalibrationSection(data=(str(toy_world / "links.csv"), str(toy_world / "pairs.csv")))
    report = pipeline.evaluate(run, data=toy_world / "pairs.csv", calibration=section)
    assert any("samples by them too" in note for note in report.notes)
    section = CalibrationSection(data=(str(toy_world / "links.csv"),))
    with pytest.raises(DataError, match="add a column toy to it"):
        pipeline.evaluate(run, data=toy_world / "pairs.csv", calibration=section)
