from __future__ import annotations

import hashlib
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from modalbind_depth.modality import DepthModality, build
from modalbind_depth.options import DepthOptions
from modalbind_depth.sample import DepthSample, build_sample

from modalbind.api import BrokenSampleError, InputError, MapSample, render_depth
from modalbind.world import build_scenes

NAN = float("nan")


def modality_of(**options: Any) -> DepthModality:
    return build(DepthOptions.model_validate(options))


def sample_of(rows: list[list[float]], **camera: float) -> DepthSample:
    return build_sample(np.array(rows, np.float32), "here", **camera)


EIGHT = [[0.05, 1, 2, 4, 8, 20, 3, NAN]] * 8


def test_depth_is_clipped_and_standardised() -> None:
    features = modality_of(size_px=8, clip_min_m=0.5, mean=3, std=2).features(sample_of(EIGHT))
    assert features.shape == (1, 8, 8)
    assert features.dtype == torch.float32
    # (0.5 - 3) / 2 … (8 - 3) / 2, and what is missing is 0 after that.
    for row in features[0]:
        assert row.tolist() == [-1.25, -1, -0.5, 0.5, 2.5, 2.5, 0, 0]


def test_disparity_in_pixels() -> None:
    options = {"representation": "disparity", "size_px": 8, "clip_min_m": 0.5}
    camera = {"focal_px": 500.0, "baseline_m": 0.08}  # 40 px at 1 m
    expected = [7.0, 3.0, 1.0, 0.0, -0.5, -0.5, 1 / 3, 0.0]  # (40 / depth - 10) / 10
    from_options = modality_of(**options, mean=10, std=10, **camera).features(sample_of(EIGHT))
    assert from_options[0, 3].tolist() == pytest.approx(expected)
    from_sample = modality_of(**options, mean=10, std=10).features(sample_of(EIGHT, **camera))
    assert torch.equal(from_sample, from_options)


def test_a_sample_that_knows_its_camera_keeps_it() -> None:
    options = {"representation": "disparity", "size_px": 8, "mean": 0, "std": 1}
    modality = modality_of(**options, focal_px=1000.0, baseline_m=1.0)
    features = modality.features(sample_of([[2.0] * 8] * 8, focal_px=500.0))
    assert features[0, 0, 0] == 250  # its own focal length, the recipe's baseline


@pytest.mark.parametrize(
    "known, lacking",
    [({}, "focal_px"), ({"focal_px": 500.0}, "baseline_m"), ({"baseline_m": 0.1}, "focal_px")],
)
def test_disparity_without_a_camera_is_refused(known: dict[str, float], lacking: str) -> None:
    modality = modality_of(representation="disparity", size_px=8, mean=0, std=1, **known)
    with pytest.raises(InputError, match=f"disparity asked for.*{lacking}"):
        modality.features(sample_of(EIGHT))


def test_logarithm_of_metres() -> None:
    modality = modality_of(representation="log_depth", size_px=8, mean=math.log(2), std=math.log(2))
    features = modality.features(sample_of([[1, 2, 4, 8, NAN, 1, 1, 1]] * 8))
    assert features[0, 0].tolist() == pytest.approx([-1, 0, 1, 2, 0, -1, -1, -1], abs=1e-6)


def test_missing_pixels_take_no_part_when_a_map_is_made_smaller() -> None:
    rows = [[2.0, NAN] * 8] * 8 + [[NAN, 6.0] * 8] * 8
    features = modality_of(size_px=8, mean=0, std=1).features(sample_of(rows))
    assert (features[0, :4] == 2).all()
    assert (features[0, 4:] == 6).all()


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 20), st.integers(1, 20)),
        elements=st.floats(0.0009765625, 1000, width=32) | st.just(NAN) | st.just(0.0),
    ),
    st.sampled_from(["depth", "disparity", "log_depth"]),
)
def test_features_are_finite_and_bounded_by_the_range(depth: np.ndarray, kind: str) -> None:
    modality = modality_of(
        representation=kind, size_px=8, mean=0, std=1, focal_px=1, baseline_m=1, clip_min_m=0.5
    )
    valid = depth > 0
    sample = DepthSample(
        torch.from_numpy(np.where(valid, depth, 0).astype(np.float32)), torch.from_numpy(valid)
    )
    features = modality.features(sample)
    assert features.shape == (1, 8, 8)
    ends = {"depth": (0.5, 8), "disparity": (1 / 8, 2), "log_depth": (math.log(0.5), math.log(8))}
    low, high = ends[kind]
    assert ((features == 0) | ((features >= low - 1e-5) & (features <= high + 1e-5))).all()


