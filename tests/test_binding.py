"""Several towers in one space, on two made-up senses of the generated scenes."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import modalbind
from modalbind import pipeline
from modalbind.binding import evaluate_together
from modalbind.cli import main
from modalbind.errors import AnchorError, AnchorMismatchError, DataError, RunError, ShapeError
from modalbind.recipe import Recipe
from modalbind.report import RetrievalRow, RunReport, read_report
from modalbind.world import LANGUAGES, build_scenes, caption, render_picture

SENSES = Path(__file__).parent / "two_senses"


@pytest.fixture(autouse=True)
def _senses(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(SENSES))
    monkeypatch.setenv("MODALBIND_PLUGINS", "senses")
    yield
    sys.modules.pop("two_senses", None)


def make_recipe(sense: str, **changes: Any) -> Recipe:
    raw: dict[str, Any] = {
        "name": f"{sense}-test",
        "modality": {"name": sense},
        "anchor": {"spec": "openclip:world"},
        "data": {"sources": [{"kind": "world", "train": 600, "test": 64, "captions": 1}]},
        "encoder": {"kind": "dense"},
        "objective": {"kind": "infonce", "temperature": 0.05},
        "train": {"epochs": 12, "batch_size": 64, "lr": 3e-3},
        "evaluation": {"bootstrap": 200},
        "device": "cpu",
    }
    return Recipe.model_validate({**raw, **changes})


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SENSES))
        patch.setenv("MODALBIND_PLUGINS", "senses")
        patch.setenv("MODALBIND_CACHE", str(folder / "cache"))
        for name in ("touch", "smell"):
            pipeline.align(make_recipe(name), out=folder / name)
        yield folder / "touch", folder / "smell"


@pytest.fixture(scope="module")
def report(runs: tuple[Path, Path]) -> RunReport:
    return evaluate_together(runs)


def find(report: RunReport, query: str, target: str, language: str | None = None) -> RetrievalRow:
    (row,) = [
        row
        for row in report.retrieval
        if (row.query, row.target, row.language) == (query, target, language)
    ]
    return row


def test_every_pair_is_scored_beside_chance_and_what_was_to_be_expected(
    report: RunReport,
) -> None:
    assert [run.modality for run in report.runs] == ["touch", "smell"]
    assert len({run.anchor for run in report.runs} | {report.anchor.fingerprint}) == 1
    assert report.anchor.is_unmoved
    for query, target in (("touch", "smell"), ("smell", "touch")):
        row = find(report, query, target)
        assert (row.group, row.trained, row.n_targets) == ("bound", False, 64)
        assert row.metrics.recall_at_10.chance == pytest.approx(10 / 64)
        assert row.metrics.recall_at_10.verdict == ""
        sides = [find(report, name, "image").metrics.recall_at_10.value for name in (query, target)]
        assert row.via_pictures == pytest.approx(sides[0] * sides[1])
        assert row.metrics.recall_at_10.value > row.via_pictures / 2
    for language in LANGUAGES:
        assert find(report, "touch", "text", language).trained == (language == "en")


def test_scores_are_those_of_embeddings_that_a_user_would_compare(
    runs: tuple[Path, Path], report: RunReport
) -> None:
    """Computed again by hand: scenes drawn, rendered, embedded, ranked one by one."""
    import two_senses

    common = ("kind", "count", "size")
    scenes = build_scenes("test", 64, 0, common)
    space = modalbind.load(list(runs))
    touch, smell = (
        space.embed(name, [two_senses.Sense(name).render(scene, 1) for scene in scenes])
        for name in ("touch", "smell")
    )
    similarity = space.similarity(touch, smell)
    ranks = [int((row > row[i]).sum()) + 1 for i, row in enumerate(similarity)]
    found = find(report, "touch", "smell").metrics
    assert found.recall_at_10.value == pytest.approx(np.mean([rank <= 10 for rank in ranks]))
    assert found.median_rank == pytest.approx(np.median(ranks))


def test_the_sum_of_two_parts_retrieves_the_whole(
    runs: tuple[Path, Path], report: RunReport
) -> None:
    assert [(row.first, row.second, row.target) for row in report.sums] == [
        ("smell", "touch", "image"),
        ("smell", "image", "image"),
        ("smell", "text", "image"),
        ("touch", "image", "image"),
        ("touch", "text", "image"),
        ("image", "text", "image"),
    ]
    # By hand, for one of them: every second part of a scene in words, every first one touched.
    from dataclasses import replace

    import two_senses

    common = ("kind", "count", "size")
    scenes = build_scenes("test", 64, 0, common)
    space = modalbind.load(list(runs))
    pictures = space.embed("image", [render_picture(scene, 1) for scene in scenes])
    hits = []
    for number, scene in enumerate(scenes):
        if len(scene.objects) < 2:
            continue
        for one, other in (scene.objects, scene.objects[::-1]):
            first, second = replace(scene, objects=(one,)), replace(scene, objects=(other,))
            touched = space.embed("touch", [two_senses.Sense("touch").render(first, 1)])
            said = space.embed("text", [caption(second, "en", common)])
            scores = (space.combine(touched, said) @ pictures.T)[0]
            hits.append(int((scores > scores[number]).sum()) < 10)
    (row,) = [row for row in report.sums if (row.first, row.second) == ("touch", "text")]
    assert row.n_queries == len(hits)
    assert row.both.value == pytest.approx(np.mean(hits), abs=0.5 / len(hits))
    assert row.both.ci95[0] > max(row.first_alone.value, row.second_alone.value, row.both.chance)


def test_adding_up_is_a_normalised_sum_of_equal_shapes(runs: tuple[Path, Path]) -> None:
    space = modalbind.load(list(runs))
    a, b = torch.eye(space.dim)[:1], torch.eye(space.dim)[1:2]
    expected = torch.zeros(1, space.dim)
    expected[0, :2] = 0.5**0.5
    assert torch.allclose(space.combine(a, b), expected)
    with pytest.raises(ShapeError, match="one row of each modality"):
        space.combine(a, torch.eye(space.dim)[:2])


def test_towers_are_read_when_they_are_used(
    runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import modalbind.run

    opened: list[str] = []
    load_tower = modalbind.run.load_tower

    def note(directory: Any, *arguments: Any) -> Any:
        opened.append(directory.path.name)
        return load_tower(directory, *arguments)

    monkeypatch.setattr(modalbind.run, "load_tower", note)
    space = modalbind.load(list(runs))
    assert space.modalities == ("text", "image", "touch", "smell") and opened == []
    space.embed("smell", [[0.0] * 56])
    space.embed("smell", [[1.0] * 56])
    assert opened == ["smell"]


def write_pairs(folder: Path, columns: tuple[str, ...]) -> Path:
    """Write sixteen scenes as files, and a manifest with a row a scene, and one of touch alone."""
    import two_senses

    scenes = build_scenes("test", 17, 5, ("kind", "count", "size"))
    with (folder / "pairs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*columns, "image", "text"])
        writer.writeheader()
        for number, scene in enumerate(scenes):
            row = {"image": f"{number}.png", "text": caption(scene, "en", SENSED)}
            render_picture(scene, 1).save(folder / row["image"])
            for name in columns[: 1 if number == 16 else None]:
                row[name] = f"{name}{number}.json"
                numbers = two_senses.Sense(name).render(scene, 1)
                (folder / row[name]).write_text(json.dumps(numbers))
            writer.writerow(row)
    return folder / "pairs.csv"


SENSED = ("kind", "count", "size")


def test_pairs_that_the_user_names(runs: tuple[Path, Path], tmp_path: Path) -> None:
    report = evaluate_together(runs, data=write_pairs(tmp_path, ("touch", "smell")))
    row = find(report, "touch", "smell")
    assert (row.n_queries, row.n_skipped, row.n_targets) == (16, 1, 16)
    assert find(report, "smell", "touch").n_targets == 17
    assert find(report, "smell", "image").n_targets == 17
    assert row.metrics.recall_at_1.value > 3 * row.metrics.recall_at_1.chance
    assert report.sums == ()


def test_their_own_test_items_are_joined_by_positive_key(tmp_path: Path) -> None:
    """Two manifests in two folders; nothing but the key says what belongs together."""
    for name in ("touch", "smell"):
        folder = tmp_path / name
        folder.mkdir()
        path = write_pairs(folder, (name,))
        rows = list(csv.DictReader(path.read_text().splitlines()))
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, [*rows[0], "split", "positive_key"])
            writer.writeheader()
            for number, row in enumerate(rows):
                split = "train" if number < 4 else "test"
                writer.writerow({**row, "split": split, "positive_key": f"scene {number}"})
        section = {"sources": [{"kind": "manifest", "path": str(path)}]}
        pipeline.align(make_recipe(name, data=section), out=tmp_path / "runs" / name)
    runs = [tmp_path / "runs" / name for name in ("touch", "smell")]
    report = evaluate_together(runs)
    row = find(report, "touch", "smell")
    assert (row.n_queries, row.n_targets) == (13, 13)
    # Pictures of the two folders are different files, though they show the same.
    assert find(report, "touch", "image").n_targets == 26


def test_what_shares_nothing_is_refused(runs: tuple[Path, Path], tmp_path: Path) -> None:
    path = write_pairs(tmp_path, ("smell",))
    section = {"sources": [{"kind": "manifest", "path": str(path)}]}
    alone = pipeline.align(make_recipe("smell", data=section), out=tmp_path / "alone")
    with pytest.raises(DataError, match=r"share no positive key; .* columns touch, smell"):
        evaluate_together([runs[0], alone.path])


def test_runs_that_cannot_be_bound_are_refused(runs: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(RunError, match="both bring 'touch'"):
        evaluate_together([runs[0], runs[0]])
    identity = json.loads((runs[1] / "run.json").read_text())
    other = tmp_path / "other"
    other.mkdir()
    for name in ("recipe.yaml", "tower.json", "tower.safetensors", "report.json"):
        (other / name).write_bytes((runs[1] / name).read_bytes())
    identity["anchor"]["fingerprint"] = "f" * 64
    (other / "run.json").write_text(json.dumps(identity))
    first = json.loads((runs[0] / "run.json").read_text())["anchor"]["fingerprint"][:16]
    with pytest.raises(AnchorMismatchError, match=f"{first}.*{'f' * 16}"):
        evaluate_together([runs[0], other])


def test_an_unfinished_run_is_refused_before_data_is_read(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "half").mkdir()
    for name in ("recipe.yaml", "run.json"):
        (tmp_path / "half" / name).write_bytes((runs[1] / name).read_bytes())
    with pytest.raises(RunError, match="is not finished"):
        evaluate_together([runs[0], tmp_path / "half"])


def test_the_command_prints_pairs_and_writes_a_report(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "together"
    assert main(["evaluate", *map(str, runs), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "touch → smell" in printed and "touch + text → image" in printed
    assert "rows of other languages are in the report" in printed
    assert read_report(out).runs[0].modality == "touch"
    page = (out / "report.html").read_text()
    assert "Arithmetic" in page and "Bound together" in page
    assert main(["evaluate", *map(str, runs), "--controls"]) == 2
    assert "it is for one run or sweep" in capsys.readouterr().err
    assert main(["evaluate", str(runs[0]), "--out", str(out)]) == 2


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_quick_starts_of_three_plugins_emerge_in_one_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Sound, depth and heat, each trained alone on English captions of generated scenes."""
    for plugin in ("audio", "depth", "thermal"):
        pytest.importorskip(f"modalbind_{plugin}", reason=f"modalbind-{plugin} is not installed")
    monkeypatch.setenv("MODALBIND_PLUGINS", "audio,depth,thermal")
    names = ("audio", "depth", "thermal")
    for name in names:
        modalbind.align(f"{name}/quickstart", out=tmp_path / name)
    report = evaluate_together([tmp_path / name for name in names])
    pairs = [row for row in report.retrieval if row.bound]
    assert len(pairs) == 6
    for row in pairs:
        found = row.metrics.recall_at_10
        assert row.via_pictures is not None
        assert found.value >= row.via_pictures / 2 and found.ci95[0] > found.chance
    for row in report.retrieval:
        if row.query in names and row.target == "text":
            assert row.metrics.recall_at_10.ci95[0] > row.metrics.recall_at_10.chance, row.language
    for total in report.sums:
        if "text" in (total.first, total.second):
            assert total.both.ci95[0] > max(total.first_alone.value, total.second_alone.value)


