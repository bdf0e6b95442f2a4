"""Oracles: sums over single numbers in float64, and torch's own losses on plain pairs."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from modalbind.objectives.options import RegressionOptions
from modalbind.objectives.regression import build, match_structure, regression

DISTANCES = ["mse", "cosine", "l1"]


def distance_of(row, target, distance):
    if distance == "cosine":
        norm = math.sqrt(sum(t * t for t in target)) * math.sqrt(sum(r * r for r in row))
        return 1 - sum(r * t for r, t in zip(row, target, strict=True)) / norm
    power = 2 if distance == "mse" else 1
    return sum(abs(r - t) ** power for r, t in zip(row, target, strict=True)) / len(row)


@pytest.mark.parametrize("distance", DISTANCES)
def test_equals_a_loop_with_soft_and_missing_positives(sides, distance):
    modality, anchor = sides.modality, sides.anchor
    targets = {
        0: anchor[0].tolist(),
        1: [0.3 * a + 0.7 * b for a, b in zip(anchor[1].tolist(), anchor[2].tolist(), strict=True)],
        2: anchor[2].tolist(),
    }
    losses = [distance_of(modality[i].tolist(), target, distance) for i, target in targets.items()]
    assert float(regression(*sides, distance)) == pytest.approx(sum(losses) / 3, abs=1e-12)


@pytest.mark.parametrize(
    ("distance", "oracle"), [("mse", functional.mse_loss), ("l1", functional.l1_loss)]
)
def test_equals_torch_on_plain_pairs(pairs, distance, oracle):
    modality, anchor, _, _ = pairs
    torch.testing.assert_close(regression(*pairs, distance), oracle(modality, anchor))


@pytest.mark.parametrize("distance", DISTANCES)
def test_gradients_equal_finite_differences(sides, distance):
    _, anchor, positives, excluded = sides
    assert torch.autograd.gradcheck(
        lambda rows: regression(rows, anchor, positives, excluded, distance),
        (sides.modality.requires_grad_(),),
    )


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("columns", [0, 3])
def test_a_batch_without_a_positive_has_no_loss_and_no_gradient(distance, columns):
    modality = torch.eye(4, requires_grad=True)
    nothing = torch.zeros(4, columns)
    loss = regression(modality, torch.eye(4)[:columns], nothing, nothing > 0, distance)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(modality.grad, torch.zeros(4, 4))


def test_no_gradient_flows_into_anchors(pairs):
    modality, anchor, positives, excluded = pairs
    anchor.requires_grad_()
    regression(modality.requires_grad_(), anchor, positives, excluded).backward()
    assert anchor.grad is None


def test_the_objective_has_no_scale_to_learn(pairs):
    objective = build(RegressionOptions(distance="cosine"))
    assert (objective.initial_scale, objective.learn_scale, objective.initial_bias) == (
        1,
        False,
        None,
    )
    torch.testing.assert_close(objective(*pairs), regression(*pairs, "cosine"))


def test_chance_is_a_right_angle_for_cosine_and_unknown_otherwise():
    rows, anchor = torch.eye(4)[:2], torch.eye(4)[2:]
    positives, nothing = torch.eye(2), torch.zeros(2, 2, dtype=torch.bool)
    objective = build(RegressionOptions(distance="cosine"))
    assert objective.chance(positives, nothing) == float(
        objective(rows, anchor, positives, nothing)
    )
    assert math.isnan(build(RegressionOptions(distance="mse")).chance(positives, nothing))


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))


@pytest.mark.parametrize("entries", ["full", "upper"])
def test_the_structure_is_a_loop_over_pairs_of_rows_that_have_a_target(sides, entries):
    targets = (sides.positives @ sides.anchor).tolist()
    asks = [i for i, row in enumerate(sides.positives.tolist()) if sum(row) > 0]
    assert 2 < len(asks) < len(sides.modality), "one row has no target"
    rows = sides.modality.tolist()
    squares = [
        (cosine(rows[i], rows[j]) - cosine(targets[i], targets[j])) ** 2
        for i in asks
        for j in asks
        if entries == "full" or i < j
    ]
    found = match_structure(sides.modality, sides.anchor, sides.positives, entries)
    assert float(found) == pytest.approx(sum(squares) / len(squares), abs=1e-12)


@pytest.mark.parametrize("entries", ["full", "upper"])
def test_gradients_of_the_structure_equal_finite_differences(sides, entries):
    _, anchor, positives, _ = sides
    assert torch.autograd.gradcheck(
        lambda rows: match_structure(rows, anchor, positives, entries),
        sides.modality.clone().requires_grad_(),
    )


def test_a_rotated_copy_has_the_structure_and_not_the_place(pairs):
    _, anchor, positives, excluded = pairs
    turn, _ = torch.linalg.qr(torch.randn(anchor.shape[1], anchor.shape[1], dtype=anchor.dtype))
    rows = positives @ anchor @ turn
    assert float(match_structure(rows, anchor, positives, "full")) == pytest.approx(0, abs=1e-12)
    assert float(regression(rows, anchor, positives, excluded, "mse")) > 1e-3


def test_one_row_has_no_structure(pairs):
    modality, anchor, positives, _ = pairs
    row = modality[:1].clone().requires_grad_()
    loss = match_structure(row, anchor, positives[:1], "upper")
    loss.backward()
    assert loss.item() == 0 and not row.grad.any()


def test_the_whole_loss_weighs_its_two_terms(sides):
    options = {"distance": "mse", "weight": 44, "structure": "upper", "structure_weight": 0.5}
    objective = build(RegressionOptions(**options))
    expected = 44 * regression(*sides, "mse") + 0.5 * match_structure(*tuple(sides)[:3], "upper")
    assert float(objective(*sides)) == pytest.approx(float(expected), abs=1e-12)
    assert math.isnan(objective.chance(sides.positives, sides.excluded))
