from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from modalbind_depth import modalbind_augmentations
from modalbind_depth.augment import build_sensor_noise
from modalbind_depth.options import SensorNoiseOptions
from modalbind_depth.sample import DepthSample

from modalbind.plugin_manager import build

NAN = float("nan")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sample_of(depth_m: np.ndarray) -> DepthSample:
    valid = torch.from_numpy(depth_m > 0)
    values = torch.where(valid, torch.from_numpy(depth_m.astype(np.float32)), 0.0)
    return DepthSample(values, valid, 500.0, 0.075)


def test_noise_grows_with_the_square_of_depth() -> None:
    noise = build_sensor_noise(SensorNoiseOptions(min_std_m=0.002, max_std_m=0.002))
    for depth_m, expected_m in ((1.0, 0.002), (2.0, 0.008), (5.0, 0.05)):
        result = noise(sample_of(np.full((200, 200), depth_m)), seeded(0))
        change = result.values - depth_m
        # 40000 draws: the deviation is known to 0.35 %.
        assert float(change.std()) == pytest.approx(expected_m, rel=0.02)
        assert abs(float(change.mean())) < expected_m / 40


def test_its_size_is_drawn_between_the_bounds() -> None:
    noise = build_sensor_noise(SensorNoiseOptions(min_std_m=0.001, max_std_m=0.01))
    sample = sample_of(np.ones((60, 60)))
    stds = [float((noise(sample, seeded(s)).values - 1).std()) for s in range(60)]
    assert 0.0009 < min(stds) < 0.003
    assert 0.008 < max(stds) < 0.0105


def test_far_depth_stays_above_zero() -> None:
    noise = build_sensor_noise(SensorNoiseOptions(min_std_m=1.0, max_std_m=1.0))
    result = noise(sample_of(np.full((50, 50), 20.0)), seeded(0))
    assert result.valid_mask.all()
    assert float(result.values.min()) == pytest.approx(1.0)


@pytest.mark.parametrize("spec", modalbind_augmentations(), ids=lambda spec: spec.name)
@settings(max_examples=25, deadline=None)
@given(
    depth_m=hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 12), st.integers(1, 12)),
        elements=st.floats(0.25, 50, width=32) | st.just(NAN),
    ),
    seed=st.integers(0, 2**31),
)
def test_mask_camera_and_unit_outlive_each(spec: Any, depth_m: np.ndarray, seed: int) -> None:
    augment = build(spec, spec.options(p=1), None)
    sample = sample_of(depth_m)
    before = sample.values.clone()
    result, again = (augment(sample, seeded(seed)) for _ in range(2))
    assert isinstance(result, DepthSample)
    assert (result.focal_px, result.baseline_m) == (500.0, 0.075)
    assert torch.equal(result.values, again.values)
    assert torch.equal(sample.values, before)
    assert ((result.values > 0) == result.valid_mask).all()
    assert torch.isfinite(result.values).all()
    assert result.valid_mask.sum() <= sample.valid_mask.sum()


@pytest.mark.parametrize("spec", modalbind_augmentations(), ids=lambda spec: spec.name)
def test_each_goes_to_a_worker_and_can_be_off(spec: Any) -> None:
    sample = sample_of(np.arange(1.0, 65.0).reshape(8, 8))
    augment = build(spec, spec.options(p=1), None)
    copy = pickle.loads(pickle.dumps(augment))
    assert torch.equal(copy(sample, seeded(1)).values, augment(sample, seeded(1)).values)
    never = build(spec, spec.options(p=0), None)
    assert never(sample, seeded(1)) is sample
