from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from modalbind_depth.datasets.sun_rgbd import COMMON_SCENES, build
from modalbind_depth.modality import DepthModality
from modalbind_depth.options import DepthOptions, SunRgbdOptions
from PIL import Image

from modalbind.api import BrokenSampleError, ManifestError
from modalbind.testing import check_offer

MODALITY = DepthModality(DepthOptions(size_px=8))
FOLDERS = {
    "kv1/NYUdata/NYU0001": ("test", "kitchen"),
    "kv1/b3dodata/img_0063": ("train", "office"),
    "kv2/kinect2data/000002_2014-05-26_14-23-37_rgbf000103-resize": ("train", "classroom"),
    "realsense/lg/2014_10_21-18_16_30-1311000073": ("train", "idk"),
    "xtion/sun3ddata/brown_bm_1/brown_bm_1/0000051": ("test", "lab"),
    "xtion/sun3ddata/harvard_c5/hv_c5_1/0001": ("train", "printer_room"),
}


def write_sample(folder: Path, scene: str, depth_mm: int) -> None:
    stored = (depth_mm << 3 | depth_mm >> 13) & 0xFFFF
    numbers = np.full((4, 6), stored, np.uint16)
    numbers[0, 0] = 0
    for name in ("depth", "depth_bfx"):
        (folder / name).mkdir(parents=True)
        Image.fromarray(numbers).save(folder / name / f"{folder.name[:4]}_abs.png")
        numbers = numbers.copy()
        numbers[0, 0] = stored  # its hole is filled in the second
    (folder / "image").mkdir()
    Image.new("RGB", (6, 4), (depth_mm % 256, 0, 0)).save(folder / "image" / "0001.jpg")
    (folder / "scene.txt").write_text(scene)
    (folder / "intrinsics.txt").write_text("529.5 0.000000 365 0 529.5 265 0 0 1 \n")


def write_split(root: Path, folders: dict[str, tuple[str, str]]) -> None:
    """Cell arrays of one row, with the paths of the authors' own machine."""
    cells: dict[str, Any] = {}
    for name, split in (("alltrain", "train"), ("alltest", "test")):
        paths = [
            f"/n/fs/sun3d/data/SUNRGBD/{key}" for key, (own, _) in folders.items() if own == split
        ]
        cells[name] = np.empty((1, len(paths)), object)
        cells[name][0, :] = paths
    path = root / "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat"
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, cells)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for index, (key, (_, scene)) in enumerate(FOLDERS.items()):
        write_sample(tmp_path / "SUNRGBD" / key, scene, 1000 * (index + 1))
    write_split(tmp_path, FOLDERS)
    return tmp_path


def built(root: Path, **options: Any) -> Any:
    return build(SunRgbdOptions.model_validate({"templates": ("a {label}",), **options}), root)


def keys(dataset: Any) -> list[str]:
    return [pair.sample for pair in dataset.pairs()]


def test_the_published_split_and_nineteen_classes(root: Path) -> None:
    found = {
        "/".join(pair.sample.split("/")[1:-2]): (pair.split, pair.text, pair.positive_key)
        for pair in built(root).pairs()
    }
    assert found == {
        key: (split, f"a {scene}", scene)
        for key, (split, scene) in FOLDERS.items()
        if scene not in ("idk", "printer_room")
    }


def test_all_scenes_that_have_a_name(root: Path) -> None:
    scenes = [pair.columns["class"] for pair in built(root, scenes="all").pairs()]
    assert sorted(scenes) == ["classroom", "kitchen", "lab", "office", "printer_room"]


def test_there_are_nineteen() -> None:
    assert len(set(COMMON_SCENES)) == 19
    assert list(COMMON_SCENES) == sorted(COMMON_SCENES)


def test_cameras_and_what_came_from_nyu_can_be_left_out(root: Path) -> None:
    assert [key.split("/")[1] for key in keys(built(root, sensors=("kv2",)))] == ["kv2"]
    assert not any("NYUdata" in key for key in keys(built(root, include_nyu=False)))
    assert len(keys(built(root, include_nyu=False))) == 3


def test_pictures_lie_beside_the_maps(root: Path) -> None:
    dataset = built(root)
    for pair in dataset.pairs():
        assert pair.image == f"{pair.sample.rsplit('/', 2)[0]}/image/0001.jpg"
        assert dataset.anchor_item("image", pair.image).load().size == (6, 4)
    assert {pair.image for pair in built(root, images=False).pairs()} == {None}


def test_maps_are_read_with_the_bits_turned_and_their_camera(root: Path) -> None:
    dataset = built(root)
    (key,) = [key for key in keys(dataset) if "/kv2/" in f"/{key}"]
    sample = dataset.load_sample(key, MODALITY)
    assert key.split("/")[-2] == "depth_bfx"
    assert sample.values.tolist() == [[3.0] * 6] * 4  # the third: 3000 mm
    assert (sample.focal_px, sample.baseline_m) == (529.5, 0.075)
    (key,) = [key for key in keys(dataset) if "/xtion/" in f"/{key}"]
    assert dataset.load_sample(key, MODALITY).baseline_m == 0.095


