"""Files below one root: nothing leaves it, and items are known by their content."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from PIL import Image

from modalbind.data.files import FileDataset, hash_file, join_inside, relative_key, text_item
from modalbind.errors import AnchorError, BrokenSampleError, ManifestError


def test_a_path_below_the_root_is_joined(tmp_path: Path) -> None:
    assert join_inside(tmp_path, "a/b.wav") == tmp_path / "a/b.wav"
    assert join_inside(tmp_path, "a/../b.wav") == tmp_path / "a/../b.wav"


@pytest.mark.parametrize("key", ["../x.wav", "a/../../x.wav", "/etc/passwd", "a\0b", ".."])
def test_a_path_that_leaves_the_root_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(ManifestError, match="outside the data root"):
        join_inside(tmp_path, key)


def test_an_absolute_path_below_the_root_is_the_relative_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert join_inside(tmp_path, f"{tmp_path}/a/x.wav") == tmp_path / "a/x.wav"
    assert relative_key(tmp_path, f"{tmp_path}/a/x.wav") == "a/x.wav"
    assert relative_key(tmp_path, "a/x.wav") == "a/x.wav"
    assert relative_key(tmp_path / "b", f"{tmp_path}/bc/x.wav") == f"{tmp_path}/bc/x.wav"
    monkeypatch.chdir(tmp_path)
    assert relative_key(Path("b"), f"{tmp_path}/b/x.wav") == "x.wav"
    with pytest.raises(ManifestError, match="relative to the root"):
        join_inside(tmp_path, f"{tmp_path}/../x.wav")
    (tmp_path / "away").symlink_to("/etc")
    with pytest.raises(ManifestError, match="outside the data root"):
        join_inside(tmp_path, f"{tmp_path}/away/passwd")


def test_links_may_point_inside_only(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (root / "real.wav").write_bytes(b"1")
    (root / "inner.wav").symlink_to(root / "real.wav")
    (root / "away").symlink_to(outside)
    (root / "loop").symlink_to(root / "loop")
    assert join_inside(root, "inner.wav") == root / "inner.wav"
    with pytest.raises(ManifestError, match=r"away/x.wav"):
        join_inside(root, "away/x.wav")
    with pytest.raises(ManifestError, match=r"loop/x.wav"):
        join_inside(root, "loop/x.wav")


def test_a_root_that_is_a_link_itself_is_no_escape(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert join_inside(tmp_path / "link", "a.wav") == tmp_path / "link/a.wav"


def test_hash_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert hash_file(tmp_path / "a").hex().startswith("ba7816bf")  # FIPS 180-2, appendix B.1
    with pytest.raises(BrokenSampleError) as caught:
        hash_file(tmp_path / "b")
    assert caught.value.reason == "missing"


def test_text_items_know_content_and_language() -> None:
    item = text_item("ein Hund", "de")
    assert (item.key, item.load(), item.language) == ("ein Hund", "ein Hund", "de")
    assert item.content_hash == hashlib.sha256(b"ein Hund").digest()


def test_picture_items_hash_content_or_else_their_name(tmp_path: Path) -> None:
    dataset = FileDataset("d", "", tmp_path, ())
    for name in ("a.png", "b.png"):
        Image.new("RGB", (2, 2), "red").save(tmp_path / name)
    first, second = dataset.anchor_item("image", "a.png"), dataset.anchor_item("image", "b.png")
    assert first.key != second.key and first.content_hash == second.content_hash
    assert first.load().getpixel((0, 0)) == (255, 0, 0)
    assert dataset.anchor_item("image", f"{tmp_path}/a.png").key == "a.png"
    absent = dataset.anchor_item("image", "none.png")
    assert absent.content_hash == hashlib.sha256(b"none.png").digest()
    with pytest.raises(BrokenSampleError, match="missing"):
        absent.load()


def test_an_unknown_side_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AnchorError, match="depth"):
        FileDataset("d", "", tmp_path, ()).anchor_item("depth", "x")
    with pytest.raises(ManifestError, match="outside"):
        FileDataset("d", "", tmp_path, ()).anchor_item("image", "../x.png")
