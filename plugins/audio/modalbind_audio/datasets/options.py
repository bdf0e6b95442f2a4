"""Options of the data sets: light pydantic models, all defaults in them.

Nothing here reads a file. A part that `splits` does not name is not read, so its file may be
absent.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from modalbind.api import (
    LabelledOptions,
    PublishedOptions,
    SplitName,
    Templates,
    path_pattern,
)

TEMPLATES = (
    "the sound of {label}",
    "a recording of {label}",
    "this is a sound of {label}",
    "{label} can be heard",
    "an audio clip with {label}",
    "{label}",
)
"""English texts of a class, for sets that publish labels alone."""


class Esc50Options(LabelledOptions):
    """ESC-50, or its free subset ESC-10."""

    esc10: bool = Field(default=False, description="Only the ten classes of ESC-10 (CC BY).")


class UrbanSound8KOptions(LabelledOptions):
    """UrbanSound8K."""


class AudioCapsOptions(PublishedOptions):
    """AudioCaps 1 or 2."""

    audio: Annotated[str, path_pattern("id", "youtube_id", "start", "start_padded", "split")] = (
        Field(
            default="audio/{youtube_id}.wav",
            description="Path of a clip, with {youtube_id}, {start}, {start_padded} (six digits), "
            "{split}, {id} (audiocap_id).",
        )
    )
    metadata: str = Field(
        default="dataset",
        description="Folder of train.csv, val.csv and test.csv; `dataset2.0` has AudioCaps 2.0.",
    )
    splits: dict[Literal["train", "val", "test"], SplitName] = Field(
        default={"train": "train", "val": "val", "test": "test"},
        description="Which published parts are read, and the split that each counts as.",
    )


class ClothoOptions(PublishedOptions):
    """Clotho v2."""

    splits: dict[Literal["development", "validation", "evaluation"], SplitName] = Field(
        default={"development": "train", "validation": "val", "evaluation": "test"},
        description="Which published parts are read, and the split that each counts as.",
    )


WavCapsSource = Literal["AudioSet_SL", "BBC_Sound_Effects", "FreeSound", "SoundBible"]


class WavCapsOptions(PublishedOptions):
    """WavCaps."""

    audio: Annotated[str, path_pattern("source", "id")] = Field(
        default="audio/{source}/{id}.flac",
        description="Path of a clip, with {source} and {id} (without `.wav`).",
    )
    sources: tuple[WavCapsSource, ...] = Field(
        default=("AudioSet_SL", "BBC_Sound_Effects", "FreeSound", "SoundBible"),
        min_length=1,
        description="Which of its four sources are read.",
    )
    blacklists: tuple[str, ...] = Field(
        default=(
            "blacklist_exclude_all_ac.json",
            "blacklist_exclude_ub8k_esc50_vggsound.json",
        ),
        description="Published lists in json_files/blacklist of clips that other sets test on.",
    )
    max_duration_s: float | None = Field(
        default=None, gt=0, description="Leave out longer clips, by the published duration in s."
    )
    split: SplitName = Field(default="train", description="Split that all clips count as.")


class AutoAcdOptions(PublishedOptions):
    """Auto-ACD."""

    audio: Annotated[str, path_pattern("id", "youtube_id", "split")] = Field(
        default="audio/{id}.wav",
        description="Path of a clip, with {id} (as published), {youtube_id}, {split}.",
    )
    splits: dict[Literal["train", "test"], SplitName] = Field(
        default={"train": "train", "test": "test"},
        description="Which published parts are read, and the split that each counts as.",
    )


class AudioSetCapsOptions(PublishedOptions):
    """AudioSetCaps."""

    audio: Annotated[str, path_pattern("source", "id", "youtube_id")] = Field(
        default="audio/{source}/{id}.wav",
        description="Path of a clip, with {source}, {id} (as published) and {youtube_id}.",
    )
    sources: tuple[Literal["audioset", "vggsound", "youtube8m"], ...] = Field(
        default=("audioset",), min_length=1, description="Which of its three tables are read."
    )
    metadata: str = Field(default="Dataset", description="Folder of the tables.")
    split: SplitName = Field(default="train", description="Split that all clips count as.")


class VggSoundOptions(PublishedOptions):
    """VGGSound."""

    audio: Annotated[str, path_pattern("youtube_id", "start", "start_padded", "split")] = Field(
        default="audio/{youtube_id}_{start_padded}.wav",
        description="Path of a clip, with {youtube_id}, {start}, {start_padded} (six digits), "
        "{split}.",
    )
    metadata: str = Field(default="vggsound.csv", description="The table, without a header.")
    templates: Templates = Field(
        default=(), description="Texts with `{label}`; empty takes the plugin's English ones."
    )
    splits: dict[Literal["train", "test"], SplitName] = Field(
        default={"train": "train", "test": "test"},
        description="Which published parts are read, and the split that each counts as.",
    )
