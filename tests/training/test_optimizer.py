from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from modalbind.encoders.tower import build_tower
from modalbind.recipe.schema import HeadSection, TowerSection, TrainSection
from modalbind.training.optimizer import build_optimizer, describe_groups, learning_rate_factor


class ToyEncoder(nn.Module):
    """Two layer groups that share a table, and a parameter that is in neither."""

    width = 4
    lora_targets = ()

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high = nn.Linear(3, 4), nn.Linear(4, 4)
        self.low.table = self.high.table = nn.Parameter(torch.ones(2, 3))
        self.gate = nn.Parameter(torch.ones(1, 4, 1))
        self.extra = nn.Parameter(torch.ones(2, 2))

    def forward(self, features, valid_mask):
        gate = self.gate.flatten() * self.low.table.sum() * self.extra.sum()
        return self.high(self.low(features) * gate)

    def layer_groups(self):
        return [[self.low], [self.high]]


def build(section=None, freeze="none", scale=()):
    tower = build_tower(ToyEncoder(), HeadSection(), TowerSection(freeze=freeze), dim=2)
    return tower, build_optimizer(tower, scale, section or TrainSection())


def rate_and_decay(optimizer) -> dict[int, tuple[float, float]]:
    return {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


def test_each_parameter_has_the_rate_and_decay_of_its_place():
    scale = nn.Parameter(torch.tensor(1.0))
    section = TrainSection(lr=1e-2, encoder_lr=1e-3, layer_decay=0.5, weight_decay=0.1)
    tower, optimizer = build(section, scale=[scale])
    found = rate_and_decay(optimizer)
    encoder, head = tower.encoder, tower.head.projection
    expected = {
        encoder.low.weight: (5e-4, 0.1),
        encoder.low.bias: (5e-4, 0.0),
        encoder.low.table: (5e-4, 0.1),
        encoder.high.weight: (1e-3, 0.1),
        encoder.high.bias: (1e-3, 0.0),
        encoder.gate: (1e-3, 0.0),
        encoder.extra: (1e-3, 0.1),
        head.weight: (1e-2, 0.1),
        head.bias: (1e-2, 0.0),
        scale: (1e-2, 0.0),
    }
    assert found == {id(parameter): value for parameter, value in expected.items()}
    assert optimizer.param_groups[0]["betas"] == section.betas


def test_every_trainable_parameter_is_there_once_and_no_other():
    scale = [nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.tensor(1.0), requires_grad=False)]
    tower, optimizer = build(freeze=1, scale=scale)
    grouped = [p for group in optimizer.param_groups for p in group["params"]]
    expected = [p for p in [*tower.parameters(), *scale] if p.requires_grad]
    assert len(grouped) == len(expected)
    assert {id(p) for p in grouped} == {id(p) for p in expected}
    assert scale[1] not in set(grouped)


def test_the_encoder_learns_at_the_heads_rate_unless_told():
    _, optimizer = build(TrainSection(lr=3e-4))
    assert {group["lr"] for group in optimizer.param_groups} == {3e-4}


def test_groups_are_described():
    _, optimizer = build(scale=[nn.Parameter(torch.tensor(1.0))])
    groups = {group.name: group for group in describe_groups(optimizer)}
    assert list(groups) == [
        *("encoder.0.matrices", "encoder.0.vectors", "encoder.1.matrices", "encoder.1.vectors"),
        *("encoder.rest.matrices", "encoder.rest.vectors", "head.matrices", "head.vectors"),
        "scale.vectors",
    ]
    lowest = groups["encoder.0.matrices"]
    assert (lowest.tensors, lowest.numbers, lowest.weight_decay) == (2, 3 * 4 + 2 * 3, 0.05)


def test_a_parameter_that_would_be_updated_twice_is_refused():
    tower = build_tower(ToyEncoder(), HeadSection(), TowerSection(), dim=2)
    with pytest.raises(ValueError, match="1 shared with the objective"):
        build_optimizer(tower, [tower.head.projection.bias], TrainSection())


def test_a_layer_group_with_a_strangers_parameter_is_refused():
    tower = build_tower(ToyEncoder(), HeadSection(), TowerSection(), dim=2)
    tower.encoder.layer_groups = lambda: [[nn.Linear(2, 2)]]
    with pytest.raises(ValueError, match="2 of them not the tower's"):
        build_optimizer(tower, [], TrainSection())


def test_nothing_to_train_is_refused():
    tower = build_tower(ToyEncoder(), HeadSection(), TowerSection(), dim=2).requires_grad_(False)
    with pytest.raises(ValueError, match="each of 0 trainable"):
        build_optimizer(tower, [], TrainSection())


def test_a_step_is_that_of_plain_adamw():
    """The fused kernel against one update written out."""
    section = TrainSection(lr=1e-2, weight_decay=0.1, betas=(0.9, 0.98))
    tower, optimizer = build(section)
    assert optimizer.param_groups[0]["fused"]
    weight = tower.head.projection.weight
    before = weight.detach().clone()
    tower(torch.randn(5, 3, generator=torch.Generator().manual_seed(0)))[:, 0].sum().backward()
    gradient = weight.grad.clone()
    optimizer.step()
    # First step: both moments, once their bias is corrected, are the gradient and its square.
    expected = before * (1 - 1e-2 * 0.1) - 1e-2 * gradient / (gradient.abs() + 1e-8)
    torch.testing.assert_close(weight.detach(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("warmup", [0, 3, 0.3, 10, 50])
def test_the_rate_climbs_to_one_then_falls(schedule, warmup):
    section = TrainSection(warmup_steps=warmup, schedule=schedule)
    factors = [learning_rate_factor(step, 10, section) for step in range(10)]
    steps = {0: 0, 3: 3, 0.3: 3, 10: 10, 50: 10}[warmup]
    assert factors[:steps] == pytest.approx([(step + 1) / steps for step in range(steps)])
    rest = factors[steps:]
    shares = [index / len(rest) for index in range(len(rest))]
    expected = {
        "cosine": [math.cos(math.pi * share / 2) ** 2 for share in shares],
        "linear": [1 - share for share in shares],
        "constant": [1.0 for _ in shares],
    }
    assert rest == pytest.approx(expected[schedule])
    assert min(factors) > 0


def test_the_last_rate_is_zero_only_after_the_run():
    section = TrainSection(warmup_steps=0, schedule="cosine")
    assert learning_rate_factor(10, 10, section) == pytest.approx(0)
    assert learning_rate_factor(99, 10, section) == pytest.approx(0)


def test_a_run_without_steps_is_refused():
    with pytest.raises(ValueError, match="at least one step"):
        learning_rate_factor(0, 0, TrainSection())
