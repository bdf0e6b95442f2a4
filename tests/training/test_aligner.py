"""The loop: exact gradients in parts, state that continues to the same bits, sides weighted."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from modalbind.data.collate import build_side, lay_out, list_columns
from modalbind.encoders import Tower
from modalbind.encoders.head import LinearHead
from modalbind.errors import NonFiniteError, RunError
from modalbind.objectives.infonce import InfoNce
from modalbind.objectives.regression import Regression
from modalbind.recipe.schema import TrainSection
from modalbind.training import Aligner
from modalbind.types import PairBatch

N, TIME, WIDTH, DIM = 6, 5, 4, 3


class Encoder(nn.Module):
    """One layer with dropout and a buffer, mean over real time."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.hidden = nn.Linear(WIDTH, WIDTH)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, features: Tensor, valid_mask: Tensor) -> Tensor:
        weights = valid_mask.float().unsqueeze(-1)
        hidden = self.dropout(self.hidden(features).tanh())
        return (hidden * weights).sum(1) / weights.sum(1)

    def layer_groups(self) -> list[list[nn.Module]]:
        return [[self.hidden]]


def make_tower(dropout: float = 0.0, is_frozen: bool = False) -> Tower:
    torch.manual_seed(0)
    encoder = Encoder(dropout)
    return Tower(encoder, LinearHead(WIDTH, DIM), [encoder] if is_frozen else [])


def make_aligner(tower: Tower, objective: Any = None, **section: Any) -> Aligner:
    objective = objective or InfoNce(initial_scale=10.0, learn_scale=True, max_scale=100.0)
    options = {"lr": 0.01, "warmup_steps": 0, "schedule": "constant", "batch_size": N, **section}
    return Aligner(
        tower,
        objective,
        TrainSection(**options),
        Accelerator(cpu=True),
        sides=("text", "image"),
        total_steps=10,
        seed=3,
    )


