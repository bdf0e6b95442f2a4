"""Which tokens of BEATs count: random token dropping, and the reference code's padding mask.

Letters: `n` clips, `t` tokens, `k` kept tokens, `width` of each.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor


def drop_tokens(
    x: Tensor, mask: Tensor | None, share: float
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Keep a random part of each clip's real tokens, at least one.

    Args:
        x: `(n, t, width)`.
        mask: True = real token, `(n, t)`, or None.
        share: Of the real tokens to leave out, 0..1.

    Returns:
        The kept tokens `(n, k, width)` in their order, their mask (None if all rows keep `k`)
        and their positions `(n, k)`.
    """
    real = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask
    keep = (real.sum(1) * (1 - share)).round().long().clamp_min(1)  # (n,)
    noise = torch.rand(x.shape[:2], device=x.device).masked_fill(~real, 2.0)
    size = int(keep.max())
    chosen = noise.argsort(1)[:, :size]
    is_kept = torch.arange(size, device=x.device) < keep.unsqueeze(1)
    # Rows with fewer real tokens get filler at the end, where `is_kept` is false.
    order = chosen.masked_fill(~is_kept, x.shape[1]).argsort(1)
    positions = chosen.gather(1, order)
    kept = x.gather(1, positions.unsqueeze(-1).expand(-1, -1, x.shape[2]))
    return kept, (None if mask is None else is_kept), positions


def reference_frame_mask(valid_samples: Tensor, frames: int) -> Tensor:
    """Which frames the reference code takes as real, `(n, frames)`, from `(n, samples)`."""
    return ~_squeeze_padding(~valid_samples, frames)


def reference_token_mask(valid_frames: Tensor, tokens: int) -> Tensor:
    """Which tokens the reference code takes as real, `(n, tokens)`, from `(n, time)`.

    It lays the tokens along time as if frequency were time too, so the cut may fall inside a
    column of patches: kept for parity, and for features computed with it.
    """
    return ~_squeeze_padding(~valid_frames, tokens)


def _squeeze_padding(padding: Tensor, size: int) -> Tensor:
    usable = padding.shape[1] - padding.shape[1] % size
    return rearrange(padding[:, :usable], "n (size part) -> n size part", size=size).all(-1)
