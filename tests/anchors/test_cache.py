from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modalbind.anchors import cache as cache_module
from modalbind.anchors.cache import MAX_SMALL_SHARDS, AnchorCache
from modalbind.anchors.shards import DamagedFileError, Keys, Vectors, as_keys
from modalbind.cache_root import default_root
from modalbind.errors import AnchorError, ModalbindError

SPACE = "f" * 64
DIM = 6


def keys_of(numbers: list[int] | range) -> Keys:
    return as_keys(hashlib.sha256(str(number).encode()).digest() for number in numbers)


def vectors_of(numbers: list[int] | range) -> Vectors:
    """Vectors that can be told from their number alone."""
    return np.array([[number + 0.25 * j for j in range(DIM)] for number in numbers], np.float32)


def append(cache: AnchorCache, numbers: list[int] | range, modality: str = "text") -> None:
    cache.append(SPACE, modality, keys_of(numbers), vectors_of(numbers))


def assert_holds(cache: AnchorCache, numbers: list[int] | range, modality: str = "text") -> None:
    found, vectors = cache.lookup(SPACE, modality, keys_of(numbers))
    assert found.all()
    np.testing.assert_array_equal(vectors, vectors_of(numbers))


def shards(root: Path) -> list[Path]:
    return sorted(root.rglob("*.shard"))


def flip(path: Path, place: int = 1000) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)


def test_empty_cache_touches_nothing(tmp_path: Path) -> None:
    cache = AnchorCache(tmp_path / "none")
    found, vectors = cache.lookup(SPACE, "text", keys_of(range(3)))
    assert not found.any() and len(vectors) == 0
    assert cache.spaces() == [] and cache.verify() == [] and cache.prune().files == 0
    assert not (tmp_path / "none").exists()


@settings(max_examples=40, deadline=None)
@given(
    written=st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=30), max_size=12),
    asked=st.lists(st.integers(0, 50), max_size=60),
)
def test_any_order_any_duplicates(
    tmp_path_factory: pytest.TempPathFactory, written: list[list[int]], asked: list[int]
) -> None:
    root = tmp_path_factory.mktemp("cache")
    cache = AnchorCache(root)
    for numbers in written:
        append(cache, numbers)
    there = {number for numbers in written for number in numbers}
    for reader in (cache, AnchorCache(root)):
        found, vectors = reader.lookup(SPACE, "text", keys_of(asked))
        assert found.tolist() == [number in there for number in asked]
        kept = [number for number in asked if number in there]
        assert vectors.tolist() == vectors_of(kept).tolist()
    assert sum(cache.spaces()[0].rows.values() if there else [0]) == len(there)


def test_the_first_vector_stays(tmp_path: Path) -> None:
    cache = AnchorCache(tmp_path)
    append(cache, [1, 2])
    cache.append(SPACE, "text", keys_of([2, 3]), np.zeros((2, DIM), np.float32))
    assert_holds(cache, [1, 2])
    _, vectors = cache.lookup(SPACE, "text", keys_of([3]))
    assert not vectors.any()


def test_spaces_and_modalities_are_apart(tmp_path: Path) -> None:
    cache = AnchorCache(tmp_path)
    append(cache, [1], "text")
    assert not cache.lookup(SPACE, "image", keys_of([1]))[0].any()
    assert not cache.lookup("0" * 64, "text", keys_of([1]))[0].any()


def test_small_shards_are_merged(tmp_path: Path) -> None:
    cache, reader = AnchorCache(tmp_path), AnchorCache(tmp_path)
    for number in range(50):
        append(cache, [number, number + 1])
        assert_holds(reader, range(number + 2))
    assert len(shards(tmp_path)) <= cache_module.MAX_SMALL_SHARDS + 1
    assert_holds(AnchorCache(tmp_path), range(51))
    assert cache.verify() == []


def test_large_shards_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "SMALL_ROWS", 10)
    cache = AnchorCache(tmp_path)
    for start in range(0, 200, 10):
        append(cache, range(start, start + 10))
    assert len(shards(tmp_path)) == 20
    assert_holds(cache, range(200))


def test_a_flipped_byte_is_found_and_can_be_set_aside(tmp_path: Path) -> None:
    append(AnchorCache(tmp_path), range(100))
    flip(shards(tmp_path)[0])
    cache = AnchorCache(tmp_path)
    with pytest.raises(DamagedFileError) as caught:
        cache.lookup(SPACE, "text", keys_of(range(100)))
    assert [damage.path for damage in cache.verify()] == shards(tmp_path)
    cache.quarantine(caught.value)
    cache.quarantine(caught.value)  # another process may have been first
    assert not cache.lookup(SPACE, "text", keys_of(range(100)))[0].any()
    append(cache, range(100))
    assert_holds(cache, range(100))
    assert [damage.found for damage in cache.verify()] == ["set aside as damaged"]
    assert cache.prune().files == 1
    assert cache.verify() == []


def test_appending_beside_damage_sets_it_aside(tmp_path: Path) -> None:
    append(AnchorCache(tmp_path), range(100))
    flip(shards(tmp_path)[0])
    cache = AnchorCache(tmp_path)
    append(cache, range(50, 150))
    assert_holds(cache, range(50, 150))


