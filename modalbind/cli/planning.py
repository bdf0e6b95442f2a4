"""The command that says what a run will cost."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from modalbind.cli.options import Anchor, DataFile, Device, Overrides, Root
from modalbind.cli.output import Debug, Json, print_json, print_result, print_table
from modalbind.cli.runs import progress_console
from modalbind.plugin_manager import load_plugins
from modalbind.recipe.load import Request, build_request

if TYPE_CHECKING:
    from modalbind.planning import Plan


def plan(
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="RECIPE",
            help="Name from `modalbind recipes`, or a YAML file.",
            show_default=False,
        ),
    ] = None,
    modality: Annotated[
        str | None,
        typer.Option(help="Modality whose quick start is planned.", metavar="NAME"),
    ] = None,
    data: DataFile = None,
    anchor: Anchor = None,
    set_: Overrides = None,
    elsewhere: Annotated[
        str | None,
        typer.Option(
            "--for", help="The same for a device that is not here: h100, l4 …", metavar="NAME"
        ),
    ] = None,
    device: Device = None,
    root: Root = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure a few steps of a run, and say what all of it will cost.

    Trains nothing that is kept. It takes about as long as a minute of the run.
    """
    request = Request(modality, recipe, data, anchor, root, None, device, tuple(set_ or ()))
    chosen = build_request(request, load_plugins())

    from modalbind.planning import plan_run

    console = None if json else progress_console()
    say = None if console is None else (lambda what: console.print(f"measuring {what}"))
    found = plan_run(chosen, elsewhere=elsewhere, say=say)
    if json:
        print_json({**asdict(found), "seconds": found.seconds})
        return
    _print(found)


def _print(plan: Plan) -> None:
    from rich.text import Text

    rows = [(name, _duration(seconds)) for name, seconds in plan.stages.items()]
    print_table(("stage", "time"), [*rows, ("whole run", _duration(plan.seconds))], "")
    lines = []
    if plan.steps:
        median, low, high = plan.step_s
        lines += [
            f"{plan.steps:,} steps of {median:.3g} s ({low:.3g} to {high:.3g}); "
            f"an epoch {_duration(plan.epoch_s)}; waiting for samples {plan.waiting_share:.0%}; "
            f"padding {plan.padding_share:.0%}; {plan.flops_per_step / 1e9:,.1f} GFLOP a step"
        ]
    disk = ", ".join(f"{name} {size:,.1f} MiB" for name, size in plan.disk_mib.items())
    missing = ", ".join(f"{count:,} of {name}" for name, count in plan.missing_anchors.items())
    energy = plan.energy if plan.kwh is None else f"{plan.kwh:.3g} kWh ({plan.energy})"
    lines += [
        f"peak memory {plan.peak_memory_mib:,.0f} MiB on {plan.device}; disk: {disk or 'none'}",
        f"anchor embeddings to compute: {missing or 'none'}",
        f"energy: {energy}",
    ]
    if plan.elsewhere is not None:
        there = plan.elsewhere
        lines.append(
            f"on {there['device']} ({there['memory_gib']} GiB): step {there['step_s']:.3g} s, "
            f"training {_duration(there['training_s'])}, {there['kwh']:.3g} kWh; assumes "
            f"{there['assumes']}"
        )
    levers = sorted(plan.levers.items(), key=lambda item: -item[1])
    for place, (lever, factor) in enumerate(levers):
        first = "would help most" if place == 0 else "would help"
        lines.append(f"{first}: {lever}, a step {factor:.1f} times faster; measure what it costs")
    lines += [f"assumes: {assumption}" for assumption in plan.assumptions]
    for line in lines:
        print_result(Text(line))


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
