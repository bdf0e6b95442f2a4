"""Embedding arithmetic: what the normalised sum of two parts retrieves, beside each part alone.

Pure: embeddings in, scores out. Letters: `n` queries, `m` targets, `dim` the anchor space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from modalbind.errors import ShapeError
from modalbind.evaluation.retrieval import RetrievalScore, compute_retrieval


@dataclass(frozen=True, slots=True)
class SumScore:
    """How well a sum of two parts retrieves the whole, and how well each part does alone."""

    both: RetrievalScore
    first_alone: RetrievalScore
    second_alone: RetrievalScore


def add_up(embeddings: Sequence[Tensor]) -> Tensor:
    """Return the normalised sum of embeddings `(n, dim)`, float32 `(n, dim)`.

    Raises:
        ShapeError: If there is none, or their shapes differ.
    """
    shapes = {tuple(each.shape) for each in embeddings}
    if len(shapes) != 1:
        raise ShapeError(
            f"embeddings of one shape to add up asked for; found {sorted(shapes) or 'none'}; "
            "give one row of each modality for every query"
        )
    return F.normalize(torch.stack([each.float() for each in embeddings]).sum(dim=0), dim=1)


def score_sum(
    parts: tuple[Tensor, Tensor],
    targets: Tensor,
    labels: tuple[Tensor, Tensor],
    *,
    groups: Sequence[str],
    bootstrap: int,
    seed: int,
) -> SumScore:
    """Score the sum of two parts, and each part alone, on the same queries and targets.

    Args:
        parts: Each unit norm `(n, dim)`; row i of both makes query i.
        targets: Unit norm `(m, dim)`.
        labels: Of queries, int64 `(n,)`, and of targets `(m,)`; equal labels belong together.
        groups: Of each query, for the intervals.
        bootstrap: Resamples of an interval.
        seed: Of the resamples.
    """

    def score(queries: Tensor) -> RetrievalScore:
        return compute_retrieval(
            queries,
            targets,
            *labels,
            query_groups=groups,
            bootstrap=bootstrap,
            seed=seed,
        )

    return SumScore(score(add_up(parts)), score(parts[0]), score(parts[1]))
