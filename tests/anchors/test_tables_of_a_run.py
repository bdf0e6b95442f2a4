"""A run stays with the tables that it was aligned to, judged by what they say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy

from modalbind import pipeline
from modalbind.anchors.opened import OpenAnchor
from modalbind.errors import AnchorMismatchError, CorruptFileError
from modalbind.run import load
from modalbind.rundir import RunDirectory


def read(path: Path) -> dict[str, Any]:
    with np.load(path) as table:
        return dict(table)


def roll(path: Path) -> None:
    """Give each text of a table the vector of its neighbour."""
    fields = read(path)
    np.savez(path, **{**fields, "text_vectors": np.roll(fields["text_vectors"], 1, axis=0)})


def save_safetensors(path: Path, fields: dict[str, Any]) -> Path:
    from safetensors.numpy import save_file

    tensors = {name: value for name, value in fields.items() if name.endswith("_vectors")}
    words = {n: json.dumps(v.tolist()) for n, v in fields.items() if n not in tensors}
    save_file(tensors, path, {**words, "space": str(fields["space"])})
    return path


def save_other(path: Path, space: Any) -> Path:
    vectors = np.eye(1, toy.DIM, dtype=np.float32)
    np.savez(path, text=["more"], text_vectors=vectors, space=space, normalised=True)
    return path


def test_a_swapped_table_is_refused_by_evaluate(toy_world: Path, tmp_path: Path) -> None:
    recipe = toy.build_recipe(toy_world, train={"max_steps": 2})
    run = pipeline.align(recipe, out=tmp_path / "run")
    pipeline.evaluate(run.path)
    roll(toy_world / "space.npz")
    said = r"run .*run is bound to table space\.npz \(\w{16}\); .* now; restore the table"
    with pytest.raises(AnchorMismatchError, match=said) as caught:
        pipeline.evaluate(run.path)
    assert "\n" not in str(caught.value)
    with pytest.raises(AnchorMismatchError, match=said):
        pipeline.verify_anchor(run.path)
    with pytest.raises(AnchorMismatchError, match=said):
        load(run.path).embed("text", ["a star"])


def test_a_swapped_table_is_refused_by_resume(
    toy_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(self: RunDirectory, result: object) -> None:
        raise KeyboardInterrupt

    recipe = toy.build_recipe(toy_world)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RunDirectory, "log_step", stop)
        pipeline.align(recipe, out=tmp_path / "run")
    before = read(toy_world / "space.npz")
    roll(toy_world / "space.npz")
    with pytest.raises(AnchorMismatchError, match=r"restore the table"):
        pipeline.align(recipe, out=tmp_path / "run", resume=True)
    np.savez_compressed(toy_world / "space.npz", **before)  # other bytes that say the same
    pipeline.align(recipe, out=tmp_path / "run", resume=True)


def test_a_run_from_before_tables_were_recorded_opens(toy_world: Path, tmp_path: Path) -> None:
    run = pipeline.align(toy.build_recipe(toy_world, train={"max_steps": 2}), out=tmp_path / "run")
    file = run.path / "run.json"
    identity = json.loads(file.read_text())
    [(name, content)] = identity["anchor"].pop("tables")
    assert name == "space.npz" and len(content) == 64
    file.write_text(json.dumps(identity))
    roll(toy_world / "space.npz")
    pipeline.evaluate(run.path)


def test_a_run_that_lost_its_fingerprint_is_damaged(toy_world: Path, tmp_path: Path) -> None:
    run = pipeline.align(toy.build_recipe(toy_world, train={"max_steps": 2}), out=tmp_path / "run")
    file = run.path / "run.json"
    identity = json.loads(file.read_text())
    del identity["anchor"]["fingerprint"]
    file.write_text(json.dumps(identity))
    with pytest.raises(CorruptFileError, match=r"run\.json .*fingerprint"):
        pipeline.evaluate(run.path)


def bound_to(anchor: OpenAnchor) -> dict[str, Any]:
    """What a run.json says of an anchor, after a round trip."""
    found = {"fingerprint": anchor.fingerprint, "tables": anchor.tables}
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


def test_tables_are_known_by_content(fakes: Any, toy_world: Path, tmp_path: Path) -> None:
    def opened(*paths: Path) -> OpenAnchor:
        anchor: OpenAnchor = fakes.open_here(f"precomputed:{','.join(map(str, paths))}", tmp_path)
        return anchor

    first = toy_world / "space.npz"
    fields = read(first)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    second = save_other(elsewhere / "a.npz", fields["space"])
    both = opened(first, second)
    assert [name for name, _ in both.tables] == ["a.npz", "space.npz"]
    assert both.tables == opened(second, first).tables, "whatever order they are named in"
    moved = opened(Path(shutil.copy(first, elsewhere)))
    again = opened(save_safetensors(tmp_path / "again.safetensors", fields))
    for anchor in (both, moved, again):
        anchor.check_bound(tmp_path, bound_to(opened(first)))
    with pytest.raises(AnchorMismatchError, match=r"bound to table a\.npz .* has space\.npz"):
        opened(first).check_bound(tmp_path, bound_to(both))
    roll(first)
    assert opened(first).fingerprint == both.fingerprint
    with pytest.raises(AnchorMismatchError, match=r"bound to table space\.npz"):
        opened(first, second).check_bound(tmp_path, bound_to(both))


def test_two_tables_of_one_file_name_are_two(fakes: Any, toy_world: Path, tmp_path: Path) -> None:
    first = toy_world / "space.npz"
    second = save_other(tmp_path / "space.npz", read(first)["space"])
    anchor = fakes.open_here(f"precomputed:{first},{second}", tmp_path)
    assert [name for name, _ in anchor.tables] == ["space.npz", "space.npz"]
    alone = fakes.open_here(f"precomputed:{first}", tmp_path)
    with pytest.raises(AnchorMismatchError):
        alone.check_bound(tmp_path, bound_to(anchor))


def test_a_space_with_weights_has_no_tables(
    fakes: Any, openclip_folder: Path, tmp_path: Path
) -> None:
    spec = f"openclip:local-dir:{openclip_folder}"
    for _ in ("opened", "known to the cache"):
        anchor = fakes.open_here(spec, tmp_path / "cache")
        assert anchor.tables == ()
        anchor.check_bound(tmp_path, bound_to(anchor))