def make_batch(seed: int = 0, image_rows: tuple[int, ...] | None = None) -> PairBatch:
    generator = torch.Generator().manual_seed(seed)
    bank = nn.functional.normalize(torch.randn(8, DIM, generator=generator), dim=1)
    features = torch.randn(N, TIME, WIDTH, generator=generator)
    lengths = torch.randint(1, TIME + 1, (N,), generator=generator)
    mask = torch.arange(TIME)[None] < lengths[:, None]
    rows = torch.randint(0, 8, (N,), generator=generator).tolist()
    sides = [build_side("text", rows, [str(row // 2) for row in rows], bank, 2.0)]
    if image_rows is not None:
        sides.append(build_side("image", image_rows, [str(r) for r in image_rows], bank, 0.5))
    return PairBatch(features, mask, tuple(sides), tuple(map(str, range(N))))


def step(aligner: Aligner, batch: PairBatch, start: int = 0) -> Any:
    (result,) = aligner.run([(0, batch)], start)
    return result


def gradients(aligner: Aligner) -> dict[str, Tensor]:
    modules = {"tower": aligner.plain_tower, "scale": aligner.scales}
    return {
        f"{part}.{name}": p.grad.clone()
        for part, module in modules.items()
        for name, p in module.named_parameters()
        if p.grad is not None
    }


@pytest.mark.parametrize("size", [1, 2, 4, 5])
def test_parts_give_the_gradient_of_the_whole_batch(size: int) -> None:
    batch = make_batch(image_rows=(0, 1, -1, 2, 2, -1))
    whole, parts = make_aligner(make_tower()), make_aligner(make_tower(), micro_batch_size=size)
    first, second = step(whole, batch), step(parts, batch)
    assert second.loss == pytest.approx(first.loss, abs=1e-6)
    assert second.grad_norm == pytest.approx(first.grad_norm, abs=1e-5)
    expected, found = gradients(whole), gradients(parts)
    assert (
        expected.keys() == found.keys()
        and {"scale.text.log_scale", "scale.image.log_scale"} <= found.keys()
    )
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, atol=1e-5), name
    for a, b in zip(whole.plain_tower.parameters(), parts.plain_tower.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_randomness_of_the_first_pass_is_replayed_in_the_second() -> None:
    """Reference: the same parts with the same masks in one graph, by plain autograd."""
    batch, scale = make_batch(), (torch.tensor(10.0), torch.tensor(0.0))
    aligner = make_aligner(make_tower(dropout=0.5), micro_batch_size=2)
    reference = copy.deepcopy(aligner.plain_tower)
    aligner._backward(7, batch, {"text": scale})
    assert batch.valid_mask is not None
    pieces = []
    for number, i in enumerate(range(0, N, 2)):
        aligner._seed(7, number)
        pieces.append(reference(batch.features[i : i + 2], batch.valid_mask[i : i + 2]))
    side = batch.sides[0]
    loss = aligner.objective(
        torch.cat(pieces), side.embeddings, side.positives, side.excluded, *scale
    )
    loss.backward()
    pairs = zip(reference.parameters(), aligner.plain_tower.parameters(), strict=True)
    for wanted, found in pairs:
        assert wanted.grad is not None and found.grad is not None
        assert torch.allclose(wanted.grad, found.grad, atol=1e-6)


def test_each_step_and_part_draws_its_own_randomness() -> None:
    aligner, drawn = make_aligner(make_tower()), []
    for place in ((1,), (2,), (1, 0), (1, 1), (2, 0), (1,)):
        aligner._seed(*place)
        drawn.append(tuple(torch.rand(3).tolist()))
    assert drawn[0] == drawn[5]
    assert len(set(drawn)) == 5


def test_a_step_depends_on_weights_seed_and_number_alone() -> None:
    batch = make_batch()
    losses = []
    for noise in (0, 7):
        torch.rand(noise + 1)
        losses.append(step(make_aligner(make_tower(dropout=0.5)), batch, start=4).loss)
    assert losses[0] == losses[1]
    assert losses[0] != step(make_aligner(make_tower(dropout=0.5)), batch, start=5).loss


@pytest.mark.parametrize("is_frozen", [False, True])
def test_state_continues_to_the_same_bits(is_frozen: bool) -> None:
    batches = [(0, make_batch(seed)) for seed in range(6)]
    whole = make_aligner(make_tower(0.3, is_frozen), schedule="cosine")
    wanted = list(whole.run(batches, 0))
    first = make_aligner(make_tower(0.3, is_frozen), schedule="cosine")
    list(first.run(batches[:3], 0))
    kept = {name: tensor.clone() for name, tensor in first.state_tensors().items()}
    assert any(name.startswith("optimizer.") for name in kept)
    assert ("tower.encoder.hidden.weight" in kept) == (not is_frozen)
    assert "tower.encoder.calls" in kept, "buffers are kept even of what is frozen"
    second = make_aligner(make_tower(0.3, is_frozen), schedule="cosine")
    second.load_state_tensors(kept)
    assert list(second.run(batches[3:], 3)) == wanted[3:]
    last, other = whole.state_tensors(), second.state_tensors()
    assert last.keys() == other.keys()
    assert all(torch.equal(last[name], other[name]) for name in last)


def test_a_frozen_encoder_does_not_move() -> None:
    tower = make_tower(dropout=0.5, is_frozen=True)
    before = {k: v.clone() for k, v in tower.state_dict().items()}
    list(make_aligner(tower).run([(0, make_batch(s)) for s in range(3)], 0))
    moved = {k for k, v in tower.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == {"head.projection.weight", "head.projection.bias"}
    assert not tower.encoder.training and tower.head.training


def test_sides_are_weighted_by_their_share() -> None:
    batch = make_batch(image_rows=(0, 1, -1, 2, 2, -1))
    aligner = make_aligner(make_tower())
    with torch.no_grad():
        rows = aligner.plain_tower(batch.features, batch.valid_mask)
        losses = [
            aligner.objective(
                rows, s.embeddings, s.positives, s.excluded, torch.tensor(10.0), torch.tensor(0.0)
            ).item()
            for s in batch.sides
        ]
    chances = [float(aligner.objective.chance(s.positives, s.excluded)) for s in batch.sides]
    found = step(aligner, batch)
    assert found.loss == pytest.approx((2.0 * losses[0] + 0.5 * losses[1]) / 2.5, abs=1e-6)
    assert found.chance_loss == pytest.approx((2.0 * chances[0] + 0.5 * chances[1]) / 2.5)


def test_an_empty_side_counts_for_nothing() -> None:
    with_empty, without = make_batch(image_rows=(-1,) * N), make_batch()
    a, b = make_aligner(make_tower()), make_aligner(make_tower())
    assert step(a, with_empty) == step(b, without)


def test_a_batch_without_any_anchor_is_refused() -> None:
    batch = make_batch(image_rows=(-1,) * N)
    batch = PairBatch(batch.features, batch.valid_mask, batch.sides[1:], batch.samples)
    with pytest.raises(NonFiniteError, match="no row of the batch has an anchor"):
        step(make_aligner(make_tower()), batch)


@pytest.mark.parametrize("micro", [None, 2])
def test_a_loss_that_is_not_finite_stops_before_the_weights_change(micro: int | None) -> None:
    batch = make_batch()
    broken = PairBatch(batch.features * math.inf, batch.valid_mask, batch.sides, batch.samples)
    tower = make_tower()
    before = {k: v.clone() for k, v in tower.state_dict().items()}
    with pytest.raises(NonFiniteError, match=r"step 1: a finite loss.*lower train\.lr"):
        step(make_aligner(tower, micro_batch_size=micro), broken)
    assert all(torch.equal(v, before[k]) for k, v in tower.state_dict().items())


def test_a_gradient_that_is_not_finite_stops_too() -> None:
    tower = make_tower()
    tower.head.projection.weight.register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(NonFiniteError, match="a finite gradient asked for"):
        step(make_aligner(tower), make_batch())


@pytest.mark.parametrize(("distance", "chance"), [("mse", None), ("l1", None), ("cosine", 1.0)])
def test_an_unknown_chance_level_is_none(distance: Any, chance: float | None) -> None:
    result = step(make_aligner(make_tower(), Regression(distance=distance)), make_batch())
    assert result.chance_loss == chance and math.isfinite(result.loss)


def test_a_result_says_what_the_step_did() -> None:
    aligner = make_aligner(make_tower(), clip_norm=1e-3, warmup_steps=4)
    results = list(aligner.run([(2, make_batch(s)) for s in range(3)], 1))
    assert [(r.step, r.epoch, r.samples) for r in results] == [(2, 2, N), (3, 2, N), (4, 2, N)]
    # The norm before clipping; a rate that rises over four steps; the scale that was used.
    assert results[0].grad_norm > 1e-3
    assert results[0].lr < results[1].lr < results[2].lr <= 0.01
    assert results[0].scale == pytest.approx(10.0)


def test_each_side_has_a_temperature_of_its_own() -> None:
    """By hand: the same batch, each side's loss at its own scale, weighted as the sides are."""
    batch = make_batch(image_rows=(0, 1, -1, 2, 2, -1))
    objective = InfoNce(
        initial_scale=10.0, learn_scale=True, max_scale=100.0, side_scales={"image": 5.0}
    )
    aligner = make_aligner(make_tower(), objective)
    embeddings = aligner.plain_tower(batch.features, batch.valid_mask)
    losses = [
        objective(embeddings, side.embeddings, side.positives, side.excluded, torch.tensor(scale))
        for side, scale in zip(batch.sides, (10.0, 5.0), strict=True)
    ]
    expected = (2.0 * losses[0] + 0.5 * losses[1]) / 2.5
    assert step(aligner, batch).loss == pytest.approx(float(expected.detach()), abs=1e-6)
    after = {side: holder(0.0)[0].item() for side, holder in aligner.scales.items()}
    assert after["text"] != 10.0 and after["image"] != 5.0
    restored = make_aligner(make_tower(), objective)
    restored.load_state_tensors(aligner.state_tensors())
    assert {side: holder(0.0)[0].item() for side, holder in restored.scales.items()} == after


def test_the_state_of_another_version_is_refused() -> None:
    aligner = make_aligner(make_tower())
    state = aligner.state_tensors()
    state["scale.log_scale"] = state.pop("scale.text.log_scale")
    with pytest.raises(RunError, match=r"lacks scale.text.log_scale.*start again with --force"):
        aligner.load_state_tensors(state)


def test_training_learns() -> None:
    batch = make_batch()
    results = list(make_aligner(make_tower(), lr=0.1).run([(0, batch)] * 25, 0))
    assert results[-1].loss < 0.6 * results[0].loss
    assert results[0].chance_loss is not None


ROWWISE = InfoNce(
    initial_scale=10.0, learn_scale=True, max_scale=100.0, direction="modality_to_anchor"
)


def make_bank_batch() -> PairBatch:
    """Two sides of a batch whose columns are all anchors of a bank."""
    batch = make_batch()
    generator = torch.Generator().manual_seed(9)
    bank = nn.functional.normalize(torch.randn(8, DIM, generator=generator), dim=1)
    columns = list_columns([(row, str(row // 2)) for row in range(8)], bank)
    texts, images = [0, 3, 3, 7, 1, 5], [2, -1, -1, 4, -1, 2]
    sides = [
        lay_out(name, rows, [{str(row // 2)} for row in rows], columns, weight)
        for name, rows, weight in (("text", texts, 2.0), ("image", images, 0.5))
    ]
    return PairBatch(batch.features, batch.valid_mask, tuple(sides), batch.samples)


@pytest.mark.parametrize("against_bank", [False, True])
@pytest.mark.parametrize("size", [1, 4, 5])
def test_rows_that_need_no_other_row_are_accumulated_in_one_pass(
    size: int, against_bank: bool
) -> None:
    batch = make_bank_batch() if against_bank else make_batch(image_rows=(0, 1, -1, 2, 2, -1))
    whole = make_aligner(make_tower(), ROWWISE)
    parts = make_aligner(make_tower(), ROWWISE, micro_batch_size=size)
    calls: list[int] = []
    parts.plain_tower.encoder.register_forward_hook(lambda *_: calls.append(1))
    dense = PairBatch(
        batch.features,
        batch.valid_mask,
        tuple(side.to_dense() if side.positives.is_sparse else side for side in batch.sides),
        batch.samples,
    )
    first, second = step(whole, dense), step(parts, batch)
    assert len(calls) == math.ceil(N / size), "no second forward pass"
    assert second.loss == pytest.approx(first.loss, abs=1e-6)
    assert second.chance_loss == pytest.approx(first.chance_loss, abs=1e-6)
    expected, found = gradients(whole), gradients(parts)
    assert expected.keys() == found.keys() >= {"scale.text.log_scale", "scale.image.log_scale"}
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, atol=1e-5), name


@pytest.mark.parametrize("size", [None, 2])
def test_both_directions_against_a_bank_are_those_of_its_dense_table(size: int | None) -> None:
    batch = make_bank_batch()
    dense = PairBatch(
        batch.features, batch.valid_mask, tuple(s.to_dense() for s in batch.sides), batch.samples
    )
    whole = make_aligner(make_tower())
    parts = make_aligner(make_tower(), micro_batch_size=size)
    first, second = step(whole, dense), step(parts, batch)
    assert second.loss == pytest.approx(first.loss, abs=1e-6)
    expected, found = gradients(whole), gradients(parts)
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, atol=1e-5), name


def test_an_encoder_with_a_schedule_is_told_the_progress() -> None:
    tower, told = make_tower(), list[float]()
    tower.encoder.set_progress = told.append
    aligner = make_aligner(tower)
    for start in (0, 4):
        step(aligner, make_batch(), start)
    assert told == [0.0, 0.4]


class PictureEncoder(nn.Module):
    """Two convolutions, one of them by channel."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, 2)
        self.second = nn.Conv2d(8, 8, (3, 2), groups=8)

    def forward(self, features: Tensor, valid_mask: Tensor | None = None) -> Tensor:
        return self.second(self.first(features).relu()).mean(dim=(2, 3))

    def layer_groups(self) -> list[list[nn.Module]]:
        return [[self.first], [self.second]]


def make_picture_aligner(**section: Any) -> Aligner:
    torch.manual_seed(0)
    return make_aligner(Tower(PictureEncoder(), LinearHead(8, DIM), []), **section)


def make_picture_batch(seed: int) -> PairBatch:
    draw = torch.Generator().manual_seed(seed)
    features = torch.randn(N, 3, 12, 12, generator=draw)
    return dataclasses.replace(make_batch(seed), features=features, valid_mask=None)


def test_channels_last_are_the_same_steps_and_go_on_from_what_was_saved() -> None:
    first, last = (make_picture_aligner(channels_last=is_last) for is_last in (False, True))
    weight = last.plain_tower.encoder.first.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
    for number in range(3):
        step(first, make_picture_batch(number), number)
        step(last, make_picture_batch(number), number)
    expected = first.state_tensors()
    for name, found in last.state_tensors().items():
        torch.testing.assert_close(found, expected[name], atol=1e-5, rtol=1e-4)
    # As a checkpoint has them: contiguous.
    saved = {name: value.contiguous().clone() for name, value in last.state_tensors().items()}
    again = make_picture_aligner(channels_last=True)
    again.load_state_tensors(saved)
    for number in range(3, 6):
        step(last, make_picture_batch(number), number)
        step(again, make_picture_batch(number), number)
    found = again.state_tensors()
    assert all(torch.equal(found[name], value) for name, value in last.state_tensors().items())
