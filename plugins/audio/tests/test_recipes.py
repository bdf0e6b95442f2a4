"""CACARA's recipes, run whole on made-up copies of their data sets and a tiny BEATs file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import modalbind
from modalbind import pipeline
from modalbind.recipe import load_recipe, resolve
from modalbind.rundir import RunDirectory
from modalbind.types import StepResult

SPLITS = ("train", "val", "test")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODALBIND_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def write_sound(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).normal(0, 0.1, 8000)
    soundfile.write(path, noise, 16_000)


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


def video_of(split: str, letter: str) -> str:
    """Return a made-up YouTube id: eleven characters."""
    return f"clip{split:_<6}{letter}"


def write_audiocaps(folder: Path) -> None:
    for number, split in enumerate(SPLITS):
        rows = ["audiocap_id,youtube_id,start_time,caption"]
        for i, letter in enumerate("ab"):
            video = video_of(split, letter)
            rows.append(f"{number}{i},{video},30,a {video} sound")
            write_sound(folder / f"audio/{video}.wav", 10 * number + i)
        write_text(folder / f"dataset/{split}.csv", "\n".join(rows) + "\n")


def write_clotho(folder: Path) -> None:
    head = "file_name,caption_1,caption_2,caption_3,caption_4,caption_5\n"
    for number, part in enumerate(("development", "validation")):
        row = f"{part}.wav," + ",".join(f"{part} {word}" for word in "abcde") + "\n"
        write_text(folder / f"clotho_captions_{part}.csv", head + row)
        write_sound(folder / f"{part}/{part}.wav", 50 + number)


def write_wavcaps(folder: Path) -> None:
    """One clip a source, and one on a blacklist."""
    tables = {
        "AudioSet_SL/as_final": [("Yclipwav0000.wav", "Wind."), ("Yblacklisted.wav", "A leak.")],
        "BBC_Sound_Effects/bbc_final": [("2219", "A steam train.")],
        "FreeSound/fsd_final": [("77", "A bell.")],
        "SoundBible/sb_final": [("9", "A plane lands.")],
    }
    for name, clips in tables.items():
        entries = [{"id": key, "caption": text, "duration": 2.0} for key, text in clips]
        write_text(folder / f"json_files/{name}.json", json.dumps({"data": entries}))
        for number, (key, _) in enumerate(clips):
            stem = key.removesuffix(".wav")
            write_sound(folder / f"audio/{name.split('/')[0]}/{stem}.flac", len(name) + number)
    lists = {"all_ac": ["Yblacklisted.wav"], "ub8k_esc50_vggsound": []}
    for name, banned in lists.items():
        path = folder / f"json_files/blacklist/blacklist_exclude_{name}.json"
        write_text(path, json.dumps({"AudioSet": banned, "FreeSound": []}))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The data root of the base recipe, in the layouts that the projects publish."""
    folder = tmp_path / "data"
    write_audiocaps(folder / "AudioCaps")
    write_clotho(folder / "Clotho")
    write_wavcaps(folder / "WavCaps")
    return folder


def write_scored(folder: Path, table: str, column: str, scores: dict[str, float]) -> None:
    """Write a table of machine-written captions, and the similarity of each."""
    captions = "".join(f"{key},the caption of {key}\n" for key in scores)
    write_text(folder / table, f"{column},caption\n{captions}")
    rows = "".join(f"{key},{score}\n" for key, score in scores.items())
    write_text(folder / "similarity.csv", f"key,similarity\n{rows}")


