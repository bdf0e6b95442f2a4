"""Options of everything that the plugin offers: light pydantic models, all defaults in them.

Nothing here imports torch, so that listing plugins and checking recipes stay instant.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from modalbind.api import Options, SpaceName

C3_VARIANCE = 0.016
"""Of each coordinate of the noise: Zhang, Sui & Yeung 2024, C3 (arXiv 2401.08567), section 4."""


class TextOptions(Options):
    """Which frozen sentence encoder makes the features."""

    encoder: SpaceName = Field(
        default="transformers:sentence-transformers/LaBSE",
        description="Frozen space that embeds the sentences, `kind:source[@tag]` as for an anchor "
        "(`transformers:NAME-or-PATH`, `precomputed:FILE[,FILE...]`); `transformers:world` is the "
        "small one that ships with modalbind and knows the generated world alone.",
    )
    encoder_options: dict[str, Any] = Field(
        default_factory=dict,
        description="Options of that kind of space: pooling, prefix (`query: ` for E5) …",
    )
    batch_size: int = Field(default=256, ge=1, description="Sentences encoded at once.")
    device: str = Field(
        default="auto", description="Where the sentence encoder computes, as torch names it."
    )


class FrozenOptions(Options):
    """The features as they are. Both are written by a finished run; a recipe leaves them out."""

    width: int = Field(default=0, ge=0, description="Length of the features; 0 asks the encoder.")
    space: str = Field(
        default="",
        description="Fingerprint of the frozen space that made the features; another is refused.",
    )


class NoiseOptions(Options):
    """White noise on the features."""

    variance: float = Field(
        default=C3_VARIANCE,
        gt=0,
        description="Of each coordinate, as a share of the features' squared norm, which is 1; "
        "C3 takes 0.016.",
    )
