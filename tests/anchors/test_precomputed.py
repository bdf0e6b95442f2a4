from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from modalbind.anchors.options import PrecomputedOptions
from modalbind.anchors.precomputed import PrecomputedSpace, build
from modalbind.anchors.tables import read_table
from modalbind.errors import AnchorError, AnchorMismatchError
from modalbind.types import AnchorItem

KEYS = ["A frog.", "Rana", "Rana", "Kuh"]
LANGUAGES = ["en", "es", "it", "de"]


def unit(rows: int, dim: int = 5, seed: int = 0) -> NDArray[np.float32]:
    raw = np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)
    return raw / np.linalg.norm(raw, axis=1, keepdims=True)


def fields(**changes: Any) -> dict[str, Any]:
    usual = {
        "text": KEYS,
        "text_language": LANGUAGES,
        "text_vectors": unit(4).astype(np.float16),
        "image": ["img/0.png", "img/1.png"],
        "image_vectors": unit(2, seed=1).astype(np.float16),
        "space": "some-space",
        "normalised": True,
    }
    return {key: value for key, value in {**usual, **changes}.items() if value is not None}


def save(path: Path, **changes: Any) -> Path:
    content = fields(**changes)
    if path.suffix == ".npz":
        np.savez(path, **content)
    elif path.suffix == ".parquet":
        _save_parquet(path, content)
    else:
        from safetensors.numpy import save_file

        tensors = {k: v for k, v in content.items() if k.endswith("_vectors")}
        words = {
            k: v if isinstance(v, str) else json.dumps(v)
            for k, v in content.items()
            if k not in tensors
        }
        save_file(tensors, path, metadata=words)
    return path


def _save_parquet(path: Path, content: dict[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    most = max(len(v) for k, v in content.items() if k.endswith("_vectors"))
    columns = {
        name: list(value) + [None] * (most - len(value))
        for name, value in content.items()
        if name not in ("space", "normalised")
    }
    for name, value in columns.items():
        if name.endswith("_vectors"):
            rows = [None if v is None else v.astype(np.float32).tolist() for v in value]
            columns[name] = pa.array(rows, pa.list_(pa.float32()))
    table = pa.table(columns)
    metadata = {"space": content["space"], "normalised": str(content["normalised"])}
    pq.write_table(table.replace_schema_metadata(metadata), path)


def item(key: str, language: str | None = None) -> AnchorItem:
    def load() -> str:
        raise AssertionError("a table needs no content")

    return AnchorItem(key, bytes(32), load, language)


def opened(*paths: Path, centre: bool = False) -> PrecomputedSpace:
    source = ",".join(str(path) for path in paths)
    return build(source, None, PrecomputedOptions(centre=centre))


@pytest.mark.parametrize("suffix", [".npz", ".parquet", ".safetensors"])
def test_every_format_says_the_same(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"table{suffix}")
    space = opened(path)
    assert (space.name, space.dim, space.modalities) == ("some-space", 5, ("image", "text"))
    found = space.encode("text", [item("Kuh"), item("A frog."), item("Kuh")])
    np.testing.assert_allclose(found.numpy(), unit(4)[[3, 0, 3]], atol=1e-3)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3), atol=1e-6, rtol=0)
    assert found.dtype == torch.float32
    found = space.encode("image", [item("img/1.png")])
    np.testing.assert_allclose(found.numpy(), unit(2, seed=1)[1:], atol=1e-3)
    assert read_table(path).hash_content() == read_table(save(tmp_path / "n.npz")).hash_content()
    assert space.encode("text", []).shape == (0, 5)


def test_language_decides_where_vectors_differ(tmp_path: Path) -> None:
    space = opened(save(tmp_path / "t.npz"))
    spanish, italian = space.encode("text", [item("Rana", "es"), item("Rana", "it")])
    np.testing.assert_allclose(spanish.numpy(), unit(4)[1], atol=1e-3)
    np.testing.assert_allclose(italian.numpy(), unit(4)[2], atol=1e-3)
    with pytest.raises(AnchorError, match="es, it"):
        space.encode("text", [item("Rana", "ro")])
    with pytest.raises(AnchorError, match="es, it"):
        space.encode("text", [item("Rana")])
    # one language, or one vector: whoever asks gets it
    assert len(space.encode("text", [item("Kuh", "nl"), item("Kuh")])) == 2
    same = np.repeat(unit(1), 4, axis=0)
    assert len(opened(save(tmp_path / "s.npz", text_vectors=same)).encode("text", [item("Rana")]))


def test_missing_keys_are_counted_and_the_nearest_named(tmp_path: Path) -> None:
    space = opened(save(tmp_path / "t.npz"))
    asked = [item("A frog."), item("A frogs."), item("cow"), item("A frogs.")]
    with pytest.raises(AnchorError, match=r"3 text keys; 2 are not .*'A frogs\.'.*'A frog\.'"):
        space.encode("text", asked)
    with pytest.raises(AnchorError, match="holds image, text"):
        space.encode("audio", asked)


def test_tables_of_one_space_combine(tmp_path: Path) -> None:
    first = save(tmp_path / "a.npz")
    more = {"text": ["Kuh", "Hund"], "text_language": ["de", "de"], "image": None}
    vectors = np.stack([unit(4)[3] + 2e-4, unit(1, seed=5)[0]])
    second = save(tmp_path / "b.npz", **more, image_vectors=None, text_vectors=vectors)
    space = opened(first, second)
    found = space.encode("text", [item("Hund"), item("Kuh"), item("A frog.")])
    np.testing.assert_allclose(found[0].numpy(), unit(1, seed=5)[0], atol=1e-6)
    assert len(space.content_hashes) == 2
    assert space.compute_fingerprint() == opened(first).compute_fingerprint()