@pytest.fixture
def with_text(runs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run on texts beside the other two, on the English side of the same anchor."""
    pytest.importorskip("modalbind_text", reason="modalbind-text is not installed")
    monkeypatch.setenv("MODALBIND_PLUGINS", "senses,text")
    recipe = make_recipe(
        "text",
        modality={"name": "text", "options": {"encoder": "transformers:world"}},
        encoder={"kind": "frozen"},
        train={"solver": "ridge"},
        evaluation={"bootstrap": 200, "languages": ["en"]},
    )
    return pipeline.align(recipe, out=tmp_path / "text").path


def test_a_tower_of_texts_lends_its_languages_and_is_told_from_the_anchor(
    runs: tuple[Path, Path], with_text: Path
) -> None:
    report = evaluate_together([runs[0], with_text])
    towers = [row for row in report.retrieval if row.bound]
    assert {row.direction for row in towers} == {"touch → text tower", "text tower → touch"}
    assert {row.language for row in towers} == set(LANGUAGES) and not any(
        row.trained for row in towers
    )
    (swahili,) = [r for r in towers if r.language == "sw" and r.query == "touch"]
    score = swahili.metrics.recall_at_10
    assert score.ci95[0] > score.chance and swahili.via_pictures is not None
    own = [row for row in report.retrieval if not (row.bound or row.reference)]
    assert {row.language for row in own if "touch" in (row.query, row.target)} == {
        None,
        *LANGUAGES,
    }
    assert {row.anchor_language for row in own if row.query == row.target} == {"en"}
    means = [mean for mean in report.languages.means if mean.bound]
    assert all(len(mean.languages) == len(LANGUAGES) - 1 for mean in means) and len(means) == 2
    assert {row.first for row in report.sums} | {row.second for row in report.sums} == {
        "touch",
        "text",
        "image",
    }


CALIBRATION = "calibration: {data: [words.txt]}"


def test_a_test_that_is_calibrated_alone_is_not_bound(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    recipe = make_recipe(
        "smell",
        train={"epochs": 1, "batch_size": 64},
        evaluation={"bootstrap": 10, "calibration": {"data": [str(tmp_path / "words.txt")]}},
    )
    (tmp_path / "words.txt").write_text("two bells\nthree dogs\n")
    with pytest.raises(AnchorError, match="asked to calibrate image"):
        pipeline.align(recipe, out=tmp_path / "smell")
    assert not (tmp_path / "smell").exists(), "refused before anything is trained"
    shutil.copytree(runs[1], tmp_path / "smell")
    path = tmp_path / "smell" / "recipe.yaml"
    path.write_text(path.read_text("utf-8").replace("calibration: null", CALIBRATION), "utf-8")
    assert CALIBRATION in path.read_text("utf-8")
    with pytest.raises(RunError, match="calibrated apart from the others"):
        evaluate_together([runs[0], tmp_path / "smell"])
