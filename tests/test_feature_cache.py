"""Features on disk: half the bytes, the same bits cold and warm, and damage that is noticed."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import toy
from hypothesis import given, settings
from hypothesis import strategies as st

from modalbind import pipeline
from modalbind.cache_root import FEATURES, default_root
from modalbind.errors import CorruptFileError, DataError
from modalbind.feature_cache import CachedFeatures, FeatureCache


def make(count: int, seed: int = 0) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {f"{seed}-{n}": torch.randn(n + 1, 3, generator=draw) for n in range(count)}


@settings(deadline=None, max_examples=20)
@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_what_is_written_is_read_in_half_precision(
    sizes: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("features")
    written = {}
    for seed, size in enumerate(sizes):
        features = make(size, seed)
        FeatureCache(folder).write(features)
        written |= features
    cache = FeatureCache(folder)
    keys = sorted(written)
    for key, found in zip(keys, CachedFeatures(cache, keys), strict=True):
        half = written[key].numpy().astype(np.float16).astype(np.float32)
        assert found.dtype == torch.float32 and np.array_equal(found.numpy(), half)
    assert "none" not in cache and len(CachedFeatures(cache, keys)) == len(written)


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    FeatureCache(tmp_path).write(make(3))
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(content)
    cache = FeatureCache(tmp_path)
    with pytest.raises(CorruptFileError, match="they are damaged; try: modalbind cache prune"):
        list(CachedFeatures(cache, ["0-0", "0-1", "0-2"]))


def test_a_file_that_is_cut_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    FeatureCache(tmp_path).write(make(3))
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-5])
    assert "0-0" not in FeatureCache(tmp_path)
    assert "its features are computed again" in caplog.text


def test_numbers_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="too large for half precision; leave it out"):
        FeatureCache(tmp_path).write({"a": torch.tensor([1e6])})
    assert not list(tmp_path.iterdir())


def test_it_goes_to_loader_processes(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    cache.write(make(2))
    cache.read("0-0")
    other = pickle.loads(pickle.dumps(CachedFeatures(cache, ["0-1"])))
    assert torch.equal(other[0], cache.read("0-1"))


def test_runs_from_a_cold_and_a_warm_cache_are_the_same(
    toy_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = toy.build_recipe(toy_world, data={"feature_cache": True}, train={"epochs": 3})
    cold = pipeline.align(recipe, out=tmp_path / "cold")
    files = sorted((default_root() / FEATURES).rglob("*.safetensors"))
    assert files

    def refuse(*_: object) -> None:
        raise AssertionError("all features are there")

    monkeypatch.setattr(FeatureCache, "write", refuse)
    warm = pipeline.align(recipe, out=tmp_path / "warm")
    name = "tower.safetensors"
    assert (cold.path / name).read_bytes() == (warm.path / name).read_bytes()
    assert sorted((default_root() / FEATURES).rglob("*.safetensors")) == files
    # Close to a run without: augmentations still act, on features rounded to half precision.
    plain = toy.build_recipe(toy_world, train={"epochs": 3})
    loss = [r.report.loss[-1].loss for r in (cold, pipeline.align(plain, out=tmp_path / "plain"))]
    assert loss[0] == pytest.approx(loss[1], rel=0.05)


def test_another_front_end_has_features_of_its_own(toy_world: Path, tmp_path: Path) -> None:
    for window in (8, 9):
        recipe = toy.build_recipe(
            toy_world,
            data={"feature_cache": True},
            modality={"options": {"window": window}},
            train={"epochs": 1},
        )
        pipeline.align(recipe, out=tmp_path / str(window))
    assert len(list((default_root() / FEATURES).iterdir())) == 2
