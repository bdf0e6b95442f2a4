"""Heat for modalbind: what the plugin offers, as light specs; nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modalbind.api import (
    AugmentationSpec,
    DatasetSpec,
    EncoderSpec,
    ModalitySpec,
    NoiseOptions,
    Options,
    hookimpl,
    map_augmentations,
    map_encoders,
)
from modalbind_thermal.datasets import SPECS as DATASETS
from modalbind_thermal.options import DriftOptions, GainOptions, ThermalOptions

__version__ = "0.1.0"

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
    """Return the encoders for thermal pictures: those that the core has for any map."""
    return map_encoders("thermal")


@hookimpl
def modalbind_datasets() -> list[DatasetSpec]:
    """Return adapters for published thermal data sets."""
    return list(DATASETS)


@hookimpl
def modalbind_augmentations() -> list[AugmentationSpec]:
    """Return the augmentations for thermal pictures."""
    own, shared = "modalbind_thermal.augment", "modalbind.api"
    return [
        *map_augmentations("thermal"),
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
