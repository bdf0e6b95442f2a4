"""FLIR ADAS 1.3 and 2 on small made-up copies in the published layouts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from modalbind_thermal.datasets import SPECS, flir_v1, flir_v2
from modalbind_thermal.datasets.classes import class_texts
from modalbind_thermal.datasets.options import AnnotatedOptions, FlirV1Options, FlirV2Options
from modalbind_thermal.modality import ThermalModality
from modalbind_thermal.options import ThermalOptions
from PIL import Image
from pydantic import ValidationError

from modalbind.api import ManifestError
from modalbind.testing import check_dataset

ONE = ("heat of {classes}",)
COCO = [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}, {"id": 10, "name": "light"}]


def write_boxes(
    path: Path, pictures: Sequence[tuple[str, Sequence[int]]], categories: object = None
) -> None:
    """Write a COCO file: each picture's name, and the category of each of its boxes."""
    content = {
        "images": [{"id": i, "file_name": name} for i, (name, _) in enumerate(pictures)],
        "annotations": [
            {"image_id": i, "category_id": number}
            for i, (_, numbers) in enumerate(pictures)
            for number in numbers
        ],
    }
    if categories is not None:
        content["categories"] = categories
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def write_picture(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """Version 1.3: three frames to train on, the second without a colour picture."""
    for part, stems in (("train", ("00001", "00002", "00003")), ("val", ("08863",))):
        rows = [
            (f"thermal_8_bit/FLIR_{stem}.jpeg", [3, 1, 3][: 3 - i]) for i, stem in enumerate(stems)
        ]
        write_boxes(tmp_path / f"{part}/thermal_annotations.json", rows)
        for stem in stems:
            write_picture(
                tmp_path / f"{part}/thermal_8_bit/FLIR_{stem}.jpeg", np.full((6, 8), 99, np.uint8)
            )
            write_picture(
                tmp_path / f"{part}/thermal_16_bit/FLIR_{stem}.tiff",
                np.full((6, 8), 7400, np.uint16),
            )
            if stem != "00002":
                write_picture(
                    tmp_path / f"{part}/RGB/FLIR_{stem}.jpg", np.full((9, 9, 3), 50, np.uint8)
                )
    return tmp_path


def test_version_1_rows_by_hand(first):
    dataset = flir_v1.build(FlirV1Options(), first)
    assert [(p.sample, p.text, p.image, p.split, p.group) for p in dataset.pairs()] == [
        (
            f"{part}/thermal_8_bit/FLIR_{stem}.jpeg",
            None,
            f"{part}/RGB/FLIR_{stem}.jpg",
            split,
            f"flir-adas-1.3-{part}",
        )
        for part, stem, split in [
            ("train", "00001", "train"),
            ("train", "00003", "train"),
            ("val", "08863", "test"),
        ]
    ]


def test_version_1_texts_by_hand(first):
    options = FlirV1Options(texts=True, templates=ONE, needs_picture=False)
    found = [
        (p.sample[-10:], p.text, p.image is None, p.positive_key)
        for p in flir_v1.build(options, first).pairs()
    ]
    # Boxes by hand: cars and a person, then a car and a person, then a car; in val all three.
    assert found == [
        ("00001.jpeg", "heat of cars and people", False, "car+person"),
        ("00002.jpeg", "heat of cars and people", True, "car+person"),
        ("00003.jpeg", "heat of cars", False, "car"),
        ("08863.jpeg", "heat of cars and people", False, "car+person"),
    ]


def test_version_1_blocks_and_16_bit_files(first):
    options = FlirV1Options(files="thermal_16_bit", block_frames=2)
    dataset = flir_v1.build(options, first)
    assert [p.group[len("flir-adas-1.3-") :] for p in dataset.pairs()] == [
        "train-0",
        "train-1",
        "val-0",
    ]
    linear = ThermalOptions(encoding="linear", scale_c=0.04, offset_c=-273.15)
    sample = dataset.load_sample(dataset.pairs()[0].sample, ThermalModality(linear))
    assert float(sample.values[0, 0]) == pytest.approx(7400 * 0.04 - 273.15, abs=1e-4)


@pytest.mark.parametrize(
    ("gone", "named"),
    [
        ("val/thermal_annotations.json", "file val/thermal_annotations.json asked for"),
        ("val/RGB/FLIR_08863.jpg", r"pictures val/RGB/\*\.jpg asked for"),
    ],
)
def test_version_1_missing_files_are_named(first, gone, named):
    (first / gone).unlink()
    with pytest.raises(ManifestError, match=named) as caught:
        flir_v1.build(FlirV1Options(), first)
    assert "flir.com/oem/adas" in str(caught.value)


def frame(video: str, number: int, tail: str = "abc") -> str:
    return f"video-{video}-frame-{number:06d}-{tail}.jpg"


@pytest.fixture
def second(tmp_path: Path) -> Path:
    """Version 2: two frames of images, three of two videos of which two are paired."""
    write_boxes(
        tmp_path / "images_thermal_train/coco.json",
        [(f"data/{frame('aaa', 15)}", [10, 1]), (f"data/{frame('aaa', 30)}", [])],
        COCO,
    )
    write_boxes(
        tmp_path / "video_thermal_test/coco.json",
        [
            (f"data/{frame('ttt', 0)}", [3]),
            (f"data/{frame('ttt', 1)}", [3]),
            (f"data/{frame('uuu', 4)}", [1]),
        ],
        COCO,
    )
    pairs = {
        frame("rgb", 0, "x"): frame("ttt", 0),
        frame("rgc", 4, "y"): frame("uuu", 4),
    }
    (tmp_path / "rgb_to_thermal_vid_map.json").write_text(json.dumps(pairs), encoding="utf-8")
    return tmp_path


def test_version_2_pairs_are_those_of_the_map(second):
    dataset = flir_v2.build(FlirV2Options(), second)
    # The frame that the map does not name has neither picture nor text.
    assert [(p.sample, p.text, p.image, p.split, p.group) for p in dataset.pairs()] == [
        (
            f"video_thermal_test/data/{frame('ttt', 0)}",
            None,
            f"video_rgb_test/data/{frame('rgb', 0, 'x')}",
            "",
            "flir-ttt",
        ),
        (
            f"video_thermal_test/data/{frame('uuu', 4)}",
            None,
            f"video_rgb_test/data/{frame('rgc', 4, 'y')}",
            "",
            "flir-uuu",
        ),
    ]


def test_version_2_texts_of_images_and_every_so_many_frames(second):
    options = FlirV2Options(
        texts=True,
        templates=ONE,
        splits={"images_train": "train", "video_test": "test"},
        every_frames=4,
    )
    assert [
        (p.sample, p.text, p.image is None, p.split, p.positive_key)
        for p in flir_v2.build(options, second).pairs()
    ] == [
        (
            f"images_thermal_train/data/{frame('aaa', 15)}",
            "heat of people and traffic lights",
            True,
            "train",
            "light+person",
        ),
        (f"video_thermal_test/data/{frame('ttt', 0)}", "heat of cars", False, "test", "car"),
        (f"video_thermal_test/data/{frame('uuu', 4)}", "heat of people", False, "test", "person"),
    ]


def test_version_2_raw_files(second):
    pairs = flir_v2.build(FlirV2Options(files="analyticsData"), second).pairs()
    assert pairs[0].sample == "video_thermal_test/analyticsData/video-ttt-frame-000000-abc.tiff"


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("rgb_to_thermal_vid_map.json", None, "file rgb_to_thermal_vid_map.json asked for"),
        ("rgb_to_thermal_vid_map.json", '["a"]', "not a map from file names"),
        ("video_thermal_test/coco.json", None, "file video_thermal_test/coco.json asked for"),
        ("video_thermal_test/coco.json", '{"images": []}', "not as published"),
        ("video_thermal_test/coco.json", "[1]", "not as published"),
    ],
)
def test_version_2_missing_and_strange_files(second, name, content, complaint):
    if content is None:
        (second / name).unlink()
    else:
        (second / name).write_text(content, encoding="utf-8")
    with pytest.raises(ManifestError, match=complaint) as caught:
        flir_v2.build(FlirV2Options(), second)
    assert "adas-dataset-v2.flirconservator.com" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_classes_and_names_are_refused(second, tmp_path):
    write_boxes(second / "video_thermal_test/coco.json", [(f"data/{frame('ttt', 0)}", [99])], COCO)
    with pytest.raises(ManifestError, match="KeyError: 99"):
        flir_v2.build(FlirV2Options(), second)
    write_boxes(second / "video_thermal_test/coco.json", [("data/frame-1.jpg", [1])], COCO)
    with pytest.raises(ManifestError, match=r"the video of picture 'frame-1\.jpg'"):
        flir_v2.build(FlirV2Options(), second)


