"""A tower: encoder and head, ending in a unit-norm embedding; and which of its parts train.

Axes: `n` samples, `time` the padded axis, `width` the encoder's output, `dim` the anchor space.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import Tensor, nn

from modalbind.encoders import lora
from modalbind.encoders.head import DeepLinearHead, build_head
from modalbind.errors import RecipeError, ShapeError
from modalbind.interfaces import Encoder
from modalbind.recipe.schema import HeadSection, TowerSection

NORM_EPS = 1e-6
"""Smallest norm divided by. A head's output that small is no direction: it stays (nearly) zero,
with a finite gradient, where dividing by its true norm would make noise of unit length."""


class Tower(nn.Module):
    """Features to embeddings.

    Parameters are named `encoder.*` and `head.*`. Frozen modules have no gradient and stay in
    eval mode, whatever `train()` says, so that they have no dropout and no running statistics.

    Args:
        encoder: A module with the interface of `modalbind.interfaces.Encoder`.
        head: Module from `(n, width)` to `(n, dim)`.
        frozen: Modules in it that do not train.
    """

    def __init__(
        self, encoder: nn.Module, head: nn.Module, frozen: Sequence[nn.Module] = ()
    ) -> None:
        """Freeze what is to be frozen; the tower starts in training mode."""
        super().__init__()
        self.encoder = encoder
        self.head = head
        # A tuple, so that torch does not take them for children of their own.
        self.frozen = tuple(frozen)
        for module in self.frozen:
            module.requires_grad_(False)
        self.train()

    def forward(self, features: Tensor, valid_mask: Tensor | None = None) -> Tensor:
        """Embed a batch.

        Args:
            features: Float `(n, time, ...)`, or `(n, ...)` if nothing is padded.
            valid_mask: Bool `(n, time)`, True = real data, or None.

        Returns:
            Unit-norm float32 `(n, dim)`, normalised in float32 under autocast too. A sample
            whose projection is shorter than `NORM_EPS` keeps a norm below one.

        Raises:
            ShapeError: If the encoder returns anything but one vector a sample.
        """
        pooled = self.encoder(features, valid_mask)
        if pooled.ndim != 2 or pooled.shape[0] != features.shape[0]:
            raise ShapeError(
                f"an encoder returns one vector a sample, ({features.shape[0]}, width); found "
                f"{tuple(pooled.shape)}; pool over time in the encoder"
            )
        return F.normalize(self.head(pooled).float(), dim=1, eps=NORM_EPS)

    def train(self, mode: bool = True) -> Tower:
        """Set training mode, except for what is frozen."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self

    def merged_state_dict(self) -> dict[str, Tensor]:
        """Return the weights of the same tower without adapters, its head as one map.

        Returns:
            A copy, each tensor contiguous and with storage of its own, under the names that the
            tower would have if neither LoRA nor a deep linear head had been asked for; it embeds
            equally to 1e-5.
        """
        merged = lora.merge_state_dict(self)
        if isinstance(self.head, DeepLinearHead):
            merged = {name: value for name, value in merged.items() if not name.startswith("head.")}
            merged |= self.head.merged_state_dict("head.")
        return {name: tensor.detach().clone().contiguous() for name, tensor in merged.items()}


class Pooled(nn.Module):
    """Stands for an encoder whose outputs are known: passes pooled vectors on.

    Args:
        width: Of the vectors.
    """

    lora_targets: tuple[str, ...] = ()

    def __init__(self, width: int) -> None:
        """Have no parameters."""
        super().__init__()
        self.width = width

    def forward(self, features: Tensor, valid_mask: Tensor | None = None) -> Tensor:
        """Return the vectors, `(n, width)`."""
        return features

    def layer_groups(self) -> list[list[nn.Module]]:
        """Return none."""
        return []


def split_frozen(
    tower: Tower, freeze: Literal["none", "encoder"] | int
) -> tuple[nn.Module, Tower] | None:
    """Cut a tower where its frozen part ends.

    What comes before never changes, so that it may be computed once for each sample.

    Args:
        tower: Frozen as the recipe says.
        freeze: What is frozen.

    Returns:
        The frozen part, and a tower of what trains that takes its outputs and shares all
        parameters; None if nothing is frozen, or the encoder cannot be cut there (`split_at`).
    """
    encoder: Any = tower.encoder
    if freeze == "encoder":
        return tower.encoder, Tower(Pooled(encoder.width), tower.head)
    cut = getattr(encoder, "split_at", None)
    if freeze == "none" or not freeze or cut is None:
        return None
    lower, upper = cut(freeze)
    return lower, Tower(upper, tower.head, tower.frozen)


def tell_progress(encoder: nn.Module, progress: float) -> None:
    """Tell an encoder that follows a schedule how much of the run is done, 0 to below 1."""
    follow = getattr(encoder, "set_progress", None)
    if follow is not None:
        follow(progress)


def build_tower(
    encoder: Encoder, head_section: HeadSection, tower_section: TowerSection, dim: int
) -> Tower:
    """Put a head on an encoder, and freeze, adapt and checkpoint as the recipe says.

    Args:
        encoder: The encoder; changed in place.
        head_section: Form of the head.
        tower_section: `freeze: encoder` trains the head alone; a number freezes that many
            layer groups from the input; `lora` freezes all but adapters, and a number beside it
            keeps adapters out of those groups.
        dim: Of the anchor space.

    Returns:
        The tower, in training mode.

    Raises:
        RecipeError: If the encoder has fewer layer groups than are to be frozen, if LoRA is
            asked for on an encoder that is frozen, or if its targets name no linear layer.
    """
    module = _as_module(encoder)
    if tower_section.lora is not None:
        if tower_section.freeze == "encoder":
            raise RecipeError(
                "tower.lora asked for; tower.freeze is 'encoder', which leaves nothing to adapt; "
                "drop one of them"
            )
        lora.add_adapters(module, tower_section.lora, encoder.lora_targets)
    frozen = _frozen_modules(encoder, tower_section.freeze)
    if tower_section.checkpointing:
        _checkpoint_activations(encoder)
    return Tower(module, build_head(head_section, encoder.width, dim), frozen)


def _as_module(encoder: Encoder) -> nn.Module:
    if not isinstance(encoder, nn.Module):
        raise TypeError(f"an encoder is a torch module; found {type(encoder).__name__}")
    return encoder


def _frozen_modules(encoder: Encoder, freeze: str | int) -> list[nn.Module]:
    if freeze == "none":
        return []
    if freeze == "encoder":
        return [_as_module(encoder)]
    count, groups = int(freeze), encoder.layer_groups()
    if not 0 <= count <= len(groups):
        raise RecipeError(
            f"tower.freeze: {count} layer groups asked for; the encoder has {len(groups)}; give "
            f"'encoder' or a number from 0 to {len(groups)}"
        )
    return [module for group in groups[:count] for module in group]


def _checkpoint_activations(encoder: Encoder) -> None:
    """Recompute activations in the backward pass, layer by layer."""
    own = getattr(encoder, "set_checkpointing", None)
    if own is not None:
        own(True)
        return
    for group in encoder.layer_groups():
        for module in group:
            # On the instance: the module's type, name and state dict stay what they were.
            module.forward = functools.partial(_recomputed, module.forward)


def _recomputed(forward: Any, *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    # Replays the random state, so that dropout is the same the second time.
    return torch.utils.checkpoint.checkpoint(forward, *args, use_reentrant=False, **kwargs)
