"""Shared behaviour, through the smallest adapter that shows it."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import pytest
from modalbind_audio.datasets import auto_acd, esc50
from modalbind_audio.datasets.base import check_key, default_templates, join_inside, label_texts
from modalbind_audio.datasets.options import AutoAcdOptions, Esc50Options
from pydantic import ValidationError

from modalbind.api import AnchorError, ManifestError, PairedDataset

TABLE = "youtube_id,caption\nabcdefghij1,A dog barks.\nabcdefghij2,Rain falls.\n"
TRAIN = {"splits": {"train": "train"}}


class SpyModality:
    """Says which file it was asked for."""

    def load(self, path, key):
        return path, key

    def content_hash(self, path, key):
        return hashlib.sha256(path.read_bytes()).digest()


def build(tmp_path, **options):
    return auto_acd.build(AutoAcdOptions(**TRAIN, **options), tmp_path)


def test_dataset_is_a_paired_dataset_that_workers_can_have(tmp_path, write):
    write("train.csv", TABLE)
    dataset = pickle.loads(pickle.dumps(build(tmp_path)))
    assert isinstance(dataset, PairedDataset)
    assert dataset.pairs() == build(tmp_path).pairs()


def test_samples_are_read_below_the_root(tmp_path, write, sound):
    write("train.csv", TABLE)
    path = sound("audio/abcdefghij1.wav")
    dataset = build(tmp_path)
    assert dataset.load_sample("audio/abcdefghij1.wav", SpyModality()) == (
        path,
        "audio/abcdefghij1.wav",
    )
    expected = hashlib.sha256(path.read_bytes()).digest()
    assert dataset.sample_hash("audio/abcdefghij1.wav", SpyModality()) == expected


def test_text_item_is_the_text_and_its_sha256(tmp_path, write):
    write("train.csv", TABLE)
    item = pickle.loads(pickle.dumps(build(tmp_path).anchor_item("text", "Ünder", "en")))
    assert (item.key, item.load(), item.language) == ("Ünder", "Ünder", "en")
    assert item.content_hash == hashlib.sha256(b"\xc3\x9cnder").digest()


def test_other_anchor_sides_are_refused(tmp_path, write):
    write("train.csv", TABLE)
    with pytest.raises(AnchorError, match="'image' asked of data set Auto-ACD"):
        build(tmp_path).anchor_item("image", "x.png")


def test_missing_table_names_the_file_and_its_home(tmp_path):
    with pytest.raises(ManifestError) as caught:
        build(tmp_path)
    message = str(caught.value)
    assert message.startswith("Auto-ACD: file train.csv asked for; ")
    assert str(tmp_path) in message
    assert message.endswith("get it from https://huggingface.co/datasets/Loie/Auto-ACD")
    assert "\n" not in message


def test_missing_folder_and_missing_root_are_said(tmp_path):
    with pytest.raises(ManifestError, match="no such folder; get the data set from https://"):
        build(tmp_path, folder="nowhere")
    with pytest.raises(ManifestError, match="none given; give --root"):
        auto_acd.build(AutoAcdOptions(), None)


def test_folder_is_below_the_root_or_absolute(tmp_path, write):
    write("sets/acd/train.csv", TABLE)
    below = build(tmp_path, folder="sets/acd")
    absolute = auto_acd.build(AutoAcdOptions(**TRAIN, folder=str(tmp_path / "sets/acd")), None)
    assert below.pairs() == absolute.pairs()


def test_missing_column_is_named(tmp_path, write):
    write("train.csv", "youtube_id,text\nabcdefghij1,A dog barks.\n")
    with pytest.raises(
        ManifestError, match=r"column 'caption' asked of train\.csv; it has youtube_id, text;"
    ):
        build(tmp_path)


@pytest.mark.parametrize("line", ["abcdefghij1", "abcdefghij1,A dog,barks"])
def test_ragged_line_is_named(tmp_path, write, line):
    write("train.csv", f"youtube_id,caption\nabcdefghij0,Wind.\n{line}\n")
    with pytest.raises(ManifestError, match="line 3 has too few or too many cells"):
        build(tmp_path)


def test_empty_table_and_wrong_encoding_are_refused(tmp_path, write):
    path = write("train.csv", "")
    with pytest.raises(ManifestError, match="it has none"):
        build(tmp_path)
    path.write_bytes(b"youtube_id,caption\nabcdefghij1,caf\xe9\n")
    with pytest.raises(ManifestError, match="utf-8"):
        build(tmp_path)
    path.write_text("youtube_id,caption\n")
    with pytest.raises(ManifestError, match="none is left"):
        build(tmp_path)


@pytest.mark.parametrize("key", ["../x.wav", "audio/../../x.wav", "/etc/passwd", "", ".", "a\0b"])
def test_paths_that_leave_the_folder_are_refused(key):
    with pytest.raises(ManifestError, match="does not stay inside"):
        check_key(key, "here")


def test_a_table_cannot_point_outside(tmp_path, write):
    write("train.csv", "youtube_id,caption\n../../secret,A dog barks.\n")
    with pytest.raises(ManifestError, match="does not stay inside the data set's folder"):
        build(tmp_path)


def test_a_link_cannot_lead_outside(tmp_path, write, sound):
    sound("elsewhere/abcdefghij1.wav")
    write("set/train.csv", TABLE)
    (tmp_path / "set/audio").symlink_to(tmp_path / "elsewhere")
    dataset = build(tmp_path, folder="set")
    with pytest.raises(ManifestError, match="a link leads it outside"):
        dataset.load_sample("audio/abcdefghij1.wav", SpyModality())
    (tmp_path / "set/train.csv").rename(tmp_path / "train.csv")
    (tmp_path / "set/train.csv").symlink_to(tmp_path / "train.csv")
    with pytest.raises(ManifestError, match="a link leads it outside"):
        build(tmp_path, folder="set")


def test_a_link_that_stays_inside_is_followed(tmp_path, sound):
    path = sound("real/a.wav")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert join_inside(tmp_path, "link/a.wav").resolve() == path.resolve()


def test_a_root_that_is_a_link_is_fine(tmp_path, write):
    write("real/train.csv", TABLE)
    (tmp_path / "data").symlink_to(tmp_path / "real")
    assert len(build(tmp_path, folder="data").pairs()) == 2


def test_empty_texts_and_absent_sounds_are_left_out_and_counted(tmp_path, write, sound, caplog):
    write("train.csv", TABLE + "abcdefghij3,\n")
    sound("audio/abcdefghij2.wav")
    assert [p.text for p in build(tmp_path).pairs()] == ["A dog barks.", "Rain falls."]
    assert "Auto-ACD: 1 of 3 clips left out: no text" in caplog.messages
    existing = build(tmp_path, only_existing=True)
    assert [pair.sample for pair in existing.pairs()] == ["audio/abcdefghij2.wav"]
    assert "Auto-ACD: 1 of 3 clips left out: no sound file" in caplog.messages


def test_a_recording_in_two_parts_stays_in_the_later_one(tmp_path, write, caplog):
    write("train.csv", TABLE)
    write("test.csv", "youtube_id,caption\nYabcdefghij2,Heavy rain.\n")
    pairs = auto_acd.build(AutoAcdOptions(), tmp_path).pairs()
    assert [(p.text, p.split) for p in pairs] == [
        ("A dog barks.", "train"),
        ("Heavy rain.", "test"),
    ]
    assert "Auto-ACD: 1 of 3 clips left out: recording also in a later split" in caplog.messages


def test_similarity_is_joined_by_id_or_path(tmp_path, write):
    write("train.csv", TABLE)
    write("sim.csv", "key,similarity\nabcdefghij1,0.25\naudio/abcdefghij2.wav,-0.5\n")
    pairs = build(tmp_path, similarity_file="sim.csv").pairs()
    assert [pair.columns["similarity"] for pair in pairs] == ["0.25", "-0.5"]


def test_missing_similarity_is_named_or_defaulted(tmp_path, write):
    write("train.csv", TABLE)
    write("sim.csv", "key,similarity\nabcdefghij1,0.25\n")
    with pytest.raises(ManifestError, match="similarity of clip 'abcdefghij2' asked for"):
        build(tmp_path, similarity_file="sim.csv")
    pairs = build(tmp_path, similarity_file="sim.csv", similarity_default=0.0).pairs()
    assert [pair.columns["similarity"] for pair in pairs] == ["0.25", "0.0"]
    pairs = build(tmp_path, similarity_default=1.0).pairs()
    assert [pair.columns["similarity"] for pair in pairs] == ["1.0", "1.0"]
    assert all("similarity" not in pair.columns for pair in build(tmp_path).pairs())


@pytest.mark.parametrize("value", ["nan", "1.5", "high", ""])
def test_similarity_that_is_none_is_refused(tmp_path, write, value):
    write("train.csv", TABLE)
    write("sim.csv", f"key,similarity\nabcdefghij1,{value}\n")
    with pytest.raises(ManifestError, match="write a number from -1 to 1"):
        build(tmp_path, similarity_file="sim.csv")


@pytest.mark.parametrize("pattern", ["{title}.wav", "{id.__class__}", "{id:>99}", "{id!r}", "{}"])
def test_patterns_take_plain_known_names_only(pattern):
    with pytest.raises(ValidationError, match=r"use plain \{id\}, \{youtube_id\}, \{split\}"):
        AutoAcdOptions(audio=pattern)


def test_templates_need_a_label_and_are_filled():
    with pytest.raises(ValidationError, match=r"lacks \{label\}"):
        Esc50Options(templates=("a sound",))
    assert label_texts("crying_baby", ["{label}!", "hear {label}"]) == (
        "crying baby!",
        "hear crying baby",
    )
    assert all("{label}" in template for template in default_templates())
    assert len(set(default_templates())) == len(default_templates()) > 1


def test_own_templates_replace_the_shipped_ones(tmp_path: Path, write):
    write(
        "meta/esc50.csv",
        "filename,fold,target,category,esc10,src_file,take\n1-7-A-0.wav,1,0,dog,True,7,A\n",
    )
    dataset = esc50.build(Esc50Options(templates=("{label}",), language="en"), tmp_path)
    assert [pair.text for pair in dataset.pairs()] == ["dog"]
