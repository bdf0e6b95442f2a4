"""The closed form, held against another way of computing it, and as a run like any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import toy
from pydantic import ValidationError

from modalbind import pipeline
from modalbind.anchors.cache import AnchorCache
from modalbind.closed_form import fit_head
from modalbind.encoders import build_tower
from modalbind.inputs import open_inputs
from modalbind.plugin_manager import build, load_plugins
from modalbind.recipe import resolve

RIDGE = {"train": {"solver": "ridge", "batch_size": 7}, "augment": []}


def open_toy(folder: Path):
    resolved = resolve(toy.build_recipe(folder, **RIDGE), load_plugins())
    inputs = open_inputs(resolved, AnchorCache(), "cpu", lambda *_: None)
    torch.manual_seed(0)
    encoder = build(resolved.encoder, resolved.encoder_options, inputs.modality)
    recipe = resolved.recipe
    return build_tower(encoder, recipe.head, recipe.tower, inputs.anchor.dim), inputs, recipe


def test_the_head_is_ridge_regression_on_scaled_outputs_of_the_encoder(toy_world: Path) -> None:
    tower, inputs, recipe = open_toy(toy_world)
    before = {name: value.clone() for name, value in tower.encoder.state_dict().items()}
    alpha = fit_head(tower, inputs, recipe, "ridge")
    rows, targets = [], []
    for sample in inputs.data.train:
        features = inputs.modality.features(inputs.data.store.load(sample)).unsqueeze(0)
        mask = torch.ones(features.shape[:2], dtype=torch.bool)
        with torch.no_grad():
            rows.append(tower.eval().encoder(features, mask)[0].numpy())
        caption = sample.captions[0]
        targets.append(inputs.banks["text"].pick([(caption.text, "en")])[0].numpy())
    x, y = np.array(rows, dtype=np.float64), np.array(targets, dtype=np.float64)
    # The same minimum as an ordinary least squares problem: rows of sqrt(alpha) on the weights.
    z = (x - x.mean(0)) / x.std(0)
    stacked = np.vstack([z, np.sqrt(alpha) * np.eye(z.shape[1])])
    padded = np.vstack([y - y.mean(0), np.zeros((z.shape[1], y.shape[1]))])
    expected = z @ np.linalg.lstsq(stacked, padded, rcond=None)[0]  # the targets' mean left out
    found = tower.head(torch.from_numpy(x).float()).detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    for name, value in tower.encoder.state_dict().items():
        assert torch.equal(value, before[name]), "the encoder stays as it is"


def test_a_closed_form_run_is_a_run_and_learns(toy_world: Path, tmp_path: Path) -> None:
    run = pipeline.align(toy.build_recipe(toy_world, **RIDGE), out=tmp_path / "run")
    (row,) = [
        r for r in run.report.retrieval if (r.query, r.target, r.language) == ("toy", "text", "en")
    ]
    assert row.trained
    assert row.metrics.hit_at_1.value > 3 * row.metrics.hit_at_1.chance
    assert run.report.cost.pairs_seen == 24
    assert pipeline.evaluate(run.path).retrieval == run.report.retrieval
    again = pipeline.align(toy.build_recipe(toy_world, **RIDGE), out=tmp_path / "again")
    towers = [(path / "tower.safetensors").read_bytes() for path in (run.path, again.path)]
    assert towers[0] == towers[1]


def test_a_dry_run_says_that_it_takes_no_steps(toy_world: Path) -> None:
    assert pipeline.describe(toy.build_recipe(toy_world, **RIDGE))["steps"] == 0


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"augment": [{"kind": "jitter"}]}, "leave out augment"),
        ({"head": {"kind": "mlp"}}, "linear head"),
        ({"head": {"bias": False}}, "linear head"),
        ({"tower": {"lora": {}}}, "leave out tower.lora"),
    ],
)
def test_what_a_closed_form_cannot_use_is_refused(
    toy_world: Path, changes: dict, found: str
) -> None:
    with pytest.raises(ValidationError, match=found):
        toy.build_recipe(toy_world, **{**RIDGE, **changes})
