"""The generated world of the quick starts: scenes, their pictures, captions, and an anchor for it.

A scene is a handful of attributes. The core shows it as a picture and says it in twelve languages;
a plugin renders its own modality of the same scene. Nothing here imports torch.
"""

from pathlib import Path

from modalbind.world.captions import (
    LANGUAGES,
    PICTURED_LANGUAGES,
    UNPICTURED_LANGUAGES,
    caption,
)
from modalbind.world.depth import DEPTH_PERCEIVES, DEPTH_PX, render_depth
from modalbind.world.heat import HEAT_PERCEIVES, HEAT_PX, render_heat
from modalbind.world.layout import Placement, layout, scene_rng
from modalbind.world.picture import PICTURE_PERCEIVES, PICTURE_PX, render_picture
from modalbind.world.scenes import (
    ATTRIBUTES,
    SPLITS,
    VERSION,
    Scene,
    SceneObject,
    build_scenes,
    perceived,
    scene_from_key,
    scene_key,
)

__all__ = [
    "ATTRIBUTES",
    "DEPTH_PERCEIVES",
    "DEPTH_PX",
    "HEAT_PERCEIVES",
    "HEAT_PX",
    "LANGUAGES",
    "PICTURED_LANGUAGES",
    "PICTURE_PERCEIVES",
    "PICTURE_PX",
    "SPLITS",
    "UNPICTURED_LANGUAGES",
    "VERSION",
    "Placement",
    "Scene",
    "SceneObject",
    "anchor_folder",
    "build_scenes",
    "caption",
    "layout",
    "perceived",
    "render_depth",
    "render_heat",
    "render_picture",
    "scene_from_key",
    "scene_key",
    "scene_rng",
    "sentence_folder",
]


def sentence_folder() -> Path:
    """Return the folder of the multilingual sentence encoder that ships beside the anchor."""
    return Path(__file__).parent / "sentences"


def anchor_folder() -> Path:
    """Return the folder of the image-text anchor that ships with the package (OpenCLIP layout)."""
    return Path(__file__).parent / "anchor"
