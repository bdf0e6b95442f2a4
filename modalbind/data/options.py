"""Options of the core's own data sets, and what options of published ones share.

Light: nothing here reads a file or imports more than pydantic.
"""

from __future__ import annotations

from string import Formatter
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

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
    skip_empty: bool = Field(
        default=False,
        description="Leave out rows that name no sample of this modality; else they are refused.",
    )
    pictures: str | None = Field(
        default=None,
        description="Pictures for the samples, by positive key: a manifest, or JSON "
        "`{positive_key: [picture, ...]}`, relative to the data root.",
    )
    split: Literal["train", "val", "test"] | None = Field(
        default=None, description="Split that all rows count as, whatever the file says."
    )


class PackedOptions(DatasetOptions):
    """What options of samples within larger files have in common."""

    path: str = Field(min_length=1, description="Where the files are.")
    name: str = Field(
        default="", description="Name in the report; empty takes the last two parts of the path."
    )
    licence: str = Field(default="", description="Licence of the data, stated in the report.")
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="Published name of a column by the name that a manifest would give it, such "
        "as `{text: caption, group: video_id}`; default: the same names.",
    )
    language: str = Field(
        default="en", description="Language tag of texts where no column says it."
    )
    max_sample_mib: int = Field(
        default=512, ge=1, description="Larger samples and pictures are broken ones, in MiB."
    )


class WebDatasetOptions(PackedOptions):
    """Shards of webdataset."""

    path: str = Field(
        min_length=1,
        description="Tar files, on a disk: one, or several by braces as in "
        "`train-{000000..000099}.tar`.",
    )
    members: dict[str, str] = Field(
        default_factory=dict,
        description="Which member of a sample is what, by all that follows the first dot of its "
        "name: of the modality (default: the one with a suffix that it reads), `text` (default: "
        "`txt`), `json` (columns; default: `json`) and `image` (default: none); `jpg;png` takes "
        "the first that is there.",
    )
    split: Literal["train", "val", "test"] | None = Field(
        default=None, description="Split that all samples count as, whatever the shards say."
    )


class HfOptions(PackedOptions):
    """A data set of the `datasets` library.

    Where `columns` names a `key`, rows that share it are one sample: that of the first of them.
    """

    path: str = Field(
        min_length=1,
        description="`owner/name` on the hub, or a folder: of files that `load_dataset` reads, or "
        "written by `save_to_disk`.",
    )
    subset: str | None = Field(default=None, description="Configuration of the data set.")
    revision: str | None = Field(default=None, description="Commit, tag or branch on the hub.")
    split: str | None = Field(
        default=None,
        description="Published split, such as `train`; default: all. Rows count as the split of "
        "that name (`validation` as `val`), unless a column `split` says otherwise; where there is "
        "one split and none is asked for, they count as none.",
    )
    suffix: str = Field(
        default="",
        description="Suffix of the files that samples would be, such as `.wav`; default: that of "
        "the path beside their bytes.",
    )


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
    perceives: tuple[str, ...] = Field(
        default=(),
        description="Attributes in which scenes differ and that captions mention; empty: all that "
        "the modality senses.",
    )


SplitName = Literal["train", "val", "test"]


class PublishedOptions(DatasetOptions):
    """What all published data sets have in common."""

    folder: str = Field(
        default=".", description="Folder of the data set; relative to the data root."
    )
    language: str = Field(default="en", description="Language tag of the texts.")
    similarity_file: str | None = Field(
        default=None,
        description="CSV with columns `key,similarity` for data.min_similarity; a key is the "
        "published id or the sample's path. Relative to the data set's folder.",
    )
    similarity_default: float | None = Field(
        default=None,
        ge=-1,
        le=1,
        description="Similarity of samples that the file lacks, or of all without a file.",
    )
    only_existing: bool = Field(
        default=False, description="Leave out samples whose file is absent."
    )


def path_pattern(*names: str) -> AfterValidator:
    """Return the check of an option that says how the user's files are named.

    For sets that publish no files, or in many archives: the path has names in braces, which the
    adapter fills by `str.format`. Plain names only: `{id.__class__}` or `{id:>999999999}` have no
    business in a path.

    Args:
        names: What the adapter can fill in.

    Example:
        >>> class MyOptions(PublishedOptions):
        ...     image: Annotated[str, path_pattern("id", "split")] = "rgb/{split}/{id}.png"
    """
    known = ", ".join(f"{{{name}}}" for name in names)

    def check_pattern(pattern: str) -> str:
        for _, name, spec, conversion in Formatter().parse(pattern):
            if name is not None and (name not in names or spec or conversion):
                raise ValueError(f"pattern has '{{{name}}}'; use plain {known}")
        return pattern

    return AfterValidator(check_pattern)


def _check_templates(templates: tuple[str, ...]) -> tuple[str, ...]:
    for template in templates:
        if "{label}" not in template:
            raise ValueError(f"template '{template}' lacks {{label}}")
    return templates


Templates = Annotated[tuple[str, ...], AfterValidator(_check_templates)]
"""Type of an option for prompt templates."""


class LabelledOptions(PublishedOptions):
    """For sets that publish labels and no texts: templates make the texts."""

    templates: Templates = Field(
        default=(), description="Texts with `{label}`; empty takes the plugin's English ones."
    )
    split: SplitName | None = Field(
        default=None,
        description="Split that all samples count as; none leaves the choice to data.test_fold.",
    )
