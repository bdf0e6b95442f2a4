"""Pads features and lays out the anchor side of a batch.

Letters: `n` samples, `m` distinct anchors of the batch, `dim` the anchor space.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from modalbind.errors import NonFiniteError, ShapeError
from modalbind.types import AnchorSide


def pad_features(features: Sequence[Tensor], is_padded: bool) -> tuple[Tensor, Tensor | None]:
    """Stack features, padding the first axis at the end with zeros.

    Args:
        features: Each `(time_i, ...)`, or all of one shape if nothing is padded.
        is_padded: Whether the first axis is time.

    Returns:
        Float32 `(n, time, ...)` and bool `(n, time)`, True = real data; no mask if not padded.

    Raises:
        ShapeError: If shapes differ where they must not.
        NonFiniteError: If a feature is not a finite number.
    """
    shapes = {tuple(item.shape[1:] if is_padded else item.shape) for item in features}
    if len(shapes) != 1:
        raise ShapeError(f"features of one shape asked for; found {sorted(shapes)}")
    if not is_padded:
        return _check_finite(torch.stack(list(features)).float()), None
    lengths = torch.tensor([len(item) for item in features])
    padded = torch.nn.utils.rnn.pad_sequence(list(features), batch_first=True).float()
    valid_mask = torch.arange(padded.shape[1])[None, :] < lengths[:, None]
    return _check_finite(padded), valid_mask


def _check_finite(batch: Tensor) -> Tensor:
    # One pass, where `isfinite` makes a table: extremes are not finite if anything is not.
    if batch.numel() and not torch.isfinite(torch.stack(torch.aminmax(batch))).all():
        raise NonFiniteError(
            "features asked for; some are not finite; check the samples and the augmentations"
        )
    return batch


@dataclass(frozen=True, slots=True)
class Columns:
    """The anchors that rows are compared with.

    Attributes:
        place: Row of the bank to column.
        by_key: Positive key to the columns that carry it.
        embeddings: Float32 `(m, dim)`.
    """

    place: Mapping[int, int]
    by_key: Mapping[str, Sequence[int]]
    embeddings: Tensor


def list_columns(anchors: Iterable[tuple[int, str]], embeddings: Tensor) -> Columns:
    """Make equal anchors one column each.

    Args:
        anchors: Row of the bank and positive key.
        embeddings: The bank, `(any, dim)`.
    """
    keys: dict[int, dict[str, None]] = {}
    for row, key in anchors:
        keys.setdefault(row, {})[key] = None
    rows = sorted(keys)
    by_key: dict[str, list[int]] = {}
    for column, row in enumerate(rows):
        for key in keys[row]:
            by_key.setdefault(key, []).append(column)
    picked = embeddings[torch.tensor(rows, dtype=torch.long)].float()
    return Columns({row: column for column, row in enumerate(rows)}, by_key, picked)


def build_side(
    modality: str,
    rows: Sequence[int],
    keys: Sequence[str],
    embeddings: Tensor,
    weight: float,
    owned: Sequence[Collection[str]] | None = None,
) -> AnchorSide:
    """Lay out one anchor modality of a batch, with the batch's own anchors as columns.

    Args:
        modality: `text` or `image`.
        rows: Per sample, its row in `embeddings`, or -1 if it has no anchor on this side.
        keys: Per sample, the positive key of that anchor.
        embeddings: All anchor embeddings of this modality, `(any, dim)`.
        weight: Share in the loss.
        owned: Per sample, all positive keys that it has, also those of anchors that this batch
            did not draw for it; default: `keys`.
    """
    anchors = [(row, key) for row, key in zip(rows, keys, strict=True) if row >= 0]
    owned = [{key} for key in keys] if owned is None else owned
    return lay_out(modality, rows, owned, list_columns(anchors, embeddings), weight).to_dense()


def lay_out(
    modality: str,
    rows: Sequence[int],
    owned: Sequence[Collection[str]],
    columns: Columns,
    weight: float,
) -> AnchorSide:
    """Lay out one anchor modality of a batch against given columns.

    Columns that share one of the positive keys that a row owns, without being its own, are
    excluded: neither positive nor negative.

    Args:
        modality: `text` or `image`.
        rows: Per sample, its row in the bank, or -1 if it has no anchor on this side.
        owned: Per sample, all positive keys that it has.
        columns: What the rows are compared with.
        weight: Share in the loss.

    Returns:
        With sparse targets.
    """
    positives: list[tuple[int, int]] = []
    excluded: list[tuple[int, int]] = []
    for index, (row, own) in enumerate(zip(rows, owned, strict=True)):
        if row < 0:
            continue
        column = columns.place[row]
        positives.append((index, column))
        shared = {c for key in own for c in columns.by_key.get(key, ())} - {column}
        excluded.extend((index, other) for other in sorted(shared))
    size = (len(rows), len(columns.place))
    return AnchorSide(
        modality,
        columns.embeddings,
        _sparse(positives, size, torch.float32),
        _sparse(excluded, size, torch.bool),
        weight,
    )


def _sparse(places: Sequence[tuple[int, int]], size: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """A table with ones at some places, which are in order and each there once."""
    indices = torch.tensor(places, dtype=torch.long).reshape(-1, 2).T
    ones = torch.ones(len(places), dtype=dtype)
    return torch.sparse_coo_tensor(indices, ones, size, is_coalesced=True, check_invariants=False)
