"""Encoders of maps, with one input channel: convolutions, timm, the anchor's own image tower.

Features are `(n, 1, size, size)`; what was not measured is filled by the modality. Nothing is
padded, so `valid_mask` is always None.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modalbind.encoders.fitting import find_weights, split_by_depth
from modalbind.errors import InputError, ShapeError
from modalbind.interfaces import Modality
from modalbind.maps.options import GROUPS, AnchorTowerOptions, GridMapOptions, TimmMapOptions

MAP_FAMILIES = ("ConvNeXt", "VisionTransformer")
"""Networks of timm that are known to work: no batch normalisation, layers in one list."""


class GridMapEncoder(nn.Module):
    """Overlapping convolutions with group normalisation, pooled over the cells of a grid.

    For little data and few steps: from scratch it learns sooner than the networks of timm, which
    want long schedules, and it keeps where things are.

    Attributes:
        width: Cells, of means and of peaks, times the last stage's channels.
        lora_targets: Empty: it has no linear layers.
    """

    lora_targets: tuple[str, ...] = ()

    def __init__(self, options: GridMapOptions, size_px: int) -> None:
        """Start from torch's default initialisation."""
        super().__init__()
        self.options = options
        self.size_px = size_px
        stages = [_convolve(1, options.channels[0], 7, options.stride)]
        for before, channels in pairwise(options.channels):
            layers = [_convolve(before, channels, 3, 2)]
            layers += [_convolve(channels, channels, 3, 1) for _ in range(options.layers)]
            stages.append(nn.Sequential(*layers))
        self.stages = nn.ModuleList(stages)
        self.width = options.channels[-1] * (options.grid**2 + options.peaks**2)

    def forward(self, features: Tensor, valid_mask: Tensor | None = None) -> Tensor:
        """Encode `(n, 1, size, size)` to `(n, width)`.

        Raises:
            ShapeError: If the features are of another size.
        """
        check_size(features, self.size_px)
        hidden = features
        for stage in self.stages:
            hidden = stage(hidden)
        means = F.adaptive_avg_pool2d(hidden, self.options.grid).flatten(1)
        if not self.options.peaks:
            return means
        peaks = F.adaptive_max_pool2d(hidden, self.options.peaks).flatten(1)
        return torch.cat([means, peaks], dim=1)

    def portable_options(self) -> GridMapOptions:
        """Options that build the same architecture."""
        return self.options

    def layer_groups(self) -> list[list[nn.Module]]:
        """Stages, the input first."""
        return [[stage] for stage in self.stages]


