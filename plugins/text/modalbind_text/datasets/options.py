"""Options of the data sets: light pydantic models, all defaults in them."""

from __future__ import annotations

from pydantic import Field

from modalbind.api import DatasetOptions, SplitName


class SentencesOptions(DatasetOptions):
    """A plain text file, UTF-8, one sentence a line."""

    path: str = Field(min_length=1, description="The file, relative to the data root.")
    name: str = Field(default="", description="Name in the report; empty takes the file's.")
    licence: str = Field(default="", description="Licence of the text, stated in the report.")
    language: str = Field(default="en", description="Language tag of the sentences.")
    split: SplitName = Field(default="train", description="Split that all of them count as.")
    limit: int | None = Field(
        default=None, ge=2, description="Take so many of them, drawn by `seed`; default: all."
    )
    seed: int = Field(default=0, ge=0, description="Which sentences `limit` draws.")
