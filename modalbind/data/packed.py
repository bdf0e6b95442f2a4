"""Samples and pictures that are bytes within larger files: shards, tables.

A modality reads files, each by its suffix, so the bytes of one sample become a file of their own
for as long as it is being read.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from modalbind.data.files import FileDataset, SampleReader
from modalbind.data.manifest import KNOWN_COLUMNS, build_pairs, to_row
from modalbind.data.options import PackedOptions
from modalbind.data.pictures import open_picture
from modalbind.data.texts import TEXT_READER
from modalbind.errors import BrokenSampleError, ManifestError
from modalbind.interfaces import Modality, ModalitySpec
from modalbind.types import AnchorItem

_SUFFIX = re.compile(r"\.\w{1,16}", re.ASCII)


class Pack(Protocol):
    """Where the bytes are; called from several threads, and pickled to worker processes."""

    def __contains__(self, key: str) -> bool:
        """Say whether it has something by that key."""

    def read(self, key: str) -> tuple[bytes, str]:
        """Return the bytes and the suffix of the file that they would be, such as `.wav`.

        Raises:
            BrokenSampleError: If it has no such thing, or cannot read it.
        """


def build_dataset(
    pack: Pack,
    rows: Sequence[Mapping[str, Any]],
    places: Sequence[str],
    options: PackedOptions,
    root: Path,
    modality: ModalitySpec,
) -> FileDataset:
    """Turn the rows of samples in a pack into a data set, as those of a manifest are.

    Args:
        pack: Reads samples and pictures.
        rows: One for each sample, columns named as in a manifest; any of the known columns may
            be a list: one row of a manifest for each of its values. Other lists are left out.
        places: Where each row stands, for messages.
        options: Of the data set, with a name.
        root: Folder of side files.
        modality: Of the samples.

    Raises:
        ManifestError: If they contradict each other, or lack what a manifest must have.
    """
    spread = [
        (row, place)
        for whole, place in zip(rows, places, strict=True)
        for row in _spread_lists(whole, place)
    ]
    if not spread:
        raise ManifestError(f"{options.path} asked for; it has no samples; check the path")
    flat = [row for row, _ in spread]
    for row in flat:
        row["language"] = row.get("language") or options.language
        if not modality.is_text:
            # With the data set's name: another one has a sample of that number too.
            row["group"] = row.get("group") or f"{options.name}:{row[modality.name]}"
    pairs = tuple(build_pairs(flat, modality, options.path, [place for _, place in spread]))
    digest = hashlib.sha256()
    for row in flat:
        digest.update(json.dumps(row, sort_keys=True).encode())
    own = (
        TEXT_READER
        if modality.is_text
        else SampleReader(partial(_load, pack), partial(_hash, pack))
    )
    reader = SampleReader(own.load, own.hash, partial(_find_picture, pack))
    return FileDataset(options.name, options.licence, root, pairs, digest.hexdigest(), reader)


def rename_columns(row: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """Return a row with columns by our names.

    Args:
        row: As published.
        columns: Published name by ours.
    """
    taken = set(columns.values())
    found = {name: value for name, value in row.items() if name not in taken}
    return {**found, **{ours: row[theirs] for ours, theirs in columns.items() if theirs in row}}


def check_columns(options: PackedOptions, there: Collection[str]) -> None:
    """Refuse a column that is asked for and nowhere.

    Raises:
        ManifestError: With the nearest that is there.
    """
    for ours, theirs in options.columns.items():
        if theirs not in there:
            near = get_close_matches(theirs, there, n=1)
            raise ManifestError(
                f"column '{theirs}' asked of {options.path} as {ours}; it has "
                f"{', '.join(sorted(there)) or 'none'}; "
                + (f"did you mean '{near[0]}'?" if near else "name one of these")
            )


def _spread_lists(row: Mapping[str, Any], place: str) -> Iterator[dict[str, str]]:
    lists = {name: row[name] for name in KNOWN_COLUMNS if isinstance(row.get(name), list)}
    lengths = {len(values) for values in lists.values()}
    if len(lengths) > 1:
        found = ", ".join(f"{len(values)} of {name}" for name, values in lists.items())
        raise ManifestError(f"{place}: lists of one length asked for; found {found}; mend them")
    single = {k: v for k, v in row.items() if k in KNOWN_COLUMNS or not isinstance(v, list | dict)}
    for number in range(max(lengths | {1})):
        values = {name: each[number] if each else None for name, each in lists.items()}
        try:
            yield to_row({**single, **values})
        except ValueError as error:
            raise ManifestError(f"{place}: {error}; mend it") from error


@contextmanager
def _as_file(pack: Pack, key: str) -> Iterator[Path]:
    """Lend the bytes as a file that this user alone can read."""
    content, suffix = pack.read(key)
    if not _SUFFIX.fullmatch(suffix):
        suffix = ""
    descriptor, name = tempfile.mkstemp(suffix, "modalbind-")
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
        yield Path(name)
    except BrokenSampleError as error:
        raise BrokenSampleError(error.reason, error.detail.replace(name, key)) from error
    finally:
        os.unlink(name)


def _load(pack: Pack, key: str, modality: Modality) -> Any:
    with _as_file(pack, key) as path:
        return modality.load(path, key)


def _hash(pack: Pack, key: str, modality: Modality) -> bytes:
    with _as_file(pack, key) as path:
        return modality.content_hash(path, key)


def _find_picture(pack: Pack, key: str) -> AnchorItem | None:
    if key not in pack:
        return None
    content, _ = pack.read(key)
    return AnchorItem(key, hashlib.sha256(content).digest(), partial(_open_picture, pack, key))


def _open_picture(pack: Pack, key: str) -> Image.Image:
    with _as_file(pack, key) as path:
        return open_picture(path)