def build_grid_map(options: GridMapOptions, modality: Modality) -> GridMapEncoder:
    """Build small convolutions for a modality of maps.

    Args:
        options: Their channels and grid.
        modality: Its `options.size_px` is the side of its features.

    Raises:
        InputError: If the modality has no maps, or the last stage has fewer pixels than the grid
            has cells.
    """
    size_px = read_size(modality)
    side = -(-size_px // options.stride)
    for _ in options.channels[1:]:
        side = -(-side // 2)
    cells = max(options.grid, options.peaks)
    if side < cells:
        raise InputError(
            f"encoder 'grid' with {cells} by {cells} cells; of {size_px} px its last "
            f"stage leaves {side} by {side}; take fewer cells or stages, or a larger size_px"
        )
    return GridMapEncoder(options, size_px)


def _convolve(before: int, channels: int, kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, channels, kernel, stride, kernel // 2),
        nn.GroupNorm(GROUPS, channels),
        nn.GELU(),
    )


class TimmMapEncoder(nn.Module):
    """A network of timm over maps.

    Attributes:
        width: Width of the pooled result.
        lora_targets: Its linear layers, by the last parts of their names.
    """

    def __init__(self, model: Any, options: TimmMapOptions, size_px: int) -> None:
        """Wrap a model without classifier."""
        super().__init__()
        self.model = model
        self.options = options
        self.size_px = size_px
        self.width = int(model.num_features)
        self.lora_targets = list_linear(model)

    def forward(self, features: Tensor, valid_mask: Tensor | None = None) -> Tensor:
        """Encode `(n, 1, size, size)` to `(n, width)`.

        Raises:
            ShapeError: If the features are of another size.
        """
        check_size(features, self.size_px)
        pooled: Tensor = self.model(features)
        return pooled

    def portable_options(self) -> TimmMapOptions:
        """Options that build the same architecture with nothing to fetch."""
        return self.options.model_copy(update={"pretrained": False, "weights": None})

    def layer_groups(self) -> list[list[nn.Module]]:
        """Modules by depth, the input first."""
        return split_by_depth(self.model)


def build_timm_map(options: TimmMapOptions, modality: Modality) -> TimmMapEncoder:
    """Build a network of timm for a modality of maps.

    Args:
        options: Which network, and its weights.
        modality: Its `options.size_px` is the side of its features.

    Raises:
        InputError: If timm cannot build it, or it is of an untried family.
    """
    import timm
    from timm.models import load_checkpoint

    size_px = read_size(modality)
    arguments = dict(options.args)
    if "vit" in options.model:
        arguments["img_size"] = size_px  # a ConvNeXt takes any size and refuses to be told one
    try:
        model = timm.create_model(
            options.model, pretrained=options.pretrained, in_chans=1, num_classes=0, **arguments
        )
        if options.weights is not None:
            load_checkpoint(model, str(find_weights(options.weights)))
    except (AssertionError, IndexError, OSError, RuntimeError, TypeError, ValueError) as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"encoder 'timm' with model {options.model!r}; {line}; see timm.list_models()"
        ) from error
    if type(model).__name__ not in MAP_FAMILIES:
        raise InputError(
            f"encoder 'timm' with model {options.model!r}; it is a {type(model).__name__}; "
            f"choose a {' or a '.join(MAP_FAMILIES)}"
        )
    return TimmMapEncoder(model, options, size_px)


class AnchorTowerEncoder(nn.Module):
    """A copy of the anchor's image tower that takes one channel; it trains, the anchor does not.

    Its last layer is the anchor's own projection, so `head: {kind: none}` keeps that as the head.

    Attributes:
        width: The anchor's dim.
        lora_targets: Its linear layers, attention included.
    """

    def __init__(self, tower: nn.Module, architecture: dict[str, Any], width: int) -> None:
        """Wrap a tower of one input channel."""
        super().__init__()
        self.tower = tower
        self.architecture = architecture
        self.width = width
        self.size_px = int(architecture["vision_cfg"]["image_size"])
        self.lora_targets = list_linear(tower)

    def forward(self, features: Tensor, valid_mask: Tensor | None = None) -> Tensor:
        """Encode `(n, 1, size, size)` to `(n, width)`.

        Raises:
            ShapeError: If the features are of another size.
        """
        check_size(features, self.size_px)
        pooled: Tensor = self.tower(features)
        return pooled

    def portable_options(self) -> AnchorTowerOptions:
        """Options that build the same architecture without the anchor."""
        dropout = float(self.architecture["vision_cfg"].get("patch_dropout", 0.0))
        return AnchorTowerOptions(patch_dropout=dropout, architecture=self.architecture)

    def layer_groups(self) -> list[list[nn.Module]]:
        """Modules by depth, the input first."""
        return split_by_depth(self.tower)


def build_anchor_tower(
    options: AnchorTowerOptions, modality: Modality, exported: Path | None = None
) -> AnchorTowerEncoder:
    """Build the anchor's image tower for a modality of maps.

    The colour channels of the first layer are summed into one: a grey picture gives what the
    anchor's own tower gives for it.

    Args:
        options: Of a finished run, they say the architecture.
        modality: Its `options.size_px` is the side of its features.
        exported: The file that the anchor wrote; None for a finished run.

    Raises:
        InputError: If neither says the architecture, the tower takes another size, or it is none
            that has its layers in a list.

    Source:
        Zhu et al. 2023, LanguageBind (arXiv 2310.01852): towers of new modalities start from the
        frozen space's image tower, tuned by LoRA.
    """
    architecture, weights = options.architecture, None
    if exported is not None:
        architecture, weights = read_exported(exported)
    if architecture is None:
        raise InputError(
            "encoder 'anchor' asked for; no anchor gave its image tower; "
            "align to an anchor with weights, such as openclip"
        )
    if options.patch_dropout:
        vision = {**architecture["vision_cfg"], "patch_dropout": options.patch_dropout}
        architecture = {**architecture, "vision_cfg": vision}
    size_px = architecture["vision_cfg"]["image_size"]
    if size_px != read_size(modality):
        raise InputError(
            f"encoder 'anchor' takes maps of {size_px} px; modality.options.size_px is "
            f"{read_size(modality)}; set modality.options.size_px={size_px}"
        )
    tower = build_vision_tower(architecture)
    if weights is not None:
        tower.load_state_dict(weights)
    return AnchorTowerEncoder(_with_one_channel(tower), architecture, architecture["embed_dim"])


def build_vision_tower(architecture: Mapping[str, Any]) -> nn.Module:
    """Build an OpenCLIP image tower with random weights.

    Args:
        architecture: `embed_dim`, `vision_cfg` and `quick_gelu`, as OpenCLIP's config says them.

    Raises:
        InputError: If OpenCLIP cannot build it.
    """
    import open_clip

    text = open_clip.CLIPTextCfg(context_length=1, vocab_size=1, width=8, heads=1, layers=1)
    vision = {**architecture["vision_cfg"], "timm_model_pretrained": False}
    try:
        model = open_clip.CLIP(
            int(architecture["embed_dim"]),
            open_clip.CLIPVisionCfg(**vision),
            text,
            quick_gelu=bool(architecture.get("quick_gelu", False)),
        )
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"the anchor's image tower asked for; OpenCLIP cannot build it: {line}; "
            "choose encoder 'timm'"
        ) from error
    visual: nn.Module = model.visual
    return visual


