"""What adapters of published data sets share: safe paths, tables with named errors, items to pairs.

Reads lists of samples, not samples, and downloads nothing. A `PublishedItem` is one sample of the
data set; it becomes one pair per text. Nothing outside the data set's folder is ever opened.
"""

from __future__ import annotations

import csv
import json
import logging
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modalbind.data.files import FileDataset, SampleReader, join_inside
from modalbind.data.options import PublishedOptions
from modalbind.errors import ManifestError
from modalbind.interfaces import Modality
from modalbind.types import Pair

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


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedItem:
    """One sample and what it is paired with: texts, pictures or both.

    Attributes:
        key: Path relative to the data set's folder, with forward slashes. If the data set is
            built with `load`, `#` and the name of a part may follow the path.
        item_id: Name by which the project publishes it.
        texts: Its captions; empty ones are left out.
        images: Paths of the pictures that it is paired with, like `key`.
        group: Source recording, scene or place, without prefix where several data sets share it,
            so that one's test samples can be kept out of another's training; empty = this alone.
        split: `train`, `val`, `test` or empty.
        fold: For k-fold evaluation, or empty.
        positive_key: Items that share it are relevant to each other's texts and pictures;
            empty = this alone.
        columns: Everything else, as text.
    """

    key: str
    item_id: str
    texts: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    group: str = ""
    split: str = ""
    fold: str = ""
    positive_key: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)


def check_key(key: str, place: str) -> None:
    """Refuse a path that says by its letters that it leaves the folder.

    Raises:
        ManifestError: If it is empty, absolute, or has `..` or a null character in it.
    """
    # Plain string work: the largest tables have millions of rows.
    if key in ("", ".") or key.startswith("/") or ".." in key.split("/") or "\0" in key:
        raise ManifestError(
            f"{place}: path {key!r} asked for; it does not stay inside the data set's folder; "
            "mend the published table, or the option that says how your files are named"
        )


