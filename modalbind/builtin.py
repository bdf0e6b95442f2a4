"""What the core itself offers, through the same hooks as any plugin.

Found by the core's own entry point; nothing imports this module.
"""

from __future__ import annotations

from modalbind.anchors.options import (
    ConseOptions,
    MetalOptions,
    OpenClipOptions,
    PrecomputedOptions,
    TransformersOptions,
)
from modalbind.data.options import HfOptions, ManifestOptions, WebDatasetOptions, WorldOptions
from modalbind.hookspecs import hookimpl
from modalbind.interfaces import API_VERSION, AnchorSpec, DatasetSpec, ObjectiveSpec
from modalbind.objectives.options import InfoNceOptions, RegressionOptions, SigmoidOptions


@hookimpl
def modalbind_anchors() -> list[AnchorSpec]:
    """Return the kinds of anchor space."""
    return [
        AnchorSpec(
            name="openclip",
            summary="OpenCLIP image-text models: NAME@TAG, hf-hub:NAME, local-dir:PATH, world.",
            api_version=API_VERSION,
            build="modalbind.anchors.openclip:build",
            options=OpenClipOptions,
            example_source="world",
        ),
        AnchorSpec(
            name="transformers",
            summary="CLIP-like and CLAP-like models and sentence encoders, by name or folder.",
            api_version=API_VERSION,
            build="modalbind.anchors.transformers:build",
            options=TransformersOptions,
            example_source="world",
        ),
        AnchorSpec(
            name="precomputed",
            summary="Tables of vectors by key from any source: npz, Parquet or safetensors.",
            api_version=API_VERSION,
            build="modalbind.anchors.precomputed:build",
            options=PrecomputedOptions,
        ),
        AnchorSpec(
            name="conse",
            summary="A timm classifier in the words of any text encoder (option text): MODEL.",
            api_version=API_VERSION,
            build="modalbind.anchors.conse:build",
            options=ConseOptions,
        ),
        AnchorSpec(
            name="metal",
            summary="A run on texts and its anchor as one space, in the run's languages: RUN.",
            api_version=API_VERSION,
            build="modalbind.metal:build",
            options=MetalOptions,
        ),
    ]


@hookimpl
def modalbind_datasets() -> list[DatasetSpec]:
    """Return the data sets that serve every modality."""
    return [
        DatasetSpec(
            name="manifest",
            summary="Your own pairs: a CSV, JSONL or Parquet file, one row per (sample, text).",
            api_version=API_VERSION,
            build="modalbind.data.manifest:build",
            options=ManifestOptions,
            modality="*",
        ),
        DatasetSpec(
            name="webdataset",
            summary="Your own pairs in tar shards, read in place (modalbind[webdataset]).",
            api_version=API_VERSION,
            build="modalbind.data.webdataset:build",
            options=WebDatasetOptions,
            modality="*",
        ),
        DatasetSpec(
            name="hf",
            summary="Pairs of a Hugging Face data set, from the hub or a folder (modalbind[hf]).",
            api_version=API_VERSION,
            build="modalbind.data.hf:build",
            options=HfOptions,
            modality="*",
        ),
        DatasetSpec(
            name="world",
            summary="Generated scenes with captions in every language of the world.",
            api_version=API_VERSION,
            build="modalbind.data.generated:build",
            options=WorldOptions,
            modality="*",
        ),
    ]


@hookimpl
def modalbind_objectives() -> list[ObjectiveSpec]:
    """Return the three objectives."""
    return [
        ObjectiveSpec(
            name="infonce",
            summary="InfoNCE over in-batch negatives or a bank, symmetric or in one direction.",
            api_version=API_VERSION,
            build="modalbind.objectives.infonce:build",
            options=InfoNceOptions,
            has_parts=True,
        ),
        ObjectiveSpec(
            name="sigmoid",
            summary="SigLIP's pairwise sigmoid loss, with a learned bias.",
            api_version=API_VERSION,
            build="modalbind.objectives.sigmoid:build",
            options=SigmoidOptions,
        ),
        ObjectiveSpec(
            name="regression",
            summary="Distance to the pair's own anchor embedding; no negatives.",
            api_version=API_VERSION,
            build="modalbind.objectives.regression:build",
            options=RegressionOptions,
        ),
    ]
