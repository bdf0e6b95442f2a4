"""Depth maps for modalbind: what the plugin offers, as light specs; nothing heavy is imported."""

from __future__ import annotations

from modalbind.api import (
    AugmentationSpec,
    DatasetSpec,
    EncoderSpec,
    ModalitySpec,
    hookimpl,
    map_augmentations,
    map_encoders,
)
from modalbind_depth import options
from modalbind_depth.datasets import SPECS as DATASETS

__version__ = "0.1.0"


@hookimpl
def modalbind_modalities() -> list[ModalitySpec]:
    """Return the one modality of this plugin."""
    return [
        ModalitySpec(
            name="depth",
            summary="Depth maps: PNG, TIFF, PGM and NumPy files, in metres or millimetres.",
            api_version=1,
            build="modalbind_depth.modality:build",
            options=options.DepthOptions,
            unit="distance along the optical axis in metres, float32, with a mask of what was "
            "measured",
            suffixes=(".npy", ".pgm", ".png", ".tif", ".tiff"),
            default_recipe="depth/default",
            quickstart_recipe="depth/quickstart",
            perceives=("kind", "count", "size", "position", "distance"),
        )
    ]


@hookimpl
def modalbind_encoders() -> list[EncoderSpec]:
    """Return the encoders for depth maps: those that the core has for any map."""
    return map_encoders("depth")


@hookimpl
def modalbind_datasets() -> list[DatasetSpec]:
    """Return adapters for published depth data sets."""
    return list(DATASETS)


@hookimpl
def modalbind_augmentations() -> list[AugmentationSpec]:
    """Return the augmentations for depth maps; all work on samples, values and mask together."""
    return [
        *map_augmentations("depth"),
        AugmentationSpec(
            name="sensor_noise",
            summary="Adds noise that grows with the square of depth.",
            api_version=1,
            build="modalbind_depth.augment:build_sensor_noise",
            options=options.SensorNoiseOptions,
            modality="depth",
            stage="sample",
        ),
    ]
