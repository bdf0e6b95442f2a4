"""What the engine refuses before anything is read."""

from __future__ import annotations

import pytest
import torch
import toy

from modalbind import engine
from modalbind.engine import build_engine
from modalbind.errors import InputError

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"device": "cuda:7"}, "device 'cuda:7' asked for; this machine has cpu"),
        ({"device": "tpu"}, "device 'tpu' asked for"),
        ({"train": {"trackers": ["nonsense"]}}, "accelerate knows .*tensorboard"),
        ({"train": {"trackers": ["clearml"]}}, "not installed; try: pip install clearml"),
    ],
)
def test_what_is_not_there_is_refused(tmp_path, changes, found):
    with pytest.raises(InputError, match=found):
        build_engine(toy.build_recipe(tmp_path, **changes), tmp_path)


def test_threads_and_device_are_those_of_the_recipe(tmp_path):
    before = torch.get_num_threads()
    try:
        engine = build_engine(toy.build_recipe(tmp_path, train={"threads": 1}))
        assert torch.get_num_threads() == 1
        assert str(engine.device) == "cpu"
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("half", "expected"), [(0.5, "bf16"), (0.9, "no"), (280.0, "no")])
def test_precision_is_what_the_device_does_well(tmp_path, monkeypatch, half, expected):
    times = {torch.float32: 1.0, torch.bfloat16: half}
    monkeypatch.setattr(engine, "_time_products", lambda size, kind, device: times[kind])
    said = []
    recipe = toy.build_recipe(tmp_path, train={"precision": "auto"})
    assert engine.settle_precision(recipe, CPU, said.append).train.precision == expected
    assert len(said) == 1 and f"{half:.2g} times as long" in said[0]


def test_a_precision_that_is_named_is_kept(tmp_path):
    recipe = toy.build_recipe(tmp_path, train={"precision": "bf16"})
    assert engine.settle_precision(recipe, CPU, lambda _: pytest.fail("no probe")) == recipe


def test_a_probe_takes_a_moment():
    seconds = engine._time_products(64, torch.float32, CPU)
    assert 0 < seconds < 1
