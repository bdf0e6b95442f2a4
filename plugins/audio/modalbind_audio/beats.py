"""BEATs: a transformer over patches of a log-mel spectrogram, with gated relative positions.

Small ones are built from scratch; `beats_checkpoint` reads the published files. Front end:
`features.compute_fbank`. Not here: training targets (tokenizers).

Letters: `n` clips, `time` frames, `mels` filters, `cols` x `rows` the grid of patches (time x
frequency), `t = cols * rows` tokens, index `col * rows + row`, `h` heads, `d` width of a head.

Source: Chen et al. 2022, BEATs (arXiv 2212.09058); gate as in Chi et al. 2022, XLM-E (arXiv
2106.16138), eq. 7; deep norm from Wang et al. 2022 (arXiv 2203.00555). Checkpoint layout and
numerics follow the code published in microsoft/unilm (MIT); none of it is copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from modalbind.api import InputError, Modality, ShapeError, find_weights
from modalbind_audio.options import BeatsOptions
from modalbind_audio.pooling import masked_mean, masked_statistics
from modalbind_audio.positions import PositionalConv, RelativePositions
from modalbind_audio.token_masks import drop_tokens, reference_token_mask

_POOLINGS = {"mean": (1, masked_mean), "statistics": (3, masked_statistics)}
"""How many widths each makes, and how."""
_ACTIVATIONS = {"gelu": "none", "gelu_accurate": "tanh", "gelu_fast": "tanh"}


@dataclass(frozen=True, slots=True)
class BeatsConfig:
    """Architecture, in the words of the published `cfg` where it has one.

    Attributes:
        input_patch_size: Patch size, `(frames, mels)`; one number in published files.
        patch_stride: Stride of the patches; None = their size. Not in published files.
        mels: Mel filters of the features. Not in published files, always 128 there.
        embed_dim: Channels of the patch embedding.
        conv_bias: Whether the patch embedding has a bias.
        encoder_layers, encoder_embed_dim, encoder_ffn_embed_dim, encoder_attention_heads: Sizes.
        activation_fn: `gelu` (exact) or `gelu_accurate` / `gelu_fast` (tanh).
        layer_norm_first: Pre-norm; post-norm otherwise.
        deep_norm: Scale the residual of post-norm layers by `(2 * layers) ** 0.25`.
        dropout, attention_dropout, activation_dropout, dropout_input: Probabilities.
        encoder_layerdrop: Chance that a sample skips a layer in training.
        patch_drop: Share of tokens left out in training. Not in published files.
        patch_drop_until: Share of the run after which none is. Not in published files.
        pooling: `mean` over tokens, as published, or `statistics`. Not in published files.
        conv_pos, conv_pos_groups: Kernel and groups of the positional convolution.
        relative_position_embedding, gru_rel_pos: Relative positions, and their gate.
        num_buckets, max_distance: Buckets of relative positions; distance of the last, in tokens.
        finetuned_model, predictor_dropout, predictor_class: The head of a fine-tuned file.
    """

    input_patch_size: int | tuple[int, int] = 16
    patch_stride: tuple[int, int] | None = None
    mels: int = 128
    embed_dim: int = 512
    conv_bias: bool = False
    encoder_layers: int = 12
    encoder_embed_dim: int = 768
    encoder_ffn_embed_dim: int = 3072
    encoder_attention_heads: int = 12
    activation_fn: str = "gelu"
    layer_norm_first: bool = False
    deep_norm: bool = False
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.0
    dropout_input: float = 0.0
    encoder_layerdrop: float = 0.0
    patch_drop: float = 0.0
    patch_drop_until: float = 1.0
    pooling: Literal["mean", "statistics"] = "mean"
    conv_pos: int = 128
    conv_pos_groups: int = 16
    relative_position_embedding: bool = False
    gru_rel_pos: bool = False
    num_buckets: int = 320
    max_distance: int = 1280
    finetuned_model: bool = False
    predictor_dropout: float = 0.1
    predictor_class: int = 527

    def __post_init__(self) -> None:
        """Refuse what this implementation would silently do otherwise."""
        if self.activation_fn not in _ACTIVATIONS:
            raise InputError(
                f"BEATs activation {self.activation_fn!r}; known: {', '.join(_ACTIVATIONS)}; "
                "use a checkpoint with one of these"
            )
        if self.deep_norm and self.layer_norm_first:
            raise InputError(
                "BEATs with deep_norm and layer_norm_first; they exclude each other; choose one"
            )

    @classmethod
    def from_published(cls, cfg: Mapping[str, Any], **overrides: Any) -> BeatsConfig:
        """Read a file's `cfg`; keys that only its training used are ignored.

        Defaults are those of the reference's class: what a file does not say means those.
        """
        known = {entry.name for entry in fields(cls)}
        return cls(**{key: value for key, value in cfg.items() if key in known} | overrides)

    @property
    def patch(self) -> tuple[int, int]:
        """Patch size in frames and mel filters."""
        size = self.input_patch_size
        return (size, size) if isinstance(size, int) else size

    @property
    def stride(self) -> tuple[int, int]:
        """Patch stride in frames and mel filters."""
        return self.patch_stride or self.patch

    @property
    def rows(self) -> int:
        """Patches along frequency."""
        return (self.mels - self.patch[1]) // self.stride[1] + 1

    @property
    def residual_scale(self) -> float:
        """Deep norm's alpha."""
        return (2 * self.encoder_layers) ** 0.25 if self.deep_norm else 1.0


