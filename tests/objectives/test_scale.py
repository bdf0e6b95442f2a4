from __future__ import annotations

import pytest
import torch

from modalbind.objectives import infonce, regression, sigmoid
from modalbind.objectives.options import InfoNceOptions, RegressionOptions, SigmoidOptions
from modalbind.objectives.scale import LogitScale


def test_starts_where_the_objective_says_and_learns_if_it_says():
    holder = LogitScale(sigmoid.build(SigmoidOptions(temperature=0.05, bias=-4.0)))
    scale, bias = holder(0.0)
    assert (scale.item(), bias.item()) == (pytest.approx(20), -4)
    assert {name for name, _ in holder.named_parameters()} == {"log_scale", "bias"}
    (scale + bias).backward()
    assert holder.log_scale.grad.item() == pytest.approx(20)


def test_a_side_may_start_elsewhere():
    objective = sigmoid.build(SigmoidOptions(temperature=0.05, side_temperatures={"image": 0.2}))
    scales = [LogitScale(objective, side)(0.0)[0].item() for side in ("text", "image")]
    assert scales == pytest.approx([20, 5])


def test_nothing_learns_without_a_learned_temperature():
    for objective in (
        infonce.build(InfoNceOptions(learn=False)),
        regression.build(RegressionOptions()),
    ):
        assert not any(p.requires_grad for p in LogitScale(objective).parameters())


def test_the_clamp_holds_and_the_scale_can_come_down_again():
    holder = LogitScale(infonce.build(InfoNceOptions(temperature=0.02, max_scale=60.0)))
    step = torch.optim.SGD(holder.parameters(), lr=0.1)
    for sign in (-1, -1, -1, 1):
        step.zero_grad()
        scale, _ = holder(0.0)
        (sign * scale).backward()
        step.step()
        holder.clamp_()
        assert holder(0.0)[0].item() <= 60 * (1 + 1e-6)
    assert holder(0.0)[0].item() < 60


def test_a_schedule_takes_the_place_of_the_parameter():
    options = InfoNceOptions(temperature=0.1, learn=False, schedule={"final": 0.02})
    holder = LogitScale(infonce.build(options))
    assert [holder(p)[0].item() for p in (0.0, 1.0)] == pytest.approx([10, 50])
