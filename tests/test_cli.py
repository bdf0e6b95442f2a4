"""The command line in this process; what it calls is replaced where it would train."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

import modalbind
from modalbind.cli import main
from modalbind.cli.output import print_table
from modalbind.errors import RunError
from modalbind.recipe import catalog, load_recipe
from modalbind.rundir import SweepPlan

RECIPE = """
name: one
summary: Made up.
modality: {name: audio}
encoder: {kind: beats}
data: {sources: [{kind: world, train: 8}]}
"""


class Report:
    """As much of a report as the command line touches."""

    def model_dump(self, mode):
        return {"format": 1, "mode": mode}


@pytest.fixture(autouse=True)
def _own_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODALBIND_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MODALBIND_PLUGINS", raising=False)


@pytest.fixture
def recipe_file(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE)
    return str(path)


@pytest.fixture
def calls(monkeypatch):
    """Replace pipeline and report; return what the pipeline was called with."""
    made = []

    def record(name, result):
        def call(*args, **kwargs):
            made.append((name, args, kwargs))
            return result

        return call

    run = SimpleNamespace(path=Path("runs/one"), report=Report())
    pipeline = SimpleNamespace(
        align=record("align", run),
        describe=record("describe", {"train_pairs": 8, "name": "one"}),
        evaluate=record("evaluate", Report()),
        embed_files=record("embed_files", 3),
        verify_anchor=record("verify_anchor", {"fingerprint": "ab"}),
    )
    sweeps = SimpleNamespace(
        sweep=record("sweep", Path("runs/sweep")),
        plan_sweep=lambda recipe, seeds, folds: SweepPlan(recipe, seeds or (0,), folds or (None,)),
        evaluate_sweep=record("evaluate_sweep", Report()),
        compare=record("compare", Report()),
    )
    report = SimpleNamespace(
        render_terminal=lambda report: "the tables",
        render_summary_terminal=lambda summary: "the summary",
        render_comparison_terminal=lambda comparison: "the comparison",
        read_summary=lambda path: Report(),
    )
    binding = SimpleNamespace(evaluate_together=record("evaluate_together", Report()))
    monkeypatch.setattr(modalbind, "binding", binding, raising=False)
    monkeypatch.setattr(modalbind, "pipeline", pipeline, raising=False)
    monkeypatch.setattr(modalbind, "sweeps", sweeps, raising=False)
    monkeypatch.setattr(modalbind, "report", report, raising=False)
    return made


def run_json(capsys, *args):
    assert main([*args, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def fails(capsys, *args, code=2):
    """Return the one line on stderr of a command that must fail."""
    assert main(list(args)) == code
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert captured.out == ""
    assert line.startswith("modalbind: error: ")
    return line


def test_align_passes_the_recipe_and_prints_the_report(capsys, calls, recipe_file):
    assert main(
        ["align", "--recipe", recipe_file, "--set", "train.lr=1e-4", "--set", "train.epochs=2",
         "--seed", "5", "--out", "here", "--force"]
    ) == 0  # fmt: skip
    ((name, (recipe,), options),) = calls
    assert name == "align"
    assert (recipe.train.lr, recipe.train.epochs, recipe.seed) == (1e-4, 2, 5)
    assert (options["out"], options["resume"], options["force"]) == (Path("here"), False, True)
    out = capsys.readouterr().out
    assert "the tables" in out
    assert "runs/one" in out


def test_align_json_is_the_report_alone(capsys, calls, recipe_file):
    assert run_json(capsys, "align", "--recipe", recipe_file) == {"format": 1, "mode": "json"}
    assert calls[0][2]["console"] is None


def test_align_with_own_data(calls, recipe_file):
    args = ["--data", "my.csv", "--anchor", "precomputed:t.npz", "--root", "/r", "--device", "cpu"]
    assert main(["align", "--modality", "audio", "--recipe", recipe_file, *args]) == 0
    recipe = calls[0][1][0]
    here = Path.cwd()
    assert [s.options for s in recipe.data.sources] == [{"path": f"{here / 'my.csv'}"}]
    assert (recipe.anchor.spec, recipe.data.root, recipe.device) == (
        f"precomputed:{here / 't.npz'}",
        "/r",
        "cpu",
    )


def test_dry_run_describes_and_trains_nothing(capsys, calls, recipe_file):
    planned = run_json(capsys, "align", "--recipe", recipe_file, "--dry-run")
    assert planned == {"train_pairs": 8, "name": "one"}
    assert main(["align", "--recipe", recipe_file, "--dry-run"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == planned
    assert {name for name, _, _ in calls} == {"describe"}
    swept = run_json(capsys, "align", "--recipe", recipe_file, "--dry-run", "--seeds", "0,1")
    assert swept == {**planned, "runs": ["seed-0", "seed-1"]}


@pytest.mark.parametrize(
    ("given", "seeds", "folds"),
    [
        (["--seeds", "0,1, 2"], (0, 1, 2), None),
        (["--folds", "all"], (), "all"),
        (["--seeds", "1", "--folds", "2,3"], (1,), ("2", "3")),
    ],
)
def test_seeds_and_folds_make_a_sweep(capsys, calls, recipe_file, given, seeds, folds):
    run_json(capsys, "align", "--recipe", recipe_file, "--seed", "4", *given)
    ((name, _, options),) = calls
    assert (name, options["seeds"], options["folds"]) == ("sweep", seeds, folds)


def test_resume_alone_takes_the_recipe_of_the_run(calls, tmp_path, recipe_file, monkeypatch):
    monkeypatch.setattr("modalbind.cli.runs._read_started", lambda out: (("of", out), (), None))
    assert main(["align", "--resume", "--out", "there"]) == 0
    ((_, (recipe,), options),) = calls
    assert recipe == ("of", Path("there"))
    assert options["resume"] is True


def test_resume_alone_goes_on_with_a_sweep(calls, tmp_path, recipe_file):
    recipe = load_recipe(recipe_file)
    SweepPlan(recipe, (0, 3), ("1", "2")).start(tmp_path / "sweep", resume=False, force=False)
    assert main(["align", "--resume", "--out", str(tmp_path / "sweep")]) == 0
    ((name, (found,), options),) = calls
    assert (name, found.name) == ("sweep", "one")
    assert (options["seeds"], options["folds"]) == ((0, 3), ("1", "2"))


@pytest.fixture
def two_runs(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()


@pytest.mark.usefixtures("two_runs")
def test_evaluate(capsys, calls):
    run_json(capsys, "evaluate", "a", "--data", "d.csv")
    run_json(capsys, "evaluate", "a", "--controls")
    assert [args for _, args, _ in calls] == [(Path("a"),)] * 2
    assert [(o["data"], o["controls"]) for _, _, o in calls] == [
        (Path("d.csv"), False),
        (None, True),
    ]


def test_evaluate_several_runs(capsys, calls):
    run_json(capsys, "evaluate", "a", "b", "--data", "d.csv", "--out", "o")
    ((name, (runs,), options),) = calls
    assert (name, runs) == ("evaluate_together", [Path("a"), Path("b")])
    assert (options["data"], options["out"]) == (Path("d.csv"), Path("o"))


@pytest.mark.usefixtures("two_runs")
def test_evaluate_against_another_run(capsys, calls):
    run_json(capsys, "evaluate", "a", "--against", "b", "--data", "d.csv")
    ((name, runs, options),) = calls
    assert (name, runs, options["data"]) == ("compare", (Path("a"), Path("b")), Path("d.csv"))


def test_evaluate_a_sweep(capsys, calls, tmp_path):
    (tmp_path / "sweep.json").write_text("{}")
    assert main(["evaluate", str(tmp_path), "--controls"]) == 0
    ((name, (path,), options),) = calls
    assert (name, path, options["controls"]) == ("evaluate_sweep", tmp_path, True)
    assert capsys.readouterr().out.strip() == "the summary"
    assert "name one of them" in fails(capsys, "evaluate", str(tmp_path), "--data", "d.csv")


def test_embed_files_and_texts(capsys, calls, tmp_path):
    found = run_json(capsys, "embed", "run", "a.wav", "--modality", "audio", "--out", "o.npz")
    assert found == {"out": "o.npz", "modality": "audio", "rows": 3}
    assert calls[0][1] == (Path("run"), "audio", ["a.wav"], Path("o.npz"), False)
    (tmp_path / "t.txt").write_text("one\n\ntwo\n")
    args = ["t.txt", "a text", "absent.txt", "--modality", "text", "--out", "o.npz", "--windows"]
    assert main(["embed", "run", *args]) == 0
    assert calls[1][1][2:] == (["one", "two", "a text", "absent.txt"], Path("o.npz"), True)


def test_plugins_lists_and_reports_the_broken(capsys, tmp_path, monkeypatch):
    folder = tmp_path / "lib" / "bad_plugin-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: bad-plugin\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[modalbind]\nbad = bad_plugin\n")
    monkeypatch.syspath_prepend(tmp_path / "lib")
    rows = {row["name"]: row for row in run_json(capsys, "plugins")}
    assert rows["modalbind"]["status"] == "ok"
    assert "openclip" in rows["modalbind"]["adds"]["anchor"]
    assert rows["bad"]["status"] == "broken"
    assert "pip uninstall bad-plugin" in rows["bad"]["hint"]
    assert main(["plugins", "list"]) == 0
    out = capsys.readouterr().out
    assert "bad-plugin" in out
    assert "broken" in out


def test_recipes_list_show_check(capsys, tmp_path, monkeypatch):
    folder = tmp_path / "core" / "audio"
    folder.mkdir(parents=True)
    (folder / "one.yaml").write_text(RECIPE)
    monkeypatch.setattr(catalog, "core_folder", lambda: folder.parent)
    (row,) = [row for row in run_json(capsys, "recipes") if row["name"] == "audio/one"]
    assert row["summary"] == "Made up."
    shown = run_json(capsys, "recipes", "show", "audio/one")
    assert shown["train"]["batch_size"] == 64
    assert shown["data"]["sources"][0]["weight"] == 1.0
    assert main(["recipes", "show", "one"]) == 0
    assert capsys.readouterr().out == RECIPE
    assert run_json(capsys, "recipes", "check", "one")["ok"] is True
    (folder / "bad.yaml").write_text(RECIPE + "sed: 1\n")
    assert "did you mean 'seed'" in fails(capsys, "recipes", "check", "audio/bad")


def test_anchors_and_cache(capsys, calls, tmp_path):
    kinds = [row["kind"] for row in run_json(capsys, "anchors")]
    assert kinds[:3] == ["openclip", "transformers", "precomputed"]
    assert run_json(capsys, "anchors", "verify", "run") == {"fingerprint": "ab"}
    cache = str(tmp_path / "cache")
    assert run_json(capsys, "cache") == {
        "root": cache,
        "spaces": [],
        "features": [],
        "shard_indexes": [],
    }
    assert run_json(capsys, "cache", "verify") == {"root": cache, "damaged": []}
    assert run_json(capsys, "cache", "prune", "--unused-days", "1")["files"] == 0
    for command in (["anchors"], ["cache"], ["cache", "verify"], ["cache", "prune"]):
        assert main(command) == 0
    assert "is empty" in capsys.readouterr().out


def test_version_names_what_matters(capsys):
    assert main(["--version"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"modalbind {modalbind.__version__}"
    named = {line.split()[0] for line in lines[1:]}
    assert {"torch", "open_clip_torch", "transformers", "python"} <= named


@pytest.mark.parametrize("args", [[], ["--help"], ["align", "--help"], ["cache", "--help"]])
def test_help(capsys, args):
    assert main(args) == 0
    assert "Usage: modalbind" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "found"),
    [
        (["algin"], "No such command 'algin'"),
        (["align", "--modalty", "audio"], "--modality"),
        (["align"], "neither a modality"),
        (["align", "--modality", "sonar"], "modality 'sonar' not found; installed: "),
        (["align", "--seed", "x"], "modalbind align --help"),
        (["align", "--modality", "audio", "--seeds", "x"], "write --seeds 0,1,2"),
        (["align", "--modality", "audio", "--seeds", ","], "an item is empty"),
        (["align", "--modality", "audio", "--seeds", "0,1,0"], "stands twice"),
        (["align", "--modality", "audio", "--folds", ""], "an item is empty"),
        (["align", "--resume", "--set", "train.epochs=3"], "repeat all that it was started with"),
        (["align", "--resume", "--force"], "one keeps the run, the other replaces it"),
        (["cache", "prune", "fff"], "has none; name one of these"),
        (["evaluate"], "Missing argument"),
        (["evaluate", "a", "b", "--against", "c"], "with 2 runs asked for"),
        (["evaluate", "a", "--out", "d"], "its report lies in the run"),
        (["evaluate", "a", "--controls", "--against", "b"], "give one"),
        (["evaluate", "a", "--controls", "--data", "d.csv"], "a run's own test"),
        (["evaluate", "a", "--root", "d"], "a run knows its own"),
        (["embed", "run", "a.wav", "--out", "x.npz"], "--modality"),
        (["recipes", "show", "absent"], "recipe 'absent' not found"),
        (["plugins", "check", "absent"], "plugin 'absent' not found"),
        (["anchors", "show", "nonsense"], "kind:source"),
        (["align", "--recipe", "absent.yaml"], "no such file"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(capsys, args, found):
    line = fails(capsys, *args)
    assert found in line
    assert line.count("; ") >= 2


def raising(error):
    def call(*args, **kwargs):
        raise error

    return call


@pytest.mark.parametrize(
    ("error", "code", "found"),
    [
        (RunError("run x asked for; taken; use --force"), 2, "taken; use --force"),
        (ValueError("two\nlines"), 1, "unexpected ValueError: two lines; try again with --debug"),
    ],
)
def test_errors_while_running(capsys, calls, recipe_file, error, code, found):
    modalbind.pipeline.align = raising(error)
    args = ["align", "--recipe", recipe_file, "--json"]
    assert found in fails(capsys, *args, code=code)
    assert main([*args, "--debug"]) == code
    assert "Traceback" in capsys.readouterr().err


def test_interrupt_is_130_and_termination_passes(capsys, calls, recipe_file):
    modalbind.pipeline.align = raising(KeyboardInterrupt())
    assert main(["align", "--recipe", recipe_file]) == 128 + signal.SIGINT
    assert "interrupted" in capsys.readouterr().err
    modalbind.pipeline.align = raising(SystemExit(143))
    with pytest.raises(SystemExit, match="143"):
        main(["align", "--recipe", recipe_file])


def test_python_m_is_the_command_line(tmp_path):
    command = [sys.executable, "-m", "modalbind", "algin"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "No such command 'algin'" in done.stderr


def test_what_is_piped_is_not_cut_at_80_columns(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    print_table(("name",), [("x" * 100,)], "none")
    assert "x" * 100 in capsys.readouterr().out


def test_looking_never_imports_torch():
    """One process runs them all: imports add up, so none of them may import torch."""
    script = """
import sys
from modalbind.cli import main
for args in (["--help"], ["plugins"], ["plugins", "--json"], ["recipes"], ["anchors"],
             ["--version"], ["align", "--help"]):
    assert main(args) == 0, args
heavy = {"torch", "open_clip", "transformers", "timm", "peft", "accelerate", "torchaudio"}
sys.exit(f"imported: {heavy & set(sys.modules)}" if heavy & set(sys.modules) else 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
