from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from modalbind_depth.datasets.nyu import COMMON_SCENES, FOCAL_PX, build
from modalbind_depth.modality import DepthModality
from modalbind_depth.options import DepthOptions, NyuOptions

from modalbind.api import BrokenSampleError, InputError, ManifestError
from modalbind.testing import check_offer

HEIGHT, WIDTH = 4, 6
KINDS = ["kitchen", "home_office", "playroom", "kitchen"]
RECORDINGS = ["kitchen_0001", "home_office_0002", "playroom_0001", "kitchen_0001b"]
MODALITY = DepthModality(DepthOptions(size_px=8))


def depth_of(number: int) -> np.ndarray:
    """Metres as one sees them, `(height, width)`; each pixel has its own."""
    return number + np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.float32) / 100


def picture_of(number: int) -> np.ndarray:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([rows * 10, columns * 10, np.full_like(rows, number)], 2).astype(np.uint8)


def write_texts(file: h5py.File, name: str, texts: list[str]) -> None:
    """A cell array as MATLAB 7.3 stores it: references to columns of character codes."""
    cells = file.create_dataset(name, (1, len(texts)), h5py.ref_dtype)
    for index, text in enumerate(texts):
        codes = np.array([[ord(letter)] for letter in text], np.uint16)
        cells[0, index] = file.create_dataset(f"#refs#/{name}{index}", data=codes).ref


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small copy in the published layout; MATLAB's axes are reversed in the file."""
    with h5py.File(tmp_path / "nyu_depth_v2_labeled.mat", "w") as file:
        depths = np.stack([depth_of(number) for number in (1, 2, 3, 4)])
        raw = depths.copy()
        raw[:, 0, 0] = 0
        file["depths"] = depths.transpose(0, 2, 1)
        file["rawDepths"] = raw.transpose(0, 2, 1)
        pictures = np.stack([picture_of(number) for number in (1, 2, 3, 4)])
        file["images"] = pictures.transpose(0, 3, 2, 1)
        write_texts(file, "sceneTypes", KINDS)
        write_texts(file, "scenes", RECORDINGS)
    splits = {"trainNdxs": np.array([[4], [2]], np.uint16), "testNdxs": np.array([[1], [3]])}
    scipy.io.savemat(tmp_path / "splits.mat", splits)
    return tmp_path


def built(folder: Path, **options: Any) -> Any:
    return build(NyuOptions.model_validate(options), folder)


def test_the_published_split_and_ten_classes(folder: Path) -> None:
    pairs = built(folder, templates=("a {label}",)).pairs()
    found = [
        (pair.sample, pair.text, pair.split, pair.positive_key, pair.columns["class"])
        for pair in pairs
    ]
    file = "nyu_depth_v2_labeled.mat"
    assert found == [
        (f"{file}#1", "a kitchen", "test", "kitchen", "kitchen"),
        (f"{file}#2", "a home office", "train", "home_office", "home_office"),
        (f"{file}#3", "an indoor scene", "test", "other", "other"),
        (f"{file}#4", "a kitchen", "train", "kitchen", "kitchen"),
    ]
    assert [pair.columns["scene"] for pair in pairs] == KINDS
    assert {pair.language for pair in pairs} == {"en"}


def test_all_kinds_of_scene(folder: Path) -> None:
    pairs = built(folder, templates=("a {label}",), scenes="all").pairs()
    assert [pair.text for pair in pairs] == [
        "a kitchen",
        "a home office",
        "a playroom",
        "a kitchen",
    ]


def test_the_nine_common_kinds_are_those_that_are_published() -> None:
    published = "bedroom kitchen living_room bathroom dining_room office home_office classroom"
    assert set(COMMON_SCENES) == {*published.split(), "bookstore"}


def test_recordings_are_groups_and_never_cut(folder: Path) -> None:
    groups = [pair.group for pair in built(folder, templates=("{label}",)).pairs()]
    assert groups == [f"NYU Depth v2:{name}" for name in RECORDINGS]
    scipy.io.savemat(
        folder / "splits.mat", {"trainNdxs": np.array([[4], [2]]), "testNdxs": np.array([[1]])}
    )
    with h5py.File(folder / "nyu_depth_v2_labeled.mat", "a") as file:
        del file["scenes"], file["#refs#"]["scenes0"]
        for index in range(1, 4):
            del file["#refs#"][f"scenes{index}"]
        write_texts(file, "scenes", ["kitchen_0001"] * 4)
    left = {pair.sample[-1]: pair.split for pair in built(folder).pairs()}
    assert left == {"1": "test"}  # what is tested on is not trained on; 3 is in no split


def test_maps_are_upright_and_in_metres(folder: Path) -> None:
    dataset = built(folder)
    sample = dataset.load_sample("nyu_depth_v2_labeled.mat#2", MODALITY)
    assert torch.equal(sample.values, torch.from_numpy(depth_of(2)))
    assert sample.valid_mask.all()
    assert (sample.focal_px, sample.baseline_m) == (FOCAL_PX, 0.075)


