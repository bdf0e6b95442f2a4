"""Adapters for published audio data sets: light specs only; nothing heavy is imported.

Each adapter reads the files that its project publishes, in the layout in which it publishes
them. None downloads anything.
"""

from __future__ import annotations

from modalbind.api import DatasetSpec, PublishedOptions
from modalbind_audio.datasets import options


def _spec(name: str, summary: str, model: type[PublishedOptions]) -> DatasetSpec:
    return DatasetSpec(
        name=name,
        summary=summary,
        api_version=1,
        build=f"modalbind_audio.datasets.{name.replace('-', '_')}:build",
        options=model,
        modality="audio",
    )


SPECS: list[DatasetSpec] = [
    _spec(
        "audiocaps",
        "AudioCaps: 10 s YouTube clips, captions written by people.",
        options.AudioCapsOptions,
    ),
    _spec(
        "audiosetcaps",
        "AudioSetCaps: machine-written captions for AudioSet, VGGSound and YouTube-8M.",
        options.AudioSetCapsOptions,
    ),
    _spec(
        "auto-acd",
        "Auto-ACD: machine-written captions for AudioSet and VGGSound.",
        options.AutoAcdOptions,
    ),
    _spec("clotho", "Clotho v2: Freesound clips, five captions each.", options.ClothoOptions),
    _spec(
        "esc50",
        "ESC-50 and ESC-10: environmental sounds by class, in five folds.",
        options.Esc50Options,
    ),
    _spec(
        "urbansound8k",
        "UrbanSound8K: city sounds by class, in ten folds.",
        options.UrbanSound8KOptions,
    ),
    _spec(
        "vggsound",
        "VGGSound: YouTube clips by class, with a test split.",
        options.VggSoundOptions,
    ),
    _spec(
        "wavcaps",
        "WavCaps: weakly labelled captions from four sources, with published blacklists.",
        options.WavCapsOptions,
    ),
]
