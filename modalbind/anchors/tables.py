"""Read and write tables of vectors: npz, Parquet and safetensors, with the same fields.

    text, text_language, text_vectors    keys, their languages (may be absent), `(n, dim)`
    image, image_vectors, ...            likewise for every other modality
    space, normalised                    the space's name; whether the vectors had unit norm

npz has one array per field. Parquet has one column per field, null where a modality has fewer
rows, and `space` and `normalised` in the file's metadata or as columns. safetensors has the
vectors as tensors and everything else in its metadata, keys and languages as JSON lists.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modalbind.errors import AnchorError

VECTORS = "_vectors"
LANGUAGE = "_language"
SUFFIXES = (".npz", ".parquet", ".safetensors")


@dataclass(frozen=True, slots=True)
class Column:
    """The vectors of one modality.

    Attributes:
        keys: Texts, or relative paths.
        languages: One per key; empty text where unknown.
        vectors: As stored, `(n, dim)`, float16 or float32.
    """

    keys: tuple[str, ...]
    languages: tuple[str, ...]
    vectors: NDArray[Any]


@dataclass(frozen=True, slots=True)
class Table:
    """A table of vectors of one space.

    Attributes:
        path: Where it was read from.
        space: Declared name of the space.
        is_normalised: Whether its vectors are said to have unit norm.
        columns: By modality.
    """

    path: Path
    space: str
    is_normalised: bool
    columns: Mapping[str, Column]

    @property
    def dim(self) -> int:
        """Length of every vector."""
        return int(next(iter(self.columns.values())).vectors.shape[1])

    def hash_content(self) -> str:
        """Return the SHA-256 of what the table says, whichever format says it."""
        digest = hashlib.sha256(f"{self.space}|{self.is_normalised}".encode())
        for modality in sorted(self.columns):
            column = self.columns[modality]
            words = [modality, column.keys, column.languages, column.vectors.shape]
            digest.update(json.dumps(words).encode())
            digest.update(np.ascontiguousarray(column.vectors, "<f4").data)
        return digest.hexdigest()


def read_table(path: Path) -> Table:
    """Read a table.

    Raises:
        AnchorError: If it is missing, has another format, lacks a field or contradicts itself.
    """
    readers = {".npz": _read_npz, ".parquet": _read_parquet, ".safetensors": _read_safetensors}
    if path.suffix.lower() not in readers:
        raise AnchorError(
            f"asked to read vectors from {path}; its suffix is {path.suffix or 'missing'}; "
            f"give one of {', '.join(SUFFIXES)}"
        )
    if not path.is_file():
        raise AnchorError(f"asked to read vectors from {path}; there is no such file; check it")
    try:
        fields = readers[path.suffix.lower()](path)
    except Exception as error:  # three libraries, each with its own error types
        found = (str(error) or type(error).__name__).splitlines()[0]
        raise AnchorError(f"asked to read vectors from {path}; {found}; write it anew") from error
    return _make_table(path, fields)


def _make_table(path: Path, fields: Mapping[str, Any]) -> Table:
    modalities = [name.removesuffix(VECTORS) for name in fields if name.endswith(VECTORS)]
    lacking = [name for name in ("space", "normalised", *modalities) if name not in fields]
    if lacking or not modalities:
        raise AnchorError(
            f"asked to read vectors from {path}; it lacks {', '.join(lacking) or 'any vectors'}; "
            "write fields such as text, text_vectors, space, normalised"
        )
    columns = {name: _make_column(path, name, fields) for name in modalities}
    dims = sorted({column.vectors.shape[1] for column in columns.values()})
    if len(dims) > 1:
        raise AnchorError(
            f"asked to read vectors from {path}; it mixes dims {dims}; keep one space per file"
        )
    return Table(path, str(fields["space"]), _as_bool(fields["normalised"]), columns)


def _make_column(path: Path, modality: str, fields: Mapping[str, Any]) -> Column:
    keys = tuple(str(key) for key in fields[modality])
    languages = tuple(str(one) for one in fields.get(modality + LANGUAGE, [""] * len(keys)))
    vectors = np.asarray(fields[modality + VECTORS])
    if vectors.ndim != 2 or not len(keys) == len(languages) == len(vectors):
        raise AnchorError(
            f"asked to read {modality} vectors from {path}; found {len(keys)} keys, "
            f"{len(languages)} languages and vectors {vectors.shape}; write one row per key"
        )
    if vectors.dtype not in (np.float16, np.float32):
        vectors = vectors.astype(np.float32)
    norms = np.linalg.norm(vectors.astype(np.float32), axis=1)
    wrong = np.flatnonzero(~np.isfinite(norms) | (norms == 0))
    if len(wrong):
        raise AnchorError(
            f"asked to read {modality} vectors from {path}; {len(wrong)} are zero or not finite, "
            f"such as that of {keys[wrong[0]]!r}; remove or recompute them"
        )
    return Column(keys, languages, vectors)


def _as_bool(value: Any) -> bool:
    return str(value).lower() in ("true", "1")


def _read_npz(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _read_parquet(path: Path) -> dict[str, Any]:
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    fields: dict[str, Any] = {
        key.decode(): value.decode()
        for key, value in (table.schema.metadata or {}).items()
        if key in (b"space", b"normalised")
    }
    for name in table.column_names:
        column = table[name].combine_chunks().drop_null()
        if name.endswith(VECTORS):
            fields[name] = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
        elif name in ("space", "normalised"):
            fields[name] = column[0].as_py()
        else:
            fields[name] = column.to_pylist()
    return fields


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors.numpy import safe_open

    fields: dict[str, Any] = {}
    with safe_open(path, framework="numpy") as file:
        for name, value in (file.metadata() or {}).items():
            fields[name] = value if name in ("space", "normalised") else json.loads(value)
        for name in file.keys():
            fields[name] = file.get_tensor(name)
    return fields
