"""Options of everything that the plugin offers but its data sets: light pydantic models.

Nothing here imports torch, so that listing plugins and checking recipes stay instant.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from modalbind.api import Options

Unit = Literal["celsius", "counts"]

CELSIUS_MEAN_C = 20.0
CELSIUS_STD_C = 10.0
COUNTS_MEAN = 114.3
COUNTS_STD = 68.6
"""CLIP's statistics of pictures times 255, mean over its three colours: LanguageBind standardises
thermal pictures by them (its get_thermal_transform). ImageBind's authors published none."""


class ThermalOptions(Options):
    """How files of thermal pictures are read, and turned into features."""

    encoding: Literal["celsius", "centikelvin", "linear", "counts8"] = Field(
        default="celsius",
        description="What the numbers of a file are: floats in degrees C; 16-bit integers in "
        "hundredths of a kelvin; integers times `scale_c` plus `offset_c`; or 8-bit counts without "
        "a temperature.",
    )
    scale_c: float | None = Field(
        default=None, description="For `linear`: degrees C per count, such as 0.04."
    )
    offset_c: float | None = Field(
        default=None, description="For `linear`: degrees C of count 0, such as -273.15."
    )
    missing: int | None = Field(
        default=None,
        ge=0,
        description="Number that stands in integer files where nothing was measured, in the "
        "file's own counts. In float files that is NaN.",
    )
    mixes_colours: bool = Field(
        default=False,
        description="For `counts8`: take the mean of the colours of a PNG or JPEG that was saved "
        "in colour. For grey ones; the colours of a palette are no measure.",
    )
    min_c: float = Field(
        default=-40.0, description="Colder pixels count as this, in degrees C; not for `counts8`."
    )
    max_c: float = Field(
        default=100.0, description="Hotter pixels count as this, in degrees C; not for `counts8`."
    )
    mean: float | None = Field(
        default=None,
        description="Subtracted from the map: default 20 degrees C; 114.3 counts for `counts8`.",
    )
    std: float | None = Field(
        default=None,
        gt=0,
        description="The map is divided by it: default 10 degrees C; 68.6 counts for `counts8`.",
    )
    size_px: int = Field(
        default=224, ge=8, description="Side of the square that encoders get, in pixels."
    )
    max_pixels: int = Field(
        default=2**24, ge=1, description="Files with more pixels are refused as `too_large`."
    )

    @property
    def unit(self) -> Unit:
        """What the values of a sample mean."""
        return "counts" if self.encoding == "counts8" else "celsius"

    @property
    def standard(self) -> tuple[float, float]:
        """Mean and deviation by which maps are standardised, in their unit."""
        is_celsius = self.unit == "celsius"
        mean, std = (CELSIUS_MEAN_C, CELSIUS_STD_C) if is_celsius else (COUNTS_MEAN, COUNTS_STD)
        return mean if self.mean is None else self.mean, std if self.std is None else self.std

    @model_validator(mode="after")
    def _check_linear(self) -> ThermalOptions:
        given = [self.scale_c is not None, self.offset_c is not None]
        if self.encoding == "linear" and not all(given):
            raise ValueError("encoding linear needs scale_c and offset_c; set both")
        if self.encoding != "linear" and any(given):
            raise ValueError(
                f"scale_c and offset_c belong to encoding linear, found {self.encoding}; "
                "leave them out"
            )
        if self.scale_c == 0:
            raise ValueError("scale_c is 0: all counts would be one temperature")
        return self

    @model_validator(mode="after")
    def _check_unit(self) -> ThermalOptions:
        if self.min_c >= self.max_c:
            raise ValueError("min_c is not below max_c; exchange them")
        if self.unit == "counts" and {"min_c", "max_c"} & self.model_fields_set:
            raise ValueError("counts8 has no temperature; leave out min_c and max_c")
        if self.encoding != "counts8" and self.mixes_colours:
            raise ValueError(
                f"mixes_colours belongs to encoding counts8, found {self.encoding}; leave it out"
            )
        if self.encoding == "celsius" and self.missing is not None:
            raise ValueError("missing is for integers; in float files NaN says it; leave it out")
        return self


class DriftOptions(Options):
    """Adds a smooth field of degrees Celsius."""

    max_std_c: float = Field(
        default=0.5, gt=0, description="Largest deviation of the field, in degrees C."
    )
    points: int = Field(
        default=3, ge=2, description="Points along a side between which the field is smooth."
    )
    p: float = Field(default=1.0, ge=0, le=1, description="Chance that a picture drifts.")


class GainOptions(Options):
    """Changes contrast and brightness of counts."""

    min_gain: float = Field(default=0.7, gt=0, description="Smallest factor on contrast.")
    max_gain: float = Field(default=1.4, gt=0, description="Largest factor on contrast.")
    max_shift: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Largest change of brightness, up or down, as a share of the range 0..255.",
    )
    p: float = Field(default=1.0, ge=0, le=1, description="Chance that a picture is changed.")

    @model_validator(mode="after")
    def _check_order(self) -> GainOptions:
        if self.min_gain > self.max_gain:
            raise ValueError("min_gain is above max_gain; exchange them")
        return self
