"""The one door for plugins: everything that a plugin may import, and nothing else.

Importing it imports nothing heavy: names that need numpy, Pillow or torch are opened when they are
first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from modalbind.data.options import (
    DatasetOptions,
    LabelledOptions,
    PublishedOptions,
    SplitName,
    Templates,
    path_pattern,
)
from modalbind.errors import (
    AnchorError,
    BrokenSampleError,
    DataError,
    InputError,
    ManifestError,
    ModalbindError,
    NonFiniteError,
    ShapeError,
)
from modalbind.hookspecs import hookimpl
from modalbind.interfaces import (
    API_VERSION,
    AnchorSpace,
    AnchorSpec,
    AugmentationSpec,
    DatasetSpec,
    Encoder,
    EncoderSpec,
    Modality,
    ModalitySpec,
    NoOptions,
    Objective,
    ObjectiveSpec,
    Options,
    PairedDataset,
)
from modalbind.maps.options import (
    AnchorTowerOptions,
    CropOptions,
    EraseOptions,
    FlipOptions,
    GridMapOptions,
    NoiseOptions,
    TimmMapOptions,
)
from modalbind.maps.specs import map_augmentations, map_encoders
from modalbind.recipe.anchor_spec import SpaceName
from modalbind.types import AnchorItem, AnchorSide, Pair, PairBatch, TextSample, text_item

if TYPE_CHECKING:
    from modalbind.anchors.parts import open_space
    from modalbind.data.published import Publication, PublishedFolder, PublishedItem, label_texts
    from modalbind.data.texts import text_dataset, text_pair
    from modalbind.encoders.fitting import find_weights, split_by_depth
    from modalbind.maps.augment import build_crop, build_erase, build_flip, build_noise
    from modalbind.maps.encoders import build_anchor_tower, build_grid_map, build_timm_map
    from modalbind.maps.reading import read_map
    from modalbind.maps.sample import MapSample, change_values, check_map, resize_map, split_valid
    from modalbind.world import caption, render_depth, render_heat

__all__ = [
    "API_VERSION",
    "AnchorError",
    "AnchorItem",
    "AnchorSide",
    "AnchorSpace",
    "AnchorSpec",
    "AnchorTowerOptions",
    "AugmentationSpec",
    "BrokenSampleError",
    "CropOptions",
    "DataError",
    "DatasetOptions",
    "DatasetSpec",
    "Encoder",
    "EncoderSpec",
    "EraseOptions",
    "FlipOptions",
    "GridMapOptions",
    "InputError",
    "LabelledOptions",
    "ManifestError",
    "MapSample",
    "ModalbindError",
    "Modality",
    "ModalitySpec",
    "NoOptions",
    "NoiseOptions",
    "NonFiniteError",
    "Objective",
    "ObjectiveSpec",
    "Options",
    "Pair",
    "PairBatch",
    "PairedDataset",
    "Publication",
    "PublishedFolder",
    "PublishedItem",
    "PublishedOptions",
    "ShapeError",
    "SpaceName",
    "SplitName",
    "Templates",
    "TextSample",
    "TimmMapOptions",
    "build_anchor_tower",
    "build_crop",
    "build_erase",
    "build_flip",
    "build_grid_map",
    "build_noise",
    "build_timm_map",
    "caption",
    "change_values",
    "check_map",
    "find_weights",
    "hookimpl",
    "label_texts",
    "map_augmentations",
    "map_encoders",
    "open_space",
    "path_pattern",
    "read_map",
    "render_depth",
    "render_heat",
    "resize_map",
    "split_by_depth",
    "split_valid",
    "text_dataset",
    "text_item",
    "text_pair",
]


_LAZY: dict[str, str] = {
    "MapSample": "modalbind.maps.sample",
    "Publication": "modalbind.data.published",
    "PublishedFolder": "modalbind.data.published",
    "PublishedItem": "modalbind.data.published",
    "build_anchor_tower": "modalbind.maps.encoders",
    "build_crop": "modalbind.maps.augment",
    "build_erase": "modalbind.maps.augment",
    "build_flip": "modalbind.maps.augment",
    "build_grid_map": "modalbind.maps.encoders",
    "build_noise": "modalbind.maps.augment",
    "build_timm_map": "modalbind.maps.encoders",
    "caption": "modalbind.world",
    "change_values": "modalbind.maps.sample",
    "check_map": "modalbind.maps.sample",
    "find_weights": "modalbind.encoders.fitting",
    "label_texts": "modalbind.data.published",
    "open_space": "modalbind.anchors.parts",
    "read_map": "modalbind.maps.reading",
    "render_depth": "modalbind.world",
    "render_heat": "modalbind.world",
    "resize_map": "modalbind.maps.sample",
    "split_by_depth": "modalbind.encoders.fitting",
    "text_dataset": "modalbind.data.texts",
    "text_pair": "modalbind.data.texts",
    "split_valid": "modalbind.maps.sample",
}
"""Where the names lie whose modules are too heavy for the list of plugins."""


if not TYPE_CHECKING:  # a type checker would take any name for one of ours

    def __getattr__(name: str) -> Any:
        if name in _LAZY:
            return getattr(import_module(_LAZY[name]), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
