"""What the engine refuses before anything is read."""

from __future__ import annotations

import pytest
import torch
import toy

from modalbind import engine
from modalbind.engine import build_engine
from modalbind.errors import InputError
from modalbind.types import PairBatch

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


class Convolutions(torch.nn.Module):
    """One convolution and one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)
        self.head = torch.nn.Linear(4, 2)

    def forward(self, features: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        return self.head(self.conv(features).mean(dim=(2, 3)))


BATCH = PairBatch(torch.randn(9, 3, 8, 8), None, (), tuple("abcdefghi"))


@pytest.mark.parametrize(("last", "expected"), [(0.5, True), (0.9, False), (3.0, False)])
def test_layout_is_what_the_tower_does_well(tmp_path, monkeypatch, last, expected):
    monkeypatch.setattr(engine, "_time_layouts", lambda *_: (1.0, last))
    said = []
    recipe = toy.build_recipe(tmp_path, train={"channels_last": "auto"})
    found = engine.settle_layout(recipe, Convolutions(), BATCH, build_engine(recipe), said.append)
    assert found.train.channels_last is expected
    assert len(said) == 1 and f"{last:.2g} times as long" in said[0]


def test_no_layout_is_tried_where_nothing_convolves_or_it_is_named(tmp_path):
    recipe = toy.build_recipe(tmp_path, train={"channels_last": "auto"})
    tower, accelerator = torch.nn.Linear(2, 2), build_engine(recipe)
    found = engine.settle_layout(recipe, tower, BATCH, accelerator, pytest.fail)
    assert found.train.channels_last is False
    named = toy.build_recipe(tmp_path, train={"channels_last": True})
    assert engine.settle_layout(named, Convolutions(), BATCH, accelerator, pytest.fail) == named


def test_a_probe_of_layouts_leaves_the_tower_as_it_was(tmp_path):
    tower = Convolutions()
    before = {name: value.clone() for name, value in tower.state_dict().items()}
    times = engine._time_layouts(tower, BATCH, build_engine(toy.build_recipe(tmp_path)))
    assert all(0 < seconds < 5 for seconds in times)
    for name, value in tower.named_parameters():
        assert torch.equal(value, before[name]) and value.grad is None and value.is_contiguous()
