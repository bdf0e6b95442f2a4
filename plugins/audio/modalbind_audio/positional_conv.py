"""The wide convolution over tokens that BEATs takes positions from.

Letters: `n` clips, `t` tokens, `c` channels, `g` groups of `i` inputs and `o` outputs, `k` taps,
`s` segments of `k` tokens, `f` frequencies.
"""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

_MANY_TAPS = 32
"""From so many on, a CPU convolves faster by way of frequencies."""


class PositionalConv(nn.Module):
    """Adds to each token what a wide grouped convolution makes of its neighbours."""

    def __init__(self, width: int, kernel: int, groups: int) -> None:
        """Make the convolution, with its weight's norm held apart per tap."""
        super().__init__()
        conv = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=groups)
        nn.init.normal_(conv.weight, std=math.sqrt(4 / (kernel * width)))
        nn.init.zeros_(conv.bias)  # type: ignore[arg-type]  # it has one
        self.conv = weight_norm(conv, dim=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, t, width)`, whose padding is zero, to the same shape."""
        conv = self.conv
        if x.device.type == "cpu" and conv.weight.shape[2] >= _MANY_TAPS:
            convolved = convolve_by_frequencies(x, conv.weight, conv.groups) + conv.bias
            return x + F.gelu(convolved).to(x.dtype)
        # An even kernel yields one token too many, at the end.
        convolved = conv(rearrange(x, "n t c -> n c t"))[..., : x.shape[1]]
        return x + rearrange(F.gelu(convolved), "n c t -> n t c")


def convolve_by_frequencies(x: Tensor, weight: Tensor, groups: int) -> Tensor:
    """Convolve tokens with many taps, each token in the middle of its taps.

    Blocked convolution in libraries runs far below a CPU's peak for the few channels that a group
    has here; a product per frequency does not, and its gradient is one as well.

    Args:
        x: `(n, t, c)`.
        weight: `(c, c / groups, k)`.
        groups: Groups of channels.

    Returns:
        `(n, t, c)`, of single precision at least.

    Source:
        Overlap-save: Oppenheim & Schafer 2010, "Discrete-Time Signal Processing", section 8.7.
    """
    tokens, taps = x.shape[1], weight.shape[2]
    segments = -(-tokens // taps)
    # Of a circle of 2k tokens, the first k outputs are free of what wraps around.
    padded = F.pad(x, (0, 0, taps // 2, (segments + 1) * taps - tokens - taps // 2))
    windows = padded.unfold(1, 2 * taps, taps)  # (n, s, c, 2k)
    with torch.autocast(x.device.type, enabled=False):
        signal = torch.fft.rfft(_widen(windows))
        filters = torch.fft.rfft(_widen(weight), 2 * taps).conj()
        product = rearrange(signal, "n s (g i) f -> f g (n s) i", g=groups) @ rearrange(
            filters, "(g o) i f -> f g i o", g=groups
        )
        spectrum = rearrange(product, "f g (n s) o -> n s (g o) f", n=len(x))
        convolved = torch.fft.irfft(spectrum, 2 * taps)[..., :taps]
    joined: Tensor = rearrange(convolved, "n s c k -> n (s k) c")
    return joined[:, :tokens]


def _widen(x: Tensor) -> Tensor:
    """Half precision to single; frequencies have no less."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
