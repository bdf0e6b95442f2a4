"""Oracles: open_clip and a loop in float64."""

from __future__ import annotations

import math

import pytest
import torch

from modalbind.objectives.options import SigmoidOptions
from modalbind.objectives.sigmoid import build, compute_chance, sigmoid


def loop(modality, anchor, positives, excluded, scale, bias):
    total, rows = 0.0, 0
    for i in range(len(modality)):
        if not any(positives[i]):
            continue
        rows += 1
        for j in range(len(anchor)):
            if excluded[i][j]:
                continue
            logit = scale * float(modality[i] @ anchor[j]) + bias
            match = 1 / (1 + math.exp(-logit))
            weight = float(positives[i][j])
            total -= weight * math.log(match) + (1 - weight) * math.log(1 - match)
    return total / rows


def test_equals_open_clip_in_value_and_gradients(pairs):
    clip = pytest.importorskip("open_clip.loss", reason="open_clip_torch is not installed")
    modality, anchor, positives, excluded = pairs
    ours = [modality.clone(), torch.tensor(10.0), torch.tensor(-10.0)]
    theirs = [value.clone() for value in ours]
    for value in ours + theirs:
        value.requires_grad_()
    loss = sigmoid(ours[0], anchor, positives, excluded, *ours[1:])
    expected = clip.SigLipLoss()(theirs[0], anchor, *theirs[1:])
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=1e-6)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad, atol=1e-6, rtol=1e-6)


def test_equals_a_loop_over_a_rectangular_batch(sides):
    assert float(sigmoid(*sides, 4.0, -2.0)) == pytest.approx(loop(*sides, 4.0, -2.0), abs=1e-12)


def test_gradients_equal_finite_differences(sides):
    _, anchor, positives, excluded = sides
    scale, bias = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (3.0, -2.0))
    assert torch.autograd.gradcheck(
        lambda rows, scale, bias: sigmoid(rows, anchor, positives, excluded, scale, bias),
        (sides.modality.requires_grad_(), scale, bias),
    )


def test_no_gradient_flows_into_anchors(pairs):
    modality, anchor, positives, excluded = pairs
    anchor.requires_grad_()
    sigmoid(modality.requires_grad_(), anchor, positives, excluded, 10.0, -10.0).backward()
    assert anchor.grad is None


def test_order_does_not_matter(sides):
    modality, anchor, positives, excluded = sides
    rows, columns = [2, 0, 3, 1], [4, 1, 0, 3, 2]
    found = sigmoid(
        modality[rows],
        anchor[columns],
        positives[rows][:, columns],
        excluded[rows][:, columns],
        4.0,
        -2.0,
    )
    torch.testing.assert_close(found, sigmoid(*sides, 4.0, -2.0))


@pytest.mark.parametrize("columns", [0, 3])
def test_a_batch_without_a_positive_has_no_loss_and_no_gradient(columns):
    modality = torch.eye(4, requires_grad=True)
    nothing = torch.zeros(4, columns)
    loss = sigmoid(modality, torch.eye(4)[:columns], nothing, nothing > 0, 10.0, 0.0)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(modality.grad, torch.zeros(4, 4))


def test_finite_at_extremes():
    modality = torch.eye(4).requires_grad_()
    nothing = torch.zeros(4, 4, dtype=torch.bool)
    loss = sigmoid(modality, -torch.eye(4), torch.eye(4), nothing, 1e4, 1e4)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(modality.grad).all()


def test_chance_is_the_best_that_one_logit_can_do(sides):
    modality, anchor, positives, excluded = sides
    biases = torch.linspace(-8, 3, 301, dtype=torch.float64)
    losses = [
        float(sigmoid(modality * 0, anchor, positives, excluded, 1.0, bias)) for bias in biases
    ]
    assert compute_chance(positives, excluded) == pytest.approx(min(losses), abs=1e-3)
    assert compute_chance(positives * 0, excluded) == 0


def test_the_objective_is_the_function_with_its_options(pairs):
    objective = build(SigmoidOptions(temperature=0.2, bias=-3.0, learn=False))
    assert (objective.initial_scale, objective.initial_bias, objective.learn_scale) == (
        5,
        -3,
        False,
    )
    scale, bias = torch.tensor(5.0), torch.tensor(-3.0)
    torch.testing.assert_close(objective(*pairs, scale, bias), sigmoid(*pairs, 5.0, -3.0))
