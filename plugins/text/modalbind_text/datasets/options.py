"""Options of the data sets: light pydantic models, all defaults in them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from modalbind.api import DatasetOptions, PublishedOptions, SplitName, path_pattern

Languages = tuple[str, ...]


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


class LinesOptions(PublishedOptions):
    """Translations line by line, in one text file for each language."""

    files: dict[str, str] = Field(
        min_length=1, description="File of each language, relative to the folder."
    )
    images: str = Field(default="", description="File with the name of a picture on each line.")
    image_folder: str = Field(default="images", description="Folder of the pictures.")
    name: str = Field(default="", description="Name in the report.")
    licence: str = Field(default="", description="Licence of the texts, stated in the report.")
    split: SplitName = Field(default="test", description="Split that all of them count as.")


class XtdOptions(PublishedOptions):
    """XTD-11."""

    languages: Languages = Field(default=(), description="Languages; empty takes all eleven.")
    image: Annotated[str, path_pattern("part", "name")] = Field(
        default="{part}/{name}",
        description="Path of a COCO picture: `{part}` is train2014 or val2014, `{name}` its file.",
    )


class Multi30kOptions(PublishedOptions):
    """Multi30K, task 1."""

    languages: Languages = Field(
        default=("en", "de", "fr", "cs"), min_length=1, description="Languages that are read."
    )
    part: Literal["train", "val", "test_2016_flickr"] = Field(
        default="test_2016_flickr", description="Part that is read."
    )
    image: Annotated[str, path_pattern("name")] = Field(
        default="flickr30k-images/{name}", description="Path of a Flickr30K picture."
    )


class Crossmodal3600Options(PublishedOptions):
    """Crossmodal-3600."""

    languages: Languages = Field(default=(), description="Languages; empty takes all 36.")
    image: Annotated[str, path_pattern("key")] = Field(
        default="images/{key}.jpg", description="Path of a picture."
    )


class CocoOptions(PublishedOptions):
    """English captions of COCO, to train on."""

    part: Literal["train2014", "val2014", "train2017", "val2017"] = Field(
        default="train2014", description="Part whose captions are read."
    )
    split: SplitName = Field(default="train", description="Split that all of them count as.")
    limit: int | None = Field(
        default=None, ge=2, description="Take so many of them, drawn by `seed`; default: all."
    )
    seed: int = Field(default=0, ge=0, description="Which captions `limit` draws.")
