"""AudioCaps, Clotho, WavCaps, Auto-ACD and AudioSetCaps on made-up copies of their tables."""

from __future__ import annotations

import json
from collections import defaultdict

import pytest
from modalbind_audio.datasets import audiocaps, audiosetcaps, auto_acd, clotho, wavcaps
from modalbind_audio.datasets.options import (
    AudioCapsOptions,
    AudioSetCapsOptions,
    AutoAcdOptions,
    ClothoOptions,
    WavCapsOptions,
)
from pydantic import ValidationError

from modalbind.api import ManifestError


def groups_by_split(pairs):
    groups = defaultdict(set)
    for pair in pairs:
        groups[pair.split].add(pair.group)
    return groups


@pytest.fixture
def audiocaps_folder(tmp_path, write):
    head = "audiocap_id,youtube_id,start_time,caption\n"
    write("dataset/train.csv", head + "91139,r1nicOVtvkQ,130,A woman talks\n")
    write("dataset/val.csv", head + "97151,vfY_TJq7n_U,130,Rustling\n97152,vfY_TJq7n_U,130,Wind\n")
    write("dataset/test.csv", head + '103549,7fmOlUlwoNg,20,"Rain, then wind"\n')
    return tmp_path


def test_audiocaps_rows_by_hand(audiocaps_folder):
    pairs = audiocaps.build(AudioCapsOptions(), audiocaps_folder).pairs()
    assert [(p.sample, p.text, p.split, p.group, p.positive_key) for p in pairs] == [
        (
            "audio/r1nicOVtvkQ.wav",
            "A woman talks",
            "train",
            "r1nicOVtvkQ",
            "AudioCaps:r1nicOVtvkQ:130",
        ),
        ("audio/vfY_TJq7n_U.wav", "Rustling", "val", "vfY_TJq7n_U", "AudioCaps:vfY_TJq7n_U:130"),
        ("audio/vfY_TJq7n_U.wav", "Wind", "val", "vfY_TJq7n_U", "AudioCaps:vfY_TJq7n_U:130"),
        (
            "audio/7fmOlUlwoNg.wav",
            "Rain, then wind",
            "test",
            "7fmOlUlwoNg",
            "AudioCaps:7fmOlUlwoNg:20",
        ),
    ]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("audio/Y{youtube_id}.wav", "audio/Yr1nicOVtvkQ.wav"),
        ("{split}/{id}.flac", "train/91139.flac"),
        ("{youtube_id}_{start}.ogg", "r1nicOVtvkQ_130.ogg"),
        ("{youtube_id}_{start_padded}.ogg", "r1nicOVtvkQ_000130.ogg"),
    ],
)
def test_audiocaps_file_names_follow_the_pattern(audiocaps_folder, pattern, expected):
    pairs = audiocaps.build(AudioCapsOptions(audio=pattern), audiocaps_folder).pairs()
    assert pairs[0].sample == expected


@pytest.mark.parametrize(
    ("model", "known"),
    [
        (AudioCapsOptions, "{id}, {youtube_id}, {start}, {start_padded}, {split}"),
        (AudioSetCapsOptions, "{source}, {id}, {youtube_id}"),
        (AutoAcdOptions, "{id}, {youtube_id}, {split}"),
        (WavCapsOptions, "{source}, {id}"),
    ],
)
def test_patterns_take_the_names_that_the_help_lists(model, known):
    with pytest.raises(ValidationError) as caught:
        model(audio="{title}.wav")
    assert caught.value.errors()[0]["msg"].endswith(f"pattern has '{{title}}'; use plain {known}")
    help_text = model.model_fields["audio"].description
    assert all(name in help_text for name in known.split(", "))


def test_left_out_clips_are_counted(tmp_path, write, sound, caplog):
    write("train.csv", "youtube_id,caption\nabcdefghij1,A dog.\nabcdefghij2,Rain.\n")
    sound("audio/abcdefghij2.wav")
    options = AutoAcdOptions(splits={"train": "train"}, only_existing=True)
    pairs = auto_acd.build(options, tmp_path).pairs()
    assert [pair.sample for pair in pairs] == ["audio/abcdefghij2.wav"]
    assert caplog.messages == ["Auto-ACD: 1 of 2 clips left out: no file"]


def test_audiocaps_parts_that_are_not_asked_for_may_be_absent(audiocaps_folder):
    (audiocaps_folder / "dataset/train.csv").unlink()
    options = AudioCapsOptions(splits={"val": "train", "test": "test"})
    pairs = audiocaps.build(options, audiocaps_folder).pairs()
    assert [pair.split for pair in pairs] == ["train", "train", "test"]
    with pytest.raises(ManifestError, match=r"file dataset/train\.csv asked for"):
        audiocaps.build(AudioCapsOptions(), audiocaps_folder)


