"""Pads features and lays out the anchor side of a batch.

Letters: `n` samples, `m` distinct anchors of the batch, `dim` the anchor space.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

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
    if not all(torch.isfinite(item).all() for item in features):
        raise NonFiniteError(
            "features asked for; some are not finite; check the samples and the augmentations"
        )
    shapes = {tuple(item.shape[1:] if is_padded else item.shape) for item in features}
    if len(shapes) != 1:
        raise ShapeError(f"features of one shape asked for; found {sorted(shapes)}")
    if not is_padded:
        return torch.stack(list(features)).float(), None
    lengths = torch.tensor([len(item) for item in features])
    padded = torch.nn.utils.rnn.pad_sequence(list(features), batch_first=True).float()
    valid_mask = torch.arange(padded.shape[1])[None, :] < lengths[:, None]
    return padded, valid_mask


def build_side(
    modality: str,
    rows: Sequence[int],
    keys: Sequence[str],
    embeddings: Tensor,
    weight: float,
    owned: Sequence[Collection[str]] | None = None,
) -> AnchorSide:
    """Lay out one anchor modality of a batch.

    Equal anchors become one column, positive for each of their rows. Columns that share one of
    the positive keys that a row owns, without being its own, are excluded: neither positive nor
    negative.

    Args:
        modality: `text` or `image`.
        rows: Per sample, its row in `embeddings`, or -1 if it has no anchor on this side.
        keys: Per sample, the positive key of that anchor.
        embeddings: All anchor embeddings of this modality, `(any, dim)`.
        weight: Share in the loss.
        owned: Per sample, all positive keys that it has, also those of anchors that this batch
            did not draw for it; default: `keys`.
    """
    columns = sorted({row for row in rows if row >= 0})
    place = {row: column for column, row in enumerate(columns)}
    column_keys: dict[int, set[str]] = {column: set() for column in range(len(columns))}
    for row, key in zip(rows, keys, strict=True):
        if row >= 0:
            column_keys[place[row]].add(key)
    positives = torch.zeros(len(rows), len(columns))
    excluded = torch.zeros(len(rows), len(columns), dtype=torch.bool)
    by_key: dict[str, list[int]] = {}
    for column, names in column_keys.items():
        for name in names:
            by_key.setdefault(name, []).append(column)
    owned = [{key} for key in keys] if owned is None else owned
    for index, (row, own) in enumerate(zip(rows, owned, strict=True)):
        if row < 0:
            continue
        for key in own:
            excluded[index, by_key.get(key, [])] = True
        excluded[index, place[row]] = False
        positives[index, place[row]] = 1.0
    picked = embeddings[torch.tensor(columns, dtype=torch.long)].float()
    return AnchorSide(modality, picked, positives, excluded, weight)
