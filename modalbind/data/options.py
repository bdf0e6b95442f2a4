"""Options of the core's own data sets."""

from __future__ import annotations

from pydantic import Field

from modalbind.interfaces import Options


class DatasetOptions(Options):
    """What every data set's options hold."""

    weight: float = Field(
        default=1.0, gt=0, description="Share of its samples in an epoch, beside other sources'."
    )


class ManifestOptions(DatasetOptions):
    """A list of the user's own pairs."""

    path: str = Field(
        min_length=1, description="CSV, JSONL or Parquet file, one row per (sample, text)."
    )
    name: str = Field(default="", description="Name in the report; empty takes the file's.")
    licence: str = Field(default="", description="Licence of the data, stated in the report.")


class WorldOptions(DatasetOptions):
    """The generated world of the quick starts: how many scenes of each split."""

    train: int = Field(default=2000, ge=2, description="Scenes to train on.")
    val: int = Field(default=0, ge=0, description="Scenes to select on.")
    test: int = Field(
        default=256, ge=2, description="Scenes to test on, with held-out combinations."
    )
    seed: int = Field(default=0, ge=0, description="Which scenes are drawn.")
    captions: int = Field(
        default=3, ge=1, description="English phrasings of a training scene, one drawn an epoch."
    )
