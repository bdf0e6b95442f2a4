from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from modalbind.anchors import shards
from modalbind.anchors.shards import DamagedFileError, Shard, as_keys, write_shard
from modalbind.errors import CorruptFileError, ShapeError


def content(rows: int, dim: int, seed: int = 0) -> tuple[shards.Keys, shards.Vectors]:
    keys = np.sort(as_keys(hashlib.sha256(f"{seed}/{i}".encode()).digest() for i in range(rows)))
    return keys, np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)


@pytest.mark.parametrize(("rows", "dim"), [(1, 1), (7, 3), (2048, 8), (2049, 5), (5000, 384)])
def test_round_trip(tmp_path: Path, rows: int, dim: int) -> None:
    keys, vectors = content(rows, dim)
    shard = Shard(write_shard(tmp_path, keys, [vectors[:3], vectors[3:]]))
    assert (shard.rows, shard.dim) == (rows, dim)
    order = np.random.default_rng(1).permutation(rows)
    asked, found = shard.find(keys[order])
    np.testing.assert_array_equal(np.sort(asked), np.arange(rows))
    np.testing.assert_array_equal(shard.read(found), vectors[order][asked])
    shard.check_all()


def test_keys_compare_as_bytes_zeros_included(tmp_path: Path) -> None:
    raw = [
        bytes(32),
        bytes(31) + b"\1",
        b"\x80" + bytes(31),
        b"\x80" + bytes(30) + b"\1",
        b"\xff" * 32,
    ]
    keys = as_keys(raw)
    assert np.sort(keys).tobytes() == b"".join(sorted(raw))
    vectors = np.arange(5, dtype=np.float32)[:, None]
    shard = Shard(write_shard(tmp_path, np.sort(keys), [vectors]))
    _, rows = shard.find(keys)
    np.testing.assert_array_equal(shard.read(rows), vectors)
    absent = as_keys([bytes(30) + b"\1\0", b"\x7f" + b"\xff" * 31])
    assert len(shard.find(absent)[0]) == 0


def test_equal_content_has_one_name(tmp_path: Path) -> None:
    keys, vectors = content(100, 4)
    pieces = [vectors[i : i + 7] for i in range(0, 100, 7)]
    assert write_shard(tmp_path, keys, [vectors]) == write_shard(tmp_path, keys, pieces)
    assert len(list(tmp_path.iterdir())) == 1


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    keys, vectors = content(3000, 20)
    path = write_shard(tmp_path, keys, [vectors])
    good = path.read_bytes()
    # Bytes 32 to 64 pad the header and hold nothing.
    places = [0, 9, 20, 31, 64, 65_000, 64 + 3000 * 32, len(good) // 2, len(good) - 1]
    places += np.random.default_rng(0).integers(64, len(good), 40).tolist()
    for place in places:
        bad = bytearray(good)
        bad[place] ^= 1 << (place % 8)
        path.write_bytes(bad)
        with pytest.raises(CorruptFileError, match=path.name):
            shard = Shard(path)
            _, rows = shard.find(keys)
            shard.read(rows)


def test_a_damaged_block_is_met_only_when_it_is_read(tmp_path: Path) -> None:
    keys, vectors = content(5000, 64)
    path = write_shard(tmp_path, keys, [vectors])
    bad = bytearray(path.read_bytes())
    bad[64 + 5000 * 32 + 4000 * 256] ^= 1  # in the vector of row 4000
    path.write_bytes(bad)
    shard = Shard(path)
    np.testing.assert_array_equal(shard.read(shard.find(keys[:10])[1]), vectors[:10])
    with pytest.raises(DamagedFileError, match="block"):
        shard.read(shard.find(keys[4000:4001])[1])


@pytest.mark.parametrize("kept", [0, 10, 64, 5000, -1])
def test_a_cut_file_is_refused(tmp_path: Path, kept: int) -> None:
    keys, vectors = content(300, 8)
    path = write_shard(tmp_path, keys, [vectors])
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DamagedFileError):
        Shard(path)


def test_wrong_numbers_leave_nothing_behind(tmp_path: Path) -> None:
    keys, vectors = content(10, 4)
    with pytest.raises(ShapeError, match="one vector per key"):
        write_shard(tmp_path, keys, [vectors.ravel()[:-1]])
    with pytest.raises(ShapeError, match="32"):
        as_keys([b"short"])
    assert list(tmp_path.iterdir()) == []


def test_opening_reads_a_few_bytes_per_block(tmp_path: Path) -> None:
    keys, vectors = content(200_000, 16)
    path = write_shard(tmp_path, keys, [vectors])
    shard = Shard(path)
    # 32 bytes of fence per 2048 keys, 4 bytes of checksum per 64 KiB
    assert shard._fences.nbytes + shard._crcs.nbytes < path.stat().st_size / 2000
    assert not shard._is_checked.any()
    shard.find(keys[5:6])
    assert shard._is_checked.sum() == 1
