"""The hooks by which a plugin says what it offers.

All are called once, when plugins are loaded; each returns a list of light frozen specs, so
importing the plugin's package must import nothing heavy. A hook that raises takes its own plugin
out of the list and no other.
"""

from __future__ import annotations

import pluggy

from modalbind.interfaces import (
    AnchorSpec,
    AugmentationSpec,
    DatasetSpec,
    EncoderSpec,
    ModalitySpec,
    ObjectiveSpec,
)

PROJECT = "modalbind"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def modalbind_modalities() -> list[ModalitySpec]:  # type: ignore[empty-body]
    """Return the modalities that this plugin brings."""


@hookspec
def modalbind_encoders() -> list[EncoderSpec]:  # type: ignore[empty-body]
    """Return encoders, for its own modality or for one that exists."""


@hookspec
def modalbind_datasets() -> list[DatasetSpec]:  # type: ignore[empty-body]
    """Return data sets."""


@hookspec
def modalbind_augmentations() -> list[AugmentationSpec]:  # type: ignore[empty-body]
    """Return augmentations."""


@hookspec
def modalbind_anchors() -> list[AnchorSpec]:  # type: ignore[empty-body]
    """Return kinds of anchor space."""


@hookspec
def modalbind_objectives() -> list[ObjectiveSpec]:  # type: ignore[empty-body]
    """Return objectives."""
