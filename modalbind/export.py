"""Writes embeddings to a file in the layout of a table of vectors.

What `embed` writes can serve as a precomputed anchor space; see `modalbind.anchors.tables` for
the fields. Windows of long samples add `<modality>_start_s` and `<modality>_end_s`, and have keys
of their own: `FILE#t=START,END` in seconds, as the W3C's Media Fragments URI 1.0 writes a stretch
of a recording.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from modalbind.anchors.tables import SUFFIXES, VECTORS
from modalbind.checkpoint import write_file
from modalbind.errors import InputError


def check_output(path: Path) -> None:
    """Refuse an output file before any work is done.

    Raises:
        InputError: If its suffix is unknown or its folder does not exist.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(
            f"embeddings in {path} asked for; suffix '{path.suffix}' is not known; "
            f"use {', '.join(SUFFIXES)}"
        )
    if not path.parent.is_dir() or path.is_dir():
        raise InputError(
            f"embeddings in {path} asked for; that is a folder, or its folder does not exist; "
            "name a file in an existing folder"
        )


def write_embeddings(
    path: Path,
    modality: str,
    keys: Sequence[str],
    embeddings: Tensor,
    space: str,
    times: Mapping[str, Sequence[float]] | None = None,
) -> None:
    """Write embeddings with their keys, whole or not at all.

    Args:
        path: Ends in .npz, .parquet or .safetensors.
        modality: Names the fields.
        keys: One per row; the windows of one file share it here.
        embeddings: Unit norm `(n, dim)`.
        space: Name of the anchor space.
        times: `start_s` and `end_s` per row, for windows.
    """
    vectors = embeddings.numpy().astype(np.float32)
    lists = {modality: list(keys) if times is None else _name_windows(keys, times)}
    extra = {f"{modality}_{name}": list(values) for name, values in (times or {}).items()}
    encode = {".npz": _npz, ".parquet": _parquet, ".safetensors": _safetensors}
    data = encode[path.suffix.lower()](lists, extra, {modality + VECTORS: vectors}, space)
    write_file(path, data)


Keys = Mapping[str, Sequence[str]]
Times = Mapping[str, Sequence[float]]
Vectors = Mapping[str, np.ndarray]


def _name_windows(keys: Sequence[str], times: Times) -> list[str]:
    rows = zip(keys, times["start_s"], times["end_s"], strict=True)
    return [f"{key}#t={start:.10g},{end:.10g}" for key, start, end in rows]


def _npz(keys: Keys, times: Times, vectors: Vectors, space: str) -> bytes:
    buffer = io.BytesIO()
    fields: dict[str, Any] = {n: np.array(values) for n, values in {**keys, **times}.items()}
    fields |= {**vectors, "space": np.array(space), "normalised": np.array(True)}
    np.savez(buffer, **fields)
    return buffer.getvalue()


def _parquet(keys: Keys, times: Times, vectors: Vectors, space: str) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: pa.array(list(values)) for name, values in {**keys, **times}.items()}
    for name, rows in vectors.items():
        flat = pa.array(rows.reshape(-1), pa.float32())
        columns[name] = pa.FixedSizeListArray.from_arrays(flat, rows.shape[1])
    table = pa.table(columns).replace_schema_metadata({"space": space, "normalised": "true"})
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def _safetensors(keys: Keys, times: Times, vectors: Vectors, space: str) -> bytes:
    from safetensors.numpy import save

    notes = {name: json.dumps(list(values), ensure_ascii=False) for name, values in keys.items()}
    arrays = {name: np.array(values, dtype=np.float32) for name, values in times.items()}
    data: bytes = save({**vectors, **arrays}, {**notes, "space": space, "normalised": "true"})
    return data
