"""LLVIP on a small made-up copy in the published layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from modalbind_thermal.datasets.llvip import build
from modalbind_thermal.datasets.options import LlvipOptions
from modalbind_thermal.modality import ThermalModality
from modalbind_thermal.options import ThermalOptions
from PIL import Image

from modalbind.api import ManifestError
from modalbind.testing import check_dataset

PEOPLE = {"010001": ["person", "person"], "010002": [], "190001": ["person"]}


def write_annotation(folder: Path, stem: str) -> None:
    boxes = "".join(
        f"<object><name>{name}</name><bndbox><xmin>1</xmin></bndbox></object>"
        for name in PEOPLE[stem]
    )
    path = folder / f"Annotations/{stem}.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"<annotation><filename>{stem}.jpg</filename>{boxes}</annotation>", encoding="utf-8"
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for stem in PEOPLE:
        part = "test" if stem == "190001" else "train"
        for kind, grey in (("infrared", 80), ("visible", 20)):
            path = tmp_path / f"LLVIP/{kind}/{part}/{stem}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 10, 3), grey, np.uint8)).save(path)
        write_annotation(tmp_path / "LLVIP", stem)
    return tmp_path


def test_rows_by_hand(root):
    dataset = build(LlvipOptions(folder="LLVIP"), root)
    assert dataset.name == "LLVIP"
    assert "non-commercial" in dataset.licence
    assert [(p.sample, p.text, p.image, p.split, p.group) for p in dataset.pairs()] == [
        ("infrared/train/010001.jpg", None, "visible/train/010001.jpg", "train", "llvip-01"),
        ("infrared/train/010002.jpg", None, "visible/train/010002.jpg", "train", "llvip-01"),
        ("infrared/test/190001.jpg", None, "visible/test/190001.jpg", "test", "llvip-19"),
    ]
    assert len({p.positive_key for p in dataset.pairs()}) == 3


def test_texts_come_from_the_boxes_when_asked(root):
    options = LlvipOptions(folder="LLVIP", texts=True, templates=("heat of {classes}",))
    assert [
        (p.text, p.image is not None, p.positive_key, p.columns["class"])
        for p in build(options, root).pairs()
    ] == [
        ("heat of people", True, "person", "person"),
        ("heat of nobody", True, "nobody", "nobody"),
        ("heat of people", True, "person", "person"),
    ]
    assert len(build(LlvipOptions(folder="LLVIP", texts=True), root).pairs()) == 3 * 3


def test_samples_are_counts_and_pictures_are_theirs(root):
    dataset = build(LlvipOptions(folder="LLVIP"), root)
    thermal = ThermalModality(ThermalOptions(encoding="counts8", mixes_colours=True))
    pair = dataset.pairs()[0]
    sample = dataset.load_sample(pair.sample, thermal)
    torch.testing.assert_close(sample.values, torch.full((8, 10), 80.0), atol=1.0, rtol=0)
    picture = dataset.anchor_item("image", pair.image).load()
    assert picture.size == (10, 8) and picture.getpixel((3, 3))[0] == pytest.approx(20, abs=1)


def test_a_place_of_the_test_part_is_not_trained_on(root):
    for kind in ("infrared", "visible"):
        folder = root / "LLVIP" / kind
        (folder / "train/190007.jpg").write_bytes((folder / "test/190001.jpg").read_bytes())
    samples = [p.sample for p in build(LlvipOptions(folder="LLVIP"), root).pairs()]
    assert "infrared/train/190007.jpg" not in samples and len(samples) == 3


def test_one_part_is_enough(root):
    pairs = build(LlvipOptions(folder="LLVIP", splits={"train": "val"}), root).pairs()
    assert [p.split for p in pairs] == ["val", "val"]


@pytest.mark.parametrize(
    ("gone", "named"),
    [
        ("visible/train/010002.jpg", "file visible/train/010002.jpg asked for"),
        ("Annotations/190001.xml", "file Annotations/190001.xml asked for"),
        ("infrared/test/190001.jpg", r"pictures infrared/test/\*\.jpg asked for"),
    ],
)
def test_a_missing_file_is_named_with_where_it_comes_from(root, gone, named):
    (root / "LLVIP" / gone).unlink()
    with pytest.raises(ManifestError, match=named) as caught:
        build(LlvipOptions(folder="LLVIP", texts=True), root)
    assert "bupt-ai-cz.github.io/LLVIP" in str(caught.value)


def test_strange_names_and_annotations_are_refused(root):
    (root / "LLVIP/Annotations/010001.xml").write_text("<annotation>", encoding="utf-8")
    with pytest.raises(ManifestError, match=r"010001\.xml asked for; it is not XML"):
        build(LlvipOptions(folder="LLVIP", texts=True), root)
    for kind in ("infrared", "visible"):
        folder = root / "LLVIP" / kind / "train"
        (folder / "010001.jpg").rename(folder / "night.jpg")
    with pytest.raises(ManifestError, match=r"the place of picture 'night\.jpg'"):
        build(LlvipOptions(folder="LLVIP"), root)


def test_the_contract_of_data_sets(root):
    report = check_dataset("llvip", {"folder": "LLVIP"}, root)
    assert report.ok, report.failed
    tried = {row.check: row.status for row in report.results if row.check.startswith("dataset.")}
    assert len(tried) >= 6 and set(tried.values()) == {"passed"}, tried