def test_audiocaps_2_lies_in_its_own_folder(tmp_path, write):
    write("dataset2.0/val.csv", "audiocap_id,youtube_id,start_time,caption\n1,r1nicOVtvkQ,9,Hi\n")
    options = AudioCapsOptions(metadata="dataset2.0", splits={"val": "val"})
    assert [p.text for p in audiocaps.build(options, tmp_path).pairs()] == ["Hi"]


CLOTHO_HEAD = "file_name,caption_1,caption_2,caption_3,caption_4,caption_5\n"


@pytest.fixture
def clotho_folder(tmp_path, write):
    write("clotho_captions_development.csv", CLOTHO_HEAD + "Road noise.wav,a,b,c,d,e\n")
    write("clotho_captions_validation.csv", CLOTHO_HEAD + '01 park.wav,"f, f",g,h,i,j\n')
    write("clotho_captions_evaluation.csv", CLOTHO_HEAD + "Radio.wav,k,l,m,n,o\n")
    return tmp_path


def test_clotho_has_five_positives_a_clip(clotho_folder):
    pairs = clotho.build(ClothoOptions(), clotho_folder).pairs()
    assert [(p.sample, p.text, p.split) for p in pairs[:6]] == [
        ("development/Road noise.wav", "a", "train"),
        ("development/Road noise.wav", "b", "train"),
        ("development/Road noise.wav", "c", "train"),
        ("development/Road noise.wav", "d", "train"),
        ("development/Road noise.wav", "e", "train"),
        ("validation/01 park.wav", "f, f", "val"),
    ]
    assert {p.positive_key for p in pairs[:5]} == {"Clotho:development/Road noise.wav"}
    assert [p.split for p in pairs].count("test") == 5
    assert pairs[0].group == "Road noise.wav"


def test_clotho_groups_are_freesound_ids_where_known(clotho_folder, write):
    head = "file_name,keywords,sound_id,sound_link,start_end_samples,manufacturer,license\n"
    write(
        "clotho_metadata_development.csv",
        head + "Road noise.wav,road;noise,42,https://freesound.org/s/42,[0 1],me,by\n",
    )
    # The evaluation part's metadata is published with semicolons, and not all of it is UTF-8.
    path = write("clotho_metadata_evaluation.csv", "")
    path.write_bytes(
        head.replace(",", ";").encode() + b"Radio.wav;radio;80399;x;[0, 1];Ren\xe9;by\n"
    )
    write("clotho_metadata_validation.csv", head + "01 park.wav,park,Not found,,,,by\n")
    pairs = clotho.build(ClothoOptions(), clotho_folder).pairs()
    assert [pair.group for pair in pairs[::5]] == ["42", "01 park.wav", "80399"]


def test_clotho_recordings_do_not_cross_splits(clotho_folder, write):
    head = "file_name,keywords,sound_id,sound_link,start_end_samples,manufacturer,license\n"
    write("clotho_metadata_development.csv", head + "Road noise.wav,k,42,l,s,m,by\n")
    write("clotho_metadata_evaluation.csv", head + "Radio.wav,k,42,l,s,m,by\n")
    groups = groups_by_split(clotho.build(ClothoOptions(), clotho_folder).pairs())
    assert groups == {"val": {"01 park.wav"}, "test": {"42"}}


@pytest.fixture
def wavcaps_folder(tmp_path, write):
    def put(name, content):
        write(f"json_files/{name}", json.dumps(content))

    put(
        "AudioSet_SL/as_final.json",
        {
            "num_captions_per_audio": 1,
            "data": [
                {"id": "Yb0RFKhbpFJA.wav", "caption": "Wind blows.", "duration": 10.0},
                {"id": "Yr1nicOVtvkQ.wav", "caption": "Water pours.", "duration": 10.0},
            ],
        },
    )
    put("BBC_Sound_Effects/bbc_final.json", {"data": [{"id": "2219", "caption": "A steam train."}]})
    put(
        "FreeSound/fsd_final.json",
        {
            "data": [
                {"id": "2219", "caption": "A bell.", "duration": 400.0},
                {"id": "180913", "caption": "A synth.", "duration": 3.5},
            ]
        },
    )
    # Older copies are the list itself.
    put("SoundBible/sb_final.json", [{"id": "2219", "caption": "A plane lands.", "duration": 14.1}])
    put(
        "blacklist/blacklist_exclude_all_ac.json",
        {"AudioSet": ["Yr1nicOVtvkQ.wav"], "FreeSound": []},
    )
    put(
        "blacklist/blacklist_exclude_ub8k_esc50_vggsound.json",
        {"AudioSet": [], "FreeSound": ["180913.wav"]},
    )
    return tmp_path


def test_wavcaps_rows_by_hand(wavcaps_folder):
    pairs = wavcaps.build(WavCapsOptions(), wavcaps_folder).pairs()
    assert [(p.sample, p.text, p.split, p.group) for p in pairs] == [
        ("audio/AudioSet_SL/Yb0RFKhbpFJA.flac", "Wind blows.", "train", "b0RFKhbpFJA"),
        (
            "audio/BBC_Sound_Effects/2219.flac",
            "A steam train.",
            "train",
            "BBC_Sound_Effects:2219",
        ),
        ("audio/FreeSound/2219.flac", "A bell.", "train", "2219"),
        ("audio/SoundBible/2219.flac", "A plane lands.", "train", "SoundBible:2219"),
    ]
    assert len({p.positive_key for p in pairs}) == 4


