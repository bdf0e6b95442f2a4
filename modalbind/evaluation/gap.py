"""The modality gap: how far apart two modalities lie in one space, and how they spread.

Pure; linear memory in the number of rows. Letters: `n`, `m` rows of either side, `dim`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from modalbind.errors import DataError, ShapeError
from modalbind.evaluation.retrieval import check_finite

_TILE = 1024


@dataclass(frozen=True, slots=True)
class GapScore:
    """How two modalities lie to each other.

    Attributes:
        centroid_distance: Euclidean distance of the two means, 0 (no gap) to 2.
        alignment: Mean squared distance of positive pairs, 0 (identical) to 4.
        uniformity: Mean of the two sides' log mean Gaussian potential; 0 is collapsed,
            lower is more spread (about -4 on a well used sphere).
    """

    centroid_distance: float
    alignment: float
    uniformity: float


def compute_gap(
    a: Tensor,
    b: Tensor,
    labels_a: Tensor,
    labels_b: Tensor,
    *,
    max_rows: int = 4096,
    seed: int = 0,
) -> GapScore:
    """Measure the gap between two modalities.

    Args:
        a: Embeddings of one modality `(n, dim)`, n at least 2; any norm, they are normalised.
        b: Of the other, `(m, dim)`, m at least 2.
        labels_a: Int64 `(n,)`; rows with equal labels are positive pairs.
        labels_b: Int64 `(m,)`.
        max_rows: Rows that uniformity looks at; more are sampled by `seed`, because its cost is
            quadratic. The other two always see all rows.
        seed: Of that sample.

    Raises:
        ShapeError: If shapes do not fit.
        NonFiniteError: If an embedding is not finite.
        DataError: If no row of one side has a positive on the other.

    Source:
        Wang & Isola 2020 (arXiv 2005.10242), alignment with alpha = 2 and uniformity with t = 2;
        Liang et al. 2022 (arXiv 2203.02053), distance of centroids.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ShapeError(
            f"two sides (n, dim) of at least 2 rows; {tuple(a.shape)} and {tuple(b.shape)}; "
            "embed both in one space"
        )
    check_finite(a, "embeddings of the first modality")
    check_finite(b, "embeddings of the second modality")
    left = F.normalize(a.detach().cpu().double(), dim=1)
    right = F.normalize(b.detach().cpu().double(), dim=1)
    spread = [_compute_uniformity(side, max_rows, seed) for side in (left, right)]
    return GapScore(
        centroid_distance=float((left.mean(dim=0) - right.mean(dim=0)).norm()),
        alignment=_compute_alignment(left, right, labels_a.cpu(), labels_b.cpu()),
        uniformity=sum(spread) / 2,
    )


def _compute_alignment(a: Tensor, b: Tensor, labels_a: Tensor, labels_b: Tensor) -> float:
    """Mean over all positive pairs of |x - y|^2 = 2 - 2 x·y, through sums by label."""
    labels, member = torch.unique(torch.cat([labels_a, labels_b]), return_inverse=True)
    member_a, member_b = member[: len(a)], member[len(a) :]
    count_a = torch.bincount(member_a, minlength=len(labels))
    count_b = torch.bincount(member_b, minlength=len(labels))
    pairs = int((count_a * count_b).sum())
    if not pairs:
        raise DataError(
            f"alignment of {len(a)} and {len(b)} rows; no two share a label; "
            "check that both sides use the same positive keys"
        )
    zeros = a.new_zeros(len(labels), a.shape[1])
    sums_a = zeros.index_add(0, member_a, a)
    sums_b = zeros.index_add(0, member_b, b)
    norms_a = a.square().sum(dim=1)
    norms_b = b.square().sum(dim=1)
    squares = (norms_a * count_b[member_a]).sum() + (norms_b * count_a[member_b]).sum()
    return max(0.0, float(squares - 2 * (sums_a * sums_b).sum()) / pairs)


def _compute_uniformity(rows: Tensor, max_rows: int, seed: int) -> float:
    """Log of the mean of exp(-2 |x - y|^2) over pairs of different rows."""
    if len(rows) > max_rows:
        generator = torch.Generator().manual_seed(seed)
        rows = rows[torch.randperm(len(rows), generator=generator)[:max_rows]]
    total = 0.0
    for first in range(0, len(rows), _TILE):
        distance = torch.cdist(
            rows[first : first + _TILE], rows, compute_mode="donot_use_mm_for_euclid_dist"
        )
        total += float(distance.square().mul(-2).exp().sum())
    n = len(rows)
    # The n self pairs add exp(0) = 1 each.
    return float(torch.tensor((total - n) / (n * (n - 1)), dtype=torch.float64).log())
