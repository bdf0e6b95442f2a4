"""What all adapters share: safe paths, tables with named errors, clips to pairs.

Reads lists of clips, not sounds, and downloads nothing. A *clip* is one sound file of the data
set; it becomes one pair per text. Nothing outside the data set's folder is ever opened.
"""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from modalbind.api import AnchorError, AnchorItem, ManifestError, Modality, Pair
from modalbind_audio.datasets.options import PublishedOptions

logger = logging.getLogger(__name__)

SPLIT_RANK = {"test": 2, "val": 1, "train": 0, "": 0}


@dataclass(frozen=True, slots=True)
class Publication:
    """A data set as its authors published it.

    Attributes:
        name: Name in recipes and reports.
        licence: Of the data, as its project states it.
        homepage: Where its files come from; error messages send users there.
    """

    name: str
    licence: str
    homepage: str


@dataclass(frozen=True, slots=True)
class Clip:
    """One sound file and its texts.

    Attributes:
        key: Path relative to the data set's folder, with forward slashes.
        clip_id: Name by which the project publishes it.
        texts: Its captions; empty ones are left out and counted.
        group: Source recording: a YouTube or Freesound id without prefix, so that one data
            set's test clips can be kept out of another's training.
        split: `train`, `val`, `test` or empty.
        fold: For k-fold evaluation, or empty.
        positive_key: Clips that share it are relevant to each other's texts; empty = this alone.
        columns: Everything else, as text.
    """

    key: str
    clip_id: str
    texts: tuple[str, ...]
    group: str
    split: str = ""
    fold: str = ""
    positive_key: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PublishedDataset:
    """Pairs of sound files below `root` and texts. Implements `modalbind.api.PairedDataset`."""

    name: str
    licence: str
    root: Path
    rows: tuple[Pair, ...]

    def pairs(self) -> Sequence[Pair]:
        """Return all rows, in the order of the published files."""
        return self.rows

    def load_sample(self, key: str, modality: Modality) -> Any:
        """Read one clip through the modality; raises `BrokenSampleError`."""
        return modality.load(join_inside(self.root, key), key)

    def sample_hash(self, key: str, modality: Modality) -> bytes:
        """Return 32 bytes that identify the clip's content."""
        return modality.content_hash(join_inside(self.root, key), key)

    def anchor_item(self, modality: str, key: str, language: str | None = None) -> AnchorItem:
        """Return a text as anchor-side item; its key is the text itself.

        Raises:
            AnchorError: If `modality` is not `text`.
        """
        if modality != "text":
            raise AnchorError(
                f"anchor side '{modality}' asked of data set {self.name}; it pairs sounds with "
                "text only; set anchor.sides to {text: 1.0}"
            )
        digest = hashlib.sha256(key.encode("utf-8")).digest()
        return AnchorItem(key, digest, partial(str, key), language)


def check_key(key: str, place: str) -> None:
    """Refuse a path that says by its letters that it leaves the folder.

    Raises:
        ManifestError: If it is empty, absolute, or has `..` or a null character in it.
    """
    # Plain string work: the largest tables have millions of rows.
    if key in ("", ".") or key.startswith("/") or ".." in key.split("/") or "\0" in key:
        raise ManifestError(
            f"{place}: path {key!r} asked for; it does not stay inside the data set's folder; "
            "mend the published table, or the pattern in `audio`"
        )


def join_inside(root: Path, key: str) -> Path:
    """Return the file that `key` names below `root`, links followed.

    Raises:
        ManifestError: If it lies outside `root`.
    """
    check_key(key, str(root))
    path = root / key
    if not path.resolve().is_relative_to(root.resolve()):
        raise ManifestError(
            f"path '{key}' asked for; a link leads it outside {root}; "
            "copy the files, or set `folder` to the place they lie in"
        )
    return path


