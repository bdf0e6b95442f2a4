"""What commands print: JSON for programs, tables for people; and the options they share."""

from __future__ import annotations

import json
import logging
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modalbind.plugin_manager import CORE, load_plugins

if TYPE_CHECKING:
    from rich.console import RenderableType

PIPE_COLUMNS = 120  # nothing is cut off at a screen's edge where there is no screen
PACKAGES = ("modalbind", "torch", "open_clip_torch", "transformers")


def _remember_debug(context: typer.Context, value: bool) -> bool:
    if value:
        context.ensure_object(dict)["debug"] = True
        logging.getLogger("modalbind").setLevel(logging.DEBUG)
    return value


Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Debug = Annotated[
    bool,
    typer.Option("--debug", callback=_remember_debug, help="Show the traceback of an error."),
]


def print_json(content: Any) -> None:
    """Print as JSON, the only thing that a command with `--json` writes to stdout."""
    print(json.dumps(content, indent=2, ensure_ascii=False, default=str))


def print_result(rendered: RenderableType) -> None:
    """Print tables to stdout, in the terminal's width; wide into a file or a pipe."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=max(console.width, PIPE_COLUMNS))
    console.print(rendered)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], empty: str) -> None:
    """Print rows under headings, or `empty` if there are none."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    if not rows:
        print(empty)
        return
    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    print_result(table)


def print_mapping(content: Mapping[str, Any]) -> None:
    """Print `key: value` lines, as YAML."""
    from modalbind.recipe.yaml_loader import dump_yaml

    print(dump_yaml(json.loads(json.dumps(content, default=str))), end="")


def print_versions() -> None:
    """Print the versions that a report of a problem needs, from metadata alone."""
    print("modalbind", _version("modalbind"))
    for package in PACKAGES[1:]:
        print(f"  {package} {_version(package)}")
    print(f"  python {platform.python_version()} on {platform.platform()}")
    plugins = load_plugins(strict=False)
    for plugin in plugins.loaded:
        if plugin.distribution != CORE:
            print(f"  {plugin.distribution} {plugin.version}")
    for failure in plugins.failures:
        print(f"  {failure.distribution} {failure.version} (broken)")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
