"""Gathers embeddings over processes so that gradients come out as in one process.

Every process computes the loss of the whole batch: gathered rows of the modality against the
anchor embeddings of all processes. The value would be right in any mode of gathering; the gradient
is right only if the backward pass sums, over processes, what each loss says about a row, and
then brings it home. That is what is done here, with no factor put in: the gradient that a
process's parameters receive is its share of d(sum over processes of loss)/d(parameters). Data
parallel wrappers *average* over processes, which gives the gradient of the mean loss, and as all
compute one and the same loss, that is the gradient of one process. Whoever sums instead must
divide the loss by the number of processes. A parameter used after the gather (the scale) gets
its whole gradient in every process: the same in each, so averaging leaves it alone.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def gather_rows(rows: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """Concatenate the rows of all processes, in order of rank; differentiable.

    Every process of the group must call it, in the forward and, if any does, in the backward
    pass. Without several processes it returns its argument.

    Args:
        rows: Float `(n_rank, ...)`; `n_rank` may differ between processes, also be 0, the other
            axes may not.
        group: Processes that take part; default: all.

    Returns:
        `(n, ...)`, n the sum of all `n_rank`; equal in every process.

    Source:
        Backward as the adjoint of all-gather: sum over processes, own slice.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size(group) == 1:
        return rows
    gathered: Tensor = _GatherRows.apply(rows, group)
    return gathered


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, group: dist.ProcessGroup | None) -> Tensor:
        sizes = _gather_sizes(rows, group)
        rank = dist.get_rank(group)
        ctx.group, ctx.start, ctx.size = group, sum(sizes[:rank]), sizes[rank]
        # Collectives take equal shapes only: pad to the longest, then cut.
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded, group=group)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=ctx.group)
        return total[ctx.start : ctx.start + ctx.size], None


def _gather_sizes(rows: Tensor, group: dist.ProcessGroup | None) -> list[int]:
    own = torch.tensor([len(rows)], device=rows.device)
    sizes = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
    dist.all_gather(sizes, own, group=group)
    return [int(size) for size in sizes]
