"""Regression: go where the pair's own anchor is. No negatives, nothing about models or files.

Beside the distance of each row, the cosines between the rows can be matched to those between
their targets (METAL).

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
Structure = Literal["none", "full", "upper"]


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


def match_structure(
    modality: Tensor, anchor: Tensor, positives: Tensor, entries: Literal["full", "upper"]
) -> Tensor:
    """Mean squared difference of the cosines among the rows and those among their targets.

    Args:
        modality: Unit-norm embeddings, `(n, dim)`; half precision is raised to float32.
        anchor: Unit-norm embeddings, `(m, dim)`; no gradient flows into it.
        positives: Float `(n, m)`; rows that sum to zero have no target and are left out.
        entries: `full` takes all of the `n * n` cosines, each row's with itself included, as
            METAL's first form; `upper` the strict upper triangle.

    Returns:
        Scalar loss; zero, with zero gradient, if fewer than two rows have a target.

    Source:
        METAL (arXiv 2601.10096), the Gram term of its loss.

    Example:
        >>> rows = torch.eye(2)
        >>> match_structure(rows, torch.tensor([[1.0, 0.0], [0.6, 0.8]]), rows, "upper").item()
        0.36000001430511475
    """
    asks = positives.sum(dim=1) > 0
    if int(asks.sum()) < 2:
        return (modality * 0).sum()
    with torch.autocast(modality.device.type, enabled=False):
        rows = full_precision(modality)[asks]
        targets = positives[asks].to(rows.dtype) @ anchor.detach().to(rows.dtype)
        rows, targets = F.normalize(rows, dim=1), F.normalize(targets, dim=1)
        differences = (rows @ rows.T - targets @ targets.T).square()
    if entries == "full":
        return differences.mean()
    n = len(rows)
    return differences.triu(diagonal=1).sum() / (n * (n - 1) / 2)


@dataclass(frozen=True, slots=True)
class Regression:
    """`regression` with its options; see there. `InfoNce` and `Sigmoid` use negatives.

    Attributes:
        distance: What is minimised.
        weight: Of the distance.
        structure: Which cosines within the batch are matched as well; see `match_structure`.
        structure_weight: Of that term.
        initial_scale: 1; there is no temperature.
        learn_scale: False.
        max_scale: 1.
        initial_bias: None: there is no bias.
    """

    distance: Distance = "cosine"
    weight: float = 1.0
    structure: Structure = "none"
    structure_weight: float = 1.0
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
        loss = self.weight * regression(modality, anchor, positives, excluded, self.distance)
        if self.structure == "none":
            return loss
        term = match_structure(modality, anchor, positives, self.structure)
        return loss + self.structure_weight * term

    def chance(self, positives: Tensor, excluded: Tensor) -> float:
        """Return the weight for `cosine` (embeddings at a right angle to all anchors), else NaN.

        The other distances depend on `dim`, and the structure on the targets, which the masks do
        not tell.
        """
        is_known = self.distance == "cosine" and self.structure == "none"
        return self.weight if is_known else float("nan")


def build(options: RegressionOptions) -> Regression:
    """Build the objective from its options."""
    return Regression(
        distance=options.distance,
        weight=options.weight,
        structure=options.structure,
        structure_weight=options.structure_weight,
    )
