"""Oracles: open_clip, sentence-transformers, torch's cross entropy, and a loop in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from modalbind.objectives.infonce import build, compute_chance, compute_temperature, infonce
from modalbind.objectives.options import InfoNceOptions, TemperatureSchedule
from modalbind.objectives.scale import LogitScale

DIRECTIONS = ["both", "modality_to_anchor", "anchor_to_modality"]


def loop_direction(logits, weights, excluded, smoothing):
    """Mean over the rows that ask, one number at a time."""
    losses = []
    for row in range(len(logits)):
        total = sum(float(w) for w in weights[row])
        if total == 0:
            continue
        open_columns = [j for j in range(len(logits[row])) if not excluded[row][j]]
        log_sum = math.log(sum(math.exp(float(logits[row][j])) for j in open_columns))
        loss = 0.0
        for j in open_columns:
            target = (1 - smoothing) * float(weights[row][j]) / total
            target += smoothing / len(open_columns)
            loss -= target * (float(logits[row][j]) - log_sum)
        losses.append(loss)
    return sum(losses) / len(losses)


def loop(modality, anchor, positives, excluded, scale, direction, smoothing):
    n, m = positives.shape
    logits = [
        [scale * sum(float(a) * float(b) for a, b in zip(x, y, strict=True)) for y in anchor]
        for x in modality
    ]
    turned = [[logits[i][j] for i in range(n)] for j in range(m)]
    by_row = loop_direction(logits, positives, excluded, smoothing)
    by_column = loop_direction(turned, positives.T, excluded.T, smoothing)
    if direction == "both":
        return (by_row + by_column) / 2
    return by_row if direction == "modality_to_anchor" else by_column


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_equals_a_loop_over_a_rectangular_batch(sides, direction, smoothing):
    expected = loop(*sides, 7.0, direction, smoothing)
    found = infonce(*sides, 7.0, direction, smoothing)
    assert float(found) == pytest.approx(expected, abs=1e-12)


def test_equals_open_clip_in_value_and_gradients(pairs):
    clip = pytest.importorskip("open_clip.loss", reason="open_clip_torch is not installed")
    modality, anchor, positives, excluded = pairs
    ours, theirs = modality.clone().requires_grad_(), modality.clone().requires_grad_()
    our_scale, their_scale = (torch.tensor(14.3, requires_grad=True) for _ in range(2))
    loss = infonce(ours, anchor, positives, excluded, our_scale)
    expected = clip.ClipLoss()(theirs, anchor, their_scale)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-6, rtol=0)
    torch.testing.assert_close(our_scale.grad, their_scale.grad, atol=1e-6, rtol=0)


@pytest.mark.filterwarnings("ignore")  # what a test oracle warns about is not ours to mend
@pytest.mark.parametrize("direction", ["both", "modality_to_anchor"])
def test_equals_sentence_transformers_in_value_and_gradients(pairs, direction):
    name = "sentence_transformers.sentence_transformer.losses"
    losses = pytest.importorskip(name, reason="sentence-transformers is not installed")
    modality, anchor, positives, excluded = pairs
    ours, theirs = modality.clone().requires_grad_(), modality.clone().requires_grad_()
    directions = {
        "both": ("query_to_doc", "doc_to_query"),
        "modality_to_anchor": ("query_to_doc",),
    }
    theirs_loss = losses.MultipleNegativesRankingLoss(
        nn.Identity(),
        scale=20.0,
        directions=directions[direction],
        partition_mode="per_direction",
    )
    expected = theirs_loss.compute_loss_from_embeddings([theirs, anchor], None)
    loss = infonce(ours, anchor, positives, excluded, 20.0, direction)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=0)
    # Their cosine similarity normalises again, which takes out the radial part of the gradient.
    radial = (ours.grad * modality).sum(dim=1, keepdim=True) * modality
    torch.testing.assert_close(ours.grad - radial, theirs.grad, atol=1e-6, rtol=0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_one_direction_equals_torch_cross_entropy(pairs, smoothing):
    modality, anchor, positives, excluded = pairs
    expected = functional.cross_entropy(
        5.0 * modality @ anchor.T, torch.arange(8), label_smoothing=smoothing
    )
    found = infonce(modality, anchor, positives, excluded, 5.0, "modality_to_anchor", smoothing)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_gradients_equal_finite_differences(sides, direction, smoothing):
    _, anchor, positives, excluded = sides
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda rows, scale: infonce(rows, anchor, positives, excluded, scale, direction, smoothing),
        (sides.modality.requires_grad_(), scale),
    )


def test_no_gradient_flows_into_anchors(pairs):
    modality, anchor, positives, excluded = pairs
    anchor.requires_grad_()
    infonce(modality.requires_grad_(), anchor, positives, excluded, 10.0).backward()
    assert anchor.grad is None
    assert modality.grad is not None


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_excluded_equals_taken_away(pairs, direction):
    """An anchor that is excluded for every row might as well not be there."""
    modality, anchor, positives, excluded = pairs
    wider = torch.cat([anchor, anchor[:1]])
    no_more = torch.zeros(8, 1)
    found = infonce(
        modality,
        wider,
        torch.cat([positives, no_more], dim=1),
        torch.cat([excluded, no_more == 0], dim=1),
        10.0,
        direction,
    )
    expected = infonce(modality, anchor, positives, excluded, 10.0, direction)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("columns", [0, 3])
def test_a_batch_without_a_positive_has_no_loss_and_no_gradient(columns):
    modality = torch.eye(4, requires_grad=True)
    nothing = torch.zeros(4, columns)
    loss = infonce(modality, torch.eye(4)[:columns], nothing, nothing == 0, 10.0)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(modality.grad, torch.zeros(4, 4))


@pytest.mark.parametrize("scale", [1e-3, 1e4])
def test_finite_at_extremes(scale):
    modality = torch.eye(4).requires_grad_()
    excluded = torch.zeros(4, 4, dtype=torch.bool)
    worst = -torch.eye(4)
    loss = infonce(modality, worst, torch.eye(4), excluded, scale)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(modality.grad).all()


def test_float32_maths_for_half_precision_and_autocast(pairs):
    modality, anchor, positives, excluded = pairs
    half = modality.bfloat16()
    expected = infonce(half.float(), anchor, positives, excluded, 50.0)
    with torch.autocast("cpu", torch.bfloat16):
        found = infonce(half, anchor, positives, excluded, torch.tensor(50.0))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=0, rtol=0)


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(4)), st.permutations(range(5)), st.sampled_from(DIRECTIONS))
def test_order_of_rows_and_columns_does_not_matter(rows, columns, direction):
    generator = torch.Generator().manual_seed(0)
    modality, anchor = (torch.randn(k, 6, generator=generator).double() for k in (4, 5))
    positives = torch.eye(4, 5).double()
    excluded = torch.zeros(4, 5, dtype=torch.bool)
    excluded[1, 4] = excluded[2, 0] = True
    expected = infonce(modality, anchor, positives, excluded, 2.0, direction, 0.1)
    found = infonce(
        modality[rows],
        anchor[columns],
        positives[rows][:, columns],
        excluded[rows][:, columns],
        2.0,
        direction,
        0.1,
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_chance_is_the_loss_of_equal_embeddings(sides, direction, smoothing):
    _, _, positives, excluded = sides
    same = torch.ones(1, 6, dtype=torch.float64) / math.sqrt(6)
    loss = infonce(
        same.expand(4, 6), same.expand(5, 6), positives, excluded, 9.0, direction, smoothing
    )
    assert compute_chance(positives, excluded, direction) == pytest.approx(float(loss), abs=1e-12)


def test_chance_of_a_plain_batch_is_the_log_of_its_size(pairs):
    _, _, positives, excluded = pairs
    assert build(InfoNceOptions()).chance(positives, excluded) == pytest.approx(math.log(8))


def test_pairs_beat_shuffled_pairs(pairs):
    _, anchor, positives, excluded = pairs
    paired = infonce(anchor, anchor, positives, excluded, 10.0)
    assert paired < infonce(anchor.roll(1, dims=0), anchor, positives, excluded, 10.0)


def test_the_objective_is_the_function_with_its_options(pairs):
    objective = build(
        InfoNceOptions(temperature=0.1, direction="anchor_to_modality", label_smoothing=0.1)
    )
    scale, bias = LogitScale(objective)(0.0)
    expected = infonce(*pairs, 10.0, "anchor_to_modality", 0.1)
    torch.testing.assert_close(objective(*pairs, scale, bias), expected)
    assert (objective.learn_scale, objective.max_scale, objective.initial_bias) == (True, 100, None)


def test_a_swinging_temperature_returns():
    swing = TemperatureSchedule(kind="cosine", final=0.02, swings=2)
    found = [compute_temperature(swing, 0.1, p) for p in (0, 0.25, 0.5, 0.75, 1)]
    assert found == pytest.approx([0.1, 0.02, 0.1, 0.02, 0.1])


def test_a_scheduled_scale_is_the_inverse_of_its_temperature():
    options = InfoNceOptions(
        temperature=0.1, learn=False, schedule={"kind": "linear", "final": 0.05}
    )
    objective = build(options)
    assert [objective.scale_at(p) for p in (-1, 0, 0.5, 1, 2)] == pytest.approx(
        [10, 10, 1 / 0.075, 20, 20]
    )
    assert build(InfoNceOptions()).scale_at(0.5) is None
