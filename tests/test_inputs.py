"""What a run reads before anything is trained: what is refused then, and what is left out."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import toy
from PIL import Image

from modalbind import inputs, pipeline
from modalbind.anchors.cache import AnchorCache
from modalbind.errors import DataError, ManifestError
from modalbind.inputs import RunInputs
from modalbind.plugin_manager import load_plugins
from modalbind.recipe import resolve
from modalbind.types import AnchorItem


def open_toy(folder: Path, tests_all: bool = False, **changes: Any) -> RunInputs:
    resolved = resolve(toy.build_recipe(folder, **changes), load_plugins())
    return inputs.open_inputs(resolved, AnchorCache(), "cpu", lambda *_: None, tests_all=tests_all)


def rewrite(path: Path, change: Callable[[dict[str, str]], dict[str, str]]) -> None:
    with path.open(newline="") as file:
        rows = [change(row) for row in csv.DictReader(file)]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


class Weights:
    """An anchor that has weights and must read what it embeds."""

    spec = name = "weights"
    dim, modalities, fingerprint, is_table = 4, ("text", "image"), "f" * 64, False

    def embed(self, modality: str, items: Sequence[AnchorItem], on_progress: Any) -> torch.Tensor:
        for item in items:
            item.load()
        return torch.eye(self.dim)[torch.zeros(len(items), dtype=torch.long)]


@pytest.fixture
def pictured(toy_world: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The toy world with a picture beside each sample, before an anchor that reads them."""
    monkeypatch.setattr(inputs, "open_anchor", lambda *_: Weights())
    for label in toy.LABELS:
        Image.new("RGB", (8, 8)).save(toy_world / f"{label}.png")

    def add(row: dict[str, str]) -> dict[str, str]:
        name = row["toy"].replace(".json", ".png")
        Image.new("RGB", (8, 8)).save(toy_world / name)
        return {**row, "image": name}

    rewrite(toy_world / "pairs.csv", add)
    return toy_world


def test_a_sample_whose_picture_is_cut_is_left_out(pictured: Path) -> None:
    file = pictured / "circle2.png"  # of a test sample
    file.write_bytes(file.read_bytes()[:40])
    (pictured / "circle0.png").unlink()  # of a training sample, paired with text alone
    found = open_toy(pictured, data={"max_broken_fraction": 0.1})
    assert found.data.skipped == {"picture_undecodable": 1}
    assert found.data.broken[0][:2] == ("circle2.json", "picture_undecodable")
    both = {"sides": {"text": 1.0, "image": 1.0}}
    found = open_toy(pictured, data={"max_broken_fraction": 0.1}, anchor=both)
    assert found.data.skipped == {"picture_undecodable": 1, "picture_missing": 1}
    with pytest.raises(DataError, match=r"circle2.json \(picture_undecodable\)"):
        open_toy(pictured)


def test_a_table_of_vectors_needs_no_pictures(toy_world: Path) -> None:
    rewrite(toy_world / "pairs.csv", lambda row: {**row, "image": f"{row['kind']}.png"})
    assert not list(toy_world.glob("*.png"))
    assert open_toy(toy_world).data.skipped == {}


def test_a_linked_picture_that_cannot_be_read_is_refused_with_its_list(pictured: Path) -> None:
    (pictured / "moon.png").unlink()
    with pytest.raises(DataError) as caught:
        open_toy(pictured)
    message = str(caught.value)
    assert f"picture 'moon.png' asked for by {pictured / 'links.csv'}" in message
    assert "missing" in message


def test_unchecked_pictures_are_wrong_input_too(pictured: Path) -> None:
    (pictured / "moon.png").unlink()
    with pytest.raises(DataError, match=r"missing: .*moon.png.*; mend that file"):
        open_toy(pictured, data={"check": "none"})


