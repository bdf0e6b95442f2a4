"""The whole line, from recipe to report, on a made-up modality and a table of vectors."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import toy
from safetensors.numpy import load_file

from modalbind import pipeline
from modalbind.checkpoint import Checkpoints
from modalbind.errors import AnchorMismatchError, DataError, InputError, ManifestError, RunError
from modalbind.recipe import Recipe, dump_recipe
from modalbind.report import RetrievalRow, RunReport
from modalbind.rundir import RunDirectory


def find_rows(report: RunReport, query: str, target: str, **fields: object) -> list[RetrievalRow]:
    return [
        row
        for row in report.retrieval
        if (row.query, row.target) == (query, target)
        and all(getattr(row, name) == value for name, value in fields.items())
    ]


def read_tower(run: Path) -> bytes:
    return (run / "tower.safetensors").read_bytes()


def test_a_run_learns_and_what_was_never_paired_emerges(toy_world: Path, tmp_path: Path) -> None:
    run = pipeline.align(toy.build_recipe(toy_world), out=tmp_path / "run")
    report = run.report
    (trained,) = find_rows(report, "toy", "text", language="en", control="none")
    (language,) = find_rows(report, "toy", "text", language="xx")
    (picture,) = find_rows(report, "toy", "image")
    assert trained.trained and not language.trained and not picture.trained
    for row in (trained, language, picture):
        assert row.metrics.hit_at_1.value > 3 * row.metrics.hit_at_1.chance
    assert {row.language: row.metrics.top1.value > 0.5 for row in report.zero_shot} == {
        "en": True,
        "xx": True,
    }
    assert report.anchor.fingerprint == report.anchor.fingerprint_after
    assert report.anchor.verified == "table"
    assert (report.data.train_pairs, report.data.test_pairs) == (24, 12)
    assert report.data.overlap == 0


def test_a_run_directory_holds_what_it_promises(toy_world: Path, tmp_path: Path) -> None:
    run = pipeline.align(toy.build_recipe(toy_world), out=tmp_path / "run")
    names = {path.name for path in run.path.iterdir()}
    assert names >= {
        "recipe.yaml", "run.json", "metrics.jsonl", "checkpoints", "tower.safetensors",
        "report.json", "report.html",
    }  # fmt: skip
    assert not [path for path in run.path.rglob("*") if path.suffix in (".pkl", ".pt", ".bin")]
    *steps, cost = map(json.loads, (run.path / "metrics.jsonl").read_text().splitlines())
    assert [record["step"] for record in steps] == list(range(1, 25))
    assert (cost["kind"], cost["step"], cost["pairs_seen"]) == ("cost", 24, 8 * 24)


def test_shuffled_pairs_leave_chance(toy_world: Path, tmp_path: Path) -> None:
    toy.write_world(toy_world, samples_per_label=30)
    recipe = toy.build_recipe(toy_world, data={"shuffle_pairs": True})
    report = pipeline.align(recipe, out=tmp_path / "run").report
    for row in find_rows(report, "toy", "text"):
        low, high = row.metrics.hit_at_1.ci95
        assert low - 0.15 < row.metrics.hit_at_1.chance < high + 0.15


def test_same_seed_same_tower_other_seed_another(toy_world: Path, tmp_path: Path) -> None:
    towers = []
    for place, seed in enumerate((0, 0, 1)):
        recipe = toy.build_recipe(toy_world, seed=seed)
        towers.append(read_tower(pipeline.align(recipe, out=tmp_path / str(place)).path))
    assert towers[0] == towers[1] != towers[2]


def test_worker_processes_change_nothing(toy_world: Path, tmp_path: Path) -> None:
    plain = pipeline.align(toy.build_recipe(toy_world), out=tmp_path / "a")
    recipe = toy.build_recipe(toy_world, data={"workers": 2})
    assert read_tower(plain.path) == read_tower(pipeline.align(recipe, out=tmp_path / "b").path)


@pytest.mark.parametrize("stop", [1, 5, 23])
def test_a_run_stopped_at_any_step_ends_in_the_same_bytes(
    toy_world: Path, tmp_path: Path, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = toy.build_recipe(toy_world, train={"checkpoint_every": 2})
    whole = pipeline.align(recipe, out=tmp_path / "whole")
    log_step = RunDirectory.log_step

    def stop_here(self: RunDirectory, result: object) -> None:
        log_step(self, result)  # type: ignore[arg-type]
        if result.step == stop:  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "log_step", stop_here)
        with pytest.raises(KeyboardInterrupt):
            pipeline.align(recipe, out=tmp_path / "cut")
    cut = pipeline.align(recipe, out=tmp_path / "cut", resume=True)
    assert read_tower(cut.path) == read_tower(whole.path)
    assert RunDirectory(cut.path).read_metrics("step") == RunDirectory(whole.path).read_metrics(
        "step"
    )
    assert cut.report.cost.pairs_seen == whole.report.cost.pairs_seen, "of both parts"


def test_selection_survives_a_stop(
    toy_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = toy.build_recipe(
        toy_world,
        data={"val_fraction": 0.3},
        train={"select_every": 1, "patience": 3, "checkpoint_every": 3},
    )
    whole = pipeline.align(recipe, out=tmp_path / "whole")
    save = Checkpoints.save

    def stop_after(self: Checkpoints, step: int, *rest: object) -> None:
        save(self, step, *rest)  # type: ignore[arg-type]
        if step == 6:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", stop_after)
        with pytest.raises(KeyboardInterrupt):
            pipeline.align(recipe, out=tmp_path / "cut")
    cut = pipeline.align(recipe, out=tmp_path / "cut", resume=True)
    assert read_tower(cut.path) == read_tower(whole.path)
    assert RunDirectory(cut.path).read_metrics("score") == RunDirectory(whole.path).read_metrics(
        "score"
    )


def test_a_damaged_checkpoint_is_passed_over(
    toy_world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    recipe = toy.build_recipe(toy_world, train={"checkpoint_every": 4, "keep_checkpoints": 3})
    whole = pipeline.align(recipe, out=tmp_path / "whole")
    cut = pipeline.align(recipe, out=tmp_path / "cut")
    for name in ("tower.safetensors", "tower.json", "report.json"):
        (cut.path / name).unlink()
    newest = max((cut.path / "checkpoints").iterdir(), key=lambda p: int(p.name.split("-")[1]))
    data = bytearray((newest / "tensors.safetensors").read_bytes())
    data[-3] ^= 1
    (newest / "tensors.safetensors").write_bytes(data)
    again = pipeline.align(recipe, out=tmp_path / "cut", resume=True)
    assert read_tower(again.path) == read_tower(whole.path)
    assert f"{newest.name} is damaged" in caplog.text


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_process_is_resumed_to_the_same_bytes(
    toy_world: Path, tmp_path: Path, number: signal.Signals
) -> None:
    recipe = toy.build_recipe(toy_world, train={"epochs": 80, "checkpoint_every": 7})
    whole = pipeline.align(recipe, out=tmp_path / "whole")
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe))
    code = (
        "import sys; from pathlib import Path; from modalbind import pipeline, recipe\n"
        "pipeline.align(recipe.load_recipe(sys.argv[1]), out=Path(sys.argv[2]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(toy.PLUGIN)}
    cut = tmp_path / "cut"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "recipe.yaml"), str(cut)], env=environment
    )
    deadline = time.monotonic() + 120
    while not list(cut.glob("checkpoints/step-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    code_of_exit = process.wait(timeout=60)
    assert code_of_exit == (143 if number == signal.SIGTERM else -signal.SIGKILL)
    assert not (cut / "tower.safetensors").exists()
    assert read_tower(pipeline.align(recipe, out=cut, resume=True).path) == read_tower(whole.path)


def test_an_existing_run_is_not_overwritten_unasked(toy_world: Path, tmp_path: Path) -> None:
    recipe = toy.build_recipe(toy_world, train={"max_steps": 2})
    out = tmp_path / "run"
    before = read_tower(pipeline.align(recipe, out=out).path)
    other = toy.build_recipe(toy_world, train={"max_steps": 3})
    with pytest.raises(RunError, match="--force"):
        pipeline.align(other, out=out)
    with pytest.raises(RunError, match=r"train.max_steps"):
        pipeline.align(other, out=out, resume=True)
    assert read_tower(out) == before
    assert read_tower(pipeline.align(other, out=out, force=True).path) != before


def test_a_folder_that_is_no_run_is_left_alone(toy_world: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("irreplaceable")
    with pytest.raises(RunError, match="not a run"):
        pipeline.align(toy.build_recipe(toy_world), out=tmp_path, force=True)
    assert (tmp_path / "thesis.txt").read_text() == "irreplaceable"


def test_wrong_input_leaves_no_run_behind(toy_world: Path, tmp_path: Path) -> None:
    (toy_world / "circle0.json").write_text("[]")
    recipe = toy.build_recipe(toy_world)
    with pytest.raises(DataError, match=r"circle0.json \(empty\)"):
        pipeline.align(recipe, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_few_broken_samples_are_counted_and_listed(toy_world: Path, tmp_path: Path) -> None:
    (toy_world / "circle0.json").write_text("[]")
    (toy_world / "star1.json").unlink()
    recipe = toy.build_recipe(toy_world, data={"max_broken_fraction": 0.1})
    run = pipeline.align(recipe, out=tmp_path / "run")
    assert run.report.data.skipped == {"empty": 1, "missing": 1}
    listed = [json.loads(line) for line in (run.path / "broken.jsonl").read_text().splitlines()]
    assert {row["sample"]: row["reason"] for row in listed} == {
        "circle0.json": "empty",
        "star1.json": "missing",
    }


def test_another_anchor_is_refused(toy_world: Path, tmp_path: Path) -> None:
    recipe = toy.build_recipe(toy_world, train={"max_steps": 2})
    run = pipeline.align(recipe, out=tmp_path / "run")
    with np.load(toy_world / "space.npz") as table:
        fields = {**table, "space": np.array("another space")}
    np.savez(toy_world / "space.npz", **fields)
    with pytest.raises(AnchorMismatchError, match="is bound to anchor space"):
        pipeline.evaluate(run.path)


def test_evaluate_repeats_the_scores_of_align(toy_world: Path, tmp_path: Path) -> None:
    run = pipeline.align(toy.build_recipe(toy_world), out=tmp_path / "run")
    before = run.report
    after = pipeline.evaluate(run.path)
    assert after.retrieval == before.retrieval
    assert after.zero_shot == before.zero_shot
    assert after.cost == before.cost, "what the run cost stays what it took to train"


def test_controls_are_rows_of_the_same_evaluation(toy_world: Path, tmp_path: Path) -> None:
    run = pipeline.align(toy.build_recipe(toy_world), out=tmp_path / "run")
    report = pipeline.evaluate(run.path, controls=True)
    for control in ("shuffled", "trivial"):
        rows = [row for row in report.retrieval if row.control == control]
        assert len(rows) == len(
            [row for row in report.retrieval if row.control == "none" and not row.reference]
        )
        assert not any(row.trained for row in rows)
    assert run.report == report
    assert (run.path / "controls" / "shuffled" / "tower.safetensors").exists()


def test_evaluate_on_other_pairs(toy_world: Path, tmp_path: Path) -> None:
    run = pipeline.align(toy.build_recipe(toy_world), out=tmp_path / "run")
    lines = (toy_world / "pairs.csv").read_text().splitlines()
    header = lines[0].replace("split", "part").replace("fold", "part2")
    (toy_world / "other.csv").write_text("\n".join([header, *lines[1:7]]) + "\n")
    report = pipeline.evaluate(run.path, data=toy_world / "other.csv")
    assert report.data.test_pairs == 6
    assert run.report.data.test_pairs == 12, "the run's own report stays"


def test_a_dry_run_writes_nothing(toy_world: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    plan = pipeline.describe(toy.build_recipe(toy_world))
    assert plan["steps"] == 24
    assert plan["data"]["train_samples"] == 24
    assert sorted(tmp_path.rglob("*")) == before


def test_a_group_in_two_splits_is_refused(toy_world: Path, tmp_path: Path) -> None:
    path = toy_world / "pairs.csv"
    path.write_text(path.read_text().replace("circle2.json\n", "circle1.json\n"))
    with pytest.raises(ManifestError, match=r"circle1.json"):
        pipeline.align(toy.build_recipe(toy_world), out=tmp_path / "run")


def test_a_report_lost_after_training_still_says_what_training_cost(
    toy_world: Path, tmp_path: Path
) -> None:
    run = pipeline.align(toy.build_recipe(toy_world), out=tmp_path / "run")
    before = run.report.cost
    (run.path / "report.json").unlink()
    after = pipeline.align(toy.build_recipe(toy_world), out=run.path, resume=True).report.cost
    assert after.pairs_seen == before.pairs_seen == 8 * 24
    assert after.seconds > 0.5 * before.seconds


def test_a_damaged_report_is_written_again(toy_world: Path, tmp_path: Path) -> None:
    recipe = toy.build_recipe(toy_world, train={"max_steps": 2})
    run = pipeline.align(recipe, out=tmp_path / "run")
    before = run.report
    for mend in (
        lambda: pipeline.evaluate(run.path),
        lambda: pipeline.align(recipe, out=run.path, resume=True),
    ):
        (run.path / "report.json").write_text("{")
        mend()
        assert run.report.retrieval == before.retrieval


def test_controls_stay_once_they_are_there(toy_world: Path, tmp_path: Path) -> None:
    run = pipeline.align(toy.build_recipe(toy_world, train={"max_steps": 2}), out=tmp_path / "run")
    with_controls = pipeline.evaluate(run.path, controls=True)
    assert pipeline.evaluate(run.path).retrieval == with_controls.retrieval


def test_an_option_that_is_new_since_then_does_not_stop_a_run_from_going_on(
    toy_world: Path, tmp_path: Path
) -> None:
    recipe = toy.build_recipe(toy_world, train={"max_steps": 2})
    run = pipeline.align(recipe, out=tmp_path / "run")
    text = (run.path / "recipe.yaml").read_text()
    assert "window: 8" in text
    (run.path / "recipe.yaml").write_text(text.replace("    window: 8\n", "    {}\n"))
    assert pipeline.align(recipe, out=run.path, resume=True).path == run.path


def test_other_pairs_have_a_root_of_their_own(toy_world: Path, tmp_path: Path) -> None:
    recipe = toy.build_recipe(
        toy_world,
        data={"root": str(toy_world)},
        train={"max_steps": 2},
        evaluation={"links": [], "zero_shot": []},
    )
    run = pipeline.align(recipe, out=tmp_path / "run")
    other = tmp_path / "other"
    (other / "files").mkdir(parents=True)
    for number in range(3):
        content = (toy_world / f"star{number}.json").read_bytes()
        (other / "files" / f"new{number}.json").write_bytes(content)
    rows = "".join(f"new{number}.json,a star\n" for number in range(3))
    (other / "files" / "pairs.csv").write_text("toy,text\n" + rows)
    report = pipeline.evaluate(run.path, data=other / "files" / "pairs.csv")
    assert report.data.test_pairs == 3
    (other / "pairs.csv").write_text("toy,text\n" + rows)
    report = pipeline.evaluate(run.path, data=other / "pairs.csv", root=other / "files")
    assert report.data.test_pairs == 3


def test_a_manifest_that_changed_is_noted_and_not_resumed_on(
    toy_world: Path, tmp_path: Path
) -> None:
    recipe = toy.build_recipe(toy_world, train={"max_steps": 2})
    run = pipeline.align(recipe, out=tmp_path / "run")
    assert pipeline.evaluate(run.path).notes == ()
    with (toy_world / "pairs.csv").open("a") as file:
        file.write("star0.json,a moon,train,0,star,star0.json\n")
    (note,) = pipeline.evaluate(run.path).notes
    assert "has changed since the run was trained" in note
    (run.path / "report.json").unlink()
    with pytest.raises(DataError, match="has changed since it was started"):
        pipeline.align(recipe, out=run.path, resume=True)


def test_runs_of_other_precision_follow_each_other(toy_world: Path, tmp_path: Path) -> None:
    for precision in ("no", "bf16", "no"):
        recipe = toy.build_recipe(toy_world, train={"max_steps": 1, "precision": precision})
        run = pipeline.align(recipe, out=tmp_path / precision, force=True)
        assert pipeline.evaluate(run.path).retrieval == run.report.retrieval


def test_trackers_get_what_is_logged(toy_world: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe = toy.build_recipe(toy_world, train={"max_steps": 3, "trackers": ["tensorboard"]})
    run = pipeline.align(recipe, out=tmp_path / "run")
    found = EventAccumulator(str(run.path / "trackers" / "toy"))
    found.Reload()
    losses = [(event.step, event.value) for event in found.Scalars("loss")]
    steps = run.directory.read_metrics("step")
    assert losses == [(r["step"], pytest.approx(r["loss"], rel=1e-5)) for r in steps]


def test_an_unknown_device_is_named(toy_world: Path, tmp_path: Path) -> None:
    recipe: Recipe = toy.build_recipe(toy_world, device="cuda:7")
    with pytest.raises(InputError, match="cuda:7"):
        pipeline.align(recipe, out=tmp_path / "run")


@pytest.mark.parametrize("suffix", [".npz", ".parquet", ".safetensors"])
def test_embeddings_are_written_and_read_back_as_an_anchor(
    toy_world: Path, tmp_path: Path, suffix: str
) -> None:
    from modalbind.anchors.tables import read_table
    from modalbind.run import load

    run = pipeline.align(toy.build_recipe(toy_world), out=tmp_path / "run")
    files = [str(toy_world / name) for name in ("star0.json", "moon1.json")]
    out = tmp_path / f"embedded{suffix}"
    assert pipeline.embed_files(run.path, "toy", files, out) == 2
    column = read_table(out).columns["toy"]
    assert list(column.keys) == files
    direct = load(run.path).embed("toy", files)
    assert abs(direct.numpy() - column.vectors).max() == 0


def test_levers_of_speed_make_runs_that_learn_and_resume(toy_world: Path, tmp_path: Path) -> None:
    """Head start, bank, lengths, accumulation: together, stopped and gone on with, byte by byte."""
    train = {
        "head_start": "ridge",
        "negatives": "bank",
        "lengths": {"start": 0.5, "until": 0.5},
        "micro_batch_size": 3,
        "checkpoint_every": 5,
    }
    recipe = toy.build_recipe(toy_world, train=train)
    whole = pipeline.align(recipe, out=tmp_path / "whole")
    (trained,) = find_rows(whole.report, "toy", "text", language="en", control="none")
    assert trained.metrics.hit_at_1.value > 3 * trained.metrics.hit_at_1.chance
    short = toy.build_recipe(toy_world, train={**train, "max_steps": 10})
    pipeline.align(short, out=tmp_path / "cut")
    # A shorter run has another schedule: what goes on is a whole run cut at a checkpoint.
    steps = Checkpoints(whole.path / "checkpoints", keep=2).list_steps()
    cut = tmp_path / "again"
    shutil.copytree(whole.path, cut)
    for name in ("tower.safetensors", "report.json", "report.html", "tower.json"):
        (cut / name).unlink(missing_ok=True)
    shutil.rmtree(cut / "checkpoints" / f"step-{steps[-1]}")
    assert read_tower(pipeline.align(recipe, out=cut, resume=True).path) == read_tower(whole.path)


def test_a_head_start_is_the_closed_form(toy_world: Path, tmp_path: Path) -> None:
    """One step at a rate of nothing leaves the head where the ridge put it."""
    train = {"head_start": "ridge", "max_steps": 1, "lr": 1e-12}
    started = pipeline.align(toy.build_recipe(toy_world, train=train), out=tmp_path / "start")
    fitted = pipeline.align(
        toy.build_recipe(toy_world, train={"solver": "ridge"}, augment=[]), out=tmp_path / "ridge"
    )
    one, other = (load_file(run.path / "tower.safetensors") for run in (started, fitted))
    for name in ("head.projection.weight", "head.projection.bias"):
        assert np.allclose(one[name], other[name], atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"train": {"negatives": "bank"}, "objective": {"kind": "sigmoid"}}, "use infonce"),
        ({"train": {"solver": "ridge", "negatives": "bank"}, "augment": []}, "train.negatives"),
        ({"train": {"head_start": "ridge"}, "head": {"kind": "mlp"}}, "linear head"),
    ],
)
def test_levers_that_do_not_fit_are_refused(
    toy_world: Path, tmp_path: Path, changes: dict[str, object], found: str
) -> None:
    with pytest.raises((InputError, ValueError), match=found):
        pipeline.align(toy.build_recipe(toy_world, **changes), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_keeps_the_precision_that_it_was_started_with(
    toy_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on a machine where the probe would find the other one faster."""
    recipe = toy.build_recipe(toy_world, train={"precision": "auto", "epochs": 2})
    times = {"torch.float32": 1.0, "torch.bfloat16": 2.0}
    monkeypatch.setattr(
        "modalbind.engine._time_products", lambda size, kind, device: times[str(kind)]
    )
    run = pipeline.align(recipe, out=tmp_path / "run")
    assert RunDirectory(run.path).read_recipe().train.precision == "no"
    (run.path / "report.json").unlink()
    times["torch.bfloat16"] = 0.1
    again = pipeline.align(recipe, out=run.path, resume=True)
    assert RunDirectory(again.path).read_recipe().train.precision == "no"


def test_a_run_keeps_the_layout_that_it_was_started_with(
    toy_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = toy.build_recipe(toy_world, train={"channels_last": "auto", "epochs": 2})
    monkeypatch.setattr("modalbind.pipeline.settle_layout", _say_last)
    run = pipeline.align(recipe, out=tmp_path / "run")
    assert RunDirectory(run.path).read_recipe().train.channels_last is True
    (run.path / "report.json").unlink()
    monkeypatch.setattr("modalbind.pipeline.settle_layout", lambda *_: pytest.fail("again"))
    again = pipeline.align(recipe, out=run.path, resume=True)
    assert RunDirectory(again.path).read_recipe().train.channels_last is True


def _say_last(recipe: Recipe, *_: object) -> Recipe:
    section = recipe.train.model_copy(update={"channels_last": True})
    return recipe.model_copy(update={"train": section})