def test_repeated_keys_must_agree(tmp_path: Path) -> None:
    first = save(tmp_path / "a.npz")
    moved = unit(4)
    moved[3] = unit(1, seed=9)[0]
    second = save(tmp_path / "b.npz", text_vectors=moved)
    with pytest.raises(AnchorError, match=r"'Kuh'.*a\.npz.*b\.npz"):
        opened(first, second)


@pytest.mark.parametrize(
    "change",
    [
        {"space": "another"},
        {"normalised": False},
        {"text_vectors": unit(4, 6), "image_vectors": unit(2, 6)},
    ],
)
def test_different_spaces_never_combine(tmp_path: Path, change: dict[str, Any]) -> None:
    first, second = save(tmp_path / "a.npz"), save(tmp_path / "b.npz", **change)
    with pytest.raises(AnchorMismatchError, match=r"a\.npz.*b\.npz"):
        opened(first, second)
    assert opened(first).compute_fingerprint() != opened(second).compute_fingerprint()


def test_centring_is_another_space(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = (rng.standard_normal((4, 5)) + 3).astype(np.float32)
    path = save(tmp_path / "a.npz", text_vectors=vectors, normalised=False)
    centred = opened(path, centre=True)
    normed = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = normed - normed.mean(axis=0)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    asked = [item(key, language) for key, language in zip(KEYS, LANGUAGES, strict=True)]
    np.testing.assert_allclose(centred.encode("text", asked).numpy(), expected, atol=1e-6)
    assert centred.compute_fingerprint() != opened(path).compute_fingerprint()
    other = save(tmp_path / "b.npz", text_vectors=vectors[::-1].copy(), normalised=False)
    assert centred.compute_fingerprint() != opened(other, centre=True).compute_fingerprint()


def test_vectors_that_move_in_memory_are_noticed(tmp_path: Path) -> None:
    space = opened(save(tmp_path / "t.npz"))
    space.encode("text", [item("Kuh")]).zero_()  # a copy: the caller may do with it what it likes
    before = space.compute_fingerprint()
    assert space.compute_fingerprint() == before
    space._rows["text"].vectors[0, 0] += 1e-3
    with pytest.raises(AnchorMismatchError, match="have changed"):
        space.compute_fingerprint()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"space": None}, "lacks space"),
        ({"normalised": None}, "lacks normalised"),
        ({"text": None}, "lacks text"),
        ({"text_vectors": None, "image_vectors": None}, "any vectors"),
        ({"text": KEYS[:3]}, "3 keys"),
        ({"text_language": ["en"]}, "1 languages"),
        ({"text_vectors": np.zeros((4, 5), np.float32)}, "4 are zero or not finite.*'A frog.'"),
        ({"text_vectors": np.full((4, 5), np.nan, np.float32)}, "not finite"),
        ({"text_vectors": unit(4, 7)}, "mixes dims"),
    ],
)
def test_tables_that_contradict_themselves(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(AnchorError, match=said):
        opened(save(tmp_path / "t.npz", **change))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(AnchorError, match="no such file"):
        opened(tmp_path / "gone.npz")
    with pytest.raises(AnchorError, match="suffix"):
        opened(tmp_path / "table.csv")
    for suffix in (".npz", ".parquet", ".safetensors"):
        path = tmp_path / f"junk{suffix}"
        path.write_bytes(b"not a table at all")
        with pytest.raises(AnchorError, match="write it anew") as caught:
            opened(path)
        assert "\n" not in str(caught.value)
    np.savez(tmp_path / "pickle.npz", **fields(text=np.array(KEYS, dtype=object)))
    with pytest.raises(AnchorError, match="allow_pickle=False"):
        opened(tmp_path / "pickle.npz")
    with pytest.raises(AnchorError, match="no file"):
        build(",", None, PrecomputedOptions())
    with pytest.raises(AnchorError, match="no tag"):
        build("a.npz", "v1", PrecomputedOptions())


@pytest.fixture
def spaces_folder() -> Path:
    folder = os.environ.get("MODALBIND_TEST_DATA")
    if not folder:
        pytest.skip("MODALBIND_TEST_DATA does not name the folder of real data")
    return Path(folder) / "spaces"


@pytest.mark.data
@pytest.mark.parametrize(("name", "dim"), [("use", 512), ("e5", 384), ("minilm", 384)])
def test_real_tables(spaces_folder: Path, name: str, dim: int) -> None:
    paths = (spaces_folder / f"{name}.npz", spaces_folder / f"corpus_{name}.npz")
    space = opened(*paths)
    assert (space.dim, space.modalities) == (dim, ("image", "text"))
    with np.load(paths[0]) as raw:
        keys, languages = raw["text"].tolist(), raw["text_language"].tolist()
        expected = raw["text_vectors"].astype(np.float32)
    asked = [item(key, language) for key, language in zip(keys, languages, strict=True)]
    np.testing.assert_allclose(space.encode("text", asked).numpy(), expected, atol=1e-3)
    assert space.compute_fingerprint() == opened(paths[1]).compute_fingerprint()
