from __future__ import annotations

import json
from pathlib import Path

import pytest

from modalbind.anchors.cache import AnchorCache
from modalbind.anchors.index import Identity, find_identity, stamp_files, store_identity
from modalbind.anchors.shards import DamagedFileError
from modalbind.anchors.spec import AnchorName
from modalbind.anchors.upkeep import INDEX, SPACE_NOTE

HUB = AnchorName("openclip", "ViT-B-32", "openai")


def identity(name: AnchorName, fingerprint: str = "a" * 64) -> Identity:
    return Identity(fingerprint, "a space", 8, ("text", "image"), stamp_files(name))


@pytest.fixture
def cache(tmp_path: Path) -> AnchorCache:
    return AnchorCache(tmp_path / "cache")


@pytest.fixture
def local(tmp_path: Path) -> AnchorName:
    folder = tmp_path / "model"
    (folder / "inner").mkdir(parents=True)
    (folder / "weights").write_bytes(b"12345")
    (folder / "inner/config").write_bytes(b"{}")
    return AnchorName("openclip", f"local-dir:{folder}", None)


def folder_of(name: AnchorName) -> Path:
    return Path(name.source.removeprefix("local-dir:"))


def test_round_trip(cache: AnchorCache) -> None:
    assert find_identity(cache, HUB, {}) is None
    store_identity(cache, HUB, {}, identity(HUB))
    assert find_identity(AnchorCache(cache.root), HUB, {}) == identity(HUB)
    [space] = cache.spaces()
    assert (space.fingerprint, space.name, space.rows) == ("a" * 64, "a space", {})


def test_other_tags_and_options_are_other_entries(cache: AnchorCache) -> None:
    store_identity(cache, HUB, {"pooling": "mean"}, identity(HUB))
    assert find_identity(cache, HUB, {"pooling": "cls"}) is None
    assert find_identity(cache, HUB._replace(tag="laion2b"), {"pooling": "mean"}) is None
    assert find_identity(cache, HUB, {"pooling": "mean"}) is not None


def test_files_that_change_or_come_make_it_stale(cache: AnchorCache, local: AnchorName) -> None:
    for change in ("weights", "inner/config", "new file"):
        store_identity(cache, local, {}, identity(local))
        assert find_identity(cache, local, {}) is not None
        with (folder_of(local) / change).open("ab") as file:
            file.write(b"6")
        assert find_identity(cache, local, {}) is None


def test_files_that_are_gone_do_not(cache: AnchorCache, local: AnchorName) -> None:
    store_identity(cache, local, {}, identity(local))
    (folder_of(local) / "weights").unlink()
    assert find_identity(cache, local, {}) is not None


def test_a_file_of_weights_is_stamped(cache: AnchorCache, tmp_path: Path) -> None:
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"1")
    name = HUB._replace(tag=str(weights))
    store_identity(cache, name, {}, identity(name))
    assert find_identity(cache, name, {}) is not None
    weights.write_bytes(b"22")
    assert find_identity(cache, name, {}) is None


def test_the_same_words_elsewhere_are_another_space(
    cache: AnchorCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = AnchorName("openclip", "local-dir:model", None)
    for place in ("one", "two"):
        (tmp_path / place / "model").mkdir(parents=True)
        monkeypatch.chdir(tmp_path / place)
        assert find_identity(cache, name, {}) is None
        store_identity(cache, name, {}, identity(name))


def entry_of(cache: AnchorCache) -> Path:
    [entry] = (cache.root / INDEX).glob("*.json")
    return entry


@pytest.mark.parametrize("content", ["", "{", "[]", '"text"', '{"fingerprint": "x"}'])
def test_junk_is_no_entry(cache: AnchorCache, content: str) -> None:
    store_identity(cache, HUB, {}, identity(HUB))
    assert json.loads(entry_of(cache).read_text())["name"] == "a space"
    entry_of(cache).write_text(content)
    with pytest.raises(DamagedFileError, match="no checksum"):
        find_identity(cache, HUB, {})
    store_identity(cache, HUB, {}, identity(HUB))
    assert find_identity(cache, HUB, {}) == identity(HUB)


@pytest.mark.parametrize(
    ("written", "now"), [("aaaa", "aaab"), ("a space", "b space"), (": 8", ": 9"), ("text", "test")]
)
def test_one_wrong_letter_is_noticed(cache: AnchorCache, written: str, now: str) -> None:
    store_identity(cache, HUB, {}, identity(HUB))
    text = entry_of(cache).read_text()
    assert written in text
    entry_of(cache).write_text(text.replace(written, now, 1))
    with pytest.raises(DamagedFileError, match="a wrong checksum"):
        find_identity(cache, HUB, {})


def test_a_note_of_a_space_that_was_pruned_comes_back(cache: AnchorCache) -> None:
    store_identity(cache, HUB, {}, identity(HUB))
    note = cache.folder("a" * 64) / SPACE_NOTE
    before = note.read_bytes()
    note.write_bytes(before.replace(b"a space", b"b space"))
    assert cache.prune().files == 1 and not note.exists()
    assert find_identity(cache, HUB, {}) == identity(HUB)
    assert note.read_bytes() == before


def test_pruning_a_space_forgets_its_specs(cache: AnchorCache) -> None:
    store_identity(cache, HUB, {}, identity(HUB))
    store_identity(cache, HUB._replace(tag="x"), {}, identity(HUB, "b" * 64))
    cache.prune(fingerprint="aaaa")
    assert find_identity(cache, HUB, {}) is None
    assert find_identity(cache, HUB._replace(tag="x"), {}) is not None
