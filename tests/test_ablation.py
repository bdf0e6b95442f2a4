"""Variants of a recipe over seeds, held against the first."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import toy

from modalbind.ablation import ablate, read_ablation, read_variants
from modalbind.cli import main
from modalbind.errors import RecipeError, RunError
from modalbind.rundir import RunDirectory, list_runs

VARIANTS = {
    "long": ("train.epochs=8",),
    "none": ("train.epochs=1", "train.lr=1e-9"),
    "pictured": ("anchor.sides={text: 1.0, image: 1.0}", "anchor.fractions={image: 0.5}"),
}


def build(folder: Path, variants=VARIANTS, **changes):
    """The toy recipe, whose samples have the pictures of their label."""
    source = {
        "kind": "manifest",
        "path": str(folder / "pairs.csv"),
        "pictures": "links.csv",
    }
    data = {"sources": [source]}
    return toy.build_recipe(folder, data=data, ablation={"variants": variants}, **changes)


def test_each_variant_is_a_sweep_and_stands_beside_the_first(
    toy_world: Path, tmp_path: Path
) -> None:
    path = ablate(build(toy_world), seeds=(0, 1), out=tmp_path / "out")
    for name in VARIANTS:
        assert [run.name for run in list_runs(path / name)] == ["seed-0", "seed-1"]
    found = read_ablation(path)
    assert [each.name for each in found.variants] == list(VARIANTS) and found.seeds == (0, 1)
    assert [(each.run, each.other) for each in found.comparisons] == [
        ("none", "long"),
        ("pictured", "long"),
    ]
    (untrained,) = [
        row
        for row in found.comparisons[0].rows
        if (row.query, row.target, row.language, row.metric) == ("toy", "text", "en", "recall_at_1")
    ]
    assert untrained.difference < -0.2 and untrained.verdict == "worse"
    paired = [
        RunDirectory(path / name / "seed-0").read_identity()["paired"]
        for name in ("long", "pictured")
    ]
    assert paired == [[["text", "en", ""]], [["image", "", ""], ["text", "en", ""]]]


def test_it_goes_on_where_it_was_stopped(toy_world: Path, tmp_path: Path) -> None:
    recipe = build(toy_world)
    path = ablate(recipe, out=tmp_path / "out")
    tower = path / "long/seed-0/tower.safetensors"
    before = tower.stat().st_mtime_ns
    with pytest.raises(RunError):
        ablate(recipe, out=path)
    ablate(recipe, out=path, resume=True)
    assert tower.stat().st_mtime_ns == before, "what is finished is not trained again"


def test_a_wrong_variant_is_named_before_anything_is_trained(
    toy_world: Path, tmp_path: Path
) -> None:
    recipe = build(toy_world, {"good": (), "bad": ("train.epoch=1",)})
    with pytest.raises(RecipeError, match=r"variant 'bad' asked for; .*train.epoch"):
        ablate(recipe, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(RecipeError, match="need a folder of that name"):
        read_variants(build(toy_world, {"a": (), "../b": ()}))
    with pytest.raises(RecipeError, match="no section 'ablation'"):
        read_variants(toy.build_recipe(toy_world))


def test_the_command_line(toy_world: Path, tmp_path: Path, capsys) -> None:
    recipe = tmp_path / "recipe.json"
    recipe.write_text(build(toy_world).model_dump_json())
    recipe = recipe.rename(tmp_path / "recipe.yaml")
    out = str(tmp_path / "out")
    assert main(["ablate", "--recipe", str(recipe), "--out", out, "--json"]) == 0
    assert [v["name"] for v in json.loads(capsys.readouterr().out)["variants"]] == list(VARIANTS)
    assert main(["ablate", "--recipe", str(recipe), "--out", out, "--resume"]) == 0
    shown = capsys.readouterr().out
    assert "toy → image, recall_at_10" in shown and "differences to long" in shown
    assert main(["ablate", "--recipe", "no/such", "--out", out]) == 2
