"""The whole line with sound: the quick start in small, and using what it made."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

import modalbind
from modalbind import pipeline
from modalbind.recipe import Recipe, load_recipe
from modalbind.report import RetrievalRow, RunReport
from modalbind.world import LANGUAGES, anchor_folder

SMALL = (
    "data.sources.0.train=32",
    "data.sources.0.test=12",
    "train.epochs=1",
    "train.batch_size=16",
    "encoder.layers=1",
    "encoder.width=32",
    "evaluation.bootstrap=20",
    "device=cpu",
)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODALBIND_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def small_recipe(*overrides: str) -> Recipe:
    return load_recipe("audio/quickstart", (*SMALL, *overrides))


def directions(report: RunReport, **fields: object) -> set[tuple[str, str, str | None]]:
    def fits(row: RetrievalRow) -> bool:
        return all(getattr(row, name) == value for name, value in fields.items())

    return {(row.query, row.target, row.language) for row in report.retrieval if fits(row)}


def write_sound(path: Path, seconds: float) -> Path:
    times = np.arange(int(16_000 * seconds)) / 16_000
    soundfile.write(path, 0.2 * np.sin(2 * np.pi * 440 * times), 16_000)
    return path


def test_every_direction_is_reported_and_the_anchor_stays(tmp_path: Path) -> None:
    report = pipeline.align(small_recipe(), out=tmp_path / "run").report
    assert directions(report, trained=True) == {("audio", "text", "en"), ("text", "audio", "en")}
    others = [language for language in LANGUAGES if language != "en"]
    assert directions(report, trained=False, reference=False) == {
        ("audio", "image", None),
        ("image", "audio", None),
        *(("audio", "text", language) for language in others),
        *(("text", "audio", language) for language in others),
    }
    assert directions(report, reference=True) == {("text", "image", lang) for lang in LANGUAGES}
    assert report.anchor.fingerprint == report.anchor.fingerprint_after
    assert report.anchor.verified == "weights"


def test_a_full_cache_needs_no_weights(tmp_path: Path) -> None:
    folder = tmp_path / "anchor"
    shutil.copytree(anchor_folder(), folder)
    recipe = small_recipe(f"anchor.spec=openclip:local-dir:{folder}")
    cold = pipeline.align(recipe, out=tmp_path / "cold")
    assert cold.report.cost.anchor_embeddings_computed > 0
    assert cold.report.anchor.verified == "weights"
    shutil.rmtree(folder)
    warm = pipeline.align(recipe, out=tmp_path / "warm")
    assert warm.report.cost.anchor_embeddings_computed == 0
    assert warm.report.anchor.verified == "cache"
    assert warm.report.retrieval == cold.report.retrieval
    tower = "tower.safetensors"
    assert (warm.path / tower).read_bytes() == (cold.path / tower).read_bytes()


def test_sound_text_and_picture_meet_in_one_space(tmp_path: Path) -> None:
    run = pipeline.align(small_recipe("modality.options.window_s=2"), out=tmp_path / "run")
    moved = tmp_path / "elsewhere"
    run.path.rename(moved)
    space = modalbind.load(moved)
    assert space.modalities == ("text", "image", "audio")
    short, long = write_sound(tmp_path / "a.wav", 1.0), write_sound(tmp_path / "b.flac", 5.0)
    sounds = space.embed("audio", [short, str(long)])
    texts = space.embed("text", ["a dog barks", "kaksi koiraa"])
    pictures = space.embed("image", [Image.new("RGB", (70, 50), (200, 30, 30))])
    for embeddings in (sounds, texts, pictures):
        norms = embeddings.norm(dim=1)
        torch.testing.assert_close(norms, torch.ones_like(norms), atol=1e-5, rtol=0)
    assert space.similarity(sounds, pictures).shape == (2, 1)
    windows = space.embed_windows("audio", long)
    assert windows[0][:2] == (0.0, 2.0)
    assert windows[-1][1] == 5.0
    mean = torch.nn.functional.normalize(torch.stack([w[2] for w in windows]).mean(0), dim=0)
    torch.testing.assert_close(mean, sounds[1], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "overrides",
    [
        ("tower.lora={rank: 2}",),
        ("tower.freeze=1", "train.layer_decay=0.5", "train.micro_batch_size=5"),
        ("tower.checkpointing=true",),
        ("tower.freeze=encoder", "head.kind=mlp"),
    ],
    ids=["lora", "frozen layer, micro batches", "checkpointing", "head alone"],
)
def test_ways_to_train_end_in_a_tower_that_loads(
    tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    run = pipeline.align(small_recipe(*overrides), out=tmp_path / "run")
    first = run.report  # read now: evaluating writes it anew
    again = pipeline.evaluate(run.path)
    assert again.retrieval == first.retrieval
    assert (first.anchor.verified, again.anchor.verified) == ("weights", "cache")
    assert again.cost == first.cost, "measuring again costs the run nothing"
