"""The command that holds variants of a recipe against each other: `ablate`."""

from __future__ import annotations

from typing import Annotated

import typer

from modalbind.cli.options import (
    Anchor,
    DataFile,
    Device,
    Force,
    Overrides,
    Resume,
    Root,
    RunFolder,
    Seeds,
)
from modalbind.cli.output import Debug, Json, print_json, print_result
from modalbind.cli.runs import parse_seeds, progress_console
from modalbind.plugin_manager import load_plugins
from modalbind.recipe.load import Request, build_request


def ablate(
    recipe: Annotated[
        str, typer.Option(help="Name from `modalbind recipes`, or a YAML file, with variants.")
    ],
    data: DataFile = None,
    anchor: Anchor = None,
    set_: Overrides = None,
    seeds: Seeds = None,
    out: RunFolder = None,
    root: Root = None,
    device: Device = None,
    resume: Resume = False,
    force: Force = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Train the variants of a recipe over seeds, and compare each with the first, item by item."""
    many_seeds = parse_seeds(seeds)
    request = Request(None, recipe, data, anchor, root, None, device, tuple(set_ or ()))
    chosen = build_request(request, load_plugins())

    from modalbind import ablation, report

    path = ablation.ablate(
        chosen,
        seeds=many_seeds,
        out=out,
        resume=resume,
        force=force,
        console=None if json else progress_console(),
    )
    found = ablation.read_ablation(path)
    if json:
        print_json(found.model_dump(mode="json"))
        return
    print_result(report.render_ablation_terminal(found))
    print(f"written to {path}")