def test_nothing_measured_is_all_zero() -> None:
    sample = MapSample(torch.zeros(5, 5), torch.zeros(5, 5, dtype=torch.bool))
    modality = modality_of(size_px=8, mean=3, std=2)
    assert (modality.features(sample) == 0).all()
    assert modality.describe(sample) == {"median_m": 0, "missing_share": 1, "aspect": 1}


def test_a_map_without_a_camera_is_good_enough() -> None:
    values = torch.full((8, 8), 3.0)
    sample = MapSample(values, torch.ones(8, 8, dtype=torch.bool))
    assert (modality_of(size_px=8, mean=1, std=2).features(sample) == 1).all()


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_measured_but_not_above_zero_is_refused(value: float) -> None:
    sample = MapSample(torch.full((4, 4), value), torch.ones(4, 4, dtype=torch.bool))
    with pytest.raises(InputError, match="not above zero"):
        modality_of(size_px=8).features(sample)


@pytest.mark.parametrize("other", [None, "a.png", np.ones((4, 4)), torch.ones(4, 4)])
def test_other_things_are_refused(other: object) -> None:
    with pytest.raises(InputError, match="a map in metres"):
        modality_of().features(other)  # type: ignore[arg-type]


def test_files_are_read_as_the_recipe_says(tmp_path: Path) -> None:
    path = tmp_path / "map.npy"
    np.save(path, np.array([[1000, 0], [2500, 9000]], np.uint16))
    sample = modality_of(encoding="millimetres").load(path, "map.npy")
    assert sample.values.flatten().tolist() == pytest.approx([1, 0, 2.5, 9])
    with pytest.raises(BrokenSampleError, match="found uint16 numbers"):
        modality_of().load(path, "map.npy")


def test_a_map_of_another_unit_is_found_out(tmp_path: Path) -> None:
    path = tmp_path / "map.npy"
    np.save(path, np.array([[1500.0, 2500.0], [0, 900.0]]))  # millimetres as floats
    with pytest.raises(BrokenSampleError, match="900 to 2500 m") as caught:
        modality_of().load(path, "map.npy")
    assert caught.value.reason == "out_of_range"
    np.save(path, np.array([[1500.0, 2.5]]))  # one that is in range will do
    assert modality_of().load(path, "map.npy").valid_mask.all()


def test_large_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "map.npy"
    np.save(path, np.ones((5, 5), np.float32))
    with pytest.raises(BrokenSampleError, match="too_large"):
        modality_of(max_pixels=24).load(path, "map.npy")


def test_content_is_bytes_and_reading(tmp_path: Path) -> None:
    one, copy, other = (tmp_path / f"{name}.npy" for name in "abc")
    np.save(one, np.ones((2, 2)))
    copy.write_bytes(one.read_bytes())
    np.save(other, np.full((2, 2), 2.0))
    modality = modality_of()
    digest = modality.content_hash(one, "a.npy")
    assert len(digest) == 32
    assert digest == modality.content_hash(copy, "b.npy")
    assert digest != modality.content_hash(other, "c.npy")
    assert digest != modality_of(encoding="millimetres").content_hash(one, "a.npy")
    assert digest == modality_of(size_px=64).content_hash(one, "a.npy")  # not read otherwise
    assert digest != hashlib.sha256(one.read_bytes()).digest()
    with pytest.raises(BrokenSampleError, match="missing"):
        modality.content_hash(tmp_path / "none.npy", "none.npy")


def test_trivial_features() -> None:
    found = modality_of().describe(sample_of([[1, 2, 3], [NAN, NAN, 9]]))
    # The lower of the two middle ones of 1, 2, 3, 9; two of six; three wide, two high.
    assert found == {"median_m": 2, "missing_share": pytest.approx(1 / 3), "aspect": 1.5}


def test_one_window() -> None:
    sample = sample_of(EIGHT)
    assert modality_of().windows(sample) == [(0.0, 0.0, sample)]


def test_a_scene_is_rendered_in_metres() -> None:
    scene = build_scenes("train", 1)[0]
    sample = modality_of().render(scene, 3)
    depth = torch.from_numpy(render_depth(scene, 3))
    assert torch.equal(sample.valid_mask, torch.isfinite(depth))
    assert torch.equal(sample.values[sample.valid_mask], depth[sample.valid_mask])


def test_a_worker_has_the_same_modality() -> None:
    modality = modality_of(size_px=8)
    copy = pickle.loads(pickle.dumps(modality))
    assert torch.equal(copy.features(sample_of(EIGHT)), modality.features(sample_of(EIGHT)))
