"""Options of what maps share; light pydantic models, all defaults in them."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from modalbind.interfaces import Options

GROUPS = 8
"""Groups of channels that are normalised together."""


class GridMapOptions(Options):
    """Small convolutions from scratch, averaged over the cells of a grid."""

    channels: tuple[int, ...] = Field(
        default=(32, 64, 128),
        min_length=1,
        description="Channels of each stage, multiples of 8; each but the first halves the map.",
    )
    stride: int = Field(default=4, ge=1, description="Step of the first convolution, in pixels.")
    layers: int = Field(
        default=1, ge=0, description="Further convolutions in each stage but the first."
    )
    grid: int = Field(
        default=4,
        ge=1,
        description="Cells along each side that the result is averaged over; 1 is the mean over "
        "the map, which does not tell where things are.",
    )
    peaks: int = Field(
        default=0,
        ge=0,
        description="Cells along each side whose largest values join the means, so that the result "
        "tells what small things there are, however few; 0 leaves them out.",
    )

    @model_validator(mode="after")
    def _check(self) -> GridMapOptions:
        if any(count < GROUPS or count % GROUPS for count in self.channels):
            raise ValueError(f"channels are not all multiples of {GROUPS}, for the normalisation")
        return self


class TimmMapOptions(Options):
    """A timm vision transformer or ConvNeXt with one input channel."""

    model: str = Field(
        default="vit_tiny_patch16_224",
        description="timm's name of a vision transformer or ConvNeXt; `hf-hub:` names work.",
    )
    pretrained: bool = Field(
        default=False,
        description="Fetch the weights that timm knows for it; its first layer's colour channels "
        "are summed into one.",
    )
    weights: str | None = Field(
        default=None, description="Checkpoint: a local file, or `hf://OWNER/REPO/FILE` on the hub."
    )
    args: dict[str, Any] = Field(
        default_factory=dict,
        description="Further arguments of timm.create_model: depths, dims, depth, embed_dim, "
        "patch_size, drop_path_rate.",
    )


class AnchorTowerOptions(Options):
    """The anchor's own image tower as the start of the new one, with one input channel."""

    patch_dropout: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of patches left out in training, where the tower can do that.",
    )
    architecture: dict[str, Any] | None = Field(
        default=None,
        description="Of a finished run: the tower without its weights. Leave it out: the recipe's "
        "anchor says it.",
    )


class FlipOptions(Options):
    """Mirrors a map, left to right."""

    p: float = Field(default=0.5, ge=0, le=1, description="Chance that a map is mirrored.")


class CropOptions(Options):
    """Cuts a random rectangle out of a map; it is resized with the map's own `size_px`."""

    min_area: float = Field(
        default=0.5, gt=0, le=1, description="Smallest share of the area that is kept."
    )
    max_aspect: float = Field(
        default=1.33,
        ge=1,
        description="Largest factor on the ratio of width to height, either way.",
    )
    p: float = Field(default=1.0, ge=0, le=1, description="Chance that a map is cut.")


class EraseOptions(Options):
    """Marks random rectangles as not measured, as a sensor's holes are."""

    max_area: float = Field(
        default=0.1, gt=0, le=1, description="Largest share of the area that a hole takes."
    )
    holes: int = Field(default=2, ge=1, description="Largest number of holes.")
    p: float = Field(default=0.5, ge=0, le=1, description="Chance that a map gets holes.")


class NoiseOptions(Options):
    """Adds noise in the map's own unit; each plugin says which unit that is."""

    min_std: float = Field(default=0.0, ge=0, description="Smallest deviation, in the map's unit.")
    max_std: float = Field(gt=0, description="Largest deviation, in the map's unit.")
    p: float = Field(default=1.0, ge=0, le=1, description="Chance that a map gets noise.")

    @model_validator(mode="after")
    def _check_order(self) -> NoiseOptions:
        if self.min_std > self.max_std:
            raise ValueError("min_std is above max_std; exchange them")
        return self