def test_raw_maps_have_holes(root: Path) -> None:
    dataset = built(root, depths="raw")
    for key in keys(dataset):
        assert key.split("/")[-2] == "depth"
        assert dataset.load_sample(key, MODALITY).valid_mask.sum() == 23


def test_places_of_sun3d_are_groups(root: Path) -> None:
    groups = {pair.sample.split("/")[2]: pair.group for pair in built(root).pairs()}
    assert groups["sun3ddata"] == "SUN RGB-D:xtion/sun3ddata/brown_bm_1"
    assert groups["NYUdata"] == "SUN RGB-D:kv1/NYUdata/NYU0001"


def test_a_place_is_never_cut(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    key = "xtion/sun3ddata/brown_bm_1/brown_bm_1/0000099"
    write_sample(root / "SUNRGBD" / key, "lab", 2000)
    write_split(root, {**FOLDERS, key: ("train", "lab")})
    with caplog.at_level(logging.WARNING):
        assert not any("0000099" in key for key in keys(built(root)))
    assert "1 of 5 maps left out: its group is also in a later split" in caplog.text


def test_content_is_bytes_and_camera(root: Path) -> None:
    dataset = built(root)
    key = keys(dataset)[0]
    digest = dataset.sample_hash(key, MODALITY)
    assert len(digest) == 32
    assert digest == built(root).sample_hash(key, MODALITY)
    assert digest != dataset.sample_hash(keys(dataset)[1], MODALITY)
    name = root / key.rsplit("/", 2)[0] / "intrinsics.txt"
    name.write_text("600 0 365 0 600 265 0 0 1")
    assert digest != dataset.sample_hash(key, MODALITY)


def test_a_worker_reads_for_itself(root: Path) -> None:
    dataset = pickle.loads(pickle.dumps(built(root)))
    assert dataset.load_sample(keys(dataset)[0], MODALITY).valid_mask.all()


def test_a_missing_list_is_named(root: Path) -> None:
    path = root / "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat"
    path.write_bytes(b"\0" * 600)
    with pytest.raises(ManifestError, match=r"allsplit.mat asked for.*get it anew"):
        built(root)
    path.unlink()
    with pytest.raises(ManifestError, match=r"allsplit.mat asked for.*https://rgbd.cs.princeton"):
        built(root)


def test_a_list_of_other_paths(root: Path) -> None:
    cells = np.empty((1, 1), object)
    cells[0, 0] = "/elsewhere/x"
    path = root / "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat"
    scipy.io.savemat(path, {"alltrain": cells, "alltest": cells})
    with pytest.raises(ManifestError, match="not below SUNRGBD"):
        built(root)


@pytest.mark.parametrize("part", ["scene.txt", "depth_bfx", "image"])
def test_a_sample_that_lacks_a_part(root: Path, part: str) -> None:
    where = root / "SUNRGBD/kv1/b3dodata/img_0063" / part
    where.rename(where.with_name("gone"))
    with pytest.raises(ManifestError, match=f"kv1/b3dodata/img_0063/{part}.*princeton"):
        built(root)


def test_only_existing_leaves_out_folders_that_are_not_there(root: Path) -> None:
    folder = root / "SUNRGBD/kv1/b3dodata/img_0063"
    folder.rename(root / "gone")
    assert len(keys(built(root, only_existing=True))) == 3


@pytest.mark.parametrize("text", ["", "f 0 365", "nan 0 0", "-5 0 0"])
def test_a_camera_that_cannot_be(root: Path, text: str) -> None:
    dataset = built(root)
    key = keys(dataset)[0]
    (root / key.rsplit("/", 2)[0] / "intrinsics.txt").write_text(text)
    with pytest.raises(BrokenSampleError, match=r"intrinsics\.txt") as caught:
        dataset.load_sample(key, MODALITY)
    assert caught.value.reason == "undecodable"


def test_a_map_that_went_away(root: Path) -> None:
    dataset = built(root)
    key = keys(dataset)[0]
    (root / key).unlink()
    with pytest.raises(BrokenSampleError) as caught:
        dataset.load_sample(key, MODALITY)
    assert caught.value.reason == "missing"


def test_a_link_out_of_the_folder_is_refused(root: Path, tmp_path_factory: Any) -> None:
    dataset = built(root)
    key = keys(dataset)[0]
    outside = tmp_path_factory.mktemp("outside") / "map.png"
    (root / key).rename(outside)
    (root / key).symlink_to(outside)
    with pytest.raises(ManifestError, match="outside the data root"):
        dataset.load_sample(key, MODALITY)


def test_the_contract_of_data_sets(root: Path) -> None:
    report = check_offer("dataset", "sun-rgbd", {}, root=root)
    assert report.ok, report.failed
    tried = {result.check: result.status for result in report.results if "dataset" in result.check}
    # Its samples are no files of the modality: what is broken is tested above, on its own reader.
    assert tried.pop("dataset.broken-samples") == "skipped"
    assert len(tried) >= 5
    assert set(tried.values()) == {"passed"}, tried
