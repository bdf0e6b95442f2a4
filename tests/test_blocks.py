"""Blocks of embeddings: what is done stays, what has changed is done again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import toy

from modalbind import blocks, pipeline
from modalbind.errors import DataError
from modalbind.run import AlignedSpace, Run


@pytest.fixture
def run(toy_world: Path, tmp_path: Path) -> Run:
    recipe = toy.build_recipe(toy_world, train={"epochs": 1})
    return pipeline.align(recipe, out=tmp_path / "run")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The inputs of every block that was embedded."""
    seen: list[list[str]] = []
    embed = AlignedSpace.embed

    def note(self: AlignedSpace, modality: str, inputs: list[str]):
        vectors = embed(self, modality, inputs)
        seen.append([Path(name).stem for name in inputs])
        return vectors

    monkeypatch.setattr(AlignedSpace, "embed", note)
    monkeypatch.setattr(blocks, "BLOCK", 2)
    return seen


def test_a_job_goes_on_where_it_broke_off(run, toy_world, tmp_path, asked):
    files = [str(toy_world / f"{label}0.json") for label in toy.LABELS[:5]]
    broken = toy_world / f"{toy.LABELS[3]}0.json"
    content = broken.read_text()
    broken.write_text("[]")
    out = tmp_path / "out.npz"
    with pytest.raises(DataError, match="leave that file out"):
        pipeline.embed_files(run.path, "toy", files, out)
    assert asked == [["circle0", "square0"]]
    assert not out.exists()
    broken.write_text(content)
    assert pipeline.embed_files(run.path, "toy", files, out) == 5
    assert asked[1:] == [["star0", "cross0"], ["moon0"]]
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == ["out.npz"]
    found = np.load(out)
    assert found["toy"].tolist() == files
    # Whole, and by another way: each by itself.
    space = run.load()
    alone = np.concatenate([space.embed("toy", [file]).numpy() for file in files])
    np.testing.assert_allclose(found["toy_vectors"], alone, atol=1e-6)


def test_what_changed_meanwhile_is_embedded_again(run, toy_world, tmp_path, asked):
    files = [str(toy_world / f"{label}0.json") for label in toy.LABELS[:3]]
    (toy_world / "star0.json").rename(tmp_path / "star0.json")
    out = tmp_path / "out.npz"
    with pytest.raises(DataError):
        pipeline.embed_files(run.path, "toy", files, out)
    (tmp_path / "star0.json").rename(toy_world / "star0.json")
    (toy_world / "circle0.json").write_text(json.dumps([[1.0, 2.0, 3.0, 4.0]]))
    pipeline.embed_files(run.path, "toy", files, out)
    assert asked == [["circle0", "square0"], ["circle0", "square0"], ["star0"]]
    (expected,) = run.load().embed("toy", files[:1]).numpy()
    np.testing.assert_allclose(np.load(out)["toy_vectors"][0], expected, atol=1e-6)
    # Other windows are another table.
    with pytest.raises(DataError):
        pipeline.embed_files(run.path, "toy", [*files[:2], "gone.json"], out)
    asked.clear()
    changes = ("modality.options.window=2",)
    with pytest.raises(DataError):
        pipeline.embed_files(run.path, "toy", [*files[:2], "gone.json"], out, overrides=changes)
    assert asked == [["circle0", "square0"]]