def test_wavcaps_without_blacklists_and_long_clips(wavcaps_folder):
    options = WavCapsOptions(
        sources=("FreeSound",), blacklists=(), max_duration_s=120, audio="{source}_flac/{id}.flac"
    )
    pairs = wavcaps.build(options, wavcaps_folder).pairs()
    assert [p.sample for p in pairs] == ["FreeSound_flac/180913.flac"]


def test_wavcaps_wrong_files_are_named(wavcaps_folder, write):
    name = "json_files/FreeSound/fsd_final.json"
    write(name, "version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ManifestError, match=r"fsd_final\.json asked for; it is not JSON .*LFS"):
        wavcaps.build(WavCapsOptions(), wavcaps_folder)
    write(name, '{"data": [{"id": "1", "description": "x"}]}')
    with pytest.raises(ManifestError, match=r"key 'caption' asked of .*fsd_final\.json, entry 1"):
        wavcaps.build(WavCapsOptions(), wavcaps_folder)
    write(name, '{"rows": []}')
    with pytest.raises(ManifestError, match="list `data` asked of"):
        wavcaps.build(WavCapsOptions(), wavcaps_folder)


def test_wavcaps_blacklists_are_not_skipped_in_silence(wavcaps_folder, write):
    name = "json_files/blacklist/blacklist_exclude_all_ac.json"
    write(name, '{"other": []}')
    with pytest.raises(ManifestError, match="lists AudioSet and FreeSound asked of"):
        wavcaps.build(WavCapsOptions(), wavcaps_folder)
    (wavcaps_folder / name).unlink()
    with pytest.raises(ManifestError, match=r"blacklist_exclude_all_ac\.json asked for"):
        wavcaps.build(WavCapsOptions(), wavcaps_folder)


def test_auto_acd_rows_by_hand(tmp_path, write):
    write("train.csv", 'youtube_id,caption\nb0RFKhbpFJA,"A bell, far off."\nYr1nicOVtvkQ,Water.\n')
    write("test.csv", "youtube_id,caption\nOxPnZzn1_L8_000883,An engine.\n")
    pairs = auto_acd.build(AutoAcdOptions(audio="{split}/{id}.wav"), tmp_path).pairs()
    assert [(p.sample, p.text, p.split, p.group) for p in pairs] == [
        ("train/b0RFKhbpFJA.wav", "A bell, far off.", "train", "b0RFKhbpFJA"),
        ("train/Yr1nicOVtvkQ.wav", "Water.", "train", "r1nicOVtvkQ"),
        ("test/OxPnZzn1_L8_000883.wav", "An engine.", "test", "OxPnZzn1_L8"),
    ]


def test_audiosetcaps_rows_by_hand(tmp_path, write):
    write("Dataset/AudioSetCaps_caption.csv", "id,caption\nY---1_cCGK4M,A man sings.\n")
    write(
        "Dataset/VGGSound_AudioSetCaps_caption.csv", "id,caption\nOxPnZzn1_L8_000883,An engine.\n"
    )
    write("Dataset/YouTube-8M_AudioSetCaps_caption.csv", "id,caption\n9eUrEyAR3xk_84_10,A crowd.\n")
    options = AudioSetCapsOptions(sources=("audioset", "vggsound", "youtube8m"))
    pairs = audiosetcaps.build(options, tmp_path).pairs()
    assert [(p.sample, p.text, p.split, p.group) for p in pairs] == [
        ("audio/audioset/Y---1_cCGK4M.wav", "A man sings.", "train", "---1_cCGK4M"),
        ("audio/vggsound/OxPnZzn1_L8_000883.wav", "An engine.", "train", "OxPnZzn1_L8"),
        ("audio/youtube8m/9eUrEyAR3xk_84_10.wav", "A crowd.", "train", "9eUrEyAR3xk"),
    ]


def test_groups_name_the_same_video_in_every_set(audiocaps_folder, wavcaps_folder, write):
    """A test clip of AudioCaps can be found in the sets made from AudioSet by its group."""
    write("train.csv", "youtube_id,caption\n7fmOlUlwoNg,Rain.\n")
    write("Dataset/AudioSetCaps_caption.csv", "id,caption\nY7fmOlUlwoNg,Rain.\n")
    tested = groups_by_split(audiocaps.build(AudioCapsOptions(), audiocaps_folder).pairs())["test"]
    acd = auto_acd.build(AutoAcdOptions(splits={"train": "train"}), audiocaps_folder).pairs()
    caps = audiosetcaps.build(AudioSetCapsOptions(), audiocaps_folder).pairs()
    assert {acd[0].group} == {caps[0].group} == tested
