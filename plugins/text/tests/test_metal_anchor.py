"""A run on texts as an anchor of its own: `metal:RUN`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import modalbind
from modalbind import pipeline
from modalbind.anchors import open_anchor
from modalbind.anchors.cache import AnchorCache
from modalbind.errors import AnchorError
from modalbind.plugin_manager import load_plugins
from modalbind.recipe.load import read_recipe
from modalbind.recipe.schema import AnchorSection
from modalbind.types import text_item


def open_metal(run):
    section = AnchorSection(spec=f"metal:{run}")
    return open_anchor(section, load_plugins().anchor("metal"), AnchorCache())


@pytest.fixture
def run(tables, tmp_path):
    return pipeline.align(read_recipe(tables.recipe()), out=tmp_path / "run").path


def test_texts_go_through_the_map_and_pictures_stay(run, tables):
    anchor = open_metal(run)
    weights = load_file(run / "tower.safetensors")
    encoder = np.load(tables.folder / "encoder.npz")
    rows = dict(zip(encoder["text"].tolist(), encoder["text_vectors"], strict=True))
    raw = torch.tensor(np.array([rows["fr word 7"], rows["en word 9"]]))
    mapped = raw @ weights["head.projection.weight"].T + weights["head.projection.bias"]
    found = anchor.embed("text", [text_item("fr word 7", "fr"), text_item("en word 9", "en")])
    assert torch.allclose(found, torch.nn.functional.normalize(mapped, dim=1), atol=1e-5)
    base = modalbind.load(run).anchor
    pictures = [text_item(f"pictures/{n}.png") for n in range(3)]  # a table asks for keys alone
    assert torch.equal(anchor.embed("image", pictures), base.embed("image", pictures))
    assert (anchor.dim, anchor.modalities) == (base.dim, base.modalities)
    assert anchor.fingerprint != base.fingerprint and anchor.verify() == (
        anchor.fingerprint,
        "table",
    )


def test_its_identity_is_that_of_base_encoder_and_map(run, tables, tmp_path):
    first = open_metal(run).fingerprint
    assert open_metal(run).fingerprint == first, "opened twice, one space"
    again = pipeline.align(read_recipe(tables.recipe(seed=3)), out=tmp_path / "again").path
    assert open_metal(again).fingerprint == first, "a closed form does not depend on the seed"
    other = tables.recipe(train={"solver": "procrustes"})
    moved = pipeline.align(read_recipe(other), out=tmp_path / "moved").path
    assert open_metal(moved).fingerprint != first


def test_a_changed_map_is_noticed(run):
    path = run / "tower.safetensors"
    weights = load_file(path)
    weights["head.projection.bias"] += 1
    save_file(weights, path)
    with pytest.raises(AnchorError, match=r"asked for metal:.*checksum"):
        open_metal(run)


def test_a_modality_aligned_to_it_is_found_in_languages_that_no_training_saw(run, tables, tmp_path):
    """The modality is once more text, of the same table: what matters is the other side."""
    recipe = tables.recipe(
        anchor={"spec": f"metal:{run}"}, evaluation={"bootstrap": 100, "link_text_image": True}
    )
    made = pipeline.align(read_recipe(recipe), out=tmp_path / "onto")
    assert made.report.anchor.space == "anchor + encoder"
    assert made.report.anchor.is_unmoved
    rows = [
        row
        for row in made.report.retrieval
        if row.language == "en" and row.anchor_language == "de" and not row.from_anchor
    ]
    assert rows and not rows[0].trained
    assert rows[0].metrics.recall_at_10.ci95[0] > rows[0].metrics.recall_at_10.chance
    loaded = modalbind.load(made.path)
    assert loaded.anchor.spec == f"metal:{run}"


@pytest.mark.parametrize(
    ("source", "says"),
    [("nowhere", "no such folder"), ("{run}@v1", "a run has no tag")],
)
def test_what_is_no_run_is_refused(run, source, says):
    with pytest.raises(AnchorError, match=says):
        open_metal(source.replace("{run}", "some-run"))
