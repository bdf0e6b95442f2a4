"""The loss of one anchor side, whatever its size: against a whole bank it is computed in parts.

Letters: `n` rows of the modality, `m` anchor embeddings (columns), `dim` the anchor space.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from modalbind.types import AnchorSide

CHUNK_ELEMENTS = 2**23
"""Similarities held at once, 32 MiB of float32; an objective holds a few such tables."""


def compute_side_loss(
    objective: Any, rows: Tensor, side: AnchorSide, scale: Tensor, bias: Tensor
) -> Tensor:
    """Return the loss of rows against one anchor side.

    A side with dense targets is computed at once. One with sparse targets has a whole bank as its
    columns: what the objective asks of each row alone is computed for a few rows at a time, its
    gradient right with it, so that no table of `(n, m)` is ever held; what it asks of columns is
    asked of those that have a row, as the others ask nothing.

    Args:
        objective: With `parts()` if the targets are sparse.
        rows: Unit norm, float32 `(n, dim)`.
        side: On the device of the rows.
        scale: Scalar.
        bias: Scalar.

    Returns:
        Scalar, equal to that of the same targets as dense tables.
    """
    if not side.positives.is_sparse:
        loss: Tensor = objective(rows, side.embeddings, side.positives, side.excluded, scale, bias)
        return loss
    total = rows.new_zeros(())
    for share, part in objective.parts():
        if part.is_rowwise:
            loss = _RowsInChunks.apply(rows, scale, bias, part, side)
        else:
            asked = keep_asking_columns(side)
            loss = part(rows, asked.embeddings, asked.positives, asked.excluded, scale, bias)
        total = total + share * loss
    return total


def compute_side_chance(objective: Any, side: AnchorSide) -> float:
    """Return the loss of embeddings that know nothing against one anchor side, in nats."""
    if not side.positives.is_sparse:
        return float(objective.chance(side.positives, side.excluded))
    total = 0.0
    for share, part in objective.parts():
        if not part.is_rowwise:
            asked = keep_asking_columns(side)
            total += share * float(part.chance(asked.positives, asked.excluded))
            continue
        size = _chunk_size(side)
        for start, stop, of_all in _list_chunks(count_asking(side.positives), size):
            rows = slice_side(side, start, stop)
            total += share * of_all * float(part.chance(rows.positives, rows.excluded))
    return total


def slice_side(side: AnchorSide, start: int, stop: int) -> AnchorSide:
    """Return the side for some of the rows, with dense targets `(stop - start, m)`."""
    return replace(
        side,
        positives=_slice_rows(side.positives, start, stop),
        excluded=_slice_rows(side.excluded, start, stop),
    )


def keep_asking_columns(side: AnchorSide) -> AnchorSide:
    """Return a side of sparse targets with the columns that have a positive, dense."""
    columns = torch.unique(side.positives.indices()[1])
    place = columns.new_full((len(side.embeddings),), -1)
    place[columns] = torch.arange(len(columns), device=columns.device)

    def pick(table: Tensor) -> Tensor:
        row, column = table.indices()[0], place[table.indices()[1]]
        is_kept = column >= 0
        values = table.values()[is_kept]
        dense = values.new_zeros(table.shape[0], len(columns))
        dense[row[is_kept], column[is_kept]] = values
        return dense

    return replace(
        side,
        embeddings=side.embeddings[columns],
        positives=pick(side.positives),
        excluded=pick(side.excluded),
    )


def count_asking(positives: Tensor) -> Tensor:
    """Return for each row whether it has a positive, bool `(n,)`; targets dense or sparse."""
    if not positives.is_sparse:
        return positives.sum(dim=1) > 0
    asks = torch.zeros(positives.shape[0], dtype=torch.bool, device=positives.values().device)
    asks[positives.indices()[0]] = True
    return asks


def _slice_rows(table: Tensor, start: int, stop: int) -> Tensor:
    if not table.is_sparse:
        return table[start:stop]
    row, column = table.indices()
    is_here = (row >= start) & (row < stop)
    values = table.values()[is_here]
    dense = values.new_zeros(stop - start, table.shape[1])
    dense[row[is_here] - start, column[is_here]] = values
    return dense


def _chunk_size(side: AnchorSide) -> int:
    return max(1, CHUNK_ELEMENTS // max(1, len(side.embeddings)))


def _list_chunks(asks: Tensor, size: int) -> list[tuple[int, int, float]]:
    """Return start, stop and share of the asking rows of each chunk that has any."""
    counts = [int(part.sum()) for part in torch.split(asks, size)]
    return [
        (size * place, min(size * (place + 1), len(asks)), count / sum(counts))
        for place, count in enumerate(counts)
        if count
    ]


class _RowsInChunks(torch.autograd.Function):
    """Loss of a rowwise objective, with its gradient computed in the forward pass, by chunks.

    A mean over rows that ask, each by itself, is the sum of the chunks' means by the share of
    rows that each holds. Computing a chunk's gradient while its similarities are still there
    saves computing them twice.
    """

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        scale: Tensor,
        bias: Tensor,
        objective: Any,
        side: AnchorSide,
    ) -> Tensor:
        scalars = [value.detach().clone().requires_grad_() for value in (scale, bias)]
        gradient, total = torch.zeros_like(rows), rows.new_zeros(())
        for start, stop, share in _list_chunks(count_asking(side.positives), _chunk_size(side)):
            part = slice_side(side, start, stop)
            piece = rows[start:stop].detach().requires_grad_()
            with torch.enable_grad():
                loss = share * objective(
                    piece, part.embeddings, part.positives, part.excluded, *scalars
                )
                loss.backward()
            assert piece.grad is not None
            gradient[start:stop] = piece.grad
            total += loss.detach()
        ctx.save_for_backward(gradient, *(value.grad for value in scalars))
        return total

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        rows, *scalars = ctx.saved_tensors
        found = [None if each is None else outer * each for each in scalars]
        return outer * rows, *found, None, None
