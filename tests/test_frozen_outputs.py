"""The frozen part is computed once, and what is trained on that is what would be trained anyway."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import toy
from safetensors.torch import load_file
from torch import Tensor, nn

from modalbind import pipeline
from modalbind.frozen_outputs import compute_known
from modalbind.recipe import Recipe

FROZEN = {"tower": {"freeze": "encoder"}, "augment": []}


class Numbers:
    """A modality whose samples are their features."""

    is_padded = True

    def features(self, sample: Tensor) -> Tensor:
        return sample


class Doubler(nn.Module):
    """Hidden states half as long as the features."""

    def forward(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return 2 * features[:, ::2], mask[:, ::2]


class Mean(nn.Module):
    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        return (features * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)


def make_samples() -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(length, 3, generator=draw) for length in (4, 7, 2, 5, 1)]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_outputs_come_in_order_without_padding(size: int) -> None:
    samples = make_samples()
    options = {"batch_size": size, "memory_mib": 1}
    hidden = compute_known(Doubler(), Numbers(), samples, torch.device("cpu"), **options)
    pooled = compute_known(Mean(), Numbers(), samples, torch.device("cpu"), **options)
    assert hidden is not None and hidden.is_padded
    assert pooled is not None and not pooled.is_padded
    for sample, states, vector in zip(samples, hidden.features, pooled.features, strict=True):
        assert torch.equal(states, 2 * sample[::2])
        torch.testing.assert_close(vector, sample.mean(dim=0))


def test_more_than_the_budget_is_not_kept() -> None:
    def endless() -> Iterator[Tensor]:
        for count in range(10):
            assert count < 4, "it stops reading when the budget is spent"
            yield torch.zeros(2**17, 1)  # half a MiB, of which a quarter is kept

    assert (
        compute_known(
            Doubler(), Numbers(), endless(), torch.device("cpu"), batch_size=1, memory_mib=0
        )
        is None
    )


def read(recipe: Recipe, out: Path) -> dict[str, Tensor]:
    return load_file(pipeline.align(recipe, out=out).path / "tower.safetensors")


def test_a_frozen_encoder_runs_once_and_trains_the_same_head(
    toy_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reference: the same recipe with no memory to keep anything in."""
    recipe = toy.build_recipe(toy_world, **FROZEN)
    found = read(recipe, tmp_path / "kept")
    poor = toy.build_recipe(toy_world, **FROZEN, data={"memory_mib": 0})
    expected = read(poor, tmp_path / "again")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-4)


def test_augmented_samples_are_not_kept(
    toy_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("samples differ from epoch to epoch")

    monkeypatch.setattr("modalbind.frozen_outputs.compute_known", refuse)
    pipeline.align(toy.build_recipe(toy_world, tower={"freeze": "encoder"}), out=tmp_path / "run")


def test_a_run_on_kept_outputs_is_resumed_to_the_same_bytes(
    toy_world: Path, tmp_path: Path
) -> None:
    recipe = toy.build_recipe(toy_world, **FROZEN, train={"checkpoint_every": 5})
    whole = pipeline.align(recipe, out=tmp_path / "whole")
    cut = tmp_path / "cut"
    calls = 0

    def stop(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 12:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        log = pipeline.RunDirectory.log_step
        patch.setattr(pipeline.RunDirectory, "log_step", lambda self, r: (stop(), log(self, r))[1])
        with pytest.raises(KeyboardInterrupt):
            pipeline.align(recipe, out=cut)
    again = pipeline.align(recipe, out=cut, resume=True)
    name = "tower.safetensors"
    assert (again.path / name).read_bytes() == (whole.path / name).read_bytes()
