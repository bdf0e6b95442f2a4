"""Sound for modalbind: what the plugin offers, as light specs; nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from modalbind.api import (
    AugmentationSpec,
    DatasetSpec,
    EncoderSpec,
    ModalitySpec,
    Options,
    hookimpl,
)
from modalbind_audio import options
from modalbind_audio.datasets import SPECS as DATASETS

__version__ = "0.1.0"

EXAMPLES: Mapping[str, Mapping[str, Any]] = {
    "hf": {
        "config": {
            "model_type": "wav2vec2",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "conv_dim": (16, 16, 16),
            "conv_stride": (5, 4, 4),
            "conv_kernel": (10, 8, 8),
            "num_feat_extract_layers": 3,
            "num_conv_pos_embeddings": 16,
            "num_conv_pos_embedding_groups": 4,
        },
        "extractor": {"feature_extractor_type": "Wav2Vec2FeatureExtractor"},
    },
    "timm": {
        "frames": 112,
        "mels": 64,
        "args": {"depth": 2, "embed_dim": 48, "num_heads": 3},
    },
    "frames": {"width": 32},
}
"""Options that build an encoder small and from scratch, where its defaults do not."""
EXAMPLE_MODALITY: Mapping[str, Mapping[str, Any]] = {"hf": {"features": "waveform"}}


@hookimpl
def modalbind_modalities() -> list[ModalitySpec]:
    """Return the one modality of this plugin."""
    return [
        ModalitySpec(
            name="audio",
            summary="Sound files: wav, flac, ogg, opus and mp3, as log-mel, waveform or frames.",
            api_version=1,
            build="modalbind_audio.modality:build",
            options=options.AudioOptions,
            unit="waveform, float32 in -1..1, mono, 16000 Hz",
            suffixes=(".flac", ".mp3", ".oga", ".ogg", ".opus", ".wav"),
            default_recipe="audio/default",
            quickstart_recipe="audio/quickstart",
            perceives=("kind", "count", "size", "distance"),
        )
    ]


@hookimpl
def modalbind_encoders() -> list[EncoderSpec]:
    """Return the encoders for sound."""
    rows: list[tuple[str, str, type[Options], str]] = [
        (
            "beats",
            "beats",
            options.BeatsOptions,
            "BEATs, from published weights or small and from scratch.",
        ),
        (
            "hf",
            "hf",
            options.HfOptions,
            "AST, CLAP, wav2vec2, HuBERT, WavLM or Whisper, from transformers.",
        ),
        (
            "timm",
            "timm_vit",
            options.TimmOptions,
            "A vision transformer of timm in the shape of AudioMAE.",
        ),
        (
            "frames",
            "frames",
            options.FramesOptions,
            "Convolutions or a transformer over frames, e.g. those of a frozen encoder.",
        ),
        (
            "statistics",
            "statistics",
            options.StatisticsOptions,
            "Mean, deviation, maximum and minimum over time; no weights, for closed forms.",
        ),
    ]
    return [
        EncoderSpec(
            name=name,
            summary=summary,
            api_version=1,
            build=f"modalbind_audio.{module}:build",
            options=model,
            modality="audio",
            example=EXAMPLES.get(name, {}),
            example_modality=EXAMPLE_MODALITY.get(name, {}),
        )
        for name, module, model, summary in rows
    ]


@hookimpl
def modalbind_datasets() -> list[DatasetSpec]:
    """Return adapters for published audio data sets."""
    return list(DATASETS)


@hookimpl
def modalbind_augmentations() -> list[AugmentationSpec]:
    """Return the augmentations for sound."""
    rows: list[tuple[str, Literal["sample", "features", "batch"], type[Options], str]] = [
        (
            "random_truncate",
            "sample",
            options.RandomTruncateOptions,
            "Keeps a random stretch of a sample.",
        ),
        ("time_shift", "sample", options.TimeShiftOptions, "Rolls a sample in time."),
        ("gain", "sample", options.GainOptions, "Makes a sound louder or softer."),
        (
            "equalise",
            "sample",
            options.EqualiseOptions,
            "Filters a sound by a random curve.",
        ),
        ("noise", "sample", options.NoiseOptions, "Adds white, pink or recorded noise."),
        ("speed", "sample", options.SpeedOptions, "Plays a sound faster or slower."),
        (
            "spec_augment",
            "features",
            options.SpecAugmentOptions,
            "Masks stretches of time and bands of frequency.",
        ),
        ("mixup", "batch", options.MixupOptions, "Mixes pairs of samples and their targets."),
    ]
    return [
        AugmentationSpec(
            name=name,
            summary=summary,
            api_version=1,
            build=f"modalbind_audio.augment:build_{name}",
            options=model,
            modality="audio",
            stage=stage,
        )
        for name, stage, model, summary in rows
    ]
