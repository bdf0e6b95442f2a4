"""A small whole plugin that keeps every promise; the mutants of the tests each break one."""

from __future__ import annotations

from modalbind.api import (
    API_VERSION,
    AnchorSpec,
    AugmentationSpec,
    DatasetSpec,
    EncoderSpec,
    ModalitySpec,
    ObjectiveSpec,
    hookimpl,
)
from modalbind_sonar import options


@hookimpl
def modalbind_modalities() -> list[ModalitySpec]:
    return [
        ModalitySpec(
            name="sonar",
            summary="Echoes of pings, eight hydrophones.",
            api_version=API_VERSION,
            build="modalbind_sonar.modality:SonarModality",
            options=options.SonarOptions,
            unit="sound pressure in Pa, 50 Hz",
            suffixes=(".json",),
            default_recipe="sonar/default",
            quickstart_recipe="sonar/quickstart",
        )
    ]


@hookimpl
def modalbind_encoders() -> list[EncoderSpec]:
    return [
        EncoderSpec(
            name="echo",
            summary="Two layers, mean over time.",
            api_version=API_VERSION,
            build="modalbind_sonar.encoder:build",
            options=options.EchoOptions,
            modality="sonar",
        ),
        EncoderSpec(
            name="lent",
            summary="One layer that the anchor lends.",
            api_version=API_VERSION,
            build="modalbind_sonar.lent:build",
            modality="sonar",
            starts_from="text",
        ),
    ]


@hookimpl
def modalbind_datasets() -> list[DatasetSpec]:
    return [
        DatasetSpec(
            name="seabed",
            summary="Generated objects on the ground of the sea.",
            api_version=API_VERSION,
            build="modalbind_sonar.seabed:build",
            options=options.SeabedOptions,
            modality="sonar",
        )
    ]


@hookimpl
def modalbind_augmentations() -> list[AugmentationSpec]:
    return [
        AugmentationSpec(
            name=name,
            summary=f"Adds noise to a {stage}.",
            api_version=API_VERSION,
            build=f"modalbind_sonar.augment:build_{name}",
            options=options.NoiseOptions,
            modality="sonar",
            stage=stage,
        )
        for name, stage in (("hiss", "sample"), ("crackle", "features"), ("swell", "batch"))
    ]


@hookimpl
def modalbind_anchors() -> list[AnchorSpec]:
    return [
        AnchorSpec(
            name="chart",
            summary="Sums of fixed vectors of words.",
            api_version=API_VERSION,
            build="modalbind_sonar.chart:build",
        )
    ]


@hookimpl
def modalbind_objectives() -> list[ObjectiveSpec]:
    return [
        ObjectiveSpec(
            name="hail",
            summary="Cross entropy of each row over the anchors of the batch.",
            api_version=API_VERSION,
            build="modalbind_sonar.hail:Hail",
        )
    ]
