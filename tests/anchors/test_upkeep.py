"""The cache's folder may hold other people's files: whatever is asked, they stay as they are."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from modalbind.anchors.cache import AnchorCache
from modalbind.anchors.golden import check_probes
from modalbind.anchors.index import Identity, find_identity, store_identity
from modalbind.anchors.shards import as_keys
from modalbind.anchors.spec import AnchorName
from modalbind.types import AnchorItem

SPACE = "5" * 64
HUB = AnchorName("openclip", "ViT-B-32", "openai")


class OneVector:
    """A space in which everything is alike."""

    name, dim, modalities, is_table = "one", 2, ("text",), False

    def compute_fingerprint(self) -> str:
        return SPACE

    def encode(self, modality: str, items: Sequence[AnchorItem]) -> torch.Tensor:
        return torch.eye(1, 2).repeat(len(items), 1)


def fill(root: Path) -> AnchorCache:
    """A cache with one space, as a run leaves it."""
    cache = AnchorCache(root)
    store_identity(cache, HUB, {}, Identity(SPACE, "a space", 2, ("text",), {}))
    cache.append(SPACE, "text", as_keys([hashlib.sha256(b"a").digest()]), np.eye(1, 2, 0, "f4"))
    return cache


def age(path: Path) -> None:
    os.utime(path, (time.time() - 7200,) * 2)


def put(path: Path, content: bytes = b"mine") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    age(path)
    return path


FOREIGN = (
    "myphotos/a.jpg",
    "myphotos/deep/b.tmp",
    "myphotos/deep/.1-0123456789ab.tmp",
    "myphotos/text/c.shard",
    "myphotos/space.json",
    "d.tmp",
    f"{'7' * 40}/text/{'e' * 64}.shard",  # a hash, but not one of a space
    f"{'7' * 64}/notes.txt",  # named like a space, and holding nothing of ours
    f"{'7' * 64}/text/.lock",
    f"{'7' * 64}/text/model.shard",
    f"{SPACE}/notes.tmp",  # within a space of ours
    f"{SPACE}/text/f.shard",
    f"{SPACE}/text/f.shard.damaged",
    f"{SPACE}/text/g.tmp",
    f"{SPACE}/text/deeper/{'e' * 64}.shard",
    f"{SPACE}/photos/h.jpg",
    "index/notes.json",
    "index/i.tmp",
)


@pytest.mark.parametrize("asked", [{}, {"unused_for_s": 0.0}, {"fingerprint": SPACE}])
def test_what_is_not_ours_stays(tmp_path: Path, asked: dict[str, object]) -> None:
    cache = fill(tmp_path)
    for name in FOREIGN:
        put(tmp_path / name, b'{"fingerprint": "' + SPACE.encode() + b'"}')
    (tmp_path / SPACE / "empty").mkdir()
    (tmp_path / "empty").mkdir()
    assert [space.fingerprint for space in cache.spaces()] == [SPACE]
    assert cache.spaces()[0].rows == {"text": 1}
    assert cache.verify() == []
    cache.prune(**asked)  # type: ignore[arg-type]
    assert all((tmp_path / name).is_file() for name in FOREIGN)
    assert (tmp_path / SPACE / "empty").is_dir() and (tmp_path / "empty").is_dir()
    assert [space.fingerprint for space in cache.spaces()] == ([] if asked else [SPACE])


def test_foreign_folders_alone_are_an_empty_cache(tmp_path: Path) -> None:
    for name in FOREIGN:
        put(tmp_path / name)
    cache = AnchorCache(tmp_path)
    assert cache.spaces() == [] and cache.verify() == []
    assert cache.prune(unused_for_s=0.0).files == 0


def test_a_foreign_shard_is_not_read(tmp_path: Path) -> None:
    cache = fill(tmp_path)
    put(tmp_path / SPACE / "text" / "mine.shard")
    keys = as_keys([hashlib.sha256(b"a").digest()])
    assert AnchorCache(tmp_path).lookup(SPACE, "text", keys)[0].all()
    cache.append(SPACE, "text", as_keys([hashlib.sha256(b"b").digest()]), np.eye(1, 2, 0, "f4"))
    assert (tmp_path / SPACE / "text" / "mine.shard").read_bytes() == b"mine"


def test_a_space_goes_without_a_trace(tmp_path: Path) -> None:
    cache = fill(tmp_path)
    put(tmp_path / SPACE / ".1-0123456789ab.tmp")
    here = [path for path in tmp_path.rglob("*") if path.is_file()]
    size_bytes = sum(path.stat().st_size for path in here)
    removed = cache.prune(fingerprint="555")
    assert (removed.files, removed.size_bytes) == (len(here), size_bytes)
    assert [path for path in tmp_path.rglob("*") if path.name != "index"] == []
    assert find_identity(cache, HUB, {}) is None


def test_what_a_kill_left_goes_wherever_it_lies(tmp_path: Path) -> None:
    cache = fill(tmp_path)
    for folder in (tmp_path / SPACE, tmp_path / SPACE / "text", tmp_path / "index"):
        put(folder / ".1-0123456789ab.tmp")
        (folder / ".2-0123456789ab.tmp").write_bytes(b"being written")
    assert cache.prune().files == 3
    assert len(list(tmp_path.rglob(".2-*.tmp"))) == 3
    assert find_identity(cache, HUB, {}) is not None


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_every_bit_of_every_file_is_guarded(tmp_path: Path) -> None:
    cache = fill(tmp_path)
    golden = tmp_path / SPACE / "golden.safetensors"
    check_probes(OneVector(), tmp_path / SPACE)
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"]
    assert {path.suffix for path in files} == {".json", ".safetensors", ".shard"}
    assert len(files) == 4 and golden in files
    for path in files:
        before = path.read_bytes()
        places = [at for at in range(len(before)) if before[at : at + 1].strip()]
        for place in places[:: max(1, len(places) // 40)]:
            flip(path, place)
            if place < 64 and path.suffix == ".shard" and cache.verify() == []:
                assert 32 <= place  # the rest of its header is not used
            else:
                assert [damage.path for damage in cache.verify()] == [path], place
            path.write_bytes(before)
    assert cache.verify() == []


def test_damage_is_pruned_and_nothing_else(tmp_path: Path) -> None:
    cache = fill(tmp_path)
    check_probes(OneVector(), tmp_path / SPACE)
    entry = next((tmp_path / "index").glob("*.json"))
    golden = tmp_path / SPACE / "golden.safetensors"
    entry.write_text(entry.read_text().replace(SPACE, "6" + SPACE[1:]))
    flip(golden, -1)
    sizes = entry.stat().st_size + golden.stat().st_size
    removed = cache.prune()
    assert (removed.files, removed.size_bytes) == (2, sizes)
    assert not entry.exists() and not golden.exists()
    assert cache.verify() == [] and cache.spaces()[0].rows == {"text": 1}


def test_looking_after_the_cache_needs_no_torch() -> None:
    code = "import sys, modalbind.anchors.cache; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
