"""Many broken distributions at once, installed by pip: the good ones work, the list tells all."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from isolation.wheels import Distribution, Environment, install

from modalbind.interfaces import API_VERSION

MODALITY = """
from modalbind.api import ModalitySpec, hookimpl

@hookimpl
def modalbind_modalities():
    return [ModalitySpec(
        name="{name}", summary="Made up.", api_version={api_version}, build="nowhere:build",
        unit="none", suffixes=(".{name}",), default_recipe="{name}/default",
        quickstart_recipe="{name}/quickstart",
    )]
"""
HOOK = "from modalbind.api import hookimpl\n\n@hookimpl\ndef {}:\n    return []\n"


def offers(name: str, api_version: int = API_VERSION) -> str:
    return MODALITY.format(name=name, api_version=api_version)


GOOD = [
    Distribution("first-twin", "first-twin", offers("twins")),
    Distribution("prints-plugin", "prints", "print('installed, thank you!')\n" + offers("prints")),
]
BROKEN = [
    Distribution("raises-plugin", "raises", "raise RuntimeError('out of\\ncheese')\n"),
    Distribution("exits-plugin", "exits", "import sys\n\nsys.exit(0)\n"),
    Distribution("misspelt-plugin", "misspelt", HOOK.format("modalbind_modalitys()")),
    Distribution("signature-plugin", "signature", HOOK.format("modalbind_modalities(options)")),
    Distribution("future-plugin", "future", offers("tomorrow", API_VERSION + 1), version="7.2"),
    Distribution("second-twin", "second-twin", offers("twins")),
    Distribution("aaa-sound", "audio", offers("audio")),  # sorts before modalbind-audio
    Distribution("gone-plugin", "gone", offers("gone")),
    Distribution("lacks-plugin", "lacks", "import not_there.parts\n", ("not-there>=2",)),
]
# What the list must say of each, and what to do.
SAID = {
    "raises-plugin": (["RuntimeError: out of cheese"], ["pip install --upgrade raises-plugin"]),
    "exits-plugin": (["SystemExit"], ["pip uninstall exits-plugin"]),
    "misspelt-plugin": (
        ["no hook 'modalbind_modalitys'", "'modalbind_modalities'?"],
        ["authors of misspelt-plugin", "pip uninstall"],
    ),
    "signature-plugin": (
        ["modalbind_modalities(options)", "{'options'}"],
        ["authors of signature-plugin", "pip uninstall"],
    ),
    "future-plugin": (
        [f"API version {API_VERSION + 1}, modalbind has {API_VERSION}"],
        ["pip install --upgrade modalbind"],
    ),
    "second-twin": (["'twins'", "first-twin and second-twin"], ["pip uninstall second-twin"]),
    "aaa-sound": (["'audio'", "modalbind-audio"], ["aaa-sound"]),
    "gone-plugin": (["No module named 'gone_plugin'"], ["pip uninstall gone-plugin"]),
    "lacks-plugin": (["No module named 'not_there'"], ["pip install not-there"]),
}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    if find_spec("pip") is None:
        pytest.skip("pip is not installed in this environment")
    site = tmp_path_factory.mktemp("site")
    install([*GOOD, *BROKEN], tmp_path_factory.mktemp("wheels"), site)
    shutil.rmtree(site / "gone_plugin")  # as a careless removal leaves it: metadata alone
    return Environment(site, tmp_path_factory.mktemp("elsewhere"))


@pytest.fixture(scope="module")
def listed(environment: Environment) -> dict[str, dict[str, Any]]:
    done = environment.modalbind("plugins", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return {row["distribution"]: row for row in json.loads(done.stdout)}


def test_help_and_versions_work(environment: Environment) -> None:
    done = environment.modalbind("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage: modalbind" in done.stdout
    done = environment.modalbind("--version")
    assert (done.returncode, done.stderr) == (0, "")
    for distribution in BROKEN:
        assert f"  {distribution.name} {distribution.version} (broken)\n" in done.stdout


def test_the_good_ones_are_ok(listed: dict[str, dict[str, Any]]) -> None:
    assert listed["modalbind"]["status"] == listed["modalbind-audio"]["status"] == "ok"
    assert "audio" in listed["modalbind-audio"]["adds"]["modality"]
    assert listed["prints-plugin"]["adds"] == {"modality": ["prints"]}
    assert listed["first-twin"]["adds"] == {"modality": ["twins"]}


def test_every_case_is_told(listed: dict[str, dict[str, Any]]) -> None:
    assert {distribution.name for distribution in BROKEN} == set(SAID)


@pytest.mark.parametrize("distribution", BROKEN, ids=lambda distribution: distribution.name)
def test_the_list_says_what_is_wrong_and_what_to_do(
    listed: dict[str, dict[str, Any]], distribution: Distribution
) -> None:
    row = listed[distribution.name]
    assert (row["status"], row["version"], row["adds"]) == ("broken", distribution.version, {})
    wrong, remedy = SAID[distribution.name]
    for words in wrong:
        assert words in row["error"]
    for words in remedy:
        assert words in row["hint"]
    for text in (row["error"], row["hint"]):
        assert "\n" not in text and "Traceback" not in text
        assert str(Path(__file__).parents[2]) not in text and " at 0x" not in text


def test_the_table_says_the_same_in_one_line_a_plugin(
    environment: Environment, listed: dict[str, dict[str, Any]]
) -> None:
    done = environment.modalbind("plugins")
    assert (done.returncode, done.stderr) == (0, "")
    assert "thank you" not in done.stdout
    lines = done.stdout.splitlines()
    for distribution, row in listed.items():
        (line,) = [line for line in lines if line.split()[1:2] == [distribution]]
        assert line.split()[3] == row["status"]
        if row["status"] == "broken":
            assert f"{row['error']}; {row['hint']}" in line


def test_align_plans_a_run(environment: Environment) -> None:
    done = environment.modalbind("align", "--modality", "audio", "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["recipe"]["modality"]["name"] == "audio"


@pytest.mark.slow
def test_align_runs(environment: Environment) -> None:
    small = ["train.max_steps=2", "data.sources=[{kind: world, train: 8, test: 256}]"]
    options = [part for change in small for part in ("--set", change)]
    done = environment.modalbind("align", "--modality", "audio", "--out", "run", *options, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["anchor"]["fingerprint"] == report["anchor"]["fingerprint_after"]
    assert (environment.folder / "run" / "tower.safetensors").is_file()


@pytest.mark.parametrize("modality", ["exits", "tomorrow"])
def test_a_broken_modality_is_one_line_and_exit_code_2(
    environment: Environment, listed: dict[str, dict[str, Any]], modality: str
) -> None:
    """Known by the plugin's name; and by what it offers, though it bears another name."""
    distribution = {"exits": "exits-plugin", "tomorrow": "future-plugin"}[modality]
    done = environment.modalbind("align", "--modality", modality)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"modalbind: error: modality '{modality}' asked for; ")
    row = listed[distribution]
    for words in (distribution, row["version"], row["error"], row["hint"]):
        assert words in line


def test_strict_mode_names_all_of_them(environment: Environment) -> None:
    done = environment.modalbind(
        "align", "--modality", "audio", "--dry-run", MODALBIND_STRICT_PLUGINS="1"
    )
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    for distribution in BROKEN:
        assert f"{distribution.name} {distribution.version}" in line


def test_the_allow_list_hides_them(environment: Environment) -> None:
    done = environment.modalbind("plugins", "--json", MODALBIND_PLUGINS="modalbind-audio")
    rows = json.loads(done.stdout)
    assert {row["distribution"]: row["status"] for row in rows} == {
        "modalbind": "ok",
        "modalbind-audio": "ok",
    }