@pytest.fixture
def expanded_root(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the expanded recipe needs beyond it; the list of excluded clips in the current folder.

    Of Auto-ACD's clips one is AudioCaps' test clip, one is below 0.2, and one stays; both of
    AudioSetCaps stay.
    """
    leaked = video_of("test", "a")
    acd = {leaked: 0.9, "acdlow_____": 0.15, "acdkept____": 0.5}
    write_scored(root / "Auto-ACD", "train.csv", "youtube_id", acd)
    caps = {"Yascone_____": 0.3, "Yasctwo_____": 0.2}
    write_scored(root / "AudioSetCaps", "Dataset/AudioSetCaps_caption.csv", "id", caps)
    for number, key in enumerate(acd):
        write_sound(root / f"Auto-ACD/audio/{key}.wav", 70 + number)
    for number, key in enumerate(caps):
        write_sound(root / f"AudioSetCaps/audio/audioset/{key}.wav", 80 + number)
    monkeypatch.chdir(root.parent)
    excluded = [video_of(split, letter) for split in ("val", "test") for letter in "ab"]
    write_text(Path("cacara-exclude.txt"), "\n".join(excluded) + "\n")
    return root


@pytest.fixture
def weights(tmp_path: Path, small_checkpoint: Path) -> Path:
    """A published file of a tiny BEATs, that a test may delete."""
    path = tmp_path / "BEATs.pt"
    path.write_bytes(small_checkpoint.read_bytes())
    return path


def stand_ins(root: Path, weights: Path) -> tuple[str, ...]:
    """Overrides that change where things lie and what computes, nothing of the training."""
    return (
        f"data.root={root}",
        f"encoder.weights={weights}",
        "anchor.spec=openclip:world",
        "data.workers=0",
        "train.precision=no",
        "device=cpu",
    )


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


def test_the_base_recipe_runs_on_stand_ins(root: Path, tmp_path: Path, weights: Path) -> None:
    recipe = load_recipe("audio/cacara-base", stand_ins(root, weights))
    run = pipeline.align(recipe, out=tmp_path / "run")
    data = run.report.data
    # 2 AudioCaps clips, a Clotho clip with 5 captions, 4 WavCaps clips; tested on AudioCaps.
    assert (data.train_pairs, data.test_pairs) == (2 + 5 + 4, 2)
    trained = {(row.query, row.target) for row in run.report.retrieval if row.trained}
    assert trained == {("audio", "text"), ("text", "audio")}
    assert run.report.anchor.is_unmoved
    steps = run.directory.read_metrics("step")
    assert [record["epoch"] for record in steps] == [0, 1, 2]


def test_a_run_outlives_the_published_weights(root: Path, tmp_path: Path, weights: Path) -> None:
    changes = ("train.max_steps=1",)
    recipe = load_recipe("audio/cacara-base", (*stand_ins(root, weights), *changes))
    run = pipeline.align(recipe, out=tmp_path / "run")
    assert run.recipe == resolve(recipe).recipe
    sound = [root / "Clotho/validation/validation.wav"]
    before, report = modalbind.load(run.path).embed("audio", sound), run.report
    weights.unlink()
    assert torch.equal(modalbind.load(run.path).embed("audio", sound), before)
    # As if it had been killed after training, before the report.
    run.directory.report_file.unlink()
    again = pipeline.align(recipe, out=run.path, resume=True).report
    assert again.retrieval == report.retrieval


def test_a_stopped_run_goes_on_from_published_weights(
    root: Path, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe("audio/cacara-base", stand_ins(root, weights))
    whole = pipeline.align(recipe, out=tmp_path / "whole")
    log_step = RunDirectory.log_step

    def stop_here(self: RunDirectory, result: StepResult) -> None:
        log_step(self, result)
        if result.step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "log_step", stop_here)
        with pytest.raises(KeyboardInterrupt):
            pipeline.align(recipe, out=tmp_path / "cut")
    cut = pipeline.align(recipe, out=tmp_path / "cut", resume=True)
    name = "tower.safetensors"
    assert (cut.path / name).read_bytes() == (whole.path / name).read_bytes()


def test_the_expanded_recipe_runs_on_stand_ins(
    expanded_root: Path, tmp_path: Path, weights: Path
) -> None:
    recipe = load_recipe("audio/cacara-expanded", stand_ins(expanded_root, weights))
    run = pipeline.align(recipe, out=tmp_path / "run")
    data = run.report.data
    # The base's, one clip of Auto-ACD and two of AudioSetCaps.
    assert (data.train_pairs, data.test_pairs) == (2 + 5 + 4 + 1 + 2, 2)
    assert data.skipped == {"excluded": 1, "low_similarity": 1}
    assert run.report.anchor.is_unmoved
    assert [record["epoch"] for record in run.directory.read_metrics("step")] == list(range(10))
