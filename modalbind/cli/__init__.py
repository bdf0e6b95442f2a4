"""The command line: parse, call the pipeline, print, exit code.

What a command needs is imported when it runs, so that `--help`, `plugins` and `recipes` stay
quick. Exit codes: 0 done, 1 failed while running, 2 wrong usage or bad input, 130 interrupted,
143 terminated (the run can be resumed).
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import typer

from modalbind.cli import ablation, authoring, listings, planning, runs, scaffolding
from modalbind.cli.output import Debug, print_versions
from modalbind.errors import ModalbindError
from modalbind.processes import check_alone, read_rank, settle

PROGRAM = "modalbind"
INTERRUPTED = 130

app = typer.Typer(
    name=PROGRAM,
    help="Add a modality to a frozen embedding space: train only the new tower, measure what "
    "emerges.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
SHARED = ("align", "embed")
"""Commands that several processes may run together."""

app.command("align")(runs.align)
app.command("plan")(planning.plan)
app.command("evaluate")(runs.evaluate)
app.command("embed")(runs.embed)
app.command("ablate")(ablation.ablate)
listings.plugins_app.command("new")(scaffolding.new_plugin)
listings.plugins_app.command("check")(authoring.check)
app.add_typer(listings.plugins_app, name="plugins")
app.add_typer(listings.recipes_app, name="recipes")
app.add_typer(listings.anchors_app, name="anchors")
app.add_typer(listings.cache_app, name="cache")


def _show_version(value: bool) -> None:
    if value:
        print_versions()
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: bool = typer.Option(
        False,
        "--version",
        is_eager=True,
        callback=_show_version,
        help="Show the versions that matter, and exit.",
    ),
    debug: Debug = False,
) -> None:
    """Take the options that stand before a command."""
    if context.invoked_subcommand not in SHARED:
        check_alone(f"`{context.invoked_subcommand}`")


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; `args` defaults to the process's own.

    An error is one line on stderr; `--debug` adds the traceback.
    """
    given = list(sys.argv[1:] if args is None else args) or ["--help"]
    state: dict[str, bool] = {}
    # Of the processes of one run, the first alone says what all of them find.
    level = logging.ERROR if read_rank()[0] > 0 else logging.WARNING
    logging.basicConfig(level=level, format=f"{PROGRAM}: %(levelname)s: %(message)s")
    # The hub's client tells each retry twice over; what comes of them is our one line.
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    if read_rank()[1] > 1:
        # Nor what torch has to say of a connection to a process that is gone.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    command = typer.main.get_command(app)
    try:
        result: Any = command.main(given, PROGRAM, standalone_mode=False, obj=state)
    except (KeyboardInterrupt, typer.Abort):
        return _report(f"{PROGRAM}: interrupted", INTERRUPTED)
    except Exception as error:  # noqa: BLE001 - the last door: all that leaves is one line
        if state.get("debug"):
            traceback.print_exc()
        line, code = settle(error, _one_line(error), _exit_code(error))
        return _report(f"{PROGRAM}: error: {line}", code) if line else code
    if result == INTERRUPTED:
        _report(f"{PROGRAM}: interrupted", INTERRUPTED)
    return result if isinstance(result, int) else 0


def _exit_code(error: Any) -> int:
    return int(error.exit_code) if isinstance(error, ModalbindError) or _is_usage(error) else 1


def _one_line(error: Any) -> str:
    message = " ".join(str(error).split())
    if isinstance(error, ModalbindError):
        return message
    if _is_usage(error):
        context = getattr(error, "ctx", None)
        path = context.command_path if context else PROGRAM
        found = " ".join(error.format_message().split())
        return f"{path} asked for; {found.rstrip('.')}; try: {path} --help"
    return f"unexpected {type(error).__name__}: {message}; try again with --debug, and report it"


def _is_usage(error: Any) -> bool:
    """Say whether typer refused the arguments; it carries its own copy of click, or click's."""
    return hasattr(error, "format_message") and hasattr(error, "exit_code")


def _report(line: str, code: int) -> int:
    if code != INTERRUPTED or read_rank()[0] == 0:  # all processes of a run are interrupted
        print(line, file=sys.stderr)
    return code
