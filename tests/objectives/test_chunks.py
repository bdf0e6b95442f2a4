"""Sides with sparse targets: computed in parts, equal to the same targets as dense tables."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from modalbind.data.collate import lay_out, list_columns
from modalbind.objectives import chunks
from modalbind.objectives.chunks import (
    compute_side_chance,
    compute_side_loss,
    count_asking,
    keep_asking_columns,
    slice_side,
)
from modalbind.objectives.infonce import InfoNce, compute_chance, infonce
from modalbind.types import AnchorSide

DIM, BANK = 5, 9


def unit(rows: int, seed: int) -> Tensor:
    drawn = torch.randn(rows, DIM, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(drawn, dim=1)


def make_side(rows: list[int], keys: int = 4) -> AnchorSide:
    """Anchor `a` has positive key `a % keys`; rows own the key of their anchor."""
    anchors = [(anchor, str(anchor % keys)) for anchor in range(BANK)]
    owned = [{str(row % keys)} if row >= 0 else set() for row in rows]
    return lay_out("text", rows, owned, list_columns(anchors, unit(BANK, 1)), 1.0)


def make_objective(direction: str, smoothing: float = 0.0) -> InfoNce:
    return InfoNce(10.0, True, 100.0, direction=direction, label_smoothing=smoothing)


def backward(loss: Tensor, *leaves: Tensor) -> list[Tensor]:
    return [
        torch.zeros_like(leaf) if grad is None else grad
        for leaf, grad in zip(
            leaves, torch.autograd.grad(loss, leaves, allow_unused=True), strict=True
        )
    ]


@pytest.mark.parametrize("direction", ["both", "modality_to_anchor", "anchor_to_modality"])
@settings(deadline=None, max_examples=25)
@given(
    rows=st.lists(st.integers(-1, BANK - 1), min_size=1, max_size=7),
    elements=st.integers(1, 40),
    smoothing=st.sampled_from([0.0, 0.1]),
)
def test_parts_are_the_dense_loss_with_its_gradient(
    direction: str, rows: list[int], elements: int, smoothing: float
) -> None:
    """Reference: `infonce` on the dense tables of `(n, bank)`, by plain autograd.

    Columns without a row ask nothing there, so leaving them out changes nothing; smoothing would
    spread over them, so it is compared where rows ask.
    """
    smoothing = smoothing if direction == "modality_to_anchor" else 0.0
    side, objective = make_side(rows), make_objective(direction, smoothing)
    embeddings, scale = unit(len(rows), 2).requires_grad_(), torch.tensor(7.0, requires_grad=True)
    dense = side.to_dense()
    expected = infonce(
        embeddings,
        dense.embeddings,
        dense.positives,
        dense.excluded,
        scale,
        direction,  # type: ignore[arg-type]
        smoothing,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "CHUNK_ELEMENTS", elements)
        found = compute_side_loss(objective, embeddings, side, scale, torch.tensor(0.0))
        chance = compute_side_chance(objective, side)
    assert found.item() == pytest.approx(expected.item(), abs=1e-5)
    for ours, theirs in zip(
        backward(found, embeddings, scale), backward(expected, embeddings, scale), strict=True
    ):
        assert torch.allclose(ours, theirs, atol=1e-5)
    theirs_chance = compute_chance(dense.positives, dense.excluded, direction)  # type: ignore[arg-type]
    assert chance == pytest.approx(theirs_chance, abs=1e-5)


def test_slices_and_asking_rows_are_those_of_the_dense_tables() -> None:
    side = make_side([3, -1, 0, 3, 8])
    dense = side.to_dense()
    part = slice_side(side, 1, 4)
    assert torch.equal(part.positives, dense.positives[1:4])
    assert torch.equal(part.excluded, dense.excluded[1:4])
    assert part.excluded.dtype == torch.bool
    assert count_asking(side.positives).tolist() == [True, False, True, True, True]
    assert torch.equal(count_asking(side.positives), count_asking(dense.positives))


def test_asking_columns_are_those_with_a_positive() -> None:
    side = make_side([3, -1, 0, 3, 8])
    asked, dense = keep_asking_columns(side), side.to_dense()
    assert torch.equal(asked.embeddings, side.embeddings[[0, 3, 8]])
    assert torch.equal(asked.positives, dense.positives[:, [0, 3, 8]])
    assert torch.equal(asked.excluded, dense.excluded[:, [0, 3, 8]])


def test_a_table_of_all_pairs_is_never_held() -> None:
    """The largest tensor that the loss makes is a chunk, far below `n * bank`."""
    rows, bank = 64, 4096
    anchors = torch.nn.functional.normalize(torch.randn(bank, DIM), dim=1)
    columns = list_columns([(row, str(row)) for row in range(bank)], anchors)
    side = lay_out("text", list(range(rows)), [{str(r)} for r in range(rows)], columns, 1.0)
    sizes: list[int] = []

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), named=None):
            result = function(*arguments, **(named or {}))
            if isinstance(result, Tensor) and not result.is_sparse:
                sizes.append(result.numel())
            return result

    embeddings = unit(rows, 3).requires_grad_()
    with pytest.MonkeyPatch.context() as patch, Sizes():
        patch.setattr(chunks, "CHUNK_ELEMENTS", 4 * bank)
        objective = make_objective("both")
        compute_side_loss(
            objective, embeddings, side, torch.tensor(10.0), torch.tensor(0.0)
        ).backward()
    assert max(sizes) <= max(4 * bank, bank * DIM)