def test_wording_of_classes():
    options = AnnotatedOptions(texts=True, templates=("{classes} at night",))
    assert class_texts(["car", "bike", "person", "car"], options) == (
        "bicycles, cars and people at night",
    )
    assert class_texts(["submarine"], options) == ("submarine at night",)
    assert class_texts([], options) == ()
    assert class_texts([], options, nothing="nobody") == ("nobody at night",)
    assert class_texts(["car"], AnnotatedOptions()) == ()
    with pytest.raises(ValidationError, match=r"lacks \{classes\}"):
        AnnotatedOptions(templates=("a picture",))


def test_specs_are_complete():
    assert [spec.name for spec in SPECS] == ["llvip", "flir-adas-v1", "flir-adas-v2"]
    for spec in SPECS:
        assert all(field.description for field in spec.options.model_fields.values())


@pytest.mark.parametrize("version", ["first", "second"])
def test_the_contract_of_data_sets(version, request):
    number = {"first": 1, "second": 2}[version]
    root = request.getfixturevalue(version)
    for level, (thermal, colour) in enumerate(SECOND_PICTURES if number == 2 else ()):
        grey = np.full((4, 6), 90 + 40 * level, np.uint8)
        write_picture(root / "video_thermal_test/data" / thermal, grey)
        write_picture(root / "video_rgb_test/data" / colour, np.stack([grey] * 3, axis=2))
    report = check_dataset(f"flir-adas-v{number}", {}, root)
    assert report.ok, report.failed
    tried = {row.check: row.status for row in report.results if row.check.startswith("dataset.")}
    assert len(tried) >= 6 and set(tried.values()) == {"passed"}, tried


SECOND_PICTURES = (
    (frame("ttt", 0), frame("rgb", 0, "x")),
    (frame("uuu", 4), frame("rgc", 4, "y")),
)
