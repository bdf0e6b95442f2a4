"""Writes `docs/reference/cli.md` from the help texts of the command line as it is.

    python docs/write_cli.py

A test compares the page with what this renders, so it cannot go stale.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

import typer

from modalbind.cli import PROGRAM, app

PAGE = Path(__file__).parent / "reference" / "cli.md"
HEAD = """# The command line

Written by `python docs/write_cli.py` from the command line itself. Every command that prints data
takes `--json`, and then writes nothing but JSON to stdout. An error is one line on stderr: what was
asked, what was found, what to do; `--debug` adds the traceback.

| exit code | means |
|---|---|
| 0 | done |
| 1 | failed while running |
| 2 | wrong usage or bad input; nothing was started |
| 130, 143 | interrupted, terminated; `modalbind align --resume` goes on |

| environment variable | means |
|---|---|
| `MODALBIND_CACHE` | Folder of anchor embeddings; default: the platform's cache folder. |
| `MODALBIND_PLUGINS` | What to load beside the core, `a,b`; empty loads none. |
| `MODALBIND_STRICT_PLUGINS` | `1` makes any broken plugin an error that names all of them. |
"""
SHARED = {"--help", "--json", "--debug"}  # of every command; told once, at the top


def render() -> str:
    """Return the page."""
    root: Any = typer.main.get_command(app)
    sections = (_section(path, command) for path, command in _walk(root, (PROGRAM,)))
    return "\n".join([HEAD, *sections])


def _walk(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        if name != "list":  # says nothing that its group does not
            yield from _walk(child, (*path, name))


def _section(path: tuple[str, ...], command: Any) -> str:
    # Put together here: how typer lays out a help text differs from one version to the next.
    shown = [each for each in command.params if _is_told_here(each)]
    arguments = [_argument(each) for each in shown if each.param_type_name == "argument"]
    commands = getattr(command, "commands", {})
    usage = [*path, "[OPTIONS]", *(["COMMAND"] if commands else []), *arguments]
    paragraphs = [" ".join(part.split()) for part in (command.help or "").split("\n\n")]
    parts = [f"## `{' '.join(path)}`", f"    {' '.join(usage)}", *filter(None, paragraphs)]
    if shown:
        parts.append(_table("argument or option", map(_row, shown)))
    if commands:
        rows = [(name, child.help or "") for name, child in commands.items()]
        parts.append(_table("command", [(name, text.partition("\n\n")[0]) for name, text in rows]))
    return "\n\n".join(parts) + "\n"


def _is_told_here(parameter: Any) -> bool:
    return SHARED.isdisjoint(parameter.opts) and not getattr(parameter, "hidden", False)


def _argument(parameter: Any) -> str:
    name = parameter.metavar or parameter.name.upper()
    if parameter.nargs == -1 and not name.endswith("..."):
        name += "..."
    return name if parameter.required else f"[{name}]"


def _row(parameter: Any) -> tuple[str, str]:
    text = parameter.help or ""
    if parameter.param_type_name == "argument":
        return _argument(parameter), text
    name = ", ".join(parameter.opts)
    if not parameter.is_flag:
        name += f" {parameter.metavar or _value(parameter)}"
    if parameter.required:
        text += " Needed."
    elif isinstance(parameter.default, str | int | float) and not parameter.is_flag:
        text += f" Default: {parameter.default}."
    return name, text


def _value(parameter: Any) -> str:
    """Return the choices of an option, wherever this version of typer keeps them."""
    kept = getattr(getattr(parameter, "type", None), "choices", ())
    annotation = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)
    choices = [each for each in (*kept, *get_args(annotation)) if isinstance(each, str)]
    return "|".join(choices) or "VALUE"


def _table(heading: str, rows: Iterable[tuple[str, str]]) -> str:
    lines = (f"| `{_cell(name)}` | {_cell(text, in_code=False)} |" for name, text in rows)
    return "\n".join([f"| {heading} | what |", "|---|---|", *lines])


def _cell(text: str, in_code: bool = True) -> str:
    escaped = " ".join(text.split()).replace("|", "\\|")
    return escaped if in_code else escaped.replace("<", "&lt;")


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
