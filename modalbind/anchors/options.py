"""What can be set about each kind of anchor space; imports nothing heavy."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from modalbind.interfaces import Options
from modalbind.recipe.anchor_spec import SpaceName, absolute_path


def check_template(template: str) -> str:
    """Refuse a template that has no place for the class name."""
    if "{label}" not in template:
        raise ValueError(f"template {template!r} lacks {{label}}")
    return template


FileName = Annotated[str, AfterValidator(absolute_path)]
"""Type of an option that names a file; it becomes absolute, to mean the same everywhere."""


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


class ConseOptions(Options):
    """Options of `conse:`."""

    text: SpaceName = Field(
        min_length=1, description="Anchor spec of the text encoder whose space this becomes."
    )
    text_options: dict[str, Any] = Field(
        default_factory=dict, description="Options of that kind of space (pooling, prefix …)."
    )
    k: int = Field(default=10, ge=1, description="Likeliest classes that make a picture.")
    temperature: float = Field(
        default=1.0, gt=0, description="Factor that the classifier's logits are divided by."
    )
    templates: tuple[Annotated[str, AfterValidator(check_template)], ...] = Field(
        default=("{label}",),
        min_length=1,
        description="Texts with `{label}` that speak for a class; their embeddings are averaged.",
    )
    class_names: FileName | None = Field(
        default=None,
        description="JSON list, or text file with one name a line, in the classifier's order; "
        "default: ImageNet's, if it is a classifier of those.",
    )
    first_name: bool = Field(
        default=True, description="Of ImageNet's synonyms take the first alone."
    )
    centre: bool = Field(
        default=False,
        description="Subtract the mean of the class names' embeddings, on both sides.",
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
