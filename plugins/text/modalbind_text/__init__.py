"""Text in any language for modalbind: what the plugin offers, as light specs.

METAL: a linear map from a frozen sentence encoder to the anchor's English text, trained on
English alone. Nothing heavy is imported here.
"""

from __future__ import annotations

from modalbind.api import (
    AugmentationSpec,
    DatasetSpec,
    EncoderSpec,
    ModalitySpec,
    hookimpl,
)
from modalbind_text import options
from modalbind_text.datasets import SPECS as DATASETS

__version__ = "0.1.0"

_SHIPPED = {"encoder": "transformers:world"}


@hookimpl
def modalbind_modalities() -> list[ModalitySpec]:
    """Return the one modality of this plugin."""
    return [
        ModalitySpec(
            name="text",
            summary="Sentences in any language, through a frozen sentence encoder (METAL).",
            api_version=1,
            build="modalbind_text.modality:build",
            options=options.TextOptions,
            example=_SHIPPED,
            unit="a sentence as Unicode text, with the tag of its language",
            suffixes=(),
            default_recipe="text/default",
            quickstart_recipe="text/quickstart",
            perceives=("kind", "count", "size", "position", "distance", "warmth"),
            is_text=True,
        )
    ]


@hookimpl
def modalbind_encoders() -> list[EncoderSpec]:
    """Return the one encoder: the frozen features themselves."""
    return [
        EncoderSpec(
            name="frozen",
            summary="What the frozen sentence encoder made of a sentence; the head is the map.",
            api_version=1,
            build="modalbind_text.frozen:build",
            options=options.FrozenOptions,
            modality="text",
            example_modality=_SHIPPED,
        )
    ]


@hookimpl
def modalbind_datasets() -> list[DatasetSpec]:
    """Return adapters for corpora of sentences and for captions in many languages."""
    return list(DATASETS)


@hookimpl
def modalbind_augmentations() -> list[AugmentationSpec]:
    """Return the one augmentation."""
    return [
        AugmentationSpec(
            name="noise",
            summary="Adds white noise to the features of a sentence (C3).",
            api_version=1,
            build="modalbind_text.augment:build_noise",
            options=options.NoiseOptions,
            modality="text",
            stage="features",
            example_modality=_SHIPPED,
        )
    ]
