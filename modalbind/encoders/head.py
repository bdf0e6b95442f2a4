"""Heads: from an encoder's width to the anchor's dim. Not normalised; the tower does that."""

from __future__ import annotations

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
    if section.kind == "linear":
        return LinearHead(width, dim, section.bias, section.dropout)
    return MlpHead(width, dim, section.hidden or width, section.bias, section.dropout)
