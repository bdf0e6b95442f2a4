"""Reads lists of pairs: CSV, JSON lines or Parquet, one row per (sample, text).

Does not open samples. Columns: the modality's name (path of the sample), `text`, and optionally
`image`, `language`, `split`, `fold`, `group`, `positive_key`; all others are kept as text.
Where the samples are texts themselves, a row's text is the sample and its own anchor side.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from modalbind.data.files import FileDataset, hash_file, join_inside, relative_key
from modalbind.data.options import ManifestOptions
from modalbind.data.texts import TEXT_READER, text_key
from modalbind.errors import ManifestError
from modalbind.interfaces import ModalitySpec
from modalbind.types import Pair

KNOWN_COLUMNS = ("text", "language", "image", "split", "fold", "group", "positive_key")
MAX_CELL_CHARACTERS = 1_000_000


def build(options: ManifestOptions, root: Path | None, modality: ModalitySpec) -> FileDataset:
    """Read a manifest.

    Args:
        options: Which file, its name and licence.
        root: Folder that paths are relative to; None takes the manifest's own.
        modality: Its name is the column that holds the samples' paths.

    Raises:
        ManifestError: If the file cannot be read, has no such column, or contradicts itself.
    """
    path = Path(options.path).expanduser()
    rows = _read_asked_rows(path, options, modality)
    folder = root if root is not None else path.parent
    file_columns = ("image",) if modality.is_text else (modality.name, "image")
    for row in rows:
        for column in file_columns:
            if row.get(column):
                row[column] = relative_key(folder, row[column])
    pairs = tuple(build_pairs(rows, modality, path))
    if options.pictures is not None:
        pairs = tuple(_add_pictures(pairs, folder / Path(options.pictures).expanduser()))
    samples = set() if modality.is_text else {pair.sample for pair in pairs}
    for key in samples | {pair.image for pair in pairs if pair.image}:
        join_inside(folder, key)
    return FileDataset(
        options.name or path.stem,
        options.licence,
        folder,
        pairs,
        hash_file(path).hex(),
        TEXT_READER if modality.is_text else None,
    )


def _read_asked_rows(
    path: Path, options: ManifestOptions, modality: ModalitySpec
) -> list[dict[str, str]]:
    rows = read_rows(path)
    if options.skip_empty:
        rows = [row for row in rows if row.get(modality.name, "") or modality.name not in row]
        if not rows:
            raise ManifestError(
                f"column '{modality.name}' asked of {path}; it is empty in every row; name samples"
            )
    if options.split is not None:
        rows = [{**row, "split": options.split} for row in rows]
    return rows


def _add_pictures(pairs: Sequence[Pair], path: Path) -> Iterator[Pair]:
    """Give each row the pictures of its positive key: one row for each of them."""
    from modalbind.data.links import read_links  # which reads rows as this module does

    by_key: dict[str, list[str]] = {}
    for link in read_links(path):
        if link.modality == "image":
            by_key.setdefault(link.positive_key, []).append(link.key)
    if not any((pair.positive_key or pair.text or "") in by_key for pair in pairs):
        raise ManifestError(
            f"pictures by positive key asked of {path}; none has a key of the samples'; "
            "check positive_key in both files"
        )
    for pair in pairs:
        found: Sequence[str | None] = by_key.get(pair.positive_key or pair.text or "", [])
        yield from (replace(pair, image=image) for image in found or [pair.image])


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV, JSONL or Parquet file as text by column; empty cells are ''."""
    readers = {".csv": _read_csv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ManifestError(
            f"manifest {path} asked for; suffix '{path.suffix}' is not known; "
            f"use {', '.join(readers)}"
        )
    if not path.is_file():
        raise ManifestError(f"manifest {path} asked for; no such file; check the path")
    try:
        rows = list(reader(path))
    except UnicodeDecodeError as error:
        raise ManifestError(f"manifest {path} cannot be read; {error}; save it as UTF-8") from error
    except (csv.Error, OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise ManifestError(f"manifest {path} cannot be read; {first}; mend the file") from error
    if not rows:
        raise ManifestError(f"manifest {path} asked for; it has no rows; add pairs")
    return rows


def build_pairs(
    rows: Sequence[dict[str, str]],
    modality: ModalitySpec,
    path: Path | str,
    places: Sequence[str] = (),
) -> Iterator[Pair]:
    """Turn rows into pairs.

    Args:
        rows: As text by column.
        modality: Of the samples.
        path: What they were read from, for messages.
        places: Where each row stands, for messages; default: its number.

    Raises:
        ManifestError: For a missing column, an empty cell that is needed, or a sample whose rows
            disagree about its split, fold or group.
    """
    _check_columns(rows[0], modality.name, path)
    places = places or [f"{path}, row {number}" for number, _ in enumerate(rows, start=1)]
    pairs = [_build_pair(row, modality, place) for row, place in zip(rows, places, strict=True)]
    if modality.is_text:
        pairs = _join_groups(pairs)
    yield from _check_places(pairs, places)


def _check_places(pairs: Sequence[Pair], places: Sequence[str]) -> Iterator[Pair]:
    first_seen: dict[str, tuple[str, str, str]] = {}
    for pair, where in zip(pairs, places, strict=True):
        place = (pair.split, pair.fold, pair.group)
        if first_seen.setdefault(pair.sample, place) != place:
            raise ManifestError(
                f"{where}: sample '{pair.sample}' stands in (split, fold, group) "
                f"{place}; an earlier row says {first_seen[pair.sample]}; make them agree"
            )
        yield pair


def _check_columns(row: dict[str, str], modality: str, path: Path | str) -> None:
    if modality not in row:
        near = get_close_matches(modality, row, n=1)
        hint = f"did you mean '{near[0]}'? rename it" if near else "add it"
        raise ManifestError(f"column '{modality}' asked of {path}; it has {', '.join(row)}; {hint}")
    if "text" not in row and "image" not in row:
        raise ManifestError(
            f"column 'text' or 'image' asked of {path}; it has {', '.join(row)}; add one"
        )


def _join_groups(pairs: Sequence[Pair]) -> list[Pair]:
    """Make one group of those that share a text: a split must not cut through it."""
    parent: dict[str, str] = {}

    def root(group: str) -> str:
        while parent.setdefault(group, group) != group:
            parent[group] = parent[parent[group]]  # shorter ways, so that long chains stay quick
            group = parent[group]
        return group

    first_of: dict[str, str] = {}
    for pair in pairs:
        one, other = root(pair.group), root(first_of.setdefault(pair.sample, pair.group))
        parent[max(one, other)] = min(one, other)
    return [replace(pair, group=root(pair.group)) for pair in pairs]


def _build_pair(row: dict[str, str], modality: ModalitySpec, place: str) -> Pair:
    name = modality.name
    sample, text = row.get(name), row.get("text") or None
    image = None if name == "image" else row.get("image") or None
    if not sample:
        raise ManifestError(f"{place}: column '{name}' is empty; name a sample")
    if text is None and image is None:
        raise ManifestError(f"{place}: neither text nor image is given; give one")
    language = row.get("language") or "en"
    return Pair(
        sample=text_key(sample, language) if modality.is_text else sample,
        text=text,
        language=language,
        image=image,
        split=row.get("split", ""),
        fold=row.get("fold", ""),
        group=row.get("group") or (row.get("positive_key") if modality.is_text else "") or sample,
        positive_key=row.get("positive_key") or "",
        columns={k: v for k, v in row.items() if k not in KNOWN_COLUMNS and k != name},
        sample_language=language if modality.is_text else "",
    )


def _read_csv(path: Path) -> Iterator[dict[str, str]]:
    csv.field_size_limit(MAX_CELL_CHARACTERS)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        header = [name.strip() for name in reader.fieldnames or []]
        _check_separator(header, path)
        reader.fieldnames = header
        if len(set(header)) != len(header):
            raise ValueError(f"a column name stands twice in {', '.join(header)}")
        for row in reader:
            if None in row or None in row.values():
                raise ValueError(f"line {reader.line_num} has not {len(header)} cells")
            yield row


def _check_separator(header: Sequence[str], path: Path) -> None:
    separator = next((mark for mark in ";\t" if mark in header[0]), "") if len(header) == 1 else ""
    if separator:
        raise ManifestError(
            f"manifest {path} asked for; its columns are separated by {separator!r}; "
            "save it with commas"
        )


def _read_jsonl(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"line {number} is not JSON: {error.msg}") from error
            if not isinstance(row, dict):
                raise ValueError(f"line {number} is not an object")
            yield to_row(row)


def _read_parquet(path: Path) -> Iterator[dict[str, str]]:
    import pyarrow.parquet

    for batch in pyarrow.parquet.ParquetFile(path).iter_batches():
        for row in batch.to_pylist():
            yield to_row(row)


def to_row(row: Mapping[str, Any]) -> dict[str, str]:
    """Return a row's values as text; raises `ValueError` if one that we know is no single value."""
    for name in KNOWN_COLUMNS:
        if isinstance(row.get(name), list | dict):
            raise ValueError(f"column '{name}' holds {row[name]!r}, not one value a row")
    return {str(key): "" if value is None else str(value) for key, value in row.items()}