def test_raw_maps_have_holes(folder: Path) -> None:
    sample = built(folder, depths="raw").load_sample("nyu_depth_v2_labeled.mat#3", MODALITY)
    assert sample.valid_mask.sum() == HEIGHT * WIDTH - 1
    assert not sample.valid_mask[0, 0]


def test_pictures_come_out_of_the_same_file(folder: Path) -> None:
    dataset = built(folder)
    key = "nyu_depth_v2_labeled.mat#3"
    assert {pair.image for pair in dataset.pairs() if pair.sample == key} == {key}
    item = dataset.anchor_item("image", key)
    picture = pickle.loads(pickle.dumps(item)).load()
    assert (picture.mode, picture.size) == ("RGB", (WIDTH, HEIGHT))
    np.testing.assert_array_equal(np.asarray(picture), picture_of(3))
    other = dataset.anchor_item("image", "nyu_depth_v2_labeled.mat#1")
    assert len(item.content_hash) == 32 and item.content_hash != other.content_hash
    assert dataset.anchor_item("text", "a kitchen", "en").load() == "a kitchen"
    assert {pair.image for pair in built(folder, images=False).pairs()} == {None}


def test_content_is_known_by_its_numbers(folder: Path) -> None:
    hashes = [
        built(folder, **options).sample_hash(f"nyu_depth_v2_labeled.mat#{number}", MODALITY)
        for options, number in (({}, 1), ({}, 2), ({"depths": "raw"}, 1), ({"baseline_m": 0.1}, 1))
    ]
    assert len(set(hashes)) == 4
    assert {len(one) for one in hashes} == {32}
    assert hashes[0] == built(folder).sample_hash("nyu_depth_v2_labeled.mat#1", MODALITY)


def test_a_worker_reads_for_itself(folder: Path) -> None:
    copy = pickle.loads(pickle.dumps(built(folder)))
    assert copy.load_sample("nyu_depth_v2_labeled.mat#1", MODALITY).values[0, 0] == 1
    assert copy.root == folder


@pytest.mark.parametrize("name", ["nyu_depth_v2_labeled.mat", "splits.mat"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ManifestError, match=f"file {name} asked for.*get it from https://cs.nyu"):
        built(folder)


@pytest.mark.parametrize("name", ["nyu_depth_v2_labeled.mat", "splits.mat"])
def test_a_damaged_file_is_named(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"\0" * 600)
    with pytest.raises(ManifestError, match=f"file {name} asked for.*get it anew") as caught:
        built(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("variable", ["images", "depths", "sceneTypes", "scenes"])
def test_a_file_that_lacks_a_variable(folder: Path, variable: str) -> None:
    with h5py.File(folder / "nyu_depth_v2_labeled.mat", "a") as file:
        del file[variable]
    with pytest.raises(ManifestError, match=variable):
        built(folder)


def test_splits_of_another_file(folder: Path) -> None:
    scipy.io.savemat(folder / "splits.mat", {"trainNdxs": [[1]], "testNdxs": [[1449]]})
    with pytest.raises(ManifestError, match=r"it goes to 1449, .* has 4"):
        built(folder)
    scipy.io.savemat(folder / "splits.mat", {"trainNdxs": [[1]]})
    with pytest.raises(ManifestError, match="it has no 'testNdxs'"):
        built(folder)


@pytest.mark.parametrize("key", ["nyu_depth_v2_labeled.mat#5", "nyu_depth_v2_labeled.mat#x"])
def test_a_map_that_is_not_there(folder: Path, key: str) -> None:
    with pytest.raises(BrokenSampleError):
        built(folder).load_sample(key, MODALITY)


def test_a_file_that_went_away(folder: Path) -> None:
    dataset = built(folder)
    (folder / "nyu_depth_v2_labeled.mat").unlink()
    with pytest.raises(BrokenSampleError) as caught:
        dataset.load_sample("nyu_depth_v2_labeled.mat#1", MODALITY)
    assert caught.value.reason == "missing"


@pytest.mark.parametrize("package", ["h5py", "scipy"])
def test_a_missing_package_is_named(
    folder: Path, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, f"{package}.io" if package == "scipy" else package, None)
    with pytest.raises(InputError, match=rf"{package} is not installed; pip install 'modalbind-d"):
        built(folder)


def test_the_contract_of_data_sets(folder: Path) -> None:
    report = check_offer("dataset", "nyu-depth-v2", {"scenes": "all"}, root=folder)
    assert report.ok, report.failed
    tried = {result.check: result.status for result in report.results if "dataset" in result.check}
    # Its samples are no files of the modality: what is broken is tested above, on its own reader.
    assert tried.pop("dataset.broken-samples") == "skipped"
    assert len(tried) >= 5
    assert set(tried.values()) == {"passed"}, tried
