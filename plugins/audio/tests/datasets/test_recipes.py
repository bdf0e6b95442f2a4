"""The CACARA recipes' sources, on made-up copies of all the layouts that they name."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import yaml
from modalbind_audio.datasets import SPECS

RECIPES = Path(__file__).parents[4] / "recipes/audio"
CLOTHO_HEAD = "file_name,caption_1,caption_2,caption_3,caption_4,caption_5\n"
CAPS_HEAD = "audiocap_id,youtube_id,start_time,caption\n"


@pytest.fixture
def data_root(tmp_path, write, sound):
    """The data root that the heads of the recipes describe, with one or two clips of each."""
    for part, video in (("train", "trainvideo1"), ("val", "valvideo_01"), ("test", "testvideo_1")):
        write(f"AudioCaps/dataset/{part}.csv", CAPS_HEAD + f"1,{video},30,A {part} sound\n")
        sound(f"AudioCaps/audio/{video}.wav")
    write("AudioCaps/dataset/train.csv", CAPS_HEAD + "1,trainvideo1,30,A\n2,goneagain__,30,B\n")
    for part in ("development", "validation"):
        write(f"Clotho/clotho_captions_{part}.csv", CLOTHO_HEAD + f"{part}.wav,a,b,c,d,e\n")
        sound(f"Clotho/{part}/{part}.wav")
    tables = {
        "AudioSet_SL/as_final": [
            {"id": "Ytestvideo_1.wav", "caption": "leak", "duration": 10.0},
            {"id": "Yothervideo.wav", "caption": "fine", "duration": 10.0},
        ],
        "BBC_Sound_Effects/bbc_final": [{"id": "7", "caption": "long", "duration": 121.0}],
        "FreeSound/fsd_final": [{"id": "7", "caption": "bell", "duration": 2.0}],
        "SoundBible/sb_final": [{"id": "7", "caption": "plane", "duration": 2.0}],
    }
    for name, entries in tables.items():
        write(f"WavCaps/json_files/{name}.json", json.dumps({"data": entries}))
        for entry in entries:
            stem = entry["id"].removesuffix(".wav")
            sound(f"WavCaps/audio/{name.split('/')[0]}/{stem}.flac")
    lists = {"AudioSet": ["Ytestvideo_1.wav"], "FreeSound": []}
    for name in ("all_ac", "ub8k_esc50_vggsound"):
        write(
            f"WavCaps/json_files/blacklist/blacklist_exclude_{name}.json",
            json.dumps(lists if name == "all_ac" else {"AudioSet": [], "FreeSound": []}),
        )
    write("Auto-ACD/train.csv", "youtube_id,caption\ntestvideo_1,leak\nothervideo,kept\n")
    write("Auto-ACD/similarity.csv", "key,similarity\ntestvideo_1,0.5\nothervideo,0.15\n")
    write("AudioSetCaps/Dataset/AudioSetCaps_caption.csv", "id,caption\nYothervideo_,kept\n")
    write("AudioSetCaps/similarity.csv", "key,similarity\nYothervideo_,0.3\n")
    for name in ("Auto-ACD/audio/testvideo_1", "Auto-ACD/audio/othervideo"):
        sound(f"{name}.wav")
    sound("AudioSetCaps/audio/audioset/Yothervideo_.wav")
    return tmp_path


def build_sources(recipe, root):
    """Build every source as the core does: options model first, then the factory."""
    specs = {spec.name: spec for spec in SPECS}
    datasets = {}
    for source in recipe["data"]["sources"]:
        spec = specs[source.pop("kind")]
        module, function = spec.build.split(":")
        build = getattr(importlib.import_module(module), function)
        datasets[spec.name] = build(spec.options(**source), root)
    return datasets


@pytest.mark.parametrize(
    ("name", "epochs", "batch_size"), [("cacara-base", 3, 64), ("cacara-expanded", 10, 110)]
)
def test_recipe_says_what_the_paper_says(name, epochs, batch_size):
    recipe = yaml.safe_load((RECIPES / f"{name}.yaml").read_text("utf-8"))
    assert (recipe["train"]["epochs"], recipe["train"]["batch_size"]) == (epochs, batch_size)
    assert recipe["anchor"]["spec"] == "openclip:xlm-roberta-base-ViT-B-32@laion5b_s13b_b90k"
    assert recipe["data"]["train_languages"] == ["en"]
    assert (recipe["encoder"]["kind"], recipe["head"]["kind"]) == ("beats", "linear")


def test_base_reads_its_three_sources(data_root):
    recipe = yaml.safe_load((RECIPES / "cacara-base.yaml").read_text("utf-8"))
    datasets = build_sources(recipe, data_root)
    assert {
        name: [(pair.text, pair.split) for pair in dataset.pairs()]
        for name, dataset in datasets.items()
    } == {
        "audiocaps": [("A", "train"), ("A val sound", "val"), ("A test sound", "test")],
        "clotho": [(letter, split) for split in ("train", "val") for letter in "abcde"],
        "wavcaps": [("fine", "train"), ("bell", "train"), ("plane", "train")],
    }


def test_expanded_can_filter_and_exclude_every_training_pair(data_root):
    recipe = yaml.safe_load((RECIPES / "cacara-expanded.yaml").read_text("utf-8"))
    threshold = recipe["data"]["min_similarity"]
    datasets = build_sources(recipe, data_root)
    pairs = [pair for dataset in datasets.values() for pair in dataset.pairs()]
    tested = {pair.group for pair in pairs if pair.split == "test"}
    assert tested == {"testvideo_1"}
    training = [pair for pair in pairs if pair.split == "train"]
    dropped = {p.text for p in training if float(p.columns["similarity"]) < threshold}
    assert dropped == {"kept"} and threshold == 0.2  # Auto-ACD's 0.15; AudioSetCaps' 0.3 stays
    assert {p.text for p in training if p.group in tested} == {"leak"}  # what `exclude` must catch
    assert sum(float(p.columns["similarity"]) >= threshold for p in training) == len(training) - 1
