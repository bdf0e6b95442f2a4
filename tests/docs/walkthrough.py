"""Reads a page of the documentation as what a reader does: files, changes to files, commands.

A block with a title is a file, whole; one of language `diff` is a change to it: hunks are parted by
`@@`, and the old lines of each stand in the file once. A block of language `console` has commands
behind `$ `, each with the output that the page shows; `...` stands for lines that it leaves out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BLOCK = re.compile(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```$', re.M | re.S)
NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")
FAILURE = "modalbind: error:"
LEFT_OUT = "..."


@dataclass(frozen=True)
class File:
    """A file that the reader writes."""

    path: str
    text: str

    def apply(self, files: dict[str, str]) -> None:
        files[self.path] = self.text


@dataclass(frozen=True)
class Change:
    """A change that the reader makes to a file."""

    path: str
    hunks: tuple[tuple[str, str], ...]

    def apply(self, files: dict[str, str]) -> None:
        text = files[self.path]
        for old, new in self.hunks:
            assert text.count(old) == 1, f"{self.path} has {text.count(old)} times:\n{old}"
            text = text.replace(old, new)
        files[self.path] = text


@dataclass(frozen=True)
class Command:
    """A command that the reader types, and the output that the page shows."""

    line: str
    shown: tuple[str, ...]

    @property
    def is_to_fail(self) -> bool:
        return any(line.startswith(FAILURE) for line in self.shown)

    def missing(self, output: str) -> list[str]:
        """Return the shown lines that the output lacks, in order, whatever its numbers are.

        Lines stand next to each other unless the page leaves some out between them.
        """
        actual = [blur(line) for line in output.splitlines() if line.strip()]
        lacking, start, may_skip = [], 0, True
        for line in self.shown:
            if line.strip() == LEFT_OUT:
                may_skip = True
                continue
            if not line.strip():
                continue
            end = len(actual) if may_skip else start + 1
            found = [i for i in range(start, min(end, len(actual))) if actual[i] == blur(line)]
            if not found:
                lacking.append(line)
                continue
            start, may_skip = found[0] + 1, False
        return lacking


Step = File | Change | Command


def blur(line: str) -> str:
    """Return a line without its numbers, the width of its gaps, and a rule around it."""
    return " ".join(NUMBER.sub("#", line).strip("= ").split())


def read_steps(page: str) -> Iterator[Step]:
    """Yield what a page tells the reader to do, in order."""
    for language, title, text in BLOCK.findall(page):
        if language == "console":
            yield from _commands(text)
        elif language == "diff":
            yield Change(title, tuple(_hunk(part) for part in re.split(r"^@@\n", text, flags=re.M)))
        else:
            assert title, f"a block that is neither a file nor a command:\n{text}"
            yield File(title, text)


def _commands(text: str) -> Iterator[Command]:
    before, *parts = re.split(r"^\$ ", text, flags=re.M)
    assert not before, f"output before any command:\n{before}"
    for part in parts:
        line, _, shown = part.partition("\n")
        yield Command(line, tuple(shown.splitlines()))


def _hunk(text: str) -> tuple[str, str]:
    lines = text.splitlines(keepends=True)
    assert all(line[0] in " +-\n" for line in lines), text
    old = "".join(line[1:] or line for line in lines if line[0] != "+")
    new = "".join(line[1:] or line for line in lines if line[0] != "-")
    return old, new


def states(steps: list[Step]) -> Iterator[dict[str, str]]:
    """Yield the files as they are whenever a command follows."""
    files: dict[str, str] = {}
    is_changed = False
    for step in steps:
        if not isinstance(step, Command):
            step.apply(files)
            is_changed = True
        elif is_changed:
            yield dict(files)
            is_changed = False


def write(files: dict[str, str], folder: Path) -> Path:
    """Write files below a folder, and return it."""
    for path, text in files.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
    return folder
