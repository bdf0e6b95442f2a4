"""Heads: from an encoder's width to the anchor's dim. Not normalised; the tower does that."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from modalbind.errors import RecipeError
from modalbind.recipe.schema import HeadSection


class LinearHead(nn.Module):
    """Dropout and one affine map: `(n, width)` to `(n, dim)`."""

    def __init__(self, width: int, dim: int, bias: bool = True, dropout: float = 0.0) -> None:
        """Start from torch's default initialisation."""
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.projection = nn.Linear(width, dim, bias=bias)

    def forward(self, pooled: Tensor) -> Tensor:
        """Map `(n, width)` to `(n, dim)`."""
        projected: Tensor = self.projection(self.dropout(pooled))
        return projected


class DeepLinearHead(nn.Module):
    """Linear maps in a row, nothing between them: `(n, width)` to `(n, dim)`.

    METAL's form (arXiv 2601.10096). The first map goes from the encoder's width to the anchor's,
    the others keep it. It is one affine map, only trained in another way, and is published as
    that (`merged`).
    """

    def __init__(self, width: int, dim: int, layers: int, bias: bool, skip: bool) -> None:
        """Start from torch's default initialisation.

        Args:
            width: Of the encoder's output.
            dim: Of the anchor space.
            layers: Maps in a row, at least 1.
            bias: Whether each has one.
            skip: Whether a map that keeps the width adds its input.
        """
        super().__init__()
        widths = [width, *[dim] * layers]
        self.layers = nn.ModuleList(
            nn.Linear(before, after, bias=bias) for before, after in pairwise(widths)
        )
        self.skips = [skip and before == after for before, after in pairwise(widths)]

    def forward(self, pooled: Tensor) -> Tensor:
        """Map `(n, width)` to `(n, dim)`."""
        hidden = pooled
        for layer, skips in zip(self.layers, self.skips, strict=True):
            hidden = layer(hidden) + hidden if skips else layer(hidden)
        return hidden

    def merged_state_dict(self, prefix: str) -> dict[str, Tensor]:
        """Return the weights of the `LinearHead` that it is, multiplied out in float64."""
        first = cast("nn.Linear", self.layers[0]).weight
        with torch.no_grad():
            # What the head does to the axes, and to the origin, is all that an affine map is.
            exact = copy.deepcopy(self).double().cpu()
            origin = exact(torch.zeros(1, first.shape[1], dtype=torch.float64))
            axes = exact(torch.eye(first.shape[1], dtype=torch.float64)) - origin
        merged = {f"{prefix}projection.weight": axes.T.to(first).contiguous()}
        if cast("nn.Linear", self.layers[0]).bias is not None:
            merged[f"{prefix}projection.bias"] = origin[0].to(first)
        return merged


class MlpHead(nn.Module):
    """One hidden layer with GELU: `(n, width)` to `(n, hidden)` to `(n, dim)`."""

    def __init__(
        self, width: int, dim: int, hidden: int, bias: bool = True, dropout: float = 0.0
    ) -> None:
        """Start from torch's default initialisation."""
        super().__init__()
        self.hidden = nn.Linear(width, hidden, bias=bias)
        self.activation = nn.GELU()
        self.dropout = nn.Dropout(dropout)
        self.projection = nn.Linear(hidden, dim, bias=bias)

    def forward(self, pooled: Tensor) -> Tensor:
        """Map `(n, width)` to `(n, dim)`."""
        hidden = self.dropout(self.activation(self.hidden(pooled)))
        projected: Tensor = self.projection(hidden)
        return projected


def published_section(section: HeadSection) -> HeadSection:
    """Return the form in which a finished tower has its head: a deep linear one is linear."""
    if section.kind != "deep_linear":
        return section
    return section.model_copy(update={"kind": "linear", "dropout": 0.0})


def build_head(section: HeadSection, width: int, dim: int) -> nn.Module:
    """Build the head that a recipe asks for.

    Args:
        section: Its form; `hidden: 0` takes the encoder's width.
        width: Of the encoder's pooled output.
        dim: Of the anchor space.

    Raises:
        RecipeError: If there is to be none, and the encoder's width is not the anchor's dim.

    Example:
        >>> head = build_head(HeadSection(kind="mlp", hidden=8), width=4, dim=3)
        >>> [tuple(weight.shape) for weight in head.parameters()]
        [(8, 4), (8,), (3, 8), (3,)]
    """
    if section.kind == "none":
        if width != dim:
            raise RecipeError(
                f"head.kind none asked for; the encoder ends in {width} numbers, the anchor space "
                f"has {dim}; set head.kind to linear"
            )
        return nn.Identity()
    if section.kind == "deep_linear":
        return DeepLinearHead(width, dim, section.layers, section.bias, section.skip)
    if section.kind == "linear":
        return LinearHead(width, dim, section.bias, section.dropout)
    return MlpHead(width, dim, section.hidden or width, section.bias, section.dropout)
