"""Data sets on made-up copies in their published layout."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from modalbind_text.datasets import (
    SPECS,
    coco,
    crossmodal3600,
    lines,
    multi30k,
    options,
    sentences,
    xtd,
)

from modalbind.api import ManifestError


def write(path: Path, *rows: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def told(dataset) -> list[tuple[str, str, str | None]]:
    return [(pair.sample_language, pair.text, pair.image) for pair in dataset.pairs()]


@pytest.fixture
def xtd_folder(tmp_path: Path) -> Path:
    write(tmp_path / "XTD10/test_image_names.txt", "COCO_val2014_1.jpg", "COCO_train2014_2.jpg")
    write(tmp_path / "XTD10/test_1kcaptions_en.txt", "a dog", "a cat")
    write(tmp_path / "MIC/test_1kcaptions_de.txt", "ein Hund", "eine Katze")
    write(tmp_path / "STAIR/test_1kcaptions_jp.txt", "犬", "猫")
    return tmp_path


def test_xtd_is_read_line_by_line_from_its_three_folders(xtd_folder: Path) -> None:
    found = xtd.build(options.XtdOptions(languages=("en", "de", "ja")), xtd_folder)
    assert told(found) == [
        ("en", "a dog", "val2014/COCO_val2014_1.jpg"),
        ("de", "ein Hund", "val2014/COCO_val2014_1.jpg"),
        ("ja", "犬", "val2014/COCO_val2014_1.jpg"),
        ("en", "a cat", "train2014/COCO_train2014_2.jpg"),
        ("de", "eine Katze", "train2014/COCO_train2014_2.jpg"),
        ("ja", "猫", "train2014/COCO_train2014_2.jpg"),
    ]
    pairs = found.pairs()
    assert {pair.split for pair in pairs} == {"test"}
    assert pairs[0].positive_key == pairs[2].positive_key != pairs[3].positive_key


def test_a_missing_language_says_where_it_comes_from(xtd_folder: Path) -> None:
    with pytest.raises(ManifestError, match=r"XTD-11: file XTD10/test_1kcaptions_es.*github"):
        xtd.build(options.XtdOptions(), xtd_folder)


def test_files_that_do_not_belong_together_are_told(xtd_folder: Path) -> None:
    write(xtd_folder / "MIC/test_1kcaptions_de.txt", "ein Hund")
    with pytest.raises(ManifestError, match="en 2, de 1, pictures 2"):
        xtd.build(options.XtdOptions(languages=("en", "de")), xtd_folder)


def test_multi30k_is_read_packed_too(tmp_path: Path) -> None:
    folder = tmp_path / "data/task1"
    write(folder / "image_splits/val.txt", "1.jpg", "2.jpg")
    write(folder / "raw/val.en", "A dog.", "A cat.")
    (folder / "raw/val.cs.gz").write_bytes(gzip.compress("Pes.\nKočka.\n".encode()))
    found = multi30k.build(options.Multi30kOptions(part="val", languages=("en", "cs")), tmp_path)
    assert told(found)[:2] == [
        ("en", "A dog.", "flickr30k-images/1.jpg"),
        ("cs", "Pes.", "flickr30k-images/1.jpg"),
    ]
    assert {pair.split for pair in found.pairs()} == {"val"}
    (folder / "raw/val.cs.gz").write_bytes(b"\x1f\x8bno")
    with pytest.raises(ManifestError, match="get it anew from"):
        multi30k.build(options.Multi30kOptions(part="val", languages=("en", "cs")), tmp_path)


def test_crossmodal_has_several_captions_a_language(tmp_path: Path) -> None:
    row = {
        "image/key": "ab12",
        "image/locale": "de",
        "en": {"caption": ["A dog.", "A brown dog."], "caption/tokenized": ["x"]},
        "quz": {"caption": ["Alqo."]},
    }
    write(tmp_path / "captions.jsonl", json.dumps(row), "")
    found = crossmodal3600.build(options.Crossmodal3600Options(), tmp_path)
    assert told(found) == [
        ("en", "A dog.", "images/ab12.jpg"),
        ("en", "A brown dog.", "images/ab12.jpg"),
        ("quz", "Alqo.", "images/ab12.jpg"),
    ]
    only = crossmodal3600.build(options.Crossmodal3600Options(languages=("quz", "sw")), tmp_path)
    assert [pair.sample_language for pair in only.pairs()] == ["quz"]
    write(tmp_path / "captions.jsonl", '{"image/locale": "de"}')
    with pytest.raises(ManifestError, match=r"line 1 of captions\.jsonl"):
        crossmodal3600.build(options.Crossmodal3600Options(), tmp_path)


def test_own_translations_may_have_no_pictures(tmp_path: Path) -> None:
    write(tmp_path / "en.txt", "rain on a roof", "a bell")
    write(tmp_path / "sw.txt", "mvua kwenye paa", "")
    given = options.LinesOptions(files={"en": "en.txt", "sw": "sw.txt"}, name="mine")
    found = lines.build(given, tmp_path)
    assert told(found) == [
        ("en", "rain on a roof", None),
        ("sw", "mvua kwenye paa", None),
        ("en", "a bell", None),
    ]
    assert found.name == "mine" and len({pair.positive_key for pair in found.pairs()}) == 2
    with pytest.raises(ManifestError, match="does not stay inside"):
        lines.build(options.LinesOptions(files={"en": "../en.txt"}), tmp_path)


def test_coco_captions_train(tmp_path: Path) -> None:
    rows = [{"image_id": i // 2, "caption": f" caption {i} "} for i in range(10)]
    path = tmp_path / "annotations/captions_train2014.json"
    write(path, json.dumps({"annotations": rows}))
    found = coco.build(options.CocoOptions(), tmp_path)
    assert [pair.text for pair in found.pairs()] == [f"caption {i}" for i in range(10)]
    assert len({pair.group for pair in found.pairs()}) == 5
    assert {(pair.split, pair.language) for pair in found.pairs()} == {("train", "en")}
    write(path, "{}")
    with pytest.raises(ManifestError, match="not as published"):
        coco.build(options.CocoOptions(), tmp_path)


def test_sentences_are_drawn_by_seed_and_repeats_count_once(tmp_path: Path) -> None:
    write(tmp_path / "s.txt", *(f"sentence {i % 50}" for i in range(100)), "  ", "")
    whole = sentences.build(options.SentencesOptions(path="s.txt"), tmp_path)
    assert [pair.text for pair in whole.pairs()] == [f"sentence {i}" for i in range(50)]

    def draw(seed: int) -> list[str]:
        given = options.SentencesOptions(path="s.txt", limit=10, seed=seed)
        return [pair.text for pair in sentences.build(given, tmp_path).pairs()]

    assert draw(0) == draw(0) != draw(1) and len(set(draw(0))) == 10
    with pytest.raises(ManifestError, match=r"51 sentences of .* asked for; it has 50"):
        sentences.build(options.SentencesOptions(path="s.txt", limit=51), tmp_path)
    with pytest.raises(ManifestError, match="give a text file in UTF-8"):
        sentences.build(options.SentencesOptions(path="no.txt"), tmp_path)


def test_no_adapter_is_forgotten() -> None:
    assert {spec.name for spec in SPECS} == {
        "sentences", "lines", "xtd-11", "multi30k", "crossmodal-3600", "coco-captions",
    }  # fmt: skip
