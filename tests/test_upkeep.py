"""`modalbind cache` over features and indexes of shards; over embeddings: anchors/test_upkeep."""

from __future__ import annotations

import json
import os
import tarfile
import time
from pathlib import Path

import pytest
import torch

from modalbind.cache_root import FEATURES
from modalbind.cli import main
from modalbind.data import tar_index
from modalbind.data.tar_index import index_shard
from modalbind.errors import AnchorError
from modalbind.feature_cache import FeatureCache
from modalbind.upkeep import list_contents, prune_contents, verify_contents

FRONT_END = "audio-" + "a" * 64
FOREIGN = (
    f"{FEATURES}/notes.txt",
    f"{FEATURES}/photos/{'e' * 32}.safetensors",
    f"{FEATURES}/{FRONT_END}/model.safetensors",
    f"{FEATURES}/{FRONT_END}/deeper/{'e' * 32}.safetensors",
    f"{FEATURES}/{FRONT_END}/.model.safetensors.12.tmp",
    f"{FEATURES}/{'b' * 64}/{'e' * 32}.safetensors",
    "shards/train-000.tar",
    "shards/.train-000.tar-0123456789ab.tmp",
    "shards/notes.json",
)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with features of two front ends and the index of one shard."""
    root = tmp_path / "cache"
    monkeypatch.setenv("MODALBIND_CACHE", str(root))
    features = {f"{n}": torch.full((n + 1, 2), float(n)) for n in range(3)}
    FeatureCache(root / FEATURES / FRONT_END).write(features)
    FeatureCache(root / FEATURES / f"depth-{'c' * 64}").write(features)
    shard = tmp_path / "one.tar"
    with tarfile.open(shard, "w") as tar:
        tar.add(__file__, "0.txt")
    index_shard(shard)
    return root


def ours(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


def age(path: Path, days: float = 30.0) -> None:
    os.utime(path, (time.time() - days * 86_400,) * 2)


def test_all_is_listed(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    contents = list_contents(root)
    assert [(kept.name[:6], kept.samples) for kept in contents.features] == [
        ("audio-", 3),
        ("depth-", 3),
    ]
    assert [kept.shard for kept in contents.shard_indexes] == [str(tmp_path / "one.tar")]
    listed = [*contents.features, *contents.shard_indexes]
    assert sum(kept.size_bytes for kept in listed) == sum(p.stat().st_size for p in ours(root))
    assert main(["cache"]) == 0
    shown = capsys.readouterr().out
    assert f"audio-{'a' * 16} " in shown and "samples 3" in shown and "shards 1" in shown
    assert main(["cache", "list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [kept["samples"] for kept in found["features"]] == [3, 3]


@pytest.mark.parametrize("asked", [{}, {"unused_for_s": 0.0}, {"name": "audio"}])
def test_what_is_not_ours_stays(root: Path, asked: dict[str, object]) -> None:
    for name in FOREIGN:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"mine")
        age(root / name)
    assert len(list_contents(root).features) == 2
    assert verify_contents(root) == []
    prune_contents(root, **asked)  # type: ignore[arg-type]
    assert all((root / name).read_bytes() == b"mine" for name in FOREIGN)


def test_what_is_named_goes_and_the_rest_stays(root: Path) -> None:
    before = {path: path.stat().st_size for path in ours(root)}
    removed = prune_contents(root, "audio-aa")
    gone = set(before) - set(ours(root))
    assert {path.parent.name for path in gone} == {FRONT_END}
    assert (removed.files, removed.size_bytes) == (1, sum(before[path] for path in gone))
    assert not (root / FEATURES / FRONT_END).exists()
    with pytest.raises(AnchorError, match=r"asked to remove 'audio'; .* has depth-c+; name one"):
        prune_contents(root, "audio")


def test_what_was_not_used_goes(root: Path, tmp_path: Path) -> None:
    (index,) = (root / tar_index.FOLDER).iterdir()
    age(index)
    age(root / FEATURES / FRONT_END)
    index_shard(tmp_path / "one.tar")  # used, and by that young
    prune_contents(root, unused_for_s=86_400.0)
    assert [kept.name[:6] for kept in list_contents(root).features] == ["depth-"]
    assert index.exists()
    age(index)
    assert prune_contents(root, unused_for_s=86_400.0).files == 1
    assert prune_contents(root, unused_for_s=0.0).files == 1
    assert ours(root) == [] and not (root / FEATURES).exists()


def test_damage_is_found_and_goes(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = sorted(ours(root))[1:]
    for path in damaged:
        content = bytearray(path.read_bytes())
        content[-3] ^= 4
        path.write_bytes(content)
    assert sorted(damage.path for damage in verify_contents(root)) == damaged
    assert main(["cache", "verify"]) == 1
    assert f"2 damaged files, first {damaged[0]}" in capsys.readouterr().err
    assert prune_contents(root).files == 2
    assert verify_contents(root) == [] and len(ours(root)) == 1


def test_what_a_kill_left_goes(root: Path) -> None:
    left = [
        root / FEATURES / FRONT_END / f".{'e' * 32}.safetensors.77.tmp",
        root / tar_index.FOLDER / f".{'e' * 64}.json-0123456789ab.tmp",
    ]
    for path in left:
        path.write_bytes(b"half")
    assert prune_contents(root).files == 0  # they may be being written
    for path in left:
        age(path)
    assert prune_contents(root).files == 2
    assert not any(path.exists() for path in left)
