"""The whole line with depth: the quick start in small, pictures as a side, the anchor's tower."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import modalbind
from modalbind import pipeline
from modalbind.recipe import Recipe, load_recipe
from modalbind.report import RunReport
from modalbind.world import LANGUAGES, anchor_folder

SMALL = (
    "data.sources.0.train=32",
    "data.sources.0.test=12",
    "train.epochs=1",
    "train.batch_size=16",
    "evaluation.bootstrap=20",
    "device=cpu",
)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODALBIND_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def small_recipe(*overrides: str) -> Recipe:
    return load_recipe("depth/quickstart", (*SMALL, *overrides))


def directions(report: RunReport, **fields: object) -> set[tuple[str, str, str | None]]:
    return {
        (row.query, row.target, row.language)
        for row in report.retrieval
        if all(getattr(row, name) == value for name, value in fields.items())
    }


def write_map(path: Path, seed: int) -> Path:
    depth_mm = np.random.default_rng(seed).integers(0, 8000, (48, 64), np.uint16)
    Image.fromarray(depth_mm).save(path)
    return path


def test_the_quick_start_reports_every_direction_and_embeds_files(tmp_path: Path) -> None:
    run = pipeline.align(
        small_recipe("modality.options.encoding=millimetres"), out=tmp_path / "run"
    )
    report = run.report
    assert directions(report, trained=True) == {("depth", "text", "en"), ("text", "depth", "en")}
    emergent = directions(report, trained=False, reference=False)
    assert {("depth", "image", None), ("image", "depth", None)} <= emergent
    assert {lang for query, _, lang in emergent if lang} == set(LANGUAGES) - {"en"}
    assert report.anchor.fingerprint == report.anchor.fingerprint_after

    space = modalbind.load(run.path)
    files = [write_map(tmp_path / f"{seed}.png", seed) for seed in (1, 2)]
    vectors = space.embed("depth", files)
    assert vectors.shape == (2, 96)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    again = modalbind.load(run.path).embed("depth", files)
    assert np.array_equal(np.asarray(again), np.asarray(vectors))


def test_the_anchors_tower_with_adapters_is_tuned_on_pictures_and_opens_again(
    tmp_path: Path,
) -> None:
    run = pipeline.align(
        small_recipe(
            "encoder={kind: anchor}",
            "head.kind=none",
            "tower.lora={rank: 2}",
            "anchor.sides={image: 1.0, text: 0.5}",
            "objective={kind: infonce, temperature: 0.2, learn: false}",
            "train.max_steps=2",
            "modality.options.encoding=millimetres",
        ),
        out=tmp_path / "run",
    )
    trained = directions(run.report, trained=True)
    assert {("depth", "image", None), ("depth", "text", "en")} <= trained
    # Adapters were merged where they stand; what has none is the anchor's, channels summed.
    tower = load_file(run.path / "tower.safetensors")
    anchor = load_file(anchor_folder() / "open_clip_model.safetensors")
    first = anchor["visual.conv1.weight"].sum(dim=1, keepdim=True)
    torch.testing.assert_close(find(tower, "tower.conv1.weight"), first)
    torch.testing.assert_close(find(tower, "ln_post.weight"), anchor["visual.ln_post.weight"])
    inner = "transformer.resblocks.0.mlp.c_fc.weight"
    change = (find(tower, inner) - anchor[f"visual.{inner}"]).abs().max()
    assert 0 < change < 0.1
    # The anchor is not asked for its tower again.
    vectors = modalbind.load(run.path).embed("depth", [write_map(tmp_path / "1.png", 1)])
    assert vectors.shape == (1, 96)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def find(state: dict[str, torch.Tensor], end: str) -> torch.Tensor:
    (name,) = [name for name in state if name.endswith(end)]
    return state[name]


def test_a_manifest_of_the_users_own_maps(tmp_path: Path) -> None:
    with (tmp_path / "pairs.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["depth", "text", "split"])
        for seed in range(20):
            write_map(tmp_path / f"{seed}.png", seed)
            rows.writerow([f"{seed}.png", f"room number {seed}", "test" if seed < 4 else "train"])
    recipe = load_recipe(
        "depth/quickstart",
        (
            f"data.sources=[{{kind: manifest, path: {tmp_path / 'pairs.csv'}}}]",
            f"data.root={tmp_path}",
            "modality.options.encoding=millimetres",
            "train.epochs=1",
            "train.batch_size=8",
            "evaluation.bootstrap=20",
            "device=cpu",
            "augment=[{kind: flip}, {kind: crop}, {kind: erase}, {kind: sensor_noise}]",
        ),
    )
    report = pipeline.align(recipe, out=tmp_path / "run").report
    assert (report.data.train_pairs, report.data.test_pairs) == (16, 4)
    assert not report.data.skipped