def test_prune_by_fingerprint_and_age(tmp_path: Path) -> None:
    cache = AnchorCache(tmp_path)
    append(cache, range(5))
    cache.append("0" * 64, "image", keys_of([1]), vectors_of([1]))
    assert {space.fingerprint: space.rows for space in cache.spaces()} == {
        SPACE: {"text": 5},
        "0" * 64: {"image": 1},
    }
    with pytest.raises(AnchorError, match=f"asked to remove space 'abc'; .* has .*{SPACE[:16]}"):
        cache.prune(fingerprint="abc", unused_for_s=0)
    assert cache.prune(fingerprint="fff").files >= 1
    assert [space.fingerprint for space in cache.spaces()] == ["0" * 64]
    assert not cache.lookup(SPACE, "text", keys_of([1]))[0].any()
    assert cache.prune(fingerprint="").files == 0
    assert cache.prune(unused_for_s=3600).files == 0
    assert cache.prune(unused_for_s=0).size_bytes > 0
    assert cache.spaces() == []


def test_prune_removes_damage_that_nobody_met(tmp_path: Path) -> None:
    cache = AnchorCache(tmp_path)
    append(cache, range(10))
    append(cache, range(10, 20))
    flip(shards(tmp_path)[0], 300)
    assert cache.prune().files == 1
    assert cache.verify() == [] and len(shards(tmp_path)) == 1
    assert AnchorCache(tmp_path).lookup(SPACE, "text", keys_of(range(20)))[0].sum() == 10


def test_prune_removes_what_a_kill_left(tmp_path: Path) -> None:
    cache = AnchorCache(tmp_path)
    append(cache, [1])
    left = tmp_path / SPACE / "text" / ".123-0123456789ab.tmp"
    left.write_bytes(b"half")
    assert cache.prune().files == 0  # may be another process at work
    os.utime(left, (time.time() - 7200,) * 2)
    assert cache.prune().files == 1
    assert_holds(cache, [1])


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    cache = AnchorCache(tmp_path)
    with pytest.raises(ModalbindError, match=r"No space left.*MODALBIND_CACHE"):
        append(cache, [1])
    assert list(tmp_path.rglob("*.tmp")) == [] and shards(tmp_path) == []


def test_root_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MODALBIND_CACHE", str(tmp_path))
    assert default_root() == tmp_path == AnchorCache().root
    monkeypatch.delenv("MODALBIND_CACHE")
    assert default_root().name == "modalbind"


def _write_many(root: str, start: int, ready: multiprocessing.synchronize.Barrier) -> None:
    cache = AnchorCache(Path(root))
    ready.wait()
    for step in range(40):  # halves overlap: both write the same numbers in places
        append(cache, range(start + 5 * step, start + 5 * step + 8))


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_two_processes_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready = context.Barrier(3)
    writers = [
        context.Process(target=_write_many, args=(str(tmp_path), start, ready))
        for start in (0, 100)
    ]
    for writer in writers:
        writer.start()
    reader = AnchorCache(tmp_path)
    ready.wait()
    seen = 0
    while any(writer.is_alive() for writer in writers):
        now = int(reader.lookup(SPACE, "text", keys_of(range(303)))[0].sum())
        assert now >= seen  # what was once there is never missed, merges or not
        seen = now
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert_holds(reader, range(303))
    assert reader.spaces()[0].rows == {"text": 303}
    assert reader.verify() == []


def _write_until_killed(root: str, written: Any) -> None:
    cache = AnchorCache(Path(root))
    while True:
        append(cache, range(written.value, written.value + 4))
        written.value += 4


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_kill_loses_nothing_that_was_written(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    written = context.Value("q", 0, lock=False)
    for _ in range(3):
        before = written.value
        writer = context.Process(target=_write_until_killed, args=(str(tmp_path), written))
        writer.start()
        while written.value == before:
            time.sleep(0.01)
        time.sleep(0.25)
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        cache = AnchorCache(tmp_path)
        assert_holds(cache, range(written.value))
        assert cache.verify() == []
    append(cache, range(written.value + 10))  # the lock of the dead does not hold
    assert_holds(cache, range(written.value + 10))


def test_a_kill_within_a_merge_leaves_rows_twice_until_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, written = AnchorCache(tmp_path), 0

    unlink = Path.unlink

    def die(self: Path, missing_ok: bool = False) -> None:
        if self.suffix == ".shard":  # the merged one is published, the small ones still there
            raise KeyboardInterrupt
        unlink(self, missing_ok)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "unlink", die)
        while True:
            written += 4
            append(cache, range(written))
    after = AnchorCache(tmp_path)
    assert_holds(after, range(written))
    assert after.spaces()[0].rows == {"text": 2 * written}
    assert after.verify() == []
    for _ in range(MAX_SMALL_SHARDS + 1):
        written += 4
        append(after, range(written))
    assert_holds(AnchorCache(tmp_path), range(written))
    stored = AnchorCache(tmp_path).spaces()[0].rows["text"]
    assert stored == written
