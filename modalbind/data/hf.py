"""Pairs of a data set of Hugging Face's `datasets`: columns of a table on disk, by their names.

Samples and pictures are taken as the bytes that the table holds, for the modality's own reader:
the library decodes nothing and runs no code of the data set. Tables are memory-mapped and read row
by row, not streamed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Any

from modalbind.data.files import FileDataset, join_inside
from modalbind.data.manifest import KNOWN_COLUMNS
from modalbind.data.options import HfOptions
from modalbind.data.packed import build_dataset, check_columns, rename_columns
from modalbind.data.splits import USUAL_NAMES
from modalbind.errors import BrokenSampleError, InputError, ManifestError
from modalbind.interfaces import ModalitySpec

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
SAVED = ("dataset_dict.json", "state.json")  # what `save_to_disk` leaves in a folder
KEY = re.compile(r"(.*)#(\d+)\.(.+)", re.ASCII)
BATCH_ROWS = 1000


def build(options: HfOptions, root: Path | None, modality: ModalitySpec) -> FileDataset:
    """Open the tables, and read what they say of each sample.

    Args:
        options: Which data set, and what its columns are.
        root: Folder of side files; None takes the data set's own, if it has one.
        modality: Of the samples.

    Raises:
        ManifestError: If it cannot be opened, lacks what is asked for, or contradicts itself.
        InputError: If `datasets` is not installed.
    """
    folder = Path(options.path).expanduser()
    home = folder if folder.is_dir() else None
    tables = _open_tables(options, folder)
    named = options.model_copy(
        update={"name": options.name or "/".join(Path(options.path).parts[-2:])}
    )
    rows: list[dict[str, Any]] = []
    places: list[str] = []
    pack = TablePack({}, home, options.max_sample_mib * 2**20, options.suffix)
    is_divided = len(tables) > 1 or options.split is not None
    for split, table in tables.items():
        columns = _Columns(table, options, modality)
        for column in columns.of_files:
            pack.tables[split, column] = table.select_columns([column]).with_format("arrow")
        name = split.partition("[")[0]
        counts_as = {"split": USUAL_NAMES.get(name, name)} if is_divided else {}
        for number, row in enumerate(columns.read_rows(table, split)):
            rows.append({**counts_as, **row})
            places.append(f"{options.path}, {split} row {number}")
    base = root or home or Path()
    return build_dataset(pack, rows, places, named, base, modality)


@dataclass(frozen=True)
class TablePack:
    """Cells of tables by key: the split, `#`, the row's number, `.`, the column.

    Attributes:
        tables: The column of a split alone, as Arrow.
        folder: Of the data set, for samples that are files beside the table; None: there are none.
        max_bytes: A larger one is broken.
        suffix: Of all samples; empty: of the path beside their bytes.
    """

    tables: dict[tuple[str, str], Any] = field(repr=False)
    folder: Path | None
    max_bytes: int
    suffix: str

    def __contains__(self, key: str) -> bool:
        """Say whether it has that cell."""
        return self._find(key) is not None

    def read(self, key: str) -> tuple[bytes, str]:
        """Return the bytes of a cell and their suffix; raises `BrokenSampleError`."""
        found = self._find(key)
        value = None if found is None else found[0][found[1]].column(0)[0].as_py()
        content, path = (
            (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
        )
        if isinstance(content, str):
            content, path = None, content
        if content is None and path:
            content = self._read_beside(path)
        if content is None:
            raise BrokenSampleError("missing", f"{key} is not in the table")
        if not content:
            raise BrokenSampleError("empty", f"{key} has no bytes")
        self._check_size(key, len(content))
        return content, self.suffix or PurePosixPath(path or "").suffix

    def _find(self, key: str) -> tuple[Any, int] | None:
        parts = KEY.fullmatch(key)
        table = None if parts is None else self.tables.get((parts[1], parts[3]))
        if parts is None or table is None or int(parts[2]) >= len(table):
            return None
        return table, int(parts[2])

    def _read_beside(self, name: str) -> bytes | None:
        """Read a file that the table names: one below the data set's folder, and no other."""
        try:
            path = None if self.folder is None else join_inside(self.folder, name)
        except ManifestError as error:
            raise BrokenSampleError("missing", str(error)) from error
        if path is None or not path.is_file():
            return None
        self._check_size(name, path.stat().st_size)
        return path.read_bytes()

    def _check_size(self, key: str, size: int) -> None:
        if size > self.max_bytes:
            raise BrokenSampleError(
                "too_large", f"{key} has {size} bytes, more than max_sample_mib"
            )