class Attention(nn.Module):
    """Self-attention with a relative position bias that each query gates."""

    def __init__(self, config: BeatsConfig) -> None:
        """Make the projections; plain linear layers, so that adapters find them."""
        super().__init__()
        width = config.encoder_embed_dim
        self.heads = config.encoder_attention_heads
        self.dropout = config.attention_dropout
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        self.is_gated = config.gru_rel_pos and config.relative_position_embedding
        if config.gru_rel_pos:
            self.grep_linear = nn.Linear(width // self.heads, 8)
            self.grep_a = nn.Parameter(torch.ones(1, self.heads, 1, 1))

    def forward(self, x: Tensor, bias: Tensor | None, mask: Tensor | None) -> Tensor:
        """Attend.

        Args:
            x: `(n, t, width)`.
            bias: Relative positions, `(1 or n, h, t, t)`.
            mask: True = real token, `(n, t)`.
        """
        q, k, v = (
            rearrange(project(x), "n t (h d) -> n h t d", h=self.heads)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        if bias is not None and not x.is_cuda and self._are_scores_trained(q, bias):
            attended = self._attend_again(q, k, v, bias, mask)
        else:
            attended = F.scaled_dot_product_attention(
                q, k, v, attn_mask=self._score(q, bias, mask), dropout_p=self._dropout
            )
        out: Tensor = self.out_proj(rearrange(attended, "n h t d -> n t (h d)"))
        return out

    @property
    def _dropout(self) -> float:
        return self.dropout if self.training else 0.0

    def _are_scores_trained(self, q: Tensor, bias: Tensor) -> bool:
        return torch.is_grad_enabled() and (
            bias.requires_grad or (self.is_gated and q.requires_grad)
        )

    def _score(self, q: Tensor, bias: Tensor | None, mask: Tensor | None) -> Tensor | None:
        """Return what is added to the products of queries and keys."""
        return _with_padding(
            self.gate(q) * bias if self.is_gated and bias is not None else bias, mask
        )

    def _attend_again(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, mask: Tensor | None
    ) -> Tensor:
        """Attend where the scores need a gradient, once more in the backward pass.

        SDPA has no fused kernel for these on a CPU, and its plain path makes three more passes
        over them. Weights `(n, h, t, t)` that are kept until then would be a third of a step's
        memory; making them anew costs a twentieth of its time.
        """
        dropout = self._dropout  # of the forward pass, whatever the mode is by the backward pass

        def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
            scores, shape = self._score(q, bias, mask), q.shape
            assert scores is not None
            q, k, v = (part.flatten(0, 1) for part in (q * shape[-1] ** -0.5, k, v))
            logits = torch.baddbmm(scores.expand(*shape[:2], -1, -1).flatten(0, 1), q, k.mT)
            weights = F.dropout(logits.softmax(-1), dropout)
            return torch.bmm(weights, v).view(shape)

        attended: Tensor = checkpoint(
            attend, q, k, v, bias, use_reentrant=False, preserve_rng_state=dropout > 0
        )
        return attended

    def gate(self, q: Tensor) -> Tensor:
        """Return what each query multiplies its position bias with, `(n, h, t, 1)`, in 1..3."""
        logits = rearrange(self.grep_linear(q), "n h t (gate part) -> n h t gate part", part=4)
        update, reset = torch.sigmoid(logits.sum(-1)).chunk(2, dim=-1)
        gated: Tensor = update * (reset * self.grep_a - 1) + 2
        return gated


def _with_padding(scores: Tensor | None, mask: Tensor | None) -> Tensor | None:
    """Join additive scores with the mask of real keys."""
    if mask is None:
        return scores
    keys = rearrange(mask, "n t -> n 1 1 t")
    return keys if scores is None else scores.masked_fill(~keys, float("-inf"))


class Layer(nn.Module):
    """One transformer layer: post-norm with deep norm in released files, or pre-norm."""

    def __init__(self, config: BeatsConfig) -> None:
        """Make attention, feed-forward and norms."""
        super().__init__()
        width = config.encoder_embed_dim
        self.is_pre_norm = config.layer_norm_first
        self.residual_scale = config.residual_scale
        self.gelu = _ACTIVATIONS[config.activation_fn]
        self.self_attn = Attention(config)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, config.encoder_ffn_embed_dim)
        self.fc2 = nn.Linear(config.encoder_ffn_embed_dim, width)
        self.final_layer_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)
        self.activation_dropout = nn.Dropout(config.activation_dropout)

    def forward(self, x: Tensor, bias: Tensor | None, mask: Tensor | None) -> Tensor:
        """Map `(n, t, width)` to the same shape."""
        if self.is_pre_norm:
            x = x + self.dropout(self.self_attn(self.self_attn_layer_norm(x), bias, mask))
            return x + self.feed_forward(self.final_layer_norm(x))
        scale = self.residual_scale
        attended = self.dropout(self.self_attn(x, bias, mask))
        x = self.self_attn_layer_norm(torch.add(attended, x, alpha=scale))
        out: Tensor = self.final_layer_norm(torch.add(self.feed_forward(x), x, alpha=scale))
        return out

    def feed_forward(self, x: Tensor) -> Tensor:
        """Two linear layers with GELU between."""
        hidden = self.activation_dropout(F.gelu(self.fc1(x), approximate=self.gelu))
        out: Tensor = self.dropout(self.fc2(hidden))
        return out


