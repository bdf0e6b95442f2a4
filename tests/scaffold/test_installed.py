"""A rendered plugin, installed: listed, aligned, its own tests and the contract green.

The default run installs by hand (metadata and source folder on the path) and shortens the quick
start; the slow tests build and install real wheels and run everything at full size.
"""

import json
import os
import subprocess
import sys
import tomllib

import pytest

from modalbind.plugin_manager import load_plugins
from modalbind.scaffold import plan_plugin, write_plugin

SMALL = ("encoder", "dataset", "augmentation", "anchor", "objective")


def write(name, kind, out, modality=None):
    plugins = load_plugins(strict=False)
    plan = plan_plugin(name, kind, modality, out, plugins)
    write_plugin(plan, plugins)
    return plan


def install_by_hand(plan, site):
    """Leave what pip leaves of an editable install; needs no build backend."""
    project = tomllib.loads((plan.folder / "pyproject.toml").read_text())["project"]
    info = site / f"{plan.package}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    requires = "".join(f"Requires-Dist: {each}\n" for each in project["dependencies"])
    head = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (info / "METADATA").write_text(head + requires)
    entries = project["entry-points"]["modalbind"]
    lines = [f"{name} = {package}\n" for name, package in entries.items()]
    (info / "entry_points.txt").write_text("[modalbind]\n" + "".join(lines))
    return os.pathsep.join((str(site), str(plan.folder)))


def install_wheel(plan, site):
    """Build a wheel and let pip unpack it; nothing is fetched."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = [*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(site / "dist")]
    subprocess.run([*build, str(plan.folder)], check=True, timeout=300)
    (wheel,) = (site / "dist").glob(f"{plan.package}-*.whl")
    install = [*pip, "install", "-q", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True, timeout=300)
    return str(site)


def run(path, folder, *arguments, cache=None):
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    environment.pop("MODALBIND_PLUGINS", None)
    if cache is not None:
        environment["MODALBIND_CACHE"] = str(cache)
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


ONE_PROCESS = """
import contextlib, io, json, sys
import pytest
from modalbind.cli import main

def call(*arguments):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = main([*arguments, "--json"])
    assert code == 0, (code, printed.getvalue())
    return json.loads(printed.getvalue())

listed = call("plugins")
assert "torch" not in sys.modules
sizes = ["--set", "data.sources.0.train=320", "--set", "data.sources.0.test=64",
         "--set", "evaluation.bootstrap=200"]
report = call("align", "--modality", "eeg-64", "--out", "run", *sizes)
with contextlib.redirect_stdout(sys.stderr):
    code = pytest.main(["-q", "-p", "no:cacheprovider", "tests", "--ignore=tests/test_contract.py",
                        "--ignore=tests/test_recipes.py", "--ignore=tests/test_toy.py"])
print(json.dumps({"listed": listed, "report": report, "tests": int(code)}))
"""


def english(report, query, target):
    (row,) = [
        row
        for row in report["retrieval"]
        if (row["query"], row["target"], row["language"]) == (query, target, "en")
        and row["control"] == "none"
    ]
    return row["metrics"]["recall_at_10"]


def test_untouched_it_is_listed_learns_and_passes_its_tests(tmp_path):
    plan = write("eeg-64", "modality", tmp_path)
    path = install_by_hand(plan, tmp_path / "site")
    found = json.loads(run(path, plan.folder, "-c", ONE_PROCESS))
    (row,) = [row for row in found["listed"] if row["distribution"] == "modalbind-eeg-64"]
    assert row["status"] == "ok"
    assert row["adds"] == {
        "modality": ["eeg-64"],
        "encoder": ["small"],
        "dataset": ["folder"],
        "augmentation": ["erase"],
    }
    for query, target in (("eeg-64", "text"), ("text", "eeg-64")):
        score = english(found["report"], query, target)
        assert score["ci95"][0] > 1.5 * score["chance"]
    assert found["tests"] == 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_modality_from_its_wheel_is_green_throughout(tmp_path):
    pytest.importorskip("hatchling")
    plan = write("x_ray", "modality", tmp_path)
    path = install_wheel(plan, tmp_path / "site")
    cache = tmp_path / "cache"
    arguments = ("align", "--modality", "x_ray", "--out", str(tmp_path / "run"), "--json")
    report = json.loads(run(path, tmp_path, "-m", "modalbind", *arguments, cache=cache))
    for query, target in (("x_ray", "text"), ("text", "x_ray")):
        assert english(report, query, target)["value"] > 0.9  # chance is 0.03
    data = ("-m", "modalbind_x_ray.toy", str(tmp_path / "toy"))
    assert "pairs.csv written" in run(path, tmp_path, *data)
    own = ("--data", str(tmp_path / "toy" / "pairs.csv"), "--anchor", "openclip:world")
    arguments = ("align", "--modality", "x_ray", *own, "--out", str(tmp_path / "own"), "--json")
    report = json.loads(run(path, tmp_path, "-m", "modalbind", *arguments, cache=cache))
    score = english(report, "x_ray", "text")
    assert score["ci95"][0] > 2 * score["chance"]
    assert " passed" in run(path, plan.folder, "-m", "pytest", "-q")
    checked = json.loads(
        run(path, tmp_path, "-m", "modalbind", "plugins", "check", "x_ray", "--json", cache=cache)
    )
    assert checked["ok"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", SMALL)
def test_small_plugin_from_its_wheel_passes_its_tests(kind, tmp_path):
    pytest.importorskip("hatchling")
    plan = write(f"my-{kind}", kind, tmp_path, "audio")
    path = install_wheel(plan, tmp_path / "site")
    printed = run(path, plan.folder, "-m", "pytest", "-q")
    assert " passed" in printed and " failed" not in printed
    if kind == "dataset":
        return  # its recipe needs data
    short = ("--set", "train.max_steps=2", "--set", "data.sources.0.train=128")
    recipe = ("align", "--recipe", f"my-{kind}/quickstart", "--out", str(tmp_path / "run"))
    run(path, tmp_path, "-m", "modalbind", *recipe, *short, "--json")
