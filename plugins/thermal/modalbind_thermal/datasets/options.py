"""Options of the data sets: light pydantic models, all defaults in them.

Nothing here reads a file. A part that `splits` does not name is not read, so its files may be
absent.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from modalbind.api import PublishedOptions, SplitName

TEMPLATES = (
    "a thermal picture of {classes}",
    "an infrared photo of a street with {classes}",
    "{classes} seen by a thermal camera",
)
"""English texts of a picture's classes; the data sets publish none."""


def _check_templates(templates: tuple[str, ...]) -> tuple[str, ...]:
    for template in templates:
        if "{classes}" not in template:
            raise ValueError(f"template '{template}' lacks {{classes}}")
    return templates


ClassTemplates = Annotated[tuple[str, ...], AfterValidator(_check_templates)]


class AnnotatedOptions(PublishedOptions):
    """For sets that publish boxes and no texts: templates make texts of the classes in them."""

    texts: bool = Field(
        default=False,
        description="Make texts of the annotated classes, such as `a thermal picture of cars and "
        "people`. Pictures of the same classes are then each other's positives.",
    )
    templates: ClassTemplates = Field(
        default=(), description="Texts with `{classes}`; empty takes the plugin's English ones."
    )


class LlvipOptions(AnnotatedOptions):
    """LLVIP."""

    splits: dict[Literal["train", "test"], SplitName] = Field(
        default={"train": "train", "test": "test"},
        description="Which published parts are read, and the split that each counts as.",
    )


class FlirV1Options(AnnotatedOptions):
    """FLIR ADAS 1.3."""

    files: Literal["thermal_8_bit", "thermal_16_bit"] = Field(
        default="thermal_8_bit",
        description="Folder of the thermal files: 8-bit counts after automatic gain, or 16-bit raw "
        "counts, whose scale is not published.",
    )
    splits: dict[Literal["train", "val", "video"], SplitName] = Field(
        default={"train": "train", "val": "test"},
        description="Which published parts are read, and the split that each counts as.",
    )
    needs_picture: bool = Field(
        default=True, description="Leave out thermal files that have no colour picture."
    )
    block_frames: int | None = Field(
        default=None,
        ge=1,
        description="So many consecutive frames are one group; none makes each part one group. No "
        "file says which frame is of which video, so blocks may cut through one.",
    )


class FlirV2Options(AnnotatedOptions):
    """FLIR ADAS 2. Only the frames of its video part are paired with colour pictures."""

    files: Literal["data", "analyticsData"] = Field(
        default="data",
        description="Folder of the thermal files: 8-bit counts after automatic gain, or 16-bit "
        "counts that are linear in temperature.",
    )
    splits: dict[
        Literal["images_train", "images_val", "video_test"], SplitName | Literal["by_group"]
    ] = Field(
        default={"video_test": "by_group"},
        description="Which published parts are read, and the split that each counts as; "
        "`by_group` leaves it to data.test_fraction. Without `texts` only `video_test` has "
        "anything to be paired with.",
    )
    every_frames: int = Field(
        default=1,
        ge=1,
        description="Of the video part, at 30 frames a second, every so many-th frame is taken.",
    )
