"""Adapters for published thermal data sets: light specs only; nothing heavy is imported.

Each adapter reads the files that its project publishes, in the layout in which it publishes
them. None downloads anything.
"""

from __future__ import annotations

from modalbind.api import DatasetSpec
from modalbind_thermal.datasets import options

SPECS: list[DatasetSpec] = [
    DatasetSpec(
        name="llvip",
        summary="LLVIP: infrared and visible pictures of streets at night, aligned pixel by pixel.",
        api_version=1,
        build="modalbind_thermal.datasets.llvip:build",
        options=options.LlvipOptions,
        modality="thermal",
        example_modality={"encoding": "counts8", "mixes_colours": True},
    ),
    DatasetSpec(
        name="flir-adas-v1",
        summary="FLIR ADAS 1.3: thermal and colour pictures from a car, five classes.",
        api_version=1,
        build="modalbind_thermal.datasets.flir_v1:build",
        options=options.FlirV1Options,
        modality="thermal",
        example_modality={"encoding": "counts8"},
    ),
    DatasetSpec(
        name="flir-adas-v2",
        summary="FLIR ADAS 2: thermal pictures with classes, and thermal-colour video pairs.",
        api_version=1,
        build="modalbind_thermal.datasets.flir_v2:build",
        options=options.FlirV2Options,
        modality="thermal",
        example_modality={"encoding": "counts8"},
    ),
]