class Source:
    """The folder of one published data set: reads its tables, makes its pairs."""

    def __init__(
        self, publication: Publication, options: PublishedOptions, root: Path | None
    ) -> None:
        """Find the folder.

        Args:
            publication: What it is and where it comes from.
            options: Of the data set.
            root: The data root; None if the user gave none.

        Raises:
            ManifestError: If the folder is unknown or does not exist.
        """
        self.publication = publication
        self.options = options
        folder = Path(options.folder).expanduser()
        if root is None and not folder.is_absolute():
            raise self.error(
                "data root asked for", "none given", "give --root, or an absolute `folder`"
            )
        self.folder = folder if root is None else root / folder
        if not self.folder.is_dir():
            raise self.error(
                f"folder {self.folder} asked for",
                "no such folder",
                f"get the data set from {publication.homepage} and set --root or `folder`",
            )

    def error(self, asked: str, found: str, todo: str) -> ManifestError:
        """Return an error in the project's form, with the data set's name in front."""
        return ManifestError(f"{self.publication.name}: {asked}; {found}; {todo}")

    def has(self, name: str) -> bool:
        """Say whether a published file is there."""
        return join_inside(self.folder, name).is_file()

    def open_path(self, name: str) -> Path:
        """Return the path of a published file.

        Raises:
            ManifestError: If it is absent; the message says where it comes from.
        """
        path = join_inside(self.folder, name)
        if not path.is_file():
            raise self.error(
                f"file {name} asked for",
                f"it is not in {self.folder}",
                f"get it from {self.publication.homepage}",
            )
        return path

    def read_csv(
        self, name: str, columns: Sequence[str], *, header: bool = True, encoding: str = "utf-8-sig"
    ) -> Iterator[dict[str, str]]:
        """Yield the rows of a table by column, as text.

        Args:
            name: File, relative to the data set's folder.
            columns: Columns that it must have; without `header`, its columns in order.
            header: Whether its first line names the columns.
            encoding: Of the file.

        Raises:
            ManifestError: If the file is absent or unreadable, lacks a column, or a line has too
                few or too many cells.
        """
        path = self.open_path(name)
        try:
            with path.open(encoding=encoding, newline="") as file:
                line = file.readline()
                delimiter = ";" if line.count(";") > line.count(",") else ","
                file.seek(0)
                names = None if header else list(columns)
                reader = csv.DictReader(file, fieldnames=names, delimiter=delimiter)
                self._check_columns(name, reader.fieldnames or (), columns)
                for row in reader:
                    # DictReader puts surplus cells under None and fills missing ones with None.
                    if None in row or None in row.values():
                        raise csv.Error(f"line {reader.line_num} has too few or too many cells")
                    yield row
        except (csv.Error, UnicodeDecodeError) as error:
            raise self.error(
                f"table {name} asked for",
                str(error),
                f"get it anew from {self.publication.homepage}",
            ) from error

    def read_json(self, name: str) -> Any:
        """Return the content of a JSON file.

        Raises:
            ManifestError: If it is absent or not JSON (a Git LFS pointer is not).
        """
        try:
            return json.loads(self.open_path(name).read_text("utf-8-sig"))
        except ValueError as error:  # includes wrong UTF-8
            raise self.error(
                f"file {name} asked for",
                f"it is not JSON ({error})",
                f"get it anew from {self.publication.homepage}; a Git LFS pointer is not the file",
            ) from error

    def build(self, clips: Iterable[Clip]) -> PublishedDataset:
        """Turn clips into a data set.

        Raises:
            ManifestError: If none is left, a path leaves the folder, or a similarity is missing.
        """
        kept = self._keep(list(clips))
        similarity = self._read_similarity()
        rows = tuple(pair for clip in kept for pair in self._pairs(clip, similarity))
        if not rows:
            raise self.error(
                f"clips below {self.folder} asked for",
                "none is left",
                "check the options that leave clips out, and where the sound files lie",
            )
        return PublishedDataset(self.publication.name, self.publication.licence, self.folder, rows)

    def _check_columns(self, name: str, found: Sequence[str], columns: Sequence[str]) -> None:
        for column in columns:
            if column not in found:
                raise self.error(
                    f"column '{column}' asked of {name}",
                    f"it has {', '.join(found) or 'none'}",
                    f"use the file as {self.publication.homepage} publishes it",
                )

    def _keep(self, clips: list[Clip]) -> list[Clip]:
        """Leave out what cannot or must not be used, and say how many."""
        last: dict[str, int] = {}
        for clip in clips:
            check_key(clip.key, self.publication.name)
            last[clip.group] = max(last.get(clip.group, 0), SPLIT_RANK[clip.split])
        reasons = [self._reason_against(clip, last[clip.group]) for clip in clips]
        for reason, count in Counter(filter(None, reasons)).items():
            logger.warning(
                "%s: %d of %d clips left out: %s",
                self.publication.name,
                count,
                len(clips),
                reason,
            )
        return [clip for clip, reason in zip(clips, reasons, strict=True) if not reason]

    def _reason_against(self, clip: Clip, last_rank: int) -> str:
        if SPLIT_RANK[clip.split] < last_rank:
            # One recording in two published parts: what is tested on is not trained on.
            return "recording also in a later split"
        if not any(clip.texts):
            return "no text"
        # Links are followed and judged when the file is read; here that would cost minutes.
        if self.options.only_existing and not os.path.isfile(f"{self.folder}/{clip.key}"):
            return "no sound file"
        return ""

    def _read_similarity(self) -> dict[str, str]:
        name = self.options.similarity_file
        if name is None:
            return {}
        table: dict[str, str] = {}
        for row in self.read_csv(name, ("key", "similarity")):
            try:
                value = float(row["similarity"])
            except ValueError:
                value = math.nan
            if not -1 <= value <= 1:  # also refuses nan
                raise self.error(
                    f"similarity of '{row['key']}' asked for",
                    f"{name} has '{row['similarity']}'",
                    "write a number from -1 to 1",
                )
            table[row["key"]] = row["similarity"]
        return table

    def _pairs(self, clip: Clip, similarity: Mapping[str, str]) -> Iterator[Pair]:
        columns = {**clip.columns, **self._similarity_column(clip, similarity)}
        for text in clip.texts:
            if text:
                yield Pair(
                    sample=clip.key,
                    text=text,
                    language=self.options.language,
                    split=clip.split,
                    fold=clip.fold,
                    group=clip.group,
                    positive_key=clip.positive_key or f"{self.publication.name}:{clip.key}",
                    columns=columns,
                )

    def _similarity_column(self, clip: Clip, table: Mapping[str, str]) -> dict[str, str]:
        if self.options.similarity_file is None and self.options.similarity_default is None:
            return {}
        value = table.get(clip.key, table.get(clip.clip_id))
        if value is not None:
            return {"similarity": value}
        if self.options.similarity_default is None:
            raise self.error(
                f"similarity of clip '{clip.clip_id}' asked for",
                f"{self.options.similarity_file} has neither it nor '{clip.key}'",
                "add it, or set `similarity_default`",
            )
        return {"similarity": str(self.options.similarity_default)}


def label_texts(label: str, templates: Sequence[str]) -> tuple[str, ...]:
    """Return the texts of a class label: one per template, underscores as spaces.

    Args:
        label: As published, e.g. `crying_baby`.
        templates: Strings with `{label}`; empty takes the plugin's English ones.

    Example:
        >>> label_texts("crying_baby", ["the sound of {label}"])
        ('the sound of crying baby',)
    """
    name = label.replace("_", " ")
    return tuple(text.replace("{label}", name) for text in templates or default_templates())


def default_templates() -> tuple[str, ...]:
    """Return the plugin's English prompt templates, from `templates.json`."""
    text = files("modalbind_audio.datasets").joinpath("templates.json").read_text("utf-8")
    return tuple(json.loads(text)["en"])
