"""The command that writes a new plugin: `plugins new`."""

from __future__ import annotations

import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from modalbind.cli.output import Debug, Json, print_json
from modalbind.plugin_manager import load_plugins


class Kind(StrEnum):
    """What a new plugin may offer."""

    MODALITY = "modality"
    ENCODER = "encoder"
    DATASET = "dataset"
    AUGMENTATION = "augmentation"
    ANCHOR = "anchor"
    OBJECTIVE = "objective"


def new_plugin(
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits, '-' and '_'.")],
    kind: Annotated[
        Kind, typer.Option(help="What it offers; a modality comes with one of each that it needs.")
    ] = Kind.MODALITY,
    modality: Annotated[
        str | None,
        typer.Option(
            help="Installed modality that an encoder, data set or augmentation is for; with an "
            "anchor or objective, adds a recipe that uses it."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to write modalbind-NAME into.")] = Path(),
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a new plugin that works as it is: a package, recipes, tests; no network."""
    from modalbind.scaffold import plan_plugin, write_plugin

    plugins = load_plugins(strict=False)
    plan = plan_plugin(name, kind.value, modality, out, plugins)
    files = write_plugin(plan, plugins)
    commands = next_commands(plan.name, plan.kind, plan.modality, plan.folder)
    if json:
        print_json(
            {
                "distribution": plan.distribution,
                "package": plan.package,
                "folder": plan.folder,
                "files": files,
                "next": commands,
            }
        )
        return
    print(f"{plan.distribution} written to {plan.folder}, {len(files)} files. Next:")
    print(*(f"    {command}" for command in commands), sep="\n")


def next_commands(name: str, kind: str, modality: str | None, folder: Path) -> list[str]:
    """Return what to type next, in this order."""
    prefix = "" if folder.is_absolute() else "./"
    install = shlex.quote(f"{prefix}{folder.as_posix()}[test]")
    commands = [f"python -m pip install -e {install}"]
    if kind == "modality":
        commands.append(f"modalbind align --modality {name}")
    elif kind == "dataset":
        commands.append(f"modalbind align --recipe {name}/default --root FOLDER")
    elif modality is not None:
        commands.append(f"modalbind align --recipe {name}/quickstart")
    tests = shlex.quote(str(folder))
    return [*commands, f"python -m pytest {tests}", f"modalbind plugins check {name}"]
