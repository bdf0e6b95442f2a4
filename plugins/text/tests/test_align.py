"""A run on texts: English alone is trained, the other languages and pictures emerge."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import modalbind
from modalbind import pipeline
from modalbind.errors import InputError
from modalbind.recipe.load import read_recipe
from modalbind.types import TextSample


def align(tables, out, **changes):
    return pipeline.align(read_recipe(tables.recipe(**changes)), out=out)


def find(report, target, language, query="text", from_anchor=False):
    (row,) = [
        row
        for row in report.retrieval
        if (row.query, row.target, row.language, row.from_anchor, row.reference)
        == (query, target, language, from_anchor, False)
    ]
    return row


def test_other_languages_find_english_and_pictures(tables, tmp_path):
    report = align(tables, tmp_path / "run").report
    for language in ("en", "de", "fr"):
        to_text, to_image = (find(report, side, language) for side in ("text", "image"))
        assert to_text.anchor_language == "en" and to_image.anchor_language is None
        assert to_text.trained == (language == "en") and not to_image.trained
        assert to_text.n_queries == to_image.n_queries == 20
        for row in (to_text, to_image):
            assert row.metrics.recall_at_1.ci95[0] > row.metrics.recall_at_1.chance
    back = find(report, "text", "de", from_anchor=True)
    assert back.direction == "anchor text → text" and not back.trained


def test_what_was_paired_says_the_language_of_the_sample(tables, tmp_path):
    align(tables, tmp_path / "run")
    said = json.loads((tmp_path / "run/run.json").read_text())
    assert said["paired"] == [["text", "en", "en"]]


def test_the_published_map_is_what_least_squares_finds(tables, tmp_path):
    train = {"solver": "least_squares", "closed_form": {"keep_mean": True}}
    align(tables, tmp_path / "run", train=train)
    weights = load_file(tmp_path / "run/tower.safetensors")
    source, target = (
        dict(zip(t["text"].tolist(), t["text_vectors"], strict=True))
        for t in (np.load(tables.folder / f"{name}.npz") for name in ("encoder", "anchor"))
    )
    names = [f"en word {n}" for n in range(40)]
    x = np.array([source[name] for name in names], dtype=np.float64)
    y = np.array([target[name] for name in names], dtype=np.float64)
    found, *_ = np.linalg.lstsq(np.c_[x, np.ones(40)], y, rcond=None)
    assert np.allclose(weights["head.projection.weight"].numpy(), found[:-1].T, atol=1e-4)
    assert np.allclose(weights["head.projection.bias"].numpy(), found[-1], atol=1e-4)


def test_it_embeds_plain_strings_and_texts_with_a_language(tables, tmp_path):
    run = align(tables, tmp_path / "run")
    space = modalbind.load(run.path)
    assert space.modalities == ("image", "text"), "the run's text takes the place of the anchor's"
    plain = space.embed("text", ["de word 50", "fr word 3"])
    told = space.embed("text", [TextSample("de word 50", "de"), TextSample("fr word 3", "fr")])
    assert torch.equal(plain, told) and plain.shape == (2, 12)
    assert torch.allclose(plain.norm(dim=1), torch.ones(2))
    with pytest.raises(InputError, match="texts asked for; found int"):
        space.embed("text", [3])


def test_another_sentence_encoder_is_refused(tables, tmp_path):
    run = align(tables, tmp_path / "run")
    other = dict(np.load(tables.folder / "encoder.npz"))
    other["space"] = np.array("another")
    np.savez(tables.folder / "encoder.npz", **other)
    with pytest.raises(InputError, match="restore the encoder that it was trained on"):
        modalbind.load(run.path).embed("text", ["de word 50"])


def test_steps_find_a_map_and_publish_one_affine_map(tables, tmp_path):
    train = {"epochs": 30, "batch_size": 20, "lr": 1e-2, "schedule": "linear"}
    objective = {"kind": "regression", "distance": "mse", "weight": 44, "structure": "full"}
    run = align(
        tables,
        tmp_path / "run",
        train=train,
        objective=objective,
        head={"kind": "deep_linear", "layers": 3},
        augment=[{"kind": "noise", "variance": 0.001}],
    )
    assert set(load_file(run.path / "tower.safetensors")) == {
        "head.projection.weight",
        "head.projection.bias",
    }
    assert find(run.report, "image", "fr").metrics.recall_at_10.value > 0.8
    assert modalbind.load(run.path).embed("text", ["fr word 1"]).shape == (1, 12)
