"""The tutorial for plugin authors, done as it says: its files written, its commands run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
from docs.scratch import Scratch, missing_tools
from docs.walkthrough import Change, Command, File, blur, read_steps, states, write

from modalbind.cli import app

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "plugins" / "tutorial.md").read_text("utf-8")
STEPS = list(read_steps(PAGE))
COMMANDS = [step for step in STEPS if isinstance(step, Command)]
STATES = list(states(STEPS))

needs_installer = pytest.mark.skipif(
    bool(missing_tools()), reason=f"to install offline it takes {', '.join(missing_tools())}"
)


def number_of(name: str) -> int:
    """Return which command it is that begins with these words; the first of several."""
    return next(i for i, command in enumerate(COMMANDS) if command.line.startswith(name))


def run_tool(*words: str, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_says_how_many_commands_there_are() -> None:
    said = re.search(r"^(\d+) commands, about \w+ minutes\.", PAGE, re.M)
    assert said is not None and int(said[1]) == len(COMMANDS)


def test_every_command_shows_something_or_writes_quietly() -> None:
    quiet = [command.line for command in COMMANDS if not command.shown]
    assert all(">" in line for line in quiet), quiet


def test_files_are_shown_whole_before_they_change() -> None:
    seen: set[str] = set()
    for step in STEPS:
        if isinstance(step, Change):
            assert step.path in seen, step.path
        elif isinstance(step, File):
            seen.add(step.path)
    assert set(STATES[-1]) == seen


def test_commands_named_in_the_text_exist() -> None:
    prose = re.sub(r"^```.*?^```$", "", PAGE, flags=re.M | re.S)
    named = [" ".join(code.split()) for code in re.findall(r"`(modalbind [a-z][^`]*)`", prose)]
    assert any("evaluate" in line for line in named)
    for line in named:
        command = typer.main.get_command(app)
        words = line.split()[1:]
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]  # type: ignore[attr-defined]
        known = {name for parameter in command.params for name in parameter.opts}
        assert command.name != "modalbind", line
        assert not {word for word in words if word.startswith("--")} - known, line


@pytest.mark.parametrize("number", range(len(STATES)))
def test_the_plugin_is_clean_at_every_step(tmp_path: Path, number: int) -> None:
    folder = write(STATES[number], tmp_path)
    for path, text in STATES[number].items():
        if path.endswith(".py"):
            compile(text, path, "exec")
    config = ["--config", str(ROOT / "pyproject.toml"), "--no-cache"]
    names = 'lint.isort.known-first-party = ["modalbind", "modalbind_imu"]'
    # A script of the reader's may print; in modalbind itself the command line alone does.
    run_tool("ruff", "check", *config, "--config", names, "--ignore", "T20", ".", folder=folder)
    run_tool("ruff", "format", "--check", *config, ".", folder=folder)


def test_types_are_right_at_the_first_step_and_the_last(tmp_path: Path) -> None:
    config = ["--config-file", str(ROOT / "pyproject.toml")]
    cache = ["--cache-dir", str(ROOT / ".mypy_cache")]
    for number in (0, -1):
        folder = write(STATES[number], tmp_path / str(number))
        run_tool("mypy", *config, *cache, "modalbind_imu", folder=folder)


def test_metadata_caps_nothing_and_names_the_package() -> None:
    project = tomllib.loads(STATES[-1]["pyproject.toml"])["project"]
    assert project["entry-points"]["modalbind"] == {"imu": "modalbind_imu"}
    assert not any(cap in each for each in project["dependencies"] for cap in ("<", "==", "~="))


@needs_installer
def test_the_constant_installs_and_is_listed_and_the_end_keeps_the_contract(
    tmp_path: Path,
) -> None:
    """The quick part: no training."""
    scratch = Scratch(tmp_path).create()
    write(STATES[0], scratch.folder)
    for command in COMMANDS[: number_of("modalbind align")]:
        check(command, scratch)
    write(STATES[-1], scratch.folder)
    check(COMMANDS[number_of("python -m pytest")], scratch)


def check(command: Command, scratch: Scratch) -> str:
    done = scratch.run(command.line)
    assert done.returncode == (2 if command.is_to_fail else 0), f"{command.line}\n{done.stdout}"
    assert not command.missing(done.stdout), f"{command.line}\n{done.stdout}"
    return done.stdout


def recall_at_10(run: Path, query: str, target: str) -> float:
    """Return what the English, or the only, row of a run's report says."""
    report = json.loads((run / "report.json").read_text("utf-8"))
    (value,) = [
        row["metrics"]["recall_at_10"]["value"]
        for row in report["retrieval"]
        if (row["query"], row["target"]) == (query, target) and row["language"] in ("en", None)
    ]
    return float(value)


@needs_installer
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_tutorial(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path).create()
    files: dict[str, str] = {}
    for step in STEPS:
        if isinstance(step, Command):
            check(step, scratch)
        else:
            step.apply(files)
            write({step.path: files[step.path]}, scratch.folder)
    runs = scratch.folder / "runs"
    # 10 of 200 by chance: all samples find the same ten texts, each right for one of them
    assert recall_at_10(runs / "constant", "imu", "text") == pytest.approx(10 / 200)
    assert recall_at_10(runs / "constant", "text", "imu") == pytest.approx(10 / 200)
    for name in ("learns", "tilt"):
        assert recall_at_10(runs / name, "imu", "text") > 0.9
        assert recall_at_10(runs / name, "imu", "image") > 0.75  # never paired in training
    assert recall_at_10(runs / "files", "imu", "text") > 0.8
    assert (scratch.root / "modalbind-sonar" / "pyproject.toml").is_file()


def test_shown_output_is_compared_whatever_its_numbers_are() -> None:
    command = Command("x", ("...", " imu   0.9..1.0 ok", "imu 2", "..."))
    assert command.missing("first\nimu 0.85..0.951  ok\nimu 77\nlast\n") == []
    assert command.missing("imu 0.85..0.951 broken\nimu 77\n") == [" imu   0.9..1.0 ok"]
    assert command.missing("imu 0.8..1 ok\nbetween\nimu 77\n") == ["imu 2"]
    assert not Command("x", ("ok",)).is_to_fail
    assert Command("x", ("modalbind: error: no",)).is_to_fail
    assert blur("=== 46 passed in 28.20s ===") == blur("==== 7 passed in 3.1s ====")


def test_a_change_needs_its_place_once() -> None:
    page = '```diff title="a.py"\n kept\n-old\n+new\n```\n'
    (step,) = read_steps(page)
    files = {"a.py": "kept\nold\nrest\n"}
    assert isinstance(step, Change)
    step.apply(files)
    assert files == {"a.py": "kept\nnew\nrest\n"}
    with pytest.raises(AssertionError, match="0 times"):
        step.apply(files)
