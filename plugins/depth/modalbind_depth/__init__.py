"""Depth maps for modalbind: what the plugin offers, as light specs; nothing heavy is imported."""

from __future__ import annotations

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
    Options,
    TimmMapOptions,
    hookimpl,
)
from modalbind_depth import options
from modalbind_depth.datasets import SPECS as DATASETS

__version__ = "0.1.0"

# An image tower as OpenCLIP describes one, of the size of the quick start's maps.
_SMALL_TOWER = {
    "embed_dim": 16,
    "vision_cfg": {
        "image_size": 64,
        "patch_size": 16,
        "width": 32,
        "layers": 2,
        "head_width": 16,
        "mlp_ratio": 2.0,
    },
}


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
    return [
        EncoderSpec(
            name="grid",
            summary="Small convolutions from scratch that keep where things are.",
            api_version=1,
            build="modalbind.api:build_grid_map",
            options=GridMapOptions,
            example={"channels": [8, 16, 16], "grid": 2},
            modality="depth",
        ),
        EncoderSpec(
            name="timm",
            summary="A vision transformer or ConvNeXt of timm with one input channel.",
            api_version=1,
            build="modalbind.api:build_timm_map",
            options=TimmMapOptions,
            example={
                "model": "convnext_atto",
                "args": {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]},
            },
            modality="depth",
        ),
        EncoderSpec(
            name="anchor",
            summary="The anchor's own image tower with one input channel, for LoRA or full tuning.",
            api_version=1,
            build="modalbind.api:build_anchor_tower",
            options=AnchorTowerOptions,
            example={"architecture": _SMALL_TOWER},
            modality="depth",
            starts_from="image",
        ),
    ]


@hookimpl
def modalbind_datasets() -> list[DatasetSpec]:
    """Return adapters for published depth data sets."""
    return list(DATASETS)


@hookimpl
def modalbind_augmentations() -> list[AugmentationSpec]:
    """Return the augmentations for depth maps; all work on samples, values and mask together."""
    rows: list[tuple[str, str, type[Options], str]] = [
        ("flip", "modalbind.api:build_flip", FlipOptions, "Mirrors a map, left to right."),
        ("crop", "modalbind.api:build_crop", CropOptions, "Cuts out a random rectangle."),
        (
            "erase",
            "modalbind.api:build_erase",
            EraseOptions,
            "Marks random rectangles as not measured.",
        ),
        (
            "sensor_noise",
            "modalbind_depth.augment:build_sensor_noise",
            options.SensorNoiseOptions,
            "Adds noise that grows with the square of depth.",
        ),
    ]
    return [
        AugmentationSpec(
            name=name,
            summary=summary,
            api_version=1,
            build=build,
            options=model,
            modality="depth",
            stage="sample",
        )
        for name, build, model, summary in rows
    ]
