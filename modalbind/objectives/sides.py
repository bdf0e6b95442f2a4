"""What every objective asks of its arguments: shapes, targets, precision."""

from __future__ import annotations

import torch
from torch import Tensor

from modalbind.errors import ShapeError

_ROW_SUM_TOLERANCE = 1e-3


def check_sides(modality: Tensor, anchor: Tensor, positives: Tensor, excluded: Tensor) -> None:
    """Refuse arguments that an objective could only misread.

    Args:
        modality: Embeddings `(n, dim)`.
        anchor: Embeddings `(m, dim)`.
        positives: Float `(n, m)`.
        excluded: Bool `(n, m)`.

    Raises:
        ShapeError: If the shapes do not belong together, or there is no row.
        ValueError: If a row of `positives` has a negative weight or sums to neither one nor
            zero, or if a column is both positive and excluded for a row.
    """
    fits = modality.ndim == anchor.ndim == 2 and modality.shape[1] == anchor.shape[1]
    pairs = (modality.shape[0], anchor.shape[0])
    if not fits or positives.shape != pairs or excluded.shape != pairs or not pairs[0]:
        raise ShapeError(
            "an objective takes (n, dim), (m, dim), (n, m), (n, m) and n above 0; found "
            f"{tuple(modality.shape)}, {tuple(anchor.shape)}, {tuple(positives.shape)}, "
            f"{tuple(excluded.shape)}; check how the batch was put together"
        )
    sums = positives.sum(dim=1)
    is_whole = ((sums - 1).abs() < _ROW_SUM_TOLERANCE) | (sums == 0)
    if not bool((is_whole & (positives >= 0).all(dim=1)).all()):
        raise ValueError(
            "positives must be weights whose rows sum to one or zero; found row sums "
            f"{float(sums.min()):g} to {float(sums.max()):g}; normalise each row"
        )
    if bool((excluded & (positives > 0)).any()):
        raise ValueError(
            "a column is positive or excluded for a row, never both; found "
            f"{int((excluded & (positives > 0)).sum())} that are both; clear one of the masks"
        )


def full_precision(embeddings: Tensor) -> Tensor:
    """Return at least float32: half precision loses the small differences of logits."""
    return embeddings.float() if embeddings.dtype in (torch.float16, torch.bfloat16) else embeddings


def similarities(modality: Tensor, anchor: Tensor) -> Tensor:
    """Dot products in float32 (or float64 as given), also under autocast.

    Args:
        modality: `(n, dim)`.
        anchor: `(m, dim)`; no gradient flows into it.

    Returns:
        `(n, m)`.
    """
    with torch.autocast(modality.device.type, enabled=False):
        rows = full_precision(modality)
        return rows @ anchor.detach().to(rows.dtype).T