class PublishedFolder:
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
        return self._join(name).is_file()

    def open_path(self, name: str) -> Path:
        """Return the path of a published file.

        Raises:
            ManifestError: If it is absent; the message says where it comes from.
        """
        path = self._join(name)
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

    def build(
        self,
        items: Iterable[PublishedItem],
        *,
        what: str = "samples",
        load: Callable[[str, Modality], Any] | None = None,
        hash: Callable[[str, Modality], bytes] | None = None,
    ) -> FileDataset:
        """Turn items into a data set.

        An item has one pair per text, and each carries a picture if there are any; where there
        are more pictures than texts, one pair per picture, and the texts start over. One with
        pictures alone has pairs without a text.

        Samples are files that the modality reads. Those that are parts of a larger file (key
        `maps.h5#12`), or that the modality cannot read by itself, are read by `load`. Both
        callables take a key and the modality, and are called from several threads and from worker
        processes: they must be picklable (functions of a module, or `functools.partial` of such).

        Args:
            items: All samples, in the order of the published files.
            what: Word for them in messages, plural.
            load: Returns the plugin's own sample type; raises `BrokenSampleError`.
            hash: Returns 32 bytes that identify the sample's content and all that `load` depends
                on; given if and only if `load` is.

        Raises:
            ManifestError: If none is left, a path leaves the folder, a split is unknown, or a
                similarity is missing.
            ValueError: If only one of `load` and `hash` is given.
        """
        if (load is None) != (hash is None):
            raise ValueError("one of `load` and `hash` given; a data set needs both or neither")
        reader = SampleReader(load, hash) if load is not None and hash is not None else None
        kept = self._keep(list(items), what, has_parts=reader is not None)
        similarity = self._read_similarity()
        rows = tuple(pair for item in kept for pair in self._pairs(item, similarity))
        if not rows:
            raise self.error(
                f"{what} below {self.folder} asked for",
                "none is left",
                f"check the options that leave {what} out, and where their files lie",
            )
        publication = self.publication
        return FileDataset(publication.name, publication.licence, self.folder, rows, reader=reader)

    def _join(self, name: str) -> Path:
        check_key(name, self.publication.name)
        return join_inside(self.folder, name)

    def _check_columns(self, name: str, found: Sequence[str], columns: Sequence[str]) -> None:
        for column in columns:
            if column not in found:
                raise self.error(
                    f"column '{column}' asked of {name}",
                    f"it has {', '.join(found) or 'none'}",
                    f"use the file as {self.publication.homepage} publishes it",
                )

    def _keep(self, items: list[PublishedItem], what: str, has_parts: bool) -> list[PublishedItem]:
        """Leave out what cannot or must not be used, and say how many."""
        last: dict[str, int] = {}
        for item in items:
            self._check_item(item)
            group = self._group(item)
            last[group] = max(last.get(group, 0), SPLIT_RANK[item.split])
        reasons = [self._reason_against(item, last[self._group(item)], has_parts) for item in items]
        for reason, count in Counter(filter(None, reasons)).items():
            logger.warning(
                "%s: %d of %d %s left out: %s",
                self.publication.name,
                count,
                len(items),
                what,
                reason,
            )
        return [item for item, reason in zip(items, reasons, strict=True) if not reason]

    def _own_name(self, item: PublishedItem) -> str:
        # With the data set's name: others have a `0001.png` too.
        return f"{self.publication.name}:{item.key}"

    def _group(self, item: PublishedItem) -> str:
        return item.group or self._own_name(item)

    def _check_item(self, item: PublishedItem) -> None:
        for key in (item.key, *item.images):
            check_key(key, self.publication.name)
        if item.split not in SPLIT_RANK:
            raise self.error(
                f"split '{item.split}' asked for '{item.item_id}'",
                f"splits are {', '.join(filter(None, SPLIT_RANK))}",
                "name one of these in the adapter",
            )

    def _reason_against(self, item: PublishedItem, last_rank: int, has_parts: bool) -> str:
        if SPLIT_RANK[item.split] < last_rank:
            # One recording in two published parts: what is tested on is not trained on.
            return "its group is also in a later split"
        if not any(item.texts) and not item.images:
            return "neither text nor picture"
        # Links are followed and judged when the file is read; here that would cost minutes.
        name = item.key.partition("#")[0] if has_parts else item.key
        if self.options.only_existing and not os.path.isfile(f"{self.folder}/{name}"):
            return "no file"
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

    def _pairs(self, item: PublishedItem, similarity: Mapping[str, str]) -> Iterator[Pair]:
        columns = {**item.columns, **self._similarity_column(item, similarity)}
        texts: Sequence[str | None] = [text for text in item.texts if text] or [None]
        images: Sequence[str | None] = item.images or [None]
        for number in range(max(len(texts), len(images))):
            yield Pair(
                sample=item.key,
                text=texts[number % len(texts)],
                language=self.options.language,
                image=images[number % len(images)],
                split=item.split,
                fold=item.fold,
                group=self._group(item),
                positive_key=item.positive_key or self._own_name(item),
                columns=columns,
            )

    def _similarity_column(self, item: PublishedItem, table: Mapping[str, str]) -> dict[str, str]:
        if self.options.similarity_file is None and self.options.similarity_default is None:
            return {}
        value = table.get(item.key, table.get(item.item_id))
        if value is not None:
            return {"similarity": value}
        if self.options.similarity_default is None:
            raise self.error(
                f"similarity of '{item.item_id}' asked for",
                f"{self.options.similarity_file} has neither it nor '{item.key}'",
                "add it, or set `similarity_default`",
            )
        return {"similarity": str(self.options.similarity_default)}


def label_texts(label: str, templates: Sequence[str]) -> tuple[str, ...]:
    """Return the texts of a class label: one per template, underscores as spaces.

    Args:
        label: As published, e.g. `living_room`.
        templates: Strings with `{label}`, one at least.

    Example:
        >>> label_texts("living_room", ["a picture of a {label}"])
        ('a picture of a living room',)
    """
    name = label.replace("_", " ")
    return tuple(text.replace("{label}", name) for text in templates)
