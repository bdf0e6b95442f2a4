"""Sigmoid objective: each pair of the batch judged by itself. Nothing about models or files.

Axes: `n` rows of the modality, `m` anchor embeddings (columns), `dim` the anchor space.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from modalbind.objectives.options import SigmoidOptions
from modalbind.objectives.sides import check_sides, full_precision, similarities


def sigmoid(
    modality: Tensor,
    anchor: Tensor,
    positives: Tensor,
    excluded: Tensor,
    scale: Tensor | float,
    bias: Tensor | float,
) -> Tensor:
    """Binary cross entropy of every (row, column), summed over columns, averaged over rows.

    The weight of a positive is its target: 1 for the only positive of a row, so that this is
    SigLIP's loss, and less where a row is shared out between several. A row without a positive
    on this side is left out; a column without one is a negative for all.

    Args:
        modality: Unit-norm embeddings, `(n, dim)`; half precision is raised to float32.
        anchor: Unit-norm embeddings, `(m, dim)`; no gradient flows into it.
        positives: Float `(n, m)`, each row sums to one, or to zero if it has no anchor.
        excluded: Bool `(n, m)`: pairs that are neither positive nor negative; they add nothing.
        scale: Positive, 1 / temperature; multiplies cosine similarity.
        bias: Added to every logit. SigLIP starts at -10: nearly all pairs do not match.

    Returns:
        Scalar loss in nats, a sum over columns: it grows with `m`. Zero if no row has a
        positive.

    Raises:
        ShapeError: If the shapes do not belong together, or there is no row.
        ValueError: If a row of `positives` sums to neither one nor zero, or a column is both
            positive and excluded for a row.

    Source:
        Zhai et al. 2023 (arXiv 2303.15343), algorithm 1.

    Example:
        >>> pairs, nothing = torch.eye(2), torch.zeros(2, 2, dtype=torch.bool)
        >>> round(sigmoid(pairs, pairs, torch.eye(2), nothing, scale=1.0, bias=0.0).item(), 4)
        1.0064
    """
    check_sides(modality, anchor, positives, excluded)
    cosines = similarities(modality, anchor)
    logits = full_precision(torch.as_tensor(scale)) * cosines + full_precision(
        torch.as_tensor(bias)
    )
    targets = positives.to(logits.dtype)
    losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    counted, asking = _counted(positives, excluded)
    return losses.masked_fill(~counted, 0.0).sum() / asking.clamp(min=1)


def compute_chance(positives: Tensor, excluded: Tensor) -> float:
    """Loss of embeddings that know nothing: the best that one logit for all pairs can do.

    Args:
        positives: Float `(n, m)`, as for `sigmoid`.
        excluded: Bool `(n, m)`.

    Returns:
        Nats: the entropy of a match, times the number of pairs per row.

    Example:
        >>> pairs = torch.eye(2)
        >>> round(compute_chance(pairs, pairs > 1), 4), round(2 * math.log(2), 4)
        (1.3863, 1.3863)
    """
    counted, asking = _counted(positives, excluded)
    pairs, rows = int(counted.sum()), int(asking)
    share = float(positives.sum()) / pairs if pairs else 0.0
    if not 0 < share < 1:
        return 0.0
    entropy = -share * math.log(share) - (1 - share) * math.log1p(-share)
    return entropy * pairs / rows


@dataclass(frozen=True, slots=True)
class Sigmoid:
    """`sigmoid` with its options; see there. `InfoNce` compares pairs, this judges each alone.

    Attributes:
        initial_scale: 1 / temperature at the start.
        learn_scale: Whether scale and bias are parameters.
        max_scale: Upper bound of a learned scale.
        initial_bias: Logit bias at the start.
        side_scales: `initial_scale` of single anchor sides.
    """

    initial_scale: float
    learn_scale: bool
    max_scale: float
    initial_bias: float
    side_scales: Mapping[str, float] = field(default_factory=dict)

    def __call__(
        self,
        modality: Tensor,
        anchor: Tensor,
        positives: Tensor,
        excluded: Tensor,
        scale: Tensor,
        bias: Tensor,
    ) -> Tensor:
        """Return the loss."""
        return sigmoid(modality, anchor, positives, excluded, scale, bias)

    def chance(self, positives: Tensor, excluded: Tensor) -> float:
        """Return the loss in nats of the best logit that is the same for all pairs."""
        return compute_chance(positives, excluded)


def build(options: SigmoidOptions) -> Sigmoid:
    """Build the objective from its options."""
    return Sigmoid(
        initial_scale=1 / options.temperature,
        side_scales={side: 1 / value for side, value in options.side_temperatures.items()},
        learn_scale=options.learn,
        max_scale=options.max_scale,
        initial_bias=options.bias,
    )


def _counted(positives: Tensor, excluded: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs that count, bool `(n, m)`, and the number of rows that have a positive."""
    asks = positives.sum(dim=1, keepdim=True) > 0
    return ~excluded & asks, asks.sum()
