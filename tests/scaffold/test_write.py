"""Every kind of plugin is rendered, and what comes out stands up to the tools of its author."""

import ast
import json
import os
import subprocess
import sys
import tomllib

import pytest

import modalbind.scaffold.following
import modalbind.scaffold.write
from modalbind.cli import main
from modalbind.errors import InputError
from modalbind.plugin_manager import load_plugins
from modalbind.recipe.yaml_loader import read_yaml
from modalbind.scaffold import KINDS, plan_plugin, write_plugin
from modalbind.scaffold.following import FeatureShape

LONG = "a-very-long-name-with-30-chars"
NAMES = {  # kind -> names, a shortest, a longest and a difficult one among them
    "modality": ("imu", "eeg-64", "x_ray", LONG, "3", "null"),
    "encoder": ("wavelets", LONG),
    "dataset": ("fsd-50", LONG),
    "augmentation": ("louder", LONG),
    "anchor": ("hashing", LONG),
    "objective": ("margin", LONG),
}
FOR_AUDIO = ("encoder", "dataset", "augmentation")
CASES = [(kind, name) for kind in KINDS for name in NAMES[kind]]


@pytest.fixture(scope="module")
def plugins():
    return load_plugins(strict=False)


@pytest.fixture(autouse=True)
def _features(monkeypatch):
    """Spare the tests of text from making sounds; `test_features_are_looked_at` makes them."""
    monkeypatch.setattr(
        modalbind.scaffold.write, "look_at_features", lambda *_: FeatureShape(True, (99, 64))
    )


def write(kind, name, out, plugins, modality=None):
    modality = modality or ("audio" if kind in FOR_AUDIO else None)
    plan = plan_plugin(name, kind, modality, out, plugins)
    return plan, write_plugin(plan, plugins)