def test_on_other_pairs_a_linked_picture_may_be_absent(
    pictured: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (pictured / "moon.png").unlink()
    found = open_toy(pictured, tests_all=True)
    assert "picture 'moon.png' asked for by" in caplog.text
    (pool,) = [pool for pool in found.test.pools if pool.modality == "image"]
    names = {key for _, key in pool.keys}
    assert "star.png" in names and "moon.png" not in names


@pytest.mark.parametrize(
    ("evaluation", "says"),
    [
        ({"control_columns": ["kind", "knd"]}, r"'knd' .*control_columns; .* mean 'kind'\?"),
        ({"control_columns": ["no_such"]}, r"'no_such' asked for by evaluation.control_columns"),
        ({"control_columns": ["empty"]}, "absent or empty"),
        (
            {"zero_shot": [{"name": "z", "labels": "classes.json", "label_column": "kinds"}]},
            r"'kinds' asked for by evaluation.zero_shot.label_column; .* did you mean 'kind'\?",
        ),
    ],
)
def test_a_column_that_is_not_there_is_refused(
    toy_world: Path, evaluation: dict[str, Any], says: str
) -> None:
    rewrite(toy_world / "pairs.csv", lambda row: {**row, "empty": ""})
    with pytest.raises(DataError, match=says):
        open_toy(toy_world, evaluation=evaluation)


def test_known_columns_serve_as_controls_and_labels(toy_world: Path) -> None:
    names = {"0": "a circle", "1": "a star", "2": "a moon"}
    (toy_world / "folds.json").write_text(json.dumps({"en": names}))
    section = {"name": "folds", "labels": "folds.json", "label_column": "fold"}
    columns = ["group", "fold", "language", "split", "positive_key"]
    found = open_toy(toy_world, evaluation={"control_columns": columns, "zero_shot": [section]})
    (classes,) = found.class_sets
    assert classes.labels.tolist() == [2] * 12, "fold 2 is what is tested"
    assert {sample.columns["split"] for sample in found.data.train} == {"train"}


def test_on_other_pairs_absent_columns_are_left_out(
    toy_world: Path, caplog: pytest.LogCaptureFixture
) -> None:
    evaluation = {"control_columns": ["kind"]}
    rewrite(toy_world / "pairs.csv", lambda row: {k: v for k, v in row.items() if k != "kind"})
    with pytest.raises(DataError, match="'kind'"):
        open_toy(toy_world, evaluation=evaluation)
    found = open_toy(toy_world, tests_all=True, evaluation=evaluation)
    assert found.class_sets == ()
    assert "zero-shot 'toy' asked for column 'kind'" in caplog.text
    assert found.data.overlap is None


def test_other_pairs_take_links_and_names_from_beside_them_or_from_the_run(
    toy_world: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "links.csv").touch()
    root = tmp_path / "root"
    for recipe, home in (
        (toy.build_recipe(toy_world), toy_world),
        (toy.build_recipe(toy_world, data={"root": str(root)}), root),
    ):
        section = inputs.place_side_files(recipe, other)
        assert section.links == ("links.csv",)
        assert section.zero_shot[0].labels == str(home / "classes.json")
        assert section.zero_shot[0].label_column == "kind"
        calibrated = {"calibration": {"data": ["links.csv", "classes.json"]}}
        named = toy.build_recipe(home, evaluation=calibrated)
        named = named.model_copy(update={"data": recipe.data})
        found = inputs.place_side_files(named, other).calibration
        assert found is not None and found.data == ("links.csv", str(home / "classes.json"))


def test_a_run_is_measured_on_pairs_in_another_folder(toy_world: Path, tmp_path: Path) -> None:
    run = pipeline.align(toy.build_recipe(toy_world, train={"max_steps": 2}), out=tmp_path / "run")
    other = tmp_path / "other"
    other.mkdir()
    (toy_world / "star0.json").rename(other / "new.json")
    (other / "pairs.csv").write_text("toy,text\nnew.json,a star\n")
    report = pipeline.evaluate(run.path, data=other / "pairs.csv")
    assert (report.data.test_pairs, report.data.overlap, report.zero_shot) == (1, None, ())
    assert {row.language for row in report.retrieval if row.target == "text"} == {"en", "xx"}


def test_labels_that_no_sample_has_are_refused(toy_world: Path) -> None:
    rewrite(toy_world / "pairs.csv", lambda row: {**row, "kind": "other"})
    with pytest.raises(ManifestError, match="no test sample has a label"):
        open_toy(toy_world)


def test_selection_without_a_validation_split_is_refused(toy_world: Path) -> None:
    train = {"select_every": 1}
    with pytest.raises(DataError, match=r"data.val_fraction, or mark rows with the split 'dev'"):
        open_toy(toy_world, train=train, data={"val_split": "dev"})
    assert open_toy(toy_world, train=train, data={"val_fraction": 0.2}).data.val

    def mark(row: dict[str, str]) -> dict[str, str]:
        return {**row, "split": "dev"} if row["fold"] == "1" else row

    rewrite(toy_world / "pairs.csv", mark)
    found = open_toy(toy_world, train=train, data={"val_split": "dev"})
    assert len(found.data.val) == 12


def test_the_content_of_the_manifest_is_known(toy_world: Path) -> None:
    content = (toy_world / "pairs.csv").read_bytes()
    expected = {"pairs": hashlib.sha256(content).hexdigest()}
    assert open_toy(toy_world).data.manifest_hashes == expected
