from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from modalbind.anchors import cache as cache_module
from modalbind.anchors import open_anchor, opened
from modalbind.anchors.cache import AnchorCache
from modalbind.errors import AnchorError, AnchorMismatchError, BrokenSampleError, ModalbindError
from modalbind.types import AnchorItem


@pytest.fixture
def folder(openclip_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(openclip_folder, tmp_path / "model"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def texts(fakes: Any) -> list[AnchorItem]:
    return [fakes.text_item(f"a dog barks {number} times") for number in range(20)]


def flip_shard(root: Path) -> None:
    path = next(root.rglob("*.shard"))
    data = bytearray(path.read_bytes())
    data[-500] ^= 1
    path.write_bytes(data)


def test_cold_and_warm_give_the_same_bits(
    fakes: Any, folder: Path, root: Path, texts: list[AnchorItem]
) -> None:
    cold = fakes.open_here(f"openclip:local-dir:{folder}", root, batch_size=7)
    first = cold.embed("text", texts)
    assert (cold.computed, cold.reused) == (20, 0)
    assert first.shape == (20, cold.dim) and first.dtype == torch.float32
    torch.testing.assert_close(first.norm(dim=1), torch.ones(20))
    # another batch size would give other last bits, were it computed
    warm = fakes.open_here(f"openclip:local-dir:{folder}", root, batch_size=3)
    again = warm.embed("text", texts[::-1] + texts[:5])
    assert torch.equal(again, torch.cat([first.flip(0), first[:5]]))
    assert (warm.computed, warm.reused) == (0, 20)
    assert warm.fingerprint == cold.fingerprint
    assert cold.verify() == (cold.fingerprint, "weights")
    assert warm.verify() == (cold.fingerprint, "cache")


def test_a_warm_cache_needs_no_weights(
    fakes: Any, folder: Path, root: Path, texts: list[AnchorItem]
) -> None:
    spec = f"openclip:local-dir:{folder}"
    cold = fakes.open_here(spec, root)
    first = cold.embed("text", texts)
    shutil.rmtree(folder)
    warm = fakes.open_here(spec, root)
    assert torch.equal(warm.embed("text", texts), first)
    assert (warm.name, warm.dim, warm.modalities) == (cold.name, 12, ("text", "image"))
    with pytest.raises(AnchorError, match=r"1 are not in the cache.*'new'.*make the weights") as e:
        warm.embed("text", [*texts, fakes.text_item("new")])
    assert "\n" not in str(e.value)
    with pytest.raises(AnchorError):  # asked for weights, and there are none
        fakes.open_here(spec, root, verify="weights")


def test_equal_content_is_computed_once(
    fakes: Any, folder: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    anchor = fakes.open_here(f"openclip:local-dir:{folder}", root)
    loaded: list[str] = []

    def item(text: str) -> AnchorItem:
        def load() -> str:
            loaded.append(text)
            return text

        return AnchorItem(f"key {len(loaded)}", fakes.text_item(text).content_hash, load)

    vectors = anchor.embed("text", [item("a"), item("b"), item("a"), item("a")])
    assert sorted(loaded) == ["a", "b"]
    assert torch.equal(vectors[0], vectors[2]) and not torch.equal(vectors[0], vectors[1])
    assert anchor.computed == 2
    anchor.embed("text", [item("a")])
    assert sorted(loaded) == ["a", "b"]


def test_one_batch_is_in_memory_at_a_time(fakes: Any, folder: Path, root: Path) -> None:
    alive, most = 0, 0

    def items() -> Iterator[AnchorItem]:
        for number in range(12):

            def load(number: int = number) -> Image.Image:
                nonlocal alive, most
                alive += 1
                most = max(most, alive)
                return Image.new("RGB", (40, 40), (number, 0, 0))

            yield fakes.image_item(f"{number}.png", load)

    def progress(done: int, total: int) -> None:
        nonlocal alive
        alive = 0
        assert total == 12 and 0 <= done <= 12

    anchor = fakes.open_here(f"openclip:local-dir:{folder}", root, batch_size=4)
    assert anchor.embed("image", list(items()), progress).shape == (12, 12)
    assert most == 4


def test_progress_starts_with_what_is_there_and_ends_full(
    fakes: Any, folder: Path, root: Path, texts: list[AnchorItem]
) -> None:
    anchor = fakes.open_here(f"openclip:local-dir:{folder}", root, batch_size=5)
    anchor.embed("text", texts[:8])
    seen: list[tuple[int, int]] = []
    anchor.embed("text", texts, lambda done, total: seen.append((done, total)))
    assert seen == [(8, 20), (13, 20), (18, 20), (20, 20)]
    seen.clear()
    anchor.embed("text", texts, lambda done, total: seen.append((done, total)))
    assert seen == [(20, 20)]


def test_a_broken_item_is_named_and_costs_only_its_batch(
    fakes: Any, folder: Path, root: Path, texts: list[AnchorItem]
) -> None:
    def broken() -> str:
        raise BrokenSampleError("undecodable", "cut short")

    anchor = fakes.open_here(f"openclip:local-dir:{folder}", root, batch_size=4)
    bad = AnchorItem("bad.png", b"\xff" * 32, broken)
    with pytest.raises(BrokenSampleError, match=r"bad\.png: cut short"):
        anchor.embed("text", [*texts, bad])
    assert anchor.computed >= 16
    assert list(root.rglob("*.shard"))
    warm = fakes.open_here(f"openclip:local-dir:{folder}", root)
    warm.embed("text", texts)
    assert warm.reused >= 16


def test_work_is_kept_every_so_many_items(
    fakes: Any, folder: Path, root: Path, texts: list[AnchorItem], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opened, "SHARD_ITEMS", 6)
    monkeypatch.setattr(cache_module, "MAX_SMALL_SHARDS", 100)
    anchor = fakes.open_here(f"openclip:local-dir:{folder}", root, batch_size=3)
    anchor.embed("text", texts)
    assert len(list(root.rglob("*.shard"))) == 4  # 6 + 6 + 6 + 2


def test_a_flipped_byte_is_computed_again_if_it_can_be(
    fakes: Any, folder: Path, root: Path, texts: list[AnchorItem]
) -> None:
    spec = f"openclip:local-dir:{folder}"
    first = fakes.open_here(spec, root, batch_size=20).embed("text", texts)
    flip_shard(root)
    again = fakes.open_here(spec, root, batch_size=20)
    torch.testing.assert_close(again.embed("text", texts), first, atol=1e-6, rtol=0)
    assert again.computed == 20
    assert len(list(root.rglob("*.damaged"))) == 1
    flip_shard(root)
    shutil.rmtree(folder)
    with pytest.raises(AnchorError, match=r"checksum.*cannot be opened"):
        fakes.open_here(spec, root).embed("text", texts)
    assert len(list(root.rglob("*.shard"))) == 1  # not thrown away while nothing can replace it


def test_changed_files_are_a_new_space(
    fakes: Any, folder: Path, root: Path, texts: list[AnchorItem], tmp_path: Path
) -> None:
    spec = f"openclip:local-dir:{folder}"
    before = fakes.open_here(spec, root)
    first = before.embed("text", texts)
    shutil.rmtree(folder)
    fakes.save_openclip(folder, seed=1)
    after = fakes.open_here(spec, root)
    assert after.fingerprint != before.fingerprint
    assert not torch.allclose(after.embed("text", texts), first, atol=1e-3)


def test_weights_that_changed_under_an_open_run_are_refused(
    fakes: Any, folder: Path, root: Path, texts: list[AnchorItem]
) -> None:
    spec = f"openclip:local-dir:{folder}"
    fakes.open_here(spec, root).embed("text", texts[:3])
    warm = fakes.open_here(spec, root)
    warm.embed("text", texts[:3])
    shutil.rmtree(folder)
    fakes.save_openclip(folder, seed=1)
    with pytest.raises(AnchorMismatchError, match=r"anchor\.verify=weights"):
        warm.embed("text", texts)


def test_touched_files_are_the_same_space(
    fakes: Any, folder: Path, root: Path, texts: list[AnchorItem]
) -> None:
    spec = f"openclip:local-dir:{folder}"
    fakes.open_here(spec, root).embed("text", texts)
    (folder / "open_clip_model.safetensors").touch()
    again = fakes.open_here(spec, root)
    again.embed("text", texts)
    assert again.computed == 0
    assert again.verify()[1] == "weights"


def test_verify_weights_opens_them(
    fakes: Any, folder: Path, root: Path, texts: list[AnchorItem]
) -> None:
    spec = f"openclip:local-dir:{folder}"
    cold = fakes.open_here(spec, root)
    cold.embed("text", texts)
    asked = fakes.open_here(spec, root, verify="weights")
    asked.embed("text", texts)
    assert asked.computed == 0
    assert asked.verify() == (cold.fingerprint, "weights")


def test_drift_of_the_maths_is_refused(
    fakes: Any, folder: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modalbind.anchors.openclip import OpenClipSpace

    spec = f"openclip:local-dir:{folder}"
    fakes.open_here(spec, root)
    plain = OpenClipSpace._encode_texts

    def other_maths(self: Any, texts: list[str]) -> torch.Tensor:
        vectors = plain(self, texts)
        return vectors + 1e-2 * vectors.roll(1, dims=-1)

    monkeypatch.setattr(OpenClipSpace, "_encode_texts", other_maths)
    fakes.open_here(spec, root)  # the weights are not opened, so nothing is computed
    with pytest.raises(AnchorError, match=r"text embeddings moved by .*cache prune"):
        fakes.open_here(spec, root, verify="weights")


def test_a_table_needs_no_cache(fakes: Any, tmp_path: Path, root: Path) -> None:
    vectors = np.eye(3, dtype=np.float32)
    np.savez(
        tmp_path / "t.npz", text=["a", "b", "c"], text_vectors=vectors, space="s", normalised=True
    )
    anchor = fakes.open_here(f"precomputed:{tmp_path / 't.npz'}", root)
    found = anchor.embed("text", [fakes.text_item(key) for key in "cabc"])
    np.testing.assert_array_equal(found.numpy(), vectors[[2, 0, 1, 2]])
    assert anchor.verify() == (anchor.fingerprint, "table")
    assert (anchor.computed, anchor.reused) == (0, 3)
    assert not root.exists()
    with pytest.raises(AnchorError, match="holds text"):
        anchor.embed("image", [fakes.text_item("a")])
    assert anchor.embed("text", []).shape == (0, 3)


def test_a_damaged_entry_is_written_anew(
    fakes: Any, folder: Path, root: Path, texts: list[AnchorItem]
) -> None:
    spec = f"openclip:local-dir:{folder}"
    cold = fakes.open_here(spec, root)
    first = cold.embed("text", texts)
    [entry] = (root / "index").glob("*.json")
    before = entry.read_text()
    wrong = ("1" if cold.fingerprint[0] == "0" else "0") + cold.fingerprint[1:]
    entry.write_text(before.replace(cold.fingerprint, wrong))
    again = fakes.open_here(spec, root)
    assert (again.fingerprint, again.verify()[1]) == (cold.fingerprint, "weights")
    assert torch.equal(again.embed("text", texts), first) and again.computed == 0
    assert entry.read_text() == before
    entry.write_text(before.replace(cold.fingerprint, wrong))
    shutil.rmtree(folder)
    with pytest.raises(AnchorError, match=r"a wrong checksum in .*cannot be opened.*once$") as e:
        fakes.open_here(spec, root)
    assert str(entry) in str(e.value) and "\n" not in str(e.value)
    entry.write_text(before)
    assert torch.equal(fakes.open_here(spec, root).embed("text", texts), first)


def test_options_and_kind_are_checked(fakes: Any, root: Path) -> None:
    from modalbind.recipe.schema import AnchorSection

    section = AnchorSection(spec="openclip:world")
    with pytest.raises(AnchorError, match="kind 'openclip'"):
        open_anchor(section, fakes.spec_of("transformers"), AnchorCache(root))
    section = AnchorSection(spec="openclip:world", options={"poling": "mean"})
    with pytest.raises(ValueError, match="poling"):
        open_anchor(section, fakes.spec_of("openclip"), AnchorCache(root))


def test_a_read_only_cache_serves(
    fakes: Any, folder: Path, root: Path, texts: list[AnchorItem], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = f"openclip:local-dir:{folder}"
    first = fakes.open_here(spec, root).embed("text", texts)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "read-only")

    monkeypatch.setattr("os.utime", refuse)
    monkeypatch.setattr(cache_module, "FileLock", refuse)
    assert torch.equal(fakes.open_here(spec, root).embed("text", texts), first)


def test_a_folder_that_may_not_be_written_is_told(fakes: Any, folder: Path, root: Path) -> None:
    root.write_text("a file where the cache should be")
    with pytest.raises(ModalbindError, match=r"asked to store .*MODALBIND_CACHE") as caught:
        fakes.open_here(f"openclip:local-dir:{folder}", root)
    assert "\n" not in str(caught.value)
