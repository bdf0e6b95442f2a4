from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modalbind.maps.augment import build_crop, build_erase, build_flip, build_noise
from modalbind.maps.options import CropOptions, EraseOptions, FlipOptions, NoiseOptions
from modalbind.maps.sample import MapSample, split_valid

NAN = float("nan")


@dataclass(frozen=True, slots=True, eq=False)
class Marked(MapSample):
    mark: str = ""


AUGMENTATIONS = {
    "flip": build_flip(FlipOptions(p=1)),
    "crop": build_crop(CropOptions(min_area=0.2)),
    "erase": build_erase(EraseOptions(p=1)),
    "noise": build_noise(NoiseOptions(max_std=2.0)),
}
MAPS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 16), st.integers(1, 16)),
    elements=st.floats(-100, 100, width=32) | st.just(NAN),
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sample_of(numbers: Any) -> Marked:
    return Marked(*split_valid(np.asarray(numbers)), mark="kept")


def numbered(height: int, width: int) -> Marked:
    """Each pixel has a number of its own, from 1; one in five was not measured."""
    numbers = np.arange(1.0, height * width + 1).reshape(height, width)
    numbers[numbers % 5 == 0] = NAN
    return sample_of(numbers)


@pytest.mark.parametrize("name", AUGMENTATIONS)
@settings(max_examples=40, deadline=None)
@given(numbers=MAPS, seed=st.integers(0, 2**31))
def test_the_mask_is_never_forgotten(name: str, numbers: np.ndarray, seed: int) -> None:
    sample = sample_of(numbers)
    values, mask = sample.values.clone(), sample.valid_mask.clone()
    result = AUGMENTATIONS[name](sample, seeded(seed))
    assert isinstance(result, Marked) and result.mark == "kept"
    assert result.values.shape == result.valid_mask.shape
    assert (result.values.dtype, result.valid_mask.dtype) == (torch.float32, torch.bool)
    assert torch.isfinite(result.values).all()
    assert (result.values[~result.valid_mask] == 0).all()
    # Nothing that was not measured comes to be; the argument stays as it was.
    assert result.valid_mask.sum() <= mask.sum()
    assert torch.equal(sample.values, values) and torch.equal(sample.valid_mask, mask)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_generator_alone_decides(name: str) -> None:
    sample, augment = numbered(12, 9), AUGMENTATIONS[name]
    before = torch.random.get_rng_state()
    one, same = (augment(sample, seeded(3)) for _ in range(2))
    assert torch.equal(one.values, same.values) and torch.equal(one.valid_mask, same.valid_mask)
    assert torch.equal(torch.random.get_rng_state(), before)
    if name != "flip":  # which has one outcome at p = 1
        others = [augment(sample, seeded(seed)) for seed in range(4, 9)]
        assert any(
            other.values.shape != one.values.shape or not torch.equal(other.values, one.values)
            for other in others
        )


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_loader_process_gets_the_same(name: str) -> None:
    copy = pickle.loads(pickle.dumps(AUGMENTATIONS[name]))
    sample = numbered(8, 8)
    assert torch.equal(
        copy(sample, seeded(1)).values, AUGMENTATIONS[name](sample, seeded(1)).values
    )


def test_flip_mirrors_left_to_right() -> None:
    flipped = AUGMENTATIONS["flip"](sample_of([[1, 2, NAN], [4, 5, 6]]), seeded(0))
    assert flipped.values.tolist() == [[0, 2, 1], [6, 5, 4]]
    assert flipped.valid_mask.tolist() == [[False, True, True], [True, True, True]]


def test_flip_happens_as_often_as_it_says() -> None:
    sample = numbered(2, 2)
    generator, flip = seeded(0), build_flip(FlipOptions(p=0.25))
    times = sum(flip(sample, generator) is not sample for _ in range(1000))
    assert 200 < times < 300  # mean 250, deviation 14


@pytest.mark.parametrize(
    "build, options",
    [
        (build_flip, FlipOptions(p=0)),
        (build_crop, CropOptions(p=0)),
        (build_erase, EraseOptions(p=0)),
        (build_noise, NoiseOptions(max_std=1, p=0)),
    ],
)
def test_never_means_never(build: Any, options: Any) -> None:
    sample, generator = numbered(4, 4), seeded(0)
    assert all(build(options)(sample, generator) is sample for _ in range(20))


def test_crop_keeps_a_rectangle_as_it_stands() -> None:
    sample, generator = numbered(20, 30), seeded(0)
    crop = build_crop(CropOptions(min_area=0.3, max_aspect=2.0))
    shapes = set()
    for _ in range(50):
        part = crop(sample, generator)
        rows, columns = part.values.shape
        shapes.add((rows, columns))
        assert 0.24 <= rows * columns / 600 <= 1  # rounding to pixels takes a little
        first = int(part.values[part.valid_mask][0]) - 1  # its number says where it was
        row = first // 30
        column = first % 30 - int(part.valid_mask[0].int().argmax())
        window = (slice(row, row + rows), slice(column, column + columns))
        assert torch.equal(part.values, sample.values[window])
        assert torch.equal(part.valid_mask, sample.valid_mask[window])
    assert len(shapes) > 10


def test_erase_takes_away_and_changes_nothing_else() -> None:
    sample, generator = numbered(40, 40), seeded(0)
    erase = build_erase(EraseOptions(max_area=0.1, holes=2, p=1))
    shares = []
    for _ in range(50):
        result = erase(sample, generator)
        assert torch.equal(result.values[result.valid_mask], sample.values[result.valid_mask])
        lost = sample.valid_mask & ~result.valid_mask
        shares.append(float(lost.sum()) / 1600)
    assert 0 < max(shares) <= 2 * 0.1 * 1.1
    assert len(set(shares)) > 10


def test_noise_has_the_deviation_that_it_says() -> None:
    sample = sample_of(np.full((200, 200), 5.0))
    noise = build_noise(NoiseOptions(min_std=0.5, max_std=0.5))
    result = noise(sample, seeded(0))
    # 40000 draws: the mean is known to 0.0025, the deviation to 0.0018.
    assert float(result.values.mean()) == pytest.approx(5, abs=0.01)
    assert float(result.values.std()) == pytest.approx(0.5, abs=0.01)


def test_noise_bounds_are_in_order() -> None:
    with pytest.raises(ValueError, match="min_std is above max_std"):
        NoiseOptions(min_std=2, max_std=1)
