"""Adapters for published depth data sets: light specs only; nothing heavy is imported.

Each adapter reads the files that its project publishes, in the layout in which it publishes
them. None downloads anything.
"""

from __future__ import annotations

from modalbind.api import DatasetSpec
from modalbind_depth.options import NyuOptions, SunRgbdOptions

SPECS: list[DatasetSpec] = [
    DatasetSpec(
        name="nyu-depth-v2",
        summary="NYU Depth v2, labelled: 1449 indoor maps with pictures and kinds of scene.",
        api_version=1,
        build="modalbind_depth.datasets.nyu:build",
        options=NyuOptions,
        modality="depth",
    ),
    DatasetSpec(
        name="sun-rgbd",
        summary="SUN RGB-D: 10335 indoor maps of four cameras with pictures and kinds of scene.",
        api_version=1,
        build="modalbind_depth.datasets.sun_rgbd:build",
        options=SunRgbdOptions,
        modality="depth",
    ),
]
