"""Vision transformers from timm on log-mel, in the shape of AudioMAE.

A clip is cut or filled with zeros to a fixed number of frames, as AudioMAE does; what was
filled is masked in attention and left out of the mean, so padding never changes a result.

Letters: `n` clips, `cols` x `rows` the grid of patches (time x frequency).

Source: Huang et al. 2022, Masked Autoencoders that Listen (arXiv 2207.06405).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modalbind.api import InputError, Modality, ShapeError, find_weights, split_by_depth
from modalbind_audio.fitting import check_mels
from modalbind_audio.options import TimmOptions


class TimmEncoder(nn.Module):
    """A timm vision transformer over log-mel patches, mean over the patches that hold sound.

    Attributes:
        width: Width of the result.
        lora_targets: Names of its attention projections.
    """

    lora_targets: tuple[str, ...] = ("attn.qkv", "attn.proj")

    def __init__(self, model: Any, options: TimmOptions) -> None:
        """Wrap a model.

        Args:
            model: timm `VisionTransformer` with one input channel and no classifier.
            options: Frames and mel filters of its input.
        """
        super().__init__()
        self.model = model
        self.options = options
        self.width = int(model.num_features)
        # A grid is fixed by the input's size, and the class token is no part of the mean.
        self.cols, self.rows = model.patch_embed.grid_size
        self.prefix = int(model.num_prefix_tokens)

    def forward(self, features: Tensor, valid_mask: Tensor | None = None) -> Tensor:
        """Encode `(n, time, mels)` with `(n, time)` True for real frames to `(n, width)`.

        Raises:
            ShapeError: If the features have another number of mel filters.
        """
        frames, mels = self.options.frames, self.options.mels
        if features.ndim != 3 or features.shape[2] != mels:
            raise ShapeError(
                f"a ViT takes (n, time, {mels}); found {tuple(features.shape)}; "
                "set the encoder's `mels` to the modality's"
            )
        if valid_mask is None:
            valid_mask = features.new_ones(features.shape[:2], dtype=torch.bool)
        valid_mask = valid_mask[:, :frames]
        kept = features[:, :frames].masked_fill(~valid_mask.unsqueeze(-1), 0.0)
        filled = F.pad(kept, (0, 0, 0, frames - kept.shape[1]))
        real = self._real_patches(valid_mask)
        seen = torch.cat([real.new_ones(len(real), self.prefix), real], dim=1)
        hidden = self.model.forward_features(
            filled.unsqueeze(1), attn_mask=seen.view(len(real), 1, 1, -1)
        )
        patches = hidden[:, self.prefix :].masked_fill(~real.unsqueeze(-1), 0.0)
        pooled: Tensor = self.model.fc_norm(patches.sum(1) / real.sum(1, keepdim=True))
        return pooled

    def _real_patches(self, valid_mask: Tensor) -> Tensor:
        """Return which patches hold sound, `(n, cols * rows)`; the last may be part silence."""
        frames = valid_mask.sum(1, keepdim=True)
        height = self.options.frames // self.cols
        count = ((frames + height - 1) // height).clamp_min(1)
        columns: Tensor = torch.arange(self.cols, device=valid_mask.device) < count
        return columns.repeat_interleave(int(self.rows), dim=1)

    def portable_options(self) -> TimmOptions:
        """Options that build the same architecture with nothing to fetch."""
        return self.options.model_copy(update={"pretrained": False, "weights": None})

    def layer_groups(self) -> list[list[nn.Module]]:
        """Modules by depth, the input first."""
        return split_by_depth(self.model)


def build(options: TimmOptions, modality: Modality) -> TimmEncoder:
    """Factory named by the plugin's `EncoderSpec`.

    Raises:
        InputError: If the modality makes other features, or timm cannot build the model.
    """
    check_mels("timm", options.mels, modality)
    import timm
    from timm.models import VisionTransformer, load_checkpoint

    try:
        model = timm.create_model(
            options.model,
            pretrained=options.pretrained,
            img_size=(options.frames, options.mels),
            in_chans=1,
            num_classes=0,
            **options.args,
        )
        if options.weights is not None:
            load_checkpoint(model, str(find_weights(options.weights)))
    except (RuntimeError, TypeError, ValueError, OSError, AssertionError) as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"encoder 'timm' with model {options.model!r}; {line}; see timm.list_models('vit*')"
        ) from error
    if not isinstance(model, VisionTransformer):
        raise InputError(
            f"encoder 'timm' with model {options.model!r}; it is a {type(model).__name__}; "
            "choose a plain vision transformer, timm.list_models('vit*')"
        )
    return TimmEncoder(model, options)
