"""The whole line with heat: the quick start in small, other encoders, and using what was made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import modalbind
from modalbind import pipeline
from modalbind.api import ModalbindError
from modalbind.recipe import Recipe, load_recipe
from modalbind.world import LANGUAGES, build_scenes, render_heat

SMALL = (
    "data.sources.0.train=32",
    "data.sources.0.test=12",
    "train.epochs=1",
    "train.batch_size=16",
    "evaluation.bootstrap=20",
    "device=cpu",
)
ANCHOR_TOWER = (
    "encoder={kind: anchor}",
    "head={kind: none}",
    "tower.lora={rank: 2}",
)


def small_recipe(*overrides: str) -> Recipe:
    return load_recipe("thermal/quickstart", (*SMALL, *overrides))


def test_every_direction_is_reported_and_files_are_read(tmp_path: Path) -> None:
    run = pipeline.align(small_recipe(), out=tmp_path / "run")
    rows = [row for row in run.report.retrieval if not row.reference]
    trained = {(row.query, row.target, row.language) for row in rows if row.trained}
    assert trained == {("thermal", "text", "en"), ("text", "thermal", "en")}
    emergent = {(row.query, row.target, row.language) for row in rows if not row.trained}
    assert {("thermal", "image", None), ("image", "thermal", None)} < emergent
    assert {row.language for row in rows} == {None, *LANGUAGES}
    assert run.report.anchor.fingerprint == run.report.anchor.fingerprint_after
    space = modalbind.load(run.path)
    heat_c = render_heat(build_scenes("test", 1)[0], 1)
    np.save(tmp_path / "a.npy", heat_c)
    Image.fromarray(heat_c).save(tmp_path / "b.tiff")
    embeddings = space.embed("thermal", [tmp_path / "a.npy", tmp_path / "b.tiff"])
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(embeddings[0], embeddings[1])
    with pytest.raises(ModalbindError, match="encoding celsius is floats"):
        Image.fromarray(np.full((64, 64), 29315, np.uint16)).save(tmp_path / "c.png")
        space.embed("thermal", [tmp_path / "c.png"])


def test_a_copy_of_the_anchors_tower_is_tuned_and_loads_without_the_anchor(tmp_path: Path) -> None:
    run = pipeline.align(
        small_recipe(*ANCHOR_TOWER, "anchor.sides={image: 1.0, text: 0.5}"), out=tmp_path / "run"
    )
    assert run.report.anchor.fingerprint == run.report.anchor.fingerprint_after
    first = run.report
    again = pipeline.evaluate(run.path)
    assert again.retrieval == first.retrieval
    assert again.anchor.verified == "cache", "the finished tower needs no weights of the anchor"
