"""Options of the data sets: light pydantic models, all defaults in them.

Nothing here reads a file. A part that `splits` does not name is not read, so its file may be
absent.
"""

from __future__ import annotations

from string import Formatter
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, field_validator

from modalbind.api import Options

SplitName = Literal["train", "val", "test"]


class PublishedOptions(Options):
    """What all published data sets have in common."""

    weight: float = Field(
        default=1.0, gt=0, description="Share of its samples in an epoch, beside other sources'."
    )
    folder: str = Field(
        default=".", description="Folder of the data set; relative to the data root."
    )
    language: str = Field(default="en", description="Language tag of the texts.")
    similarity_file: str | None = Field(
        default=None,
        description="CSV with columns `key,similarity` for data.min_similarity; a key is the "
        "published clip id or the sample's path. Relative to the data set's folder.",
    )
    similarity_default: float | None = Field(
        default=None,
        ge=-1,
        le=1,
        description="Similarity of clips that the file lacks, or of all without a file.",
    )
    only_existing: bool = Field(
        default=False,
        description="Leave out clips whose sound file is absent (videos that were taken down).",
    )


class PatternOptions(PublishedOptions):
    """For sets that publish no sound files, or in many archives: you say how yours are named."""

    pattern_fields: ClassVar[tuple[str, ...]] = ("id",)

    audio: str = Field(
        default="audio/{id}.wav",
        description="Path of a clip with names in braces, relative to the data set's folder.",
    )

    @field_validator("audio")
    @classmethod
    def _check_pattern(cls, pattern: str) -> str:
        for _, name, spec, conversion in Formatter().parse(pattern):
            # Plain names only: `{id.__class__}` or `{id:>999999999}` have no business here.
            if name is not None and (name not in cls.pattern_fields or spec or conversion):
                known = ", ".join(f"{{{field}}}" for field in cls.pattern_fields)
                raise ValueError(f"pattern has '{{{name}}}'; use plain {known}")
        return pattern


def _check_templates(templates: tuple[str, ...]) -> tuple[str, ...]:
    for template in templates:
        if "{label}" not in template:
            raise ValueError(f"template '{template}' lacks {{label}}")
    return templates


Templates = Annotated[tuple[str, ...], AfterValidator(_check_templates)]


class LabelledOptions(PublishedOptions):
    """For sets that publish labels and no texts: templates make the texts."""

    templates: Templates = Field(
        default=(), description="Texts with `{label}`; empty takes the plugin's English ones."
    )
    split: SplitName | None = Field(
        default=None,
        description="Split that all clips count as; none leaves the choice to data.test_fold.",
    )


class Esc50Options(LabelledOptions):
    """ESC-50, or its free subset ESC-10."""

    esc10: bool = Field(default=False, description="Only the ten classes of ESC-10 (CC BY).")


class UrbanSound8KOptions(LabelledOptions):
    """UrbanSound8K."""


class AudioCapsOptions(PatternOptions):
    """AudioCaps 1 or 2."""

    pattern_fields = ("id", "youtube_id", "start", "start_padded", "split")

    audio: str = Field(
        default="audio/{youtube_id}.wav",
        description="Path of a clip, with {youtube_id}, {start}, {start_padded} (six digits), "
        "{split}, {id} (audiocap_id).",
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


class WavCapsOptions(PatternOptions):
    """WavCaps."""

    pattern_fields = ("source", "id")

    audio: str = Field(
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


class AutoAcdOptions(PatternOptions):
    """Auto-ACD."""

    pattern_fields = ("id", "youtube_id", "split")

    audio: str = Field(
        default="audio/{id}.wav",
        description="Path of a clip, with {id} (as published), {youtube_id}, {split}.",
    )
    splits: dict[Literal["train", "test"], SplitName] = Field(
        default={"train": "train", "test": "test"},
        description="Which published parts are read, and the split that each counts as.",
    )


class AudioSetCapsOptions(PatternOptions):
    """AudioSetCaps."""

    pattern_fields = ("source", "id", "youtube_id")

    audio: str = Field(
        default="audio/{source}/{id}.wav",
        description="Path of a clip, with {source}, {id} (as published) and {youtube_id}.",
    )
    sources: tuple[Literal["audioset", "vggsound", "youtube8m"], ...] = Field(
        default=("audioset",), min_length=1, description="Which of its three tables are read."
    )
    metadata: str = Field(default="Dataset", description="Folder of the tables.")
    split: SplitName = Field(default="train", description="Split that all clips count as.")


class VggSoundOptions(PatternOptions):
    """VGGSound."""

    pattern_fields = ("youtube_id", "start", "start_padded", "split")

    audio: str = Field(
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
