"""Embeddings in files: each format reads back as the table of vectors that it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from modalbind.anchors.options import PrecomputedOptions
from modalbind.anchors.precomputed import build
from modalbind.anchors.tables import read_table
from modalbind.errors import InputError
from modalbind.export import check_output, write_embeddings
from modalbind.types import AnchorItem

KEYS = ("a.wav", "ü/b c.wav", "c.wav")
VECTORS = torch.nn.functional.normalize(
    torch.randn(3, 5, generator=torch.Generator().manual_seed(0)), dim=1
)
FORMATS = [".npz", ".parquet", ".safetensors"]


@pytest.mark.parametrize("suffix", [*FORMATS, ".NPZ"])
def test_what_is_written_reads_back_identical(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    write_embeddings(path, "audio", KEYS, VECTORS, "a space")
    table = read_table(path)
    column = table.columns["audio"]
    assert (table.space, table.is_normalised, table.dim) == ("a space", True, 5)
    assert column.keys == KEYS and column.vectors.dtype == np.float32
    assert np.array_equal(column.vectors, VECTORS.numpy())
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_formats_say_the_same(tmp_path: Path) -> None:
    hashes = set()
    for suffix in FORMATS:
        write_embeddings(tmp_path / f"out{suffix}", "audio", KEYS, VECTORS, "a space")
        hashes.add(read_table(tmp_path / f"out{suffix}").hash_content())
    assert len(hashes) == 1


@pytest.mark.parametrize("suffix", FORMATS)
def test_windows_carry_their_times(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    times = {"start_s": [0.0, 5.0, 10.0], "end_s": [5.0, 10.0, 12.5]}
    write_embeddings(path, "audio", ("a.wav",) * 3, VECTORS, "a space", times)
    stretches = ("a.wav#t=0,5", "a.wav#t=5,10", "a.wav#t=10,12.5")
    assert read_table(path).columns["audio"].keys == stretches
    assert read_field(path, "audio_start_s") == times["start_s"]
    assert read_field(path, "audio_end_s") == times["end_s"]


def test_windows_serve_as_an_anchor(tmp_path: Path) -> None:
    path = tmp_path / "out.npz"
    times = {"start_s": [0.0, 4.2, 0.0], "end_s": [5.0, 9.2, 5.0]}
    write_embeddings(path, "audio", ("a.wav", "a.wav", "b.wav"), VECTORS, "a space", times)
    space = build(str(path), None, PrecomputedOptions())
    item = AnchorItem("a.wav#t=4.2,9.2", bytes(32), lambda: None)
    assert torch.allclose(space.encode("audio", [item])[0], VECTORS[1], atol=1e-6)


def read_field(path: Path, name: str) -> list[float]:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            return list(file[name])
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        return list(pq.read_table(path)[name].to_pylist())
    from safetensors.numpy import load_file

    return list(load_file(path)[name])


def test_an_output_is_refused_before_any_work(tmp_path: Path) -> None:
    for name, says in (("out.csv", "suffix '.csv'"), ("none/out.npz", "does not exist")):
        with pytest.raises(InputError, match=says):
            check_output(tmp_path / name)
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(InputError, match="that is a folder"):
        check_output(tmp_path / "folder.npz")
    check_output(tmp_path / "out.parquet")
