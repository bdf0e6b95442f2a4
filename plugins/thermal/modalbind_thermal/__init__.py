"""Heat for modalbind: what the plugin offers, as light specs; nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modalbind.api import (
    AnchorTowerOptions,
    AugmentationSpec,
    CropOptions,
    DatasetSpec,
    EncoderSpec,
    EraseOptions,
    FlipOptions,
    GridMapOptions,
    ModalitySpec,
    NoiseOptions,
    Options,
    TimmMapOptions,
    hookimpl,
)
from modalbind_thermal.datasets import SPECS as DATASETS
from modalbind_thermal.options import DriftOptions, GainOptions, ThermalOptions

__version__ = "0.1.0"

_SMALL_NETWORK = {"model": "convnext_atto", "args": {"depths": [1, 1, 1, 1], "dims": [8] * 4}}
_COUNTS = {"encoding": "counts8"}


@hookimpl
def modalbind_modalities() -> list[ModalitySpec]:
    """Return the one modality of this plugin."""
    return [
        ModalitySpec(
            name="thermal",
            summary="Thermal pictures: degrees Celsius, radiometric integers, or 8-bit counts.",
            api_version=1,
            build="modalbind_thermal.modality:build",
            options=ThermalOptions,
            unit="degrees Celsius; counts 0..255 with encoding counts8",
            suffixes=(".jpeg", ".jpg", ".npy", ".pgm", ".png", ".tif", ".tiff"),
            default_recipe="thermal/default",
            quickstart_recipe="thermal/quickstart",
            perceives=("kind", "count", "size", "position", "distance", "warmth"),
        )
    ]


@hookimpl
def modalbind_encoders() -> list[EncoderSpec]:
    """Return the encoders for thermal pictures; the core has them for all maps."""
    return [
        EncoderSpec(
            name="grid",
            summary="Small convolutions from scratch, pooled over the cells of a grid.",
            api_version=1,
            build="modalbind.api:build_grid_map",
            options=GridMapOptions,
            modality="thermal",
            example={"channels": [8, 16], "grid": 2, "peaks": 1},
        ),
        EncoderSpec(
            name="timm",
            summary="A vision transformer or ConvNeXt of timm with one input channel.",
            api_version=1,
            build="modalbind.api:build_timm_map",
            options=TimmMapOptions,
            modality="thermal",
            example=_SMALL_NETWORK,
        ),
        EncoderSpec(
            name="anchor",
            summary="A copy of the anchor's own image tower with one input channel.",
            api_version=1,
            build="modalbind.api:build_anchor_tower",
            options=AnchorTowerOptions,
            modality="thermal",
            starts_from="image",
        ),
    ]


@hookimpl
def modalbind_datasets() -> list[DatasetSpec]:
    """Return adapters for published thermal data sets."""
    return list(DATASETS)


@hookimpl
def modalbind_augmentations() -> list[AugmentationSpec]:
    """Return the augmentations for thermal pictures."""
    own, shared = "modalbind_thermal.augment", "modalbind.api"
    return [
        _augmentation("flip", shared, FlipOptions, "Mirrors a picture, left to right."),
        _augmentation("crop", shared, CropOptions, "Keeps a random rectangle of a picture."),
        _augmentation("erase", shared, EraseOptions, "Marks rectangles as not measured."),
        _augmentation(
            "noise",
            shared,
            NoiseOptions,
            "Adds white noise, in degrees Celsius or counts.",
            {"max_std": 0.1},
        ),
        _augmentation(
            "drift", own, DriftOptions, "Adds a smooth field of degrees Celsius, as sensors drift."
        ),
        _augmentation(
            "gain",
            own,
            GainOptions,
            "Changes contrast and brightness of counts, as automatic gain does.",
            modality=_COUNTS,
        ),
    ]


def _augmentation(
    name: str,
    module: str,
    options: type[Options],
    summary: str,
    example: Mapping[str, Any] | None = None,
    modality: Mapping[str, Any] | None = None,
) -> AugmentationSpec:
    return AugmentationSpec(
        name=name,
        summary=summary,
        api_version=1,
        build=f"{module}:build_{name}",
        options=options,
        modality="thermal",
        stage="sample",
        example=example or {},
        example_modality=modality or {},
    )
