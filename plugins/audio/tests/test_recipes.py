"""CACARA's base recipe, run whole on made-up copies of its data sets and a tiny BEATs file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

import modalbind
from modalbind import pipeline
from modalbind.recipe import load_recipe


def write_sound(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).normal(0, 0.1, 8000)
    soundfile.write(path, noise, 16_000)


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """AudioCaps, Clotho and WavCaps in the layout that their projects publish."""
    monkeypatch.setenv("MODALBIND_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "data"
    head = "audiocap_id,youtube_id,start_time,caption\n"
    for number, split in enumerate(("train", "val", "test")):
        ids = [f"clip{split:_<6}{letter}" for letter in "ab"]
        rows = "".join(f"{number}{i},{name},30,a {name} sound\n" for i, name in enumerate(ids))
        write_text(folder / f"AudioCaps/dataset/{split}.csv", head + rows)
        for i, name in enumerate(ids):
            write_sound(folder / f"AudioCaps/audio/{name}.wav", 10 * number + i)
    clotho = "file_name,caption_1,caption_2,caption_3,caption_4,caption_5\n"
    for number, part in enumerate(("development", "validation")):
        row = f"{part}.wav," + ",".join(f"{part} {word}" for word in "abcde") + "\n"
        write_text(folder / f"Clotho/clotho_captions_{part}.csv", clotho + row)
        write_sound(folder / f"Clotho/{part}/{part}.wav", 50 + number)
    tables = {
        "AudioSet_SL/as_final.json": ("Yclipwav0000.wav", "Wind blows."),
        "BBC_Sound_Effects/bbc_final.json": ("2219", "A steam train."),
        "FreeSound/fsd_final.json": ("77", "A bell."),
        "SoundBible/sb_final.json": ("9", "A plane lands."),
    }
    for name, (key, caption) in tables.items():
        entry = {"id": key, "caption": caption, "duration": 2.0}
        write_text(folder / "WavCaps/json_files" / name, json.dumps({"data": [entry]}))
        source, stem = name.split("/")[0], key.removesuffix(".wav")
        write_sound(folder / f"WavCaps/audio/{source}/{stem}.flac", len(name))
    for name in ("exclude_all_ac", "exclude_ub8k_esc50_vggsound"):
        path = folder / f"WavCaps/json_files/blacklist/blacklist_{name}.json"
        write_text(path, json.dumps({"AudioSet": [], "FreeSound": []}))
    return folder


def test_the_base_recipe_says_what_the_paper_says() -> None:
    recipe = load_recipe("audio/cacara-base")
    assert (recipe.train.epochs, recipe.train.batch_size) == (3, 64)
    assert recipe.anchor.spec == "openclip:xlm-roberta-base-ViT-B-32@laion5b_s13b_b90k"
    assert (recipe.head.kind, recipe.objective.kind) == ("linear", "infonce")
    assert recipe.data.train_languages == ("en",)


def test_the_expanded_recipe_says_what_the_paper_says() -> None:
    recipe = load_recipe("audio/cacara-expanded")
    assert (recipe.train.epochs, recipe.train.batch_size) == (10, 110)
    assert recipe.data.min_similarity in (0.1, 0.2)
    assert {"auto-acd", "audiosetcaps"} <= {source.kind for source in recipe.data.sources}


def test_the_base_recipe_runs_on_stand_ins(
    root: Path, tmp_path: Path, small_checkpoint: Path
) -> None:
    weights = tmp_path / "BEATs.pt"
    weights.write_bytes(small_checkpoint.read_bytes())
    overrides = (
        f"data.root={root}",
        f"encoder.weights={weights}",
        "anchor.spec=openclip:world",
        "data.workers=0",
        "train.precision=no",
        "device=cpu",
    )
    recipe = load_recipe("audio/cacara-base", overrides)
    run = pipeline.align(recipe, out=tmp_path / "run")
    data = run.report.data
    # 2 AudioCaps clips, a Clotho clip with 5 captions, 4 WavCaps clips; tested on AudioCaps.
    assert (data.train_pairs, data.test_pairs) == (2 + 5 + 4, 2)
    steps = run.directory.read_metrics("step")
    assert [record["epoch"] for record in steps] == [0, 1, 2]
    weights.unlink()
    embeddings = modalbind.load(run.path).embed(
        "audio", [root / "Clotho/validation/validation.wav"]
    )
    assert embeddings.shape == (1, run.report.anchor.dim)
    assert pipeline.align(recipe, out=run.path, resume=True).report == run.report
