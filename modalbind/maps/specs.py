"""What any modality of maps may offer in its hooks; light, like all specs."""

from __future__ import annotations

from modalbind.interfaces import API_VERSION, AugmentationSpec, EncoderSpec, Options
from modalbind.maps.options import (
    AnchorTowerOptions,
    CropOptions,
    EraseOptions,
    FlipOptions,
    GridMapOptions,
    TimmMapOptions,
)


def map_encoders(modality: str) -> list[EncoderSpec]:
    """Return the encoders of maps, for a modality with features `(1, size_px, size_px)`.

    Args:
        modality: Its name; its options have `size_px`.
    """
    return [
        EncoderSpec(
            name="grid",
            summary="Small convolutions from scratch, pooled over the cells of a grid.",
            api_version=API_VERSION,
            build="modalbind.api:build_grid_map",
            options=GridMapOptions,
            modality=modality,
            example={"channels": [8, 16], "grid": 2, "peaks": 1},
        ),
        EncoderSpec(
            name="timm",
            summary="A vision transformer or ConvNeXt of timm with one input channel.",
            api_version=API_VERSION,
            build="modalbind.api:build_timm_map",
            options=TimmMapOptions,
            modality=modality,
            example={"model": "convnext_atto", "args": {"depths": [1] * 4, "dims": [8] * 4}},
        ),
        EncoderSpec(
            name="anchor",
            summary="A copy of the anchor's own image tower with one input channel.",
            api_version=API_VERSION,
            build="modalbind.api:build_anchor_tower",
            options=AnchorTowerOptions,
            modality=modality,
            starts_from="image",
        ),
    ]


def map_augmentations(modality: str) -> list[AugmentationSpec]:
    """Return the augmentations that suit maps of any unit: `flip`, `crop` and `erase`.

    Args:
        modality: Its name; its samples are `MapSample`.
    """
    rows: list[tuple[str, type[Options], str]] = [
        ("flip", FlipOptions, "Mirrors a map, left to right."),
        ("crop", CropOptions, "Keeps a random rectangle of a map."),
        ("erase", EraseOptions, "Marks random rectangles as not measured."),
    ]
    return [
        AugmentationSpec(
            name=name,
            summary=summary,
            api_version=API_VERSION,
            build=f"modalbind.api:build_{name}",
            options=options,
            modality=modality,
            stage="sample",
        )
        for name, options, summary in rows
    ]