def run_tool(folder, *arguments):
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_rendered_plugin_is_whole(kind, name, plugins, tmp_path):
    plan, files = write(kind, name, tmp_path, plugins)
    assert list(tmp_path.iterdir()) == [plan.folder]  # nothing is left of the rendering
    assert {path.name for path in files} >= {
        "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "test.yml", "test_contract.py",
        "py.typed", "__init__.py", "options.py", ".gitignore",
    }  # fmt: skip
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert text.endswith("\n") or not text
        left = text.replace("${{ matrix.python }}", "")
        assert not any(mark in left for mark in ("{{", "{%", "Undefined")), path
        if path.suffix == ".py":
            ast.parse(text)
    project = tomllib.loads((plan.folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] == f"modalbind-{name}"
    assert project["entry-points"]["modalbind"] == {name: plan.package}
    assert (plan.folder / plan.package / "__init__.py").is_file()
    (bound,) = [d for d in project["dependencies"] if d.startswith("modalbind")]
    assert ">=" in bound and not any(mark in bound for mark in ("<", "==", "~=", "!="))


def test_ruff_finds_nothing_to_mend(plugins, tmp_path):
    for kind, name in CASES:
        write(kind, name, tmp_path / kind, plugins)
    for command in (["check"], ["format", "--check"]):
        done = run_tool(tmp_path, "ruff", *command, "--no-cache", ".")
        assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_strict_mypy_finds_nothing_to_mend(plugins, tmp_path):
    folders = [
        plan.folder / plan.package
        for kind in KINDS
        for plan, _ in [write(kind, NAMES[kind][0], tmp_path, plugins)]
    ]
    done = run_tool(tmp_path, "mypy", "--strict", *map(str, folders))
    assert done.returncode == 0, done.stdout


def test_encoders_for_grids_pass_their_own_tests(plugins, tmp_path, monkeypatch):
    shapes = {"colour": (3, 32, 48), "grey": (32, 48), "line": (20,)}
    for name, shape in shapes.items():
        monkeypatch.setattr(
            modalbind.scaffold.write, "look_at_features", lambda *_, s=shape: FeatureShape(False, s)
        )
        plan, _ = write("encoder", name, tmp_path, plugins)
        monkeypatch.setenv("PYTHONPATH", str(plan.folder), prepend=os.pathsep)
    tests = [f"modalbind-{name}/tests/test_encoder.py" for name in shapes]
    options = ("-q", "-p", "no:cacheprovider", "--import-mode=importlib")
    done = run_tool(tmp_path, "pytest", *options, *tests)
    assert done.returncode == 0, done.stdout
    assert "9 passed" in done.stdout


def test_features_are_looked_at(plugins):
    # The quick start of audio asks for 64 mel filters.
    shape = modalbind.scaffold.following.look_at_features("audio", plugins)
    assert shape.is_padded
    assert len(shape.shape) == 2 and shape.shape[1] == 64


@pytest.mark.parametrize(
    ("kind", "section"),
    [
        ("encoder", {"encoder": {"kind": "mine"}}),
        ("augmentation", {"augment": [{"kind": "mine"}]}),
        ("anchor", {"anchor": {"spec": "mine:512"}}),
        ("objective", {"objective": {"kind": "mine"}}),
    ],
)
def test_recipe_is_the_quick_start_with_one_change(kind, section, plugins, tmp_path):
    plan, files = write(kind, "mine", tmp_path, plugins, modality="audio")
    (path,) = [path for path in files if path.suffix == ".yaml"]
    assert path == plan.folder / plan.package / "recipes" / "mine" / "quickstart.yaml"
    made = read_yaml(path)
    source = read_yaml(modalbind.scaffold.following.find_recipe("audio/quickstart", plugins))
    for recipe in (made, source):
        recipe.pop("name"), recipe.pop("summary")
    assert made == source | section


def test_recipe_of_a_data_set_takes_the_place_of_the_users_pairs(plugins, tmp_path):
    _, files = write("dataset", "mine", tmp_path, plugins)
    (path,) = [path for path in files if path.suffix == ".yaml"]
    assert path.name == "default.yaml"
    assert read_yaml(path)["data"] == {"sources": [{"kind": "mine"}]}


def test_without_a_modality_there_is_no_recipe(plugins, tmp_path):
    _, files = write("anchor", "mine", tmp_path, plugins)
    assert not [path for path in files if path.suffix == ".yaml" and ".github" not in path.parts]


def test_what_fails_half_way_leaves_nothing(plugins, tmp_path, monkeypatch):
    import copier

    calls = []

    def fail_third(*args, **kwargs):
        calls.append(kwargs["data"]["part"])
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        return run_copy(*args, **kwargs)

    run_copy = copier.run_copy
    monkeypatch.setattr(copier, "run_copy", fail_third)
    with pytest.raises(InputError, match="No space left on device; name a folder"):
        write("modality", "imu", tmp_path, plugins)
    assert len(calls) == 3
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_used(plugins, tmp_path):
    (tmp_path / "modalbind-imu").mkdir()
    plan, files = write("modality", "imu", tmp_path, plugins)
    assert len(files) > 20
    assert list(tmp_path.iterdir()) == [plan.folder]


def test_a_place_that_cannot_be_written_is_named(plugins, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="name a folder that can be written with --out"):
        write("modality", "imu", tmp_path / "file" / "inner", plugins)


def test_without_copier_one_line_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "copier", None)
    assert main(["plugins", "new", "imu", "--out", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("try: pip install 'modalbind[author]'")
    assert list(tmp_path.iterdir()) == []


def test_no_git_is_needed_and_no_command_but_this_imports_copier(tmp_path):
    code = (
        "import sys; from modalbind.cli import main;"
        "main(['plugins', '--json']); assert 'copier' not in sys.modules;"
        "sys.exit(main(['plugins', 'new', 'imu', '--out', sys.argv[1], '--json']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env={"PATH": "/nonexistent", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert (tmp_path / "modalbind-imu" / "pyproject.toml").is_file()


def test_command_prints_what_to_type_next(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["plugins", "new", "eeg-64"]) == 0
    first, *commands = capsys.readouterr().out.splitlines()
    assert first.startswith("modalbind-eeg-64 written to modalbind-eeg-64, ")
    assert [command.strip() for command in commands] == [
        "python -m pip install -e './modalbind-eeg-64[test]'",
        "modalbind align --modality eeg-64",
        "python -m pytest modalbind-eeg-64",
        "modalbind plugins check eeg-64",
    ]


def test_json_lists_the_files_that_are_there(tmp_path, capsys):
    out = tmp_path / "two words"
    assert main(["plugins", "new", "imu", "--out", str(out), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    folder = out / "modalbind-imu"
    found = sorted(str(path) for path in folder.rglob("*") if path.is_file())
    assert printed["files"] == found
    assert printed["folder"] == str(folder)
    assert printed["next"][0] == f"python -m pip install -e '{folder}[test]'"
