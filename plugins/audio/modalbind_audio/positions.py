"""What BEATs knows of where a token stands: a wide convolution, and a bias by distance.

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
        self._kept: tuple[list[Tensor], Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, t, width)`, whose padding is zero, to the same shape."""
        conv = self.conv
        if x.device.type == "cpu" and conv.kernel_size[0] >= _MANY_TAPS:
            filters = self._transform_filters()
            convolved = convolve_by_frequencies(x, filters, conv.kernel_size[0]) + conv.bias
            return x + F.gelu(convolved).to(x.dtype)
        # An even kernel yields one token too many, at the end.
        convolved = conv(rearrange(x, "n t c -> n c t"))[..., : x.shape[1]]
        return x + rearrange(F.gelu(convolved), "n c t -> n t c")

    def _transform_filters(self) -> Tensor:
        """Return the weight by frequency; without gradients, the last one if it still holds.

        For a single clip the transform takes as long as all that follows. Whether it holds is
        seen by the numbers themselves, whoever wrote them and however.
        """
        if torch.is_grad_enabled():
            return transform_filters(self.conv.weight, self.conv.groups)
        made_from = list(self.conv.parametrizations.weight.parameters())
        if self._kept is None or not all(map(_is_same, self._kept[0], made_from)):
            filters = transform_filters(self.conv.weight, self.conv.groups)
            # Laid out as the product takes it, which then needs no copy.
            filters = filters.resolve_conj().contiguous()
            self._kept = [value.detach().clone() for value in made_from], filters
        return self._kept[1]


def _is_same(left: Tensor, right: Tensor) -> bool:
    return left.device == right.device and left.dtype == right.dtype and torch.equal(left, right)


def transform_filters(weight: Tensor, groups: int) -> Tensor:
    """Return what `convolve_by_frequencies` multiplies with.

    Args:
        weight: `(c, c / groups, k)`.
        groups: Groups of channels.

    Returns:
        Complex `(f, groups, i, o)`, of `2 k` taps.
    """
    with torch.autocast(weight.device.type, enabled=False):
        filters = torch.fft.rfft(_widen(weight), 2 * weight.shape[2]).conj()
    arranged: Tensor = rearrange(filters, "(g o) i f -> f g i o", g=groups)
    return arranged


def convolve_by_frequencies(x: Tensor, filters: Tensor, taps: int) -> Tensor:
    """Convolve tokens with many taps, each token in the middle of its taps.

    Blocked convolution in libraries runs far below a CPU's peak for the few channels that a group
    has here; a product per frequency does not, and its gradient is one as well.

    Args:
        x: `(n, t, c)`.
        filters: From `transform_filters`.
        taps: `k`.

    Returns:
        `(n, t, c)`, of single precision at least.

    Source:
        Overlap-save: Oppenheim & Schafer 2010, "Discrete-Time Signal Processing", section 8.7.
    """
    tokens = x.shape[1]
    segments = -(-tokens // taps)
    # Of a circle of 2k tokens, the first k outputs are free of what wraps around.
    padded = F.pad(x, (0, 0, taps // 2, (segments + 1) * taps - tokens - taps // 2))
    windows = padded.unfold(1, 2 * taps, taps)  # (n, s, c, 2k)
    with torch.autocast(x.device.type, enabled=False):
        signal = torch.fft.rfft(_widen(windows))
        product = rearrange(signal, "n s (g i) f -> f g (n s) i", g=filters.shape[1]) @ filters
        spectrum = rearrange(product, "f g (n s) o -> n s (g o) f", n=len(x))
        convolved = torch.fft.irfft(spectrum, 2 * taps)[..., :taps]
    joined: Tensor = rearrange(convolved, "n s c k -> n (s k) c")
    return joined[:, :tokens]


def _widen(x: Tensor) -> Tensor:
    """Half precision to single; frequencies have no less."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def relative_buckets(distance: Tensor, num_buckets: int, max_distance: int) -> Tensor:
    """Bucket of each signed distance `key - query`, in tokens.

    Half of the buckets are for keys after the query. Of each half, the lower half are exact
    distances, the upper half logarithmic up to `max_distance`, and the last takes the rest.

    Source: T5 (Raffel et al. 2020, arXiv 1910.10683), as BEATs uses it.
    """
    half = num_buckets // 2
    exact = half // 2
    size = distance.abs()
    # float32 and this order of operations, because the rounding decides the bucket
    ratio = torch.log(size.clamp_min(1).float() / exact) / math.log(max_distance / exact)
    logarithmic = (exact + (ratio * (half - exact)).long()).clamp_max(half - 1)
    return torch.where(size < exact, size, logarithmic) + half * (distance > 0)


class RelativePositions(nn.Module):
    """Learned bias per head and distance; one table serves all layers."""

    def __init__(self, heads: int, num_buckets: int, max_distance: int) -> None:
        """Make the table `(num_buckets, heads)`."""
        super().__init__()
        self.max_distance = max_distance
        self.weight = nn.Parameter(torch.empty(num_buckets, heads))
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, tokens: int, positions: Tensor | None) -> Tensor:
        """Return the bias of every query and key.

        Args:
            tokens: Length of the full sequence.
            positions: Where the tokens stand in it, `(n, t)`; None for all in order.

        Returns:
            `(1, h, t, t)`, or `(n, h, t, t)` with `positions`.
        """
        distance = torch.arange(1 - tokens, tokens, device=self.weight.device)
        buckets = relative_buckets(distance, self.weight.shape[0], self.max_distance)
        # (h, 2t - 1): all the distinct values there are; each head's in a row, or else every
        # product with them jumps through memory
        values = self.weight[buckets].T.contiguous()
        if positions is None:
            # Window k holds distances k - (t - 1) and up: query i is window t - 1 - i.
            return values.unfold(-1, tokens, 1).flip(-2).unsqueeze(0)
        pairs = positions.unsqueeze(1) - positions.unsqueeze(2) + tokens - 1  # (n, t, t)
        return rearrange(values[:, pairs], "h n i j -> n h i j")
