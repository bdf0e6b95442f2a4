"""ESC-50, UrbanSound8K and VGGSound: labels become texts, classes and positives."""

from __future__ import annotations

import pytest
from modalbind_audio.datasets import esc50, urbansound8k, vggsound
from modalbind_audio.datasets.options import (
    TEMPLATES,
    Esc50Options,
    UrbanSound8KOptions,
    VggSoundOptions,
)

from modalbind.api import ManifestError

ONE = ("hear {label}",)
ESC = """filename,fold,target,category,esc10,src_file,take
1-100032-A-0.wav,1,0,dog,True,100032,A
1-100210-A-36.wav,1,36,vacuum_cleaner,False,100210,A
2-100032-B-0.wav,2,0,dog,True,100033,B
"""
US8K = """slice_file_name,fsID,start,end,salience,fold,classID,class
100032-3-0-0.wav,100032,0.0,0.317551,1,5,3,dog_bark
100263-2-0-117.wav,100263,58.5,62.5,1,10,2,children_playing
"""
VGG = """---g-f_I2yQ,1,people marching,test
--0PQM4-hqg,30,waterfall burbling,train
0_8-g2rof7E,49,"heart sounds, heartbeat",train
---g-f_I2yQ,60,people marching,train
"""


def test_esc50_rows_by_hand(tmp_path, write):
    write("meta/esc50.csv", ESC)
    dataset = esc50.build(Esc50Options(templates=ONE), tmp_path)
    assert (dataset.name, dataset.licence) == ("ESC-50", "CC BY-NC 3.0")
    assert [
        (p.sample, p.text, p.fold, p.group, p.positive_key, p.columns["class"], p.split)
        for p in dataset.pairs()
    ] == [
        ("audio/1-100032-A-0.wav", "hear dog", "1", "100032", "dog", "dog", ""),
        (
            "audio/1-100210-A-36.wav",
            "hear vacuum cleaner",
            "1",
            "100210",
            "vacuum_cleaner",
            "vacuum_cleaner",
            "",
        ),
        ("audio/2-100032-B-0.wav", "hear dog", "2", "100033", "dog", "dog", ""),
    ]


def test_esc10_is_the_free_subset_and_split_can_be_set(tmp_path, write):
    write("meta/esc50.csv", ESC)
    dataset = esc50.build(Esc50Options(templates=ONE, esc10=True, split="test"), tmp_path)
    assert (dataset.name, dataset.licence) == ("ESC-10", "CC BY 3.0")
    assert [(p.sample, p.split) for p in dataset.pairs()] == [
        ("audio/1-100032-A-0.wav", "test"),
        ("audio/2-100032-B-0.wav", "test"),
    ]


def test_shipped_templates_make_one_pair_each(tmp_path, write):
    write("meta/esc50.csv", ESC)
    pairs = esc50.build(Esc50Options(), tmp_path).pairs()
    texts = [p.text for p in pairs if p.sample == "audio/1-100210-A-36.wav"]
    assert "the sound of vacuum cleaner" in texts
    assert len(pairs) == 3 * len(texts)
    assert len(set(texts)) == len(texts) == len(TEMPLATES)
    assert all("{label}" in template for template in TEMPLATES)


def test_urbansound8k_rows_by_hand(tmp_path, write):
    write("metadata/UrbanSound8K.csv", US8K)
    dataset = urbansound8k.build(UrbanSound8KOptions(templates=ONE), tmp_path)
    assert [
        (p.sample, p.text, p.fold, p.group, p.positive_key, p.columns["class"])
        for p in dataset.pairs()
    ] == [
        ("audio/fold5/100032-3-0-0.wav", "hear dog bark", "5", "100032", "dog_bark", "dog_bark"),
        (
            "audio/fold10/100263-2-0-117.wav",
            "hear children playing",
            "10",
            "100263",
            "children_playing",
            "children_playing",
        ),
    ]


@pytest.mark.parametrize(
    ("build", "options", "file", "home"),
    [
        (esc50.build, Esc50Options(), "meta/esc50.csv", "github.com/karolpiczak/ESC-50"),
        (
            urbansound8k.build,
            UrbanSound8KOptions(),
            "metadata/UrbanSound8K.csv",
            "urbansounddataset.weebly.com",
        ),
        (vggsound.build, VggSoundOptions(), "vggsound.csv", "github.com/hche11/VGGSound"),
    ],
)
def test_missing_tables_are_named(tmp_path, build, options, file, home):
    with pytest.raises(ManifestError) as caught:
        build(options, tmp_path)
    assert f"file {file} asked for" in str(caught.value)
    assert home in str(caught.value)


def test_vggsound_rows_by_hand(tmp_path, write):
    write("vggsound.csv", VGG)
    pairs = vggsound.build(VggSoundOptions(templates=ONE), tmp_path).pairs()
    assert [(p.sample, p.text, p.split, p.group, p.positive_key) for p in pairs] == [
        (
            "audio/---g-f_I2yQ_000001.wav",
            "hear people marching",
            "test",
            "---g-f_I2yQ",
            "people marching",
        ),
        (
            "audio/--0PQM4-hqg_000030.wav",
            "hear waterfall burbling",
            "train",
            "--0PQM4-hqg",
            "waterfall burbling",
        ),
        (
            "audio/0_8-g2rof7E_000049.wav",
            "hear heart sounds, heartbeat",
            "train",
            "0_8-g2rof7E",
            "heart sounds, heartbeat",
        ),
    ]  # the fourth row's video is tested on


def test_vggsound_parts_can_be_left_out_and_named(tmp_path, write):
    write("vggsound.csv", VGG)
    options = VggSoundOptions(
        templates=ONE, splits={"test": "val"}, audio="{split}/{youtube_id}-{start}.flac"
    )
    pairs = vggsound.build(options, tmp_path).pairs()
    assert [(p.sample, p.split) for p in pairs] == [("test/---g-f_I2yQ-1.flac", "val")]


@pytest.mark.parametrize("row", ["id,1,dog,dev", "id,start_seconds,label,test"])
def test_vggsound_with_a_header_or_another_split_is_refused(tmp_path, write, row):
    write("vggsound.csv", row + "\n")
    with pytest.raises(ManifestError, match=r"id, start, label, split asked of vggsound\.csv"):
        vggsound.build(VggSoundOptions(), tmp_path)


def test_missing_column_is_named(tmp_path, write):
    write("meta/esc50.csv", ESC.replace("src_file", "source"))
    with pytest.raises(ManifestError, match=r"column 'src_file' asked of meta/esc50\.csv"):
        esc50.build(Esc50Options(), tmp_path)
