"""The command that holds variants of a recipe against each other: `ablate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modalbind.cli.output import Debug, Json, print_json, print_result
from modalbind.cli.runs import parse_seeds, progress_console
from modalbind.plugin_manager import load_plugins
from modalbind.recipe.load import Request, build_request


def ablate(
    recipe: Annotated[
        str, typer.Option(help="Name from `modalbind recipes`, or a YAML file, with variants.")
    ],
    data: Annotated[
        str | None, typer.Option(help="Your pairs: CSV, JSONL or Parquet.", metavar="FILE")
    ] = None,
    anchor: Annotated[
        str | None, typer.Option(help="Anchor space, kind:source[@tag].", metavar="SPEC")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change all variants, e.g. train.lr=1e-4.", metavar="KEY=VALUE"),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Run each variant once per seed: 0,1,2.", metavar="LIST")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Directory; default: runs/<recipe>-<time>.", metavar="DIR"),
    ] = None,
    root: Annotated[
        str | None, typer.Option(help="Folder that paths in the data start at.", metavar="DIR")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps.", metavar="NAME")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the one in --out.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace existing runs.")] = False,
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
