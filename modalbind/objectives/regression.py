"""Regression: go where the pair's own anchor is. No negatives, nothing about models or files.

Axes: `n` rows of the modality, `m` anchor embeddings (columns), `dim` the anchor space.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from modalbind.objectives.options import RegressionOptions
from modalbind.objectives.sides import check_sides, full_precision

Distance = Literal["mse", "cosine", "l1"]


def regression(
    modality: Tensor,
    anchor: Tensor,
    positives: Tensor,
    excluded: Tensor,
    distance: Distance = "cosine",
) -> Tensor:
    """Mean distance of each row to the weighted mean of its positives.

    Args:
        modality: Unit-norm embeddings, `(n, dim)`; half precision is raised to float32.
        anchor: Unit-norm embeddings, `(m, dim)`; no gradient flows into it.
        positives: Float `(n, m)`, each row sums to one, or to zero if it has no anchor; such
            rows are left out.
        excluded: Bool `(n, m)`; has no effect, as there are no negatives.
        distance: `mse` and `l1` are means over `dim` (as METAL's and torch's), so about
            `2 / dim` for `mse` at a right angle; `cosine` is 1 - cosine similarity, 0 to 2.

    Returns:
        Scalar loss; zero, with zero gradient, if no row has a positive.

    Raises:
        ShapeError: If the shapes do not belong together, or there is no row.
        ValueError: If a row of `positives` sums to neither one nor zero, or a column is both
            positive and excluded for a row.

    Source:
        Reimers and Gurevych 2020 (arXiv 2004.09813), eq. 1, for `mse`.

    Example:
        >>> rows, anchor = torch.eye(2), torch.tensor([[1.0, 0.0], [0.6, 0.8]])
        >>> nothing = torch.zeros(2, 2, dtype=torch.bool)
        >>> round(regression(rows, anchor, torch.eye(2), nothing).item(), 4)
        0.1
    """
    check_sides(modality, anchor, positives, excluded)
    with torch.autocast(modality.device.type, enabled=False):
        rows = full_precision(modality)
        targets = positives.to(rows.dtype) @ anchor.detach().to(rows.dtype)  # (n, dim)
    asks = positives.sum(dim=1) > 0
    if distance == "cosine":
        distances = 1 - F.cosine_similarity(rows, targets, dim=1)
    elif distance == "mse":
        distances = (rows - targets).square().mean(dim=1)
    else:
        distances = (rows - targets).abs().mean(dim=1)
    return distances.masked_fill(~asks, 0.0).sum() / asks.sum().clamp(min=1)


@dataclass(frozen=True, slots=True)
class Regression:
    """`regression` with its options; see there. `InfoNce` and `Sigmoid` use negatives.

    Attributes:
        distance: What is minimised.
        initial_scale: 1; there is no temperature.
        learn_scale: False.
        max_scale: 1.
        initial_bias: None: there is no bias.
    """

    distance: Distance = "cosine"
    initial_scale: float = 1.0
    learn_scale: bool = False
    max_scale: float = 1.0
    initial_bias: None = None

    def __call__(
        self,
        modality: Tensor,
        anchor: Tensor,
        positives: Tensor,
        excluded: Tensor,
        scale: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        """Return the loss; `scale` and `bias` are not used."""
        return regression(modality, anchor, positives, excluded, self.distance)

    def chance(self, positives: Tensor, excluded: Tensor) -> float:
        """Return 1 for `cosine` (embeddings at a right angle to all anchors), else NaN.

        The other two depend on `dim`, which the masks do not tell.
        """
        return 1.0 if self.distance == "cosine" else float("nan")


def build(options: RegressionOptions) -> Regression:
    """Build the objective from its options."""
    return Regression(distance=options.distance)
