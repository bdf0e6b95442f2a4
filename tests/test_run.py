"""Finished runs: opened anywhere, bound to one anchor, refused when damaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toy
from PIL import Image

from modalbind import pipeline
from modalbind.checkpoint import decode_tensors
from modalbind.errors import (
    AnchorError,
    AnchorMismatchError,
    BrokenSampleError,
    CorruptFileError,
    InputError,
    RecipeError,
    RunError,
    UnknownModalityError,
)
from modalbind.run import AlignedSpace, Run, find_run, load
from modalbind.rundir import RunDirectory


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a world and a finished run, made once."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "world").mkdir()
    toy.write_world(folder / "world")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(toy.PLUGIN))
        patch.setenv("MODALBIND_PLUGINS", "toy")
        recipe = toy.build_recipe(folder / "world", train={"max_steps": 6})
        pipeline.align(recipe, out=folder / "run")
    return folder


@pytest.fixture
def world(finished: Path, toy_world: Path) -> Iterator[Path]:
    """The world of the finished run, its vectors put back afterwards; the toy is installed."""
    space = finished / "world/space.npz"
    before = space.read_bytes()
    yield finished / "world"
    space.write_bytes(before)


@pytest.fixture
def run(finished: Path, world: Path, tmp_path: Path) -> Run:
    shutil.copytree(finished / "run", tmp_path / "run")
    return Run(tmp_path / "run")


def files(world: Path) -> list[str]:
    return [str(world / name) for name in ("star0.json", "moon1.json", "cross2.json")]


def test_a_run_opens_into_a_space_of_all_its_modalities(run: Run, world: Path) -> None:
    space = run.load()
    assert set(space.modalities) == {"text", "image", "toy"} and space.modalities[-1] == "toy"
    found = space.embed("toy", files(world))
    assert found.shape == (3, toy.DIM) and found.dtype == torch.float32
    assert torch.allclose(found.norm(dim=1), torch.ones(3), atol=1e-6)
    assert torch.equal(found, load(run.path).embed("toy", [Path(f) for f in files(world)]))


def test_all_modalities_are_embedded_alike(run: Run, world: Path) -> None:
    space = run.load()
    with np.load(world / "space.npz") as table:
        texts = dict(zip(table["text"].tolist(), table["text_vectors"], strict=True))
        images = dict(zip(table["image"].tolist(), table["image_vectors"], strict=True))
    text = space.embed("text", ["a star", "a moon"])
    image = space.embed("image", ["star.png"])
    assert np.allclose(text, [texts["a star"], texts["a moon"]], atol=1e-6)
    assert np.allclose(image, [images["star.png"]], atol=1e-6)
    expected = [[float(images["star.png"] @ texts[t]) for t in ("a star", "a moon")]]
    assert np.allclose(space.similarity(image, text), expected, atol=1e-5)


def test_what_the_anchor_does_not_hold_is_named(run: Run) -> None:
    space = run.load()
    with pytest.raises(AnchorError, match="a unicorn"):
        space.embed("text", ["a unicorn"])
    with pytest.raises(AnchorError):
        space.embed("image", [Image.new("RGB", (2, 2))])
    with pytest.raises(InputError, match="texts asked for; found int"):
        space.embed("text", [3])


def test_an_unknown_modality_lists_what_there_is(run: Run) -> None:
    with pytest.raises(UnknownModalityError, match=r"'depth' asked for; this space embeds .*toy"):
        run.load().embed("depth", ["x"])
    with pytest.raises(UnknownModalityError, match="embeds toy; name one"):
        run.load().embed_windows("text", "x")


def test_nothing_to_embed_is_an_empty_table(run: Run) -> None:
    for modality in ("toy", "text", "image"):
        assert run.load().embed(modality, []).shape == (0, toy.DIM)


def test_a_long_sample_is_the_mean_of_its_windows(run: Run, world: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(19, 4)).tolist()  # windows are 8 long
    path = world / "long.json"
    path.write_text(json.dumps(rows))
    space = run.load()
    windows = space.embed_windows("toy", path)
    assert [(start, end) for start, end, _ in windows] == [(0, 8), (8, 16), (16, 19)]
    alone = [space.embed("toy", [rows[int(start) : int(end)]])[0] for start, end, _ in windows]
    for (_, _, vector), wanted in zip(windows, alone, strict=True):
        assert torch.allclose(vector, wanted, atol=1e-5)
    mean = torch.stack(alone).mean(0)
    assert torch.allclose(space.embed("toy", [path])[0], mean / mean.norm(), atol=1e-5)


def test_a_broken_file_is_named(run: Run, world: Path) -> None:
    with pytest.raises(BrokenSampleError, match=r"missing: .*none\.json"):
        run.load().embed("toy", [world / "none.json"])


def test_a_moved_run_still_opens(run: Run, world: Path, tmp_path: Path) -> None:
    before = run.load().embed("toy", files(world))
    (tmp_path / "far").mkdir()
    shutil.move(run.path, tmp_path / "far/away")
    assert torch.equal(load(tmp_path / "far/away").embed("toy", files(world)), before)


def test_the_tower_says_which_anchor_it_is_bound_to(run: Run) -> None:
    data = (run.path / "tower.safetensors").read_bytes()
    size = int.from_bytes(data[:8], "little")
    note = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["modalbind"])
    fingerprint = RunDirectory(run.path).read_identity()["anchor"]["fingerprint"]
    assert note == {"anchor": fingerprint}
    assert {name.split(".")[0] for name in decode_tensors(data, run.path)} == {"encoder", "head"}


@pytest.mark.parametrize("place", [100, -1])
def test_a_flipped_bit_in_the_tower_is_found(run: Run, world: Path, place: int) -> None:
    path = run.path / "tower.safetensors"
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptFileError, match=r"tower\.safetensors .* differ"):
        run.load().embed("toy", files(world))
    path.unlink()
    with pytest.raises(CorruptFileError, match=r"tower\.safetensors"):
        run.load().embed("toy", files(world))


def test_an_unfinished_run_says_how_to_go_on(run: Run, world: Path) -> None:
    (run.path / "tower.json").unlink()
    with pytest.raises(RunError, match="not finished; go on with `modalbind align --resume`"):
        run.load().embed("toy", files(world))


def rename_space(world: Path, name: str) -> None:
    with np.load(world / "space.npz") as table:
        fields: dict[str, Any] = {**table, "space": np.array(name)}
    np.savez(world / "space.npz", **fields)


def test_runs_of_two_anchors_are_refused_naming_both(run: Run, world: Path, tmp_path: Path) -> None:
    rename_space(world, "another space")
    other = pipeline.align(toy.build_recipe(world, train={"max_steps": 2}), out=tmp_path / "other")
    prints = [RunDirectory(p.path).read_identity()["anchor"]["fingerprint"] for p in (run, other)]
    with pytest.raises(AnchorMismatchError) as caught:
        load([run.path, other.path])
    assert all(fingerprint[:16] in str(caught.value) for fingerprint in prints)
    assert all(str(p.path) in str(caught.value) for p in (run, other))


def test_an_anchor_that_changed_is_refused_when_it_is_used(run: Run, world: Path) -> None:
    rename_space(world, "another space")
    space = load(run.path)
    for use in (lambda: space.embed("text", ["a star"]), lambda: space.anchor):
        with pytest.raises(AnchorMismatchError, match=r"is bound to .* restore the anchor"):
            use()
    with pytest.raises(AnchorMismatchError, match=r"is bound to .* restore the anchor"):
        pipeline.verify_anchor(run.path)


def test_the_tower_needs_no_anchor(run: Run, world: Path, tmp_path: Path) -> None:
    before = run.load().embed("toy", files(world))
    (world / "space.npz").unlink()  # the fixture puts it back
    space = load(run.path)
    assert space.modalities == ("image", "text", "toy")
    assert (space.name, space.dim) == ("toy space", toy.DIM)
    assert torch.equal(space.embed("toy", files(world)), before)
    assert space.embed("toy", []).shape == (0, toy.DIM)
    assert pipeline.embed_files(run.path, "toy", files(world), tmp_path / "out.npz") == 3
    with np.load(tmp_path / "out.npz") as table:
        assert str(table["space"]) == "toy space"
    with pytest.raises(AnchorError, match=r"space\.npz"):
        space.embed("text", ["a star"])


def test_a_single_input_is_not_taken_for_a_list(run: Run, world: Path) -> None:
    space = run.load()
    alone: list[tuple[str, Any]] = [
        ("text", "a star"),
        ("toy", files(world)[0]),
        ("toy", Path(files(world)[0])),
    ]
    alone += [("toy", np.zeros((3, 4))), ("toy", torch.zeros(3, 4)), ("image", 3)]
    for modality, one in alone:
        found = type(one).__name__
        with pytest.raises(InputError, match=f"a list of inputs asked for; found one {found}"):
            space.embed(modality, one)
    both = [Path(name) for name in files(world)[:2]]
    assert torch.equal(space.embed("toy", iter(both)), space.embed("toy", tuple(both)))  # type: ignore[arg-type]


def test_a_picture_is_a_path_or_an_image(run: Run) -> None:
    with pytest.raises(InputError, match="pictures asked for; found ndarray; give paths or PIL"):
        run.load().embed("image", [np.zeros((2, 2, 3))])


def test_samples_can_be_read_otherwise_than_in_training(
    run: Run, world: Path, tmp_path: Path
) -> None:
    path = world / "long.json"
    path.write_text(json.dumps(np.random.default_rng(0).normal(size=(19, 4)).tolist()))
    space = load(run.path, overrides=["modality.options.window=10"])  # trained with 8
    assert [window[:2] for window in space.embed_windows("toy", path)] == [(0, 10), (10, 19)]
    changes = ["modality.options.window=7"]
    out = tmp_path / "out.npz"
    assert pipeline.embed_files(run.path, "toy", [str(path)], out, True, changes) == 3
    with pytest.raises(RecipeError, match=r"'head\.kind=mlp' asked of run .* its tower is trained"):
        load(run.path, overrides=[*changes, "head.kind=mlp"])
    with pytest.raises(RecipeError, match=r"modality\.options\.windows: unknown key.* 'window'"):
        load(run.path, overrides=["modality.options.windows=3"])


def damage(path: Path, *keys: str, value: Any = None) -> None:
    """Drop a value from a JSON file, or set it."""
    content = place = json.loads(path.read_text())
    for key in keys[:-1]:
        place = place[key]
    if value is None:
        del place[keys[-1]]
    else:
        place[keys[-1]] = value
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("keys", "value", "says"),
    [
        (("sha256",), None, "lacks the checksum or the encoder"),
        (("sha256",), "x", "checksum"),
        (("encoder",), None, "lacks the checksum or the encoder"),
        (("encoder",), 3, "encoder: "),
        (("encoder", "width"), "1v", "encoder.width: .* is '1v'"),
        (("encoder", "width"), 17, "does not fit the tower that tower.json"),
    ],
)
def test_a_damaged_note_of_the_tower_is_one_sentence(
    run: Run, world: Path, keys: tuple[str, ...], value: Any, says: str
) -> None:
    damage(run.path / "tower.json", *keys, value=value)
    with pytest.raises(CorruptFileError, match=f"tower.* asked for; .*{says}") as caught:
        run.load().embed("toy", files(world))
    assert "\n" not in str(caught.value) and "http" not in str(caught.value)


@pytest.mark.parametrize("key", ["spec", "space", "fingerprint", "dim", "modalities"])
def test_a_damaged_identity_is_one_sentence(run: Run, key: str) -> None:
    damage(run.path / "run.json", "anchor", key)
    for use in (load, pipeline.verify_anchor):
        with pytest.raises(CorruptFileError, match=rf"run\.json .* no valid {key}; restore it"):
            use(run.path)


def test_the_anchor_of_the_latest_run_is_verified(run: Run) -> None:
    (run.path.parent / "latest").write_text("run\n")
    found = pipeline.verify_anchor(run.path.parent / "latest")
    assert found["fingerprint"] == found["fingerprint_now"]


def test_one_modality_twice_is_refused(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "copy")
    with pytest.raises(RunError, match="both bring 'toy'"):
        load([run.path, tmp_path / "copy"])


def test_runs_are_found_by_folder_or_pointer(run: Run, tmp_path: Path) -> None:
    (tmp_path / "latest").write_text("run\n")
    assert find_run(tmp_path / "latest") == run.path
    assert find_run(str(run.path)) == run.path
    assert isinstance(load(str(run.path)), AlignedSpace)
    with pytest.raises(RunError, match="none given"):
        load([])
    with pytest.raises(RunError, match="no such folder"):
        find_run(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match=r"run\.json|recipe\.yaml"):
        load(tmp_path / "empty")
