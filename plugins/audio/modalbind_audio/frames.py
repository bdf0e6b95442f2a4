"""An encoder over frames: what a frozen encoder computed before, or log-mel itself.

Convolutions or a transformer over time, then pooling. Small: the frames already know a lot.
Padding never changes a result: it is zeroed before each convolution and masked in attention
and pooling.

Letters: `n` clips, `time` frames, `width` of the hidden states.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from modalbind.api import Modality
from modalbind_audio.fitting import frame_width
from modalbind_audio.options import FramesOptions
from modalbind_audio.pooling import Pooling, full_mask


class ConvLayer(nn.Module):
    """Residual depth-wise and point-wise convolution, pre-norm."""

    def __init__(self, options: FramesOptions, dilation: int) -> None:
        """Make one layer.

        Args:
            options: Width, kernel, dropout.
            dilation: Frames between the taps of the kernel.
        """
        super().__init__()
        width = options.width
        self.norm = nn.LayerNorm(width)
        self.depthwise = nn.Conv1d(
            width,
            width,
            options.kernel,
            padding=dilation * (options.kernel // 2),
            dilation=dilation,
            groups=1 if options.full_conv else width,
        )
        self.pointwise = nn.Linear(width, width)
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map `(n, time, width)` to the same shape; `mask` is True for real frames."""
        hidden = self.norm(x).masked_fill(~mask.unsqueeze(-1), 0.0)
        hidden = rearrange(self.depthwise(rearrange(hidden, "n t c -> n c t")), "n c t -> n t c")
        out: Tensor = x + self.dropout(self.pointwise(F.gelu(hidden)))
        return out


class AttentionLayer(nn.Module):
    """Pre-norm transformer layer with linear distance biases (ALiBi, both directions)."""

    def __init__(self, options: FramesOptions) -> None:
        """Make one layer."""
        super().__init__()
        width = options.width
        self.heads = options.heads
        self.attention_norm = nn.LayerNorm(width)
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        self.ffn_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(options.dropout)
        slopes = 2.0 ** -torch.linspace(1, 8, self.heads)
        self.register_buffer("slopes", slopes.view(-1, 1, 1), persistent=False)
        self.slopes: Tensor

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map `(n, time, width)` to the same shape; `mask` is True for real frames."""
        normed = self.attention_norm(x)
        q, k, v = (
            rearrange(project(normed), "n t (h d) -> n h t d", h=self.heads)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        steps = torch.arange(x.shape[1], device=x.device)
        distance = (steps.unsqueeze(0) - steps.unsqueeze(1)).abs()
        bias = (-self.slopes * distance).to(x.dtype)
        scores = bias.masked_fill(~rearrange(mask, "n t -> n 1 1 t"), float("-inf"))
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=scores)
        x = x + self.dropout(self.out_proj(rearrange(attended, "n h t d -> n t (h d)")))
        out: Tensor = x + self.dropout(self.fc2(F.gelu(self.fc1(self.ffn_norm(x)))))
        return out


class FrameEncoder(nn.Module):
    """Normalises frames, runs convolutions or a transformer over time, and pools.

    Attributes:
        width: Width of the result.
        lora_targets: Names of the linear layers that adapters attach to.
    """

    lora_targets: tuple[str, ...]

    def __init__(self, options: FramesOptions, inputs: int) -> None:
        """Make the encoder.

        Args:
            options: Layers, width, pooling …
            inputs: Width of the frames.
        """
        super().__init__()
        self.options = options
        self.inputs = inputs
        self.input_norm = nn.LayerNorm(inputs)
        self.project = nn.Linear(inputs, options.width)
        self.input_dropout = nn.Dropout(options.input_dropout)
        self.layers = nn.ModuleList(
            ConvLayer(options, options.dilation**index)
            if options.layer == "conv"
            else AttentionLayer(options)
            for index in range(options.layers)
        )
        self.norm = nn.LayerNorm(options.width)
        self.pooling = Pooling(options)
        self.width = self.pooling.width
        self.lora_targets = (
            ("pointwise",)
            if options.layer == "conv"
            else ("q_proj", "k_proj", "v_proj", "out_proj")
        )

    def forward(self, features: Tensor, valid_mask: Tensor | None = None) -> Tensor:
        """Encode `(n, time, inputs)` with `(n, time)` True for real frames to `(n, width)`.

        Raises:
            ShapeError: If the frames have another width.
        """
        valid_mask = full_mask(features, valid_mask, self.inputs)
        x = self.project(self.input_dropout(self.input_norm(features)))
        for layer in self.layers:
            x = layer(x, valid_mask)
        x = self.norm(x).masked_fill(~valid_mask.unsqueeze(-1), 0.0)
        pooled: Tensor = self.pooling(x, valid_mask)
        return pooled

    def portable_options(self) -> FramesOptions:
        """Options that build the same architecture, the width of the frames written out."""
        return self.options.model_copy(update={"inputs": self.inputs})

    def layer_groups(self) -> list[list[nn.Module]]:
        """Modules by depth, the input first."""
        groups: list[list[nn.Module]] = [[self.input_norm, self.project]]
        groups += [[layer] for layer in self.layers]
        groups[-1] += [self.norm, self.pooling]
        return groups


def build(options: FramesOptions, modality: Modality) -> FrameEncoder:
    """Factory named by the plugin's `EncoderSpec`.

    Raises:
        InputError: If the modality makes waveforms.
    """
    return FrameEncoder(options, frame_width("frames", options.inputs, modality))
