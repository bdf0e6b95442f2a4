"""From frames or tokens to one vector a clip; what is padding never counts.

Letters: `n` clips, `time` frames or tokens, `width` of each.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from modalbind.api import ShapeError
from modalbind_audio.options import FramesOptions

_VARIANCE_FLOOR = 1e-5
"""Added to a variance before its root, whose gradient is infinite at zero."""


def full_mask(features: Tensor, valid_mask: Tensor | None, inputs: int) -> Tensor:
    """Return which frames of `(n, time, inputs)` are real, `(n, time)`; all are without a mask.

    Raises:
        ShapeError: If the frames have another width than `inputs`.
    """
    if features.ndim != 3 or features.shape[2] != inputs:
        raise ShapeError(
            f"frames of (n, time, {inputs}); found {tuple(features.shape)}; "
            "set the encoder's `inputs` to the table's width"
        )
    if valid_mask is None:
        return features.new_ones(features.shape[:2], dtype=torch.bool)
    return valid_mask


def masked_mean(x: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of `(n, time, width)` over what is real."""
    if mask is None:
        return x.mean(1)
    kept = x.masked_fill(~mask.unsqueeze(-1), 0.0)
    return kept.sum(1) / mask.sum(1, keepdim=True)


def masked_statistics(x: Tensor, mask: Tensor | None) -> Tensor:
    """Mean, deviation and maximum of `(n, time, width)` over what is real: `(n, 3 * width)`."""
    mean = masked_mean(x, mask)
    variance = masked_mean((x - mean.unsqueeze(1)).square(), mask)
    heard = x if mask is None else x.masked_fill(~mask.unsqueeze(-1), float("-inf"))
    return torch.cat([mean, (variance + _VARIANCE_FLOOR).sqrt(), heard.amax(1)], dim=1)


class Pooling(nn.Module):
    """Frames to one vector: mean, mean and deviation, attentive statistics, or segments.

    Source:
        Attentive statistics: Okabe et al. 2018 (arXiv 1803.10963), with several heads.
    """

    def __init__(self, options: FramesOptions) -> None:
        """Make the pooling; `width` says how wide its result is."""
        super().__init__()
        self.kind = options.pooling
        self.segments = options.segments
        self.attention = (
            nn.Sequential(
                nn.Linear(options.width, options.width // 2),
                nn.Tanh(),
                nn.Linear(options.width // 2, options.pooling_heads),
            )
            if self.kind == "attentive"
            else None
        )
        parts = {
            "mean": 1,
            "mean_std": 2,
            "attentive": 2 * options.pooling_heads,
            "segments": options.segments,
        }
        self.width = options.width * parts[self.kind]

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map `(n, time, width)` and `(n, time)` to `(n, parts * width)`."""
        if self.attention is not None:
            logits = self.attention(x).masked_fill(~mask.unsqueeze(-1), float("-inf"))
            weights = rearrange(logits.softmax(1), "n t h -> n h t")
            return _statistics(x, weights)
        if self.kind == "segments":
            return rearrange(segment_weights(mask, self.segments) @ x, "n s c -> n (s c)")
        weights = (mask / mask.sum(1, keepdim=True)).to(x.dtype).unsqueeze(1)
        if self.kind == "mean":
            return (weights @ x).squeeze(1)
        return _statistics(x, weights)


def _statistics(x: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean and deviation, `(n, heads * 2 * width)`; weights `(n, heads, time)`."""
    mean = weights @ x
    # Around the mean, not as a difference of squares: that one cancels, and may be negative.
    spread = (x.unsqueeze(1) - mean.unsqueeze(2)).square()
    variance = torch.einsum("n h t, n h t c -> n h c", weights, spread)
    both = torch.cat([mean, (variance + _VARIANCE_FLOOR).sqrt()], dim=-1)
    return rearrange(both, "n h c -> n (h c)")


def segment_weights(mask: Tensor, segments: int) -> Tensor:
    """Weights `(n, segments, time)` that average equal stretches of each clip's real frames.

    Stretches need not hold whole frames: a frame on the border counts for its share on each
    side, so clips of fewer frames than segments work too.
    """
    length = mask.sum(1).view(-1, 1, 1).to(torch.get_default_dtype())
    start = torch.arange(mask.shape[1], device=mask.device)
    edge = torch.arange(segments, device=mask.device).view(1, -1, 1) * length / segments
    overlap = torch.minimum(start + 1.0, edge + length / segments) - torch.maximum(
        start.to(edge.dtype), edge
    )
    overlap = overlap.clamp_min(0) * mask.unsqueeze(1)
    return overlap / overlap.sum(-1, keepdim=True)