class Beats(nn.Module):
    """BEATs encoder: log-mel features to one vector a clip, pooled over its real tokens.

    Padding never changes a result, unless `reference_mask` asks for the mask of the reference
    code, which cuts inside a column of patches and so lets the batch leak in.

    Attributes:
        width: Width of the result.
        lora_targets: Names of the linear layers that adapters attach to.
        gradient_checkpointing: Recompute layers in the backward pass to save memory.
    """

    lora_targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "out_proj")

    def __init__(self, config: BeatsConfig, *, reference_mask: bool = False) -> None:
        """Make a BEATs with random weights.

        Args:
            config: Sizes.
            reference_mask: Mimic the reference's inexact padding mask.
        """
        super().__init__()
        self.config = config
        self.reference_mask = reference_mask
        self.gradient_checkpointing = False
        self.patch_drop = config.patch_drop
        width = config.encoder_embed_dim
        self.width = width * _POOLINGS[config.pooling][0]
        self.patch_embedding = nn.Conv2d(
            1, config.embed_dim, config.patch, config.stride, bias=config.conv_bias
        )
        self.layer_norm = nn.LayerNorm(config.embed_dim)
        self.post_extract_proj = (
            nn.Linear(config.embed_dim, width) if config.embed_dim != width else nn.Identity()
        )
        self.dropout_input = nn.Dropout(config.dropout_input)
        self.pos_conv = PositionalConv(width, config.conv_pos, config.conv_pos_groups)
        self.encoder_layer_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)
        self.relative_positions = (
            RelativePositions(
                config.encoder_attention_heads, config.num_buckets, config.max_distance
            )
            if config.relative_position_embedding
            else None
        )
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.encoder_layers))
        self.predictor = (
            nn.Linear(width, config.predictor_class) if config.finetuned_model else None
        )
        self.predictor_dropout = nn.Dropout(config.predictor_dropout)
        self._init_weights()

    def _init_weights(self) -> None:
        """Initialise as the reference does."""
        for module in self.layers.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        if not self.config.deep_norm:
            return
        gain = (8 * self.config.encoder_layers) ** -0.25
        for layer in self.layers:
            attention: Any = layer.self_attn
            for linear in (attention.q_proj, attention.k_proj):
                nn.init.xavier_normal_(linear.weight)
            for linear in (attention.v_proj, attention.out_proj, layer.fc1, layer.fc2):
                nn.init.xavier_normal_(linear.weight, gain=gain)  # type: ignore[arg-type, union-attr]

    def forward(self, features: Tensor, valid_mask: Tensor | None = None) -> Tensor:
        """Encode a batch.

        Args:
            features: Normalised log-mel, float32 `(n, time, mels)`.
            valid_mask: True = real frame, `(n, time)`; None if nothing is padded.

        Returns:
            `(n, self.width)`, not normalised.

        Raises:
            ShapeError: If the features have another number of mel filters.
        """
        return self.pool(*self.tokens(features, valid_mask))

    def classify(self, features: Tensor, valid_mask: Tensor | None = None) -> Tensor:
        """Return the probability of each class of a fine-tuned checkpoint, `(n, classes)`.

        Raises:
            InputError: If the checkpoint was not fine-tuned.
        """
        if self.predictor is None:
            raise InputError("BEATs classes; there is no predictor; use a fine-tuned checkpoint")
        tokens, mask = self.tokens(features, valid_mask)
        return masked_mean(self.predictor(self.predictor_dropout(tokens)), mask).sigmoid()

    def tokens(
        self, features: Tensor, valid_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the last hidden states `(n, t, width)` and which are real, `(n, t)`."""
        x, mask = self.embed_patches(features, valid_mask)
        return self.run_layers(x, mask)

    def embed_patches(
        self, features: Tensor, valid_mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the hidden states before the first layer `(n, t, width)`, and which are real."""
        features, valid_mask = self._checked(features, valid_mask)
        patches = self.patch_embedding(features.unsqueeze(1))
        cols = patches.shape[2]
        x = self.layer_norm(rearrange(patches, "n c cols rows -> n (cols rows) c"))
        x = self.dropout_input(self.post_extract_proj(x))
        mask = self._token_mask(valid_mask, cols)
        if mask is not None:
            # The convolution looks over the edge: beyond it there must be zeros, as if no
            # batch were there.
            x = x.masked_fill(~mask.unsqueeze(-1), 0.0)
        x = self.pos_conv(x)
        if not self.config.layer_norm_first:
            x = self.encoder_layer_norm(x)
        return self.dropout(x), mask

    def _checked(self, features: Tensor, valid_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Refuse other mel filters; bring clips of less than a patch to the size of one."""
        if features.ndim != 3 or features.shape[2] != self.config.mels:
            raise ShapeError(
                f"BEATs takes (n, time, {self.config.mels}); found {tuple(features.shape)}; "
                "set the encoder's `mels` to the modality's"
            )
        lack = self.config.patch[0] - features.shape[1]
        if lack > 0:
            features = F.pad(features, (0, 0, 0, lack))
            valid_mask = None if valid_mask is None else F.pad(valid_mask, (0, lack))
        if valid_mask is not None and not self.reference_mask:
            # A patch that straddles the end of a clip must not see what fills the batch. The
            # reference does let it: there the filling is the log-mel of digital silence.
            features = features.masked_fill(~valid_mask.unsqueeze(-1), 0.0)
        return features, valid_mask

    def _token_mask(self, valid_mask: Tensor | None, cols: int) -> Tensor | None:
        if valid_mask is None or bool(valid_mask.all()):
            return None
        if self.reference_mask:
            return reference_token_mask(valid_mask, cols * self.config.rows)
        frames = valid_mask.sum(1, keepdim=True)
        # Columns wholly inside the clip; a shorter clip still has the one that it starts.
        count = ((frames - self.config.patch[0]) // self.config.stride[0] + 1).clamp_min(1)
        columns = torch.arange(cols, device=valid_mask.device) < count
        return columns.repeat_interleave(self.config.rows, dim=1)

    def run_layers(
        self, x: Tensor, mask: Tensor | None, start: int = 0, stop: int | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Run layers `start` to `stop` on hidden states `(n, t, width)`.

        Tokens are dropped before the first of these layers, and the last norm of a pre-norm
        model is taken after the model's last layer.
        """
        length, positions = x.shape[1], None
        if self.training and self.patch_drop:
            x, mask, positions = drop_tokens(x, mask, self.patch_drop)
        bias = (
            None if self.relative_positions is None else self.relative_positions(length, positions)
        )
        for layer in self.layers[start:stop]:
            if self.training and self.gradient_checkpointing:
                after = checkpoint(layer, x, bias, mask, use_reentrant=False)
            else:
                after = layer(x, bias, mask)
            x = self._skip_some(x, after)
        if self.config.layer_norm_first and stop is None:
            x = self.encoder_layer_norm(x)
        return x, mask

    def pool(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Return one vector a clip, `(n, self.width)`."""
        return _POOLINGS[self.config.pooling][1](tokens, mask)

    def split_at(self, groups: int) -> tuple[nn.Module, nn.Module]:
        """Cut after so many layer groups: what comes before, and an encoder of the rest."""
        from modalbind_audio.beats_parts import BeatsBottom, BeatsTop

        return BeatsBottom(self, groups), BeatsTop(self, groups)

    def _skip_some(self, before: Tensor, after: Tensor) -> Tensor:
        """Let some samples skip a layer; per sample, so that each parameter always takes part."""
        if not (self.training and self.config.encoder_layerdrop):
            return after
        keep = torch.rand(len(after), 1, 1, device=after.device) >= self.config.encoder_layerdrop
        return torch.where(keep, after, before)

    def set_progress(self, progress: float) -> None:
        """Follow the schedule of token dropping.

        Args:
            progress: Share of the run that is done, 0 to below 1.
        """
        is_early = progress < self.config.patch_drop_until
        self.patch_drop = self.config.patch_drop if is_early else 0.0

    def set_checkpointing(self, enabled: bool) -> None:
        """Recompute activations in the backward pass, or keep them."""
        self.gradient_checkpointing = enabled

    def layer_groups(self) -> list[list[nn.Module]]:
        """Modules by depth: all that stands before the layers, then each layer."""
        stem: list[nn.Module] = [
            self.patch_embedding,
            self.layer_norm,
            self.post_extract_proj,
            self.pos_conv,
            self.encoder_layer_norm,
        ]
        if self.relative_positions is not None:
            stem.append(self.relative_positions)
        top = [] if self.predictor is None else [self.predictor]
        groups = [stem, *([layer] for layer in self.layers)]
        groups[-1].extend(top)
        return groups

    def portable_options(self) -> BeatsOptions:
        """Options that build the same architecture with nothing but themselves.

        Raises:
            InputError: If the options cannot say it, e.g. a pre-norm checkpoint.
        """
        config = self.config
        if (
            config.layer_norm_first
            or not config.deep_norm
            or config.conv_bias
            or config.activation_fn != "gelu"
        ):
            raise InputError(
                "BEATs as options; the architecture is not the released one; keep weights"
            )
        return BeatsOptions(
            layers=config.encoder_layers,
            width=config.encoder_embed_dim,
            heads=config.encoder_attention_heads,
            ffn=config.encoder_ffn_embed_dim,
            embed=config.embed_dim,
            mels=config.mels,
            patch=config.patch,
            stride=config.patch_stride,
            conv_pos=config.conv_pos,
            conv_pos_groups=config.conv_pos_groups,
            buckets=config.num_buckets,
            max_distance=config.max_distance,
            dropout=config.dropout,
            attention_dropout=config.attention_dropout,
            activation_dropout=config.activation_dropout,
            layer_drop=config.encoder_layerdrop,
            patch_drop=config.patch_drop,
            patch_drop_until=config.patch_drop_until,
            pooling=config.pooling,
            reference_mask=self.reference_mask,
        )


def build(options: BeatsOptions, modality: Modality) -> Beats:
    """Factory named by the plugin's `EncoderSpec`.

    Raises:
        InputError: If the modality makes other features, or the weights cannot be read.
    """
    from modalbind_audio.beats_checkpoint import load_beats
    from modalbind_audio.fitting import check_mels

    overrides: dict[str, Any] = {
        "dropout": options.dropout,
        "attention_dropout": options.attention_dropout,
        "activation_dropout": options.activation_dropout,
        "encoder_layerdrop": options.layer_drop,
        "patch_drop": options.patch_drop,
        "patch_drop_until": options.patch_drop_until,
        "pooling": options.pooling,
    }
    if options.weights is not None:
        check_mels("beats", 128, modality)
        path = find_weights(options.weights)
        model = load_beats(path, reference_mask=options.reference_mask, **overrides)
        model.predictor = None  # its classes are no part of an embedding
        return model.train()
    check_mels("beats", options.mels, modality)
    config = BeatsConfig(
        input_patch_size=options.patch,
        patch_stride=options.stride,
        mels=options.mels,
        embed_dim=options.embed,
        encoder_layers=options.layers,
        encoder_embed_dim=options.width,
        encoder_ffn_embed_dim=options.ffn,
        encoder_attention_heads=options.heads,
        deep_norm=True,
        conv_pos=options.conv_pos,
        conv_pos_groups=options.conv_pos_groups,
        relative_position_embedding=True,
        gru_rel_pos=True,
        num_buckets=options.buckets,
        max_distance=options.max_distance,
        **overrides,
    )
    return Beats(config, reference_mask=options.reference_mask)