class _Columns:
    """Which columns of a table are what."""

    def __init__(self, table: Any, options: HfOptions, modality: ModalitySpec) -> None:
        from datasets import ClassLabel, Value

        self.options = options
        self.sample = "" if modality.is_text else modality.name
        features = table.features
        check_columns(options, features)
        roles = [*([self.sample] if self.sample else []), "image"]
        theirs = {role: options.columns.get(role, role) for role in roles}
        if self.sample and theirs[self.sample] not in features:
            near = get_close_matches(self.sample, features, n=1)
            raise ManifestError(
                f"column '{self.sample}' asked of {options.path}; it has {', '.join(features)}; "
                f"name it: columns: {{{self.sample}: {near[0] if near else 'COLUMN'}}}"
            )
        self.files = {role: name for role, name in theirs.items() if name in features}
        for name in self.files.values():
            self._check_holds_files(name, table.features.arrow_schema.field(name).type)
        known = {options.columns.get(name, name) for name in KNOWN_COLUMNS}
        self.values = [
            name
            for name, feature in features.items()
            if name not in self.files.values()
            and (
                isinstance(feature, ClassLabel)
                or (isinstance(feature, Value) and "binary" not in feature.dtype)
                or name in known
            )
        ]
        self.labels = {
            name: features[name].names
            for name in self.values
            if isinstance(features[name], ClassLabel)
        }

    @property
    def of_files(self) -> list[str]:
        """Columns of samples and pictures, each once."""
        return list(dict.fromkeys(self.files.values()))

    def _check_holds_files(self, name: str, kind: Any) -> None:
        from pyarrow import types

        is_struct = types.is_struct(kind) and kind.get_field_index("bytes") >= 0
        if not (is_struct or str(kind).endswith(("binary", "string"))):
            raise ManifestError(
                f"column '{name}' asked of {self.options.path} for files; it holds {kind}; "
                "name a column of encoded bytes or paths"
            )

    def read_rows(self, table: Any, split: str) -> Iterator[dict[str, Any]]:
        """Return what a table says of each sample, with columns by our names."""
        first: dict[Any, int] = {}
        chosen = [*self.values, *self.of_files]
        is_keyed = "key" in self.options.columns
        numbered = enumerate(self._read_values(table.select_columns(chosen)))
        for number, (values, is_there) in numbered:
            row = rename_columns(values, self.options.columns)
            own = first.setdefault(row.pop("key"), number) if is_keyed else number
            row["image"] = None
            for role, name in self.files.items():
                place = own if role == self.sample else number
                # A sample that is absent is broken; a picture that is absent is none.
                if role == self.sample or is_there[name]:
                    row[role] = f"{split}#{place}.{name}"
            yield row

    def _read_values(self, table: Any) -> Iterator[tuple[dict[str, Any], Mapping[str, bool]]]:
        for batch in table.with_format("arrow").iter(BATCH_ROWS):
            rows = batch.select(self.values).to_pylist() if self.values else [{}] * len(batch)
            there = {name: batch.column(name).is_valid().to_pylist() for name in self.of_files}
            for number, row in enumerate(rows):
                for name, labels in self.labels.items():
                    value = row[name]
                    row[name] = None if value is None or value < 0 else labels[value]
                yield row, {name: found[number] for name, found in there.items()}


def _open_tables(options: HfOptions, folder: Path) -> dict[str, Any]:
    """Open a data set; return its splits by name."""
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise InputError(
            f"data set {options.path} asked for; datasets, which reads it, is not installed; "
            "try: pip install 'modalbind[hf]'"
        ) from error
    try:
        found = _load(datasets, options, folder)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise ManifestError(
            f"data set {options.path} asked for; {first}; check its name, subset and split"
        ) from error
    if not isinstance(found, datasets.DatasetDict):
        return {options.split or str(found.split or "rows"): found}
    if options.split is None:
        return dict(found)
    if options.split not in found:
        raise ManifestError(
            f"split '{options.split}' asked of {options.path}; it has {', '.join(found)}; "
            "name one of these"
        )
    return {options.split: found[options.split]}


def _load(datasets: Any, options: HfOptions, folder: Path) -> Any:
    if any((folder / name).is_file() for name in SAVED):
        return datasets.load_from_disk(str(folder))
    if not folder.is_dir() and not HUB_NAME.fullmatch(options.path):
        raise ManifestError(
            f"data set {options.path} asked for; it is neither a folder nor owner/name; check it"
        )
    source = str(folder.absolute()) if folder.is_dir() else options.path
    return datasets.load_dataset(
        source, options.subset, split=options.split, revision=options.revision
    )