def read_exported(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return architecture and weights of a tower that an anchor exported.

    Raises:
        InputError: If the file is none.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            architecture: dict[str, Any] = json.loads((file.metadata() or {})["architecture"])
            return architecture, {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise InputError(
            f"an exported tower asked for; {path} is none ({error}); let the anchor export it again"
        ) from error


class SplitAttention(nn.Module):
    """torch's self-attention with linear layers as its projections: adapters can stand beside them.

    The maths is that of `nn.MultiheadAttention` with one input; its weights move here.
    """

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        """Take over the weights."""
        super().__init__()
        width = attention.embed_dim
        assert attention.in_proj_weight is not None and attention.in_proj_bias is not None
        self.num_heads = attention.num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        with torch.no_grad():
            self.qkv.weight.copy_(attention.in_proj_weight)
            self.qkv.bias.copy_(attention.in_proj_bias)
            self.proj.weight.copy_(attention.out_proj.weight)
            self.proj.bias.copy_(attention.out_proj.bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        """Attend within `(n, tokens, width)`; the same tensor is query, key and value."""
        n, tokens, width = query.shape
        shape = (n, tokens, 3, self.num_heads, width // self.num_heads)
        q, k, v = self.qkv(query).view(shape).permute(2, 0, 3, 1, 4)  # each (n, heads, tokens, d)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)
        return self.proj(attended.transpose(1, 2).reshape(n, tokens, width)), None


def _with_one_channel(tower: nn.Module) -> nn.Module:
    """Give the first layer one input channel, and attention linear layers, in place."""
    first = next(
        (
            (name, layer)
            for name, layer in tower.named_modules()
            if isinstance(layer, nn.Conv2d) and layer.in_channels == 3
        ),
        None,
    )
    if first is None:
        raise InputError(
            "the anchor's image tower asked for; it has no first layer for three colours; "
            "choose encoder 'timm'"
        )
    name, layer = first
    _replace(tower, name, _sum_channels(layer))
    for inner, module in list(tower.named_modules()):
        if isinstance(module, nn.MultiheadAttention) and module.in_proj_bias is not None:
            _replace(tower, inner, SplitAttention(module))
    split_by_depth(tower)  # refuses a tower that cannot be frozen or tuned by depth
    return tower


def _sum_channels(layer: nn.Conv2d) -> nn.Conv2d:
    summed = nn.Conv2d(
        1,
        layer.out_channels,
        layer.kernel_size,  # type: ignore[arg-type]
        layer.stride,  # type: ignore[arg-type]
        layer.padding,  # type: ignore[arg-type]
        bias=layer.bias is not None,
    )
    with torch.no_grad():
        summed.weight.copy_(layer.weight.sum(dim=1, keepdim=True))
        if layer.bias is not None and summed.bias is not None:
            summed.bias.copy_(layer.bias)
    return summed


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    owner, _, last = name.rpartition(".")
    setattr(model.get_submodule(owner), last, module)


def list_linear(model: nn.Module) -> tuple[str, ...]:
    """Return the last two parts of the names of the linear layers that are in its blocks."""
    names = {
        ".".join(name.split(".")[-2:])
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and any(part.isdecimal() for part in name.split("."))
    }
    return tuple(sorted(names))


def read_size(modality: Modality) -> int:
    """Return the side of a modality's features in pixels.

    Raises:
        InputError: If it does not say one; then its features are no maps.
    """
    size_px = getattr(getattr(modality, "options", None), "size_px", None)
    if not isinstance(size_px, int):
        raise InputError(
            f"an encoder for maps; modality {type(modality).__name__} has no options.size_px; "
            "choose one of its own encoders"
        )
    return size_px


def check_size(features: Tensor, size_px: int) -> None:
    """Refuse features of another size than the encoder's.

    Raises:
        ShapeError: Naming both.
    """
    if features.ndim != 4 or tuple(features.shape[1:]) != (1, size_px, size_px):
        raise ShapeError(
            f"this encoder takes (n, 1, {size_px}, {size_px}); found {tuple(features.shape)}; "
            "set modality.options.size_px to that of the encoder"
        )
