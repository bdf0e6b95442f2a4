"""What can be set about each kind of anchor space; imports nothing heavy."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from modalbind.interfaces import Options


class OpenClipOptions(Options):
    """Options of `openclip:`."""

    device: str | None = Field(
        default=None, description="Where it computes, as torch names it; default: the run's device."
    )


class TransformersOptions(Options):
    """Options of `transformers:`."""

    pooling: Literal["mean", "cls", "last", "pooler"] | None = Field(
        default=None,
        description="How a plain sentence encoder makes one vector of its tokens; default: what "
        "the model's own sentence-transformers files say. CLIP- and CLAP-like models have theirs.",
    )
    prefix: str = Field(
        default="", description="Put before every text, such as `query: ` for E5 models."
    )
    max_length: int | None = Field(
        default=None, ge=2, description="Tokens kept of a text; default: the model's own limit."
    )
    device: str | None = Field(
        default=None, description="Where it computes, as torch names it; default: the run's device."
    )


class MetalOptions(Options):
    """Options of `metal:`."""

    device: str | None = Field(
        default=None, description="Where it computes, as torch names it; default: the run's device."
    )


class PrecomputedOptions(Options):
    """Options of `precomputed:`."""

    centre: bool = Field(
        default=False,
        description="Subtract each modality's mean over the tables and normalise again. It makes "
        "another space, with another fingerprint.",
    )
