"""Options of everything that the plugin offers: light pydantic models, all defaults in them.

Nothing here imports torch, so that listing plugins and checking recipes stay instant.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from modalbind.api import LabelledOptions, Options

Encoding = Literal["metres", "millimetres", "sunrgbd"]

KINECT_BASELINE_M = 0.075
"""Projector to camera of the first Kinect, in metres."""


class DepthOptions(Options):
    """How depth files are read, and turned into features."""

    encoding: Encoding = Field(
        default="metres",
        description="What the numbers of a file are; never guessed. `metres`: floats, what is not "
        "finite is missing. `millimetres`: integers of 16 bits or more. `sunrgbd`: 16-bit "
        "millimetres whose bits SUN RGB-D rotated left by three. What is not above zero is "
        "missing in each of them.",
    )
    representation: Literal["depth", "disparity", "log_depth"] = Field(
        default="depth",
        description="What encoders get: depth in metres, disparity in pixels (baseline_m times "
        "focal_px over depth), or the natural logarithm of depth in metres.",
    )
    focal_px: float | None = Field(
        default=None,
        gt=0,
        description="Focal length in pixels of the files, for disparity; samples of data sets "
        "that know their own keep it.",
    )
    baseline_m: float | None = Field(
        default=None,
        gt=0,
        description="Distance of the two eyes in metres, for disparity; as `focal_px`.",
    )
    clip_min_m: float = Field(
        default=0.1, gt=0, description="Nearer depth counts as this, in metres."
    )
    clip_max_m: float = Field(
        default=8.0,
        gt=0,
        description="Farther depth counts as this, in metres; 8 is SUN RGB-D's practice.",
    )
    mean: float = Field(
        default=3.0,
        description="Subtracted from what encoders get, in its unit (m, px, or ln m); missing "
        "pixels become 0 after that.",
    )
    std: float = Field(default=2.0, gt=0, description="Divides the difference, in the same unit.")
    size_px: int = Field(
        default=224, ge=8, le=4096, description="Side of the features in pixels; maps are resized."
    )
    max_pixels: int = Field(
        default=2**24, ge=1, description="Files of more pixels are refused as `too_large`."
    )

    @model_validator(mode="after")
    def _check(self) -> DepthOptions:
        if self.clip_min_m >= self.clip_max_m:
            raise ValueError("clip_min_m has to lie below clip_max_m")
        if self.representation != "depth" and not {"mean", "std"} <= self.model_fields_set:
            raise ValueError(
                f"representation {self.representation} needs its own `mean` and `std`; the "
                "defaults are of depth in metres"
            )
        return self


class SensorNoiseOptions(Options):
    """Adds noise as depth cameras have it: its deviation grows with the square of depth."""

    min_std_m: float = Field(
        default=0.0, ge=0, description="Smallest deviation at a depth of 1 m, in metres."
    )
    max_std_m: float = Field(
        default=0.003,
        ge=0,
        description="Largest deviation at a depth of 1 m, in metres; a Kinect's is about 0.0015.",
    )
    p: float = Field(default=1.0, ge=0, le=1, description="Chance that a map gets noise.")

    @model_validator(mode="after")
    def _check(self) -> SensorNoiseOptions:
        if self.min_std_m > self.max_std_m:
            raise ValueError("min_std_m is above max_std_m; exchange them")
        return self


class NyuOptions(LabelledOptions):
    """NYU Depth v2, the labelled part."""

    depths: Literal["filled", "raw"] = Field(
        default="filled",
        description="`depths` of the file, in which holes were filled, or its `rawDepths`.",
    )
    scenes: Literal["ten", "all"] = Field(
        default="ten",
        description="`ten`: the nine most common kinds of scene and `other`; `all`: as published.",
    )
    images: bool = Field(default=True, description="Pair each map with the picture beside it.")
    baseline_m: float = Field(
        default=KINECT_BASELINE_M, gt=0, description="Projector to camera in metres, for disparity."
    )


Sensor = Literal["kv1", "kv2", "realsense", "xtion"]


class SunRgbdOptions(LabelledOptions):
    """SUN RGB-D."""

    depths: Literal["refined", "raw"] = Field(
        default="refined",
        description="Maps of `depth_bfx`, in which holes were filled, or of `depth`.",
    )
    scenes: Literal["nineteen", "all"] = Field(
        default="nineteen",
        description="`nineteen`: those with more than 80 pictures, as its authors classify; "
        "`all`: every scene that has a name.",
    )
    sensors: tuple[Sensor, ...] = Field(
        default=("kv1", "kv2", "realsense", "xtion"),
        min_length=1,
        description="Cameras whose samples are read.",
    )
    include_nyu: bool = Field(
        default=True,
        description="Keep the samples that SUN RGB-D took over from NYU Depth v2; leave them out "
        "when NYU Depth v2 is tested on.",
    )
    images: bool = Field(default=True, description="Pair each map with the picture beside it.")
    baselines_m: dict[Sensor, float] = Field(
        default={"kv1": 0.075, "kv2": 0.075, "realsense": 0.095, "xtion": 0.095},
        description="Distance of the two eyes of each camera in metres, for disparity.",
    )
