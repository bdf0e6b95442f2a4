"""The commands that train, measure and use a tower: `align`, `evaluate`, `embed`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

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
from modalbind.cli.output import Debug, Json, print_json, print_mapping, print_result
from modalbind.errors import RecipeError
from modalbind.plugin_manager import load_plugins
from modalbind.processes import read_rank
from modalbind.recipe.load import Request, build_request

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from modalbind.recipe.schema import CalibrationSection, Recipe

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.")]


def align(
    modality: Annotated[
        str | None,
        typer.Option(help="Modality to add; `modalbind plugins` lists them.", metavar="NAME"),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Name from `modalbind recipes`, or a YAML file; default: the quick start."
        ),
    ] = None,
    data: DataFile = None,
    anchor: Anchor = None,
    set_: Overrides = None,
    out: RunFolder = None,
    resume: Resume = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Check recipe, data and anchor; say what would be done."),
    ] = False,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of everything random.", metavar="N")
    ] = None,
    device: Device = None,
    root: Root = None,
    force: Force = False,
    seeds: Seeds = None,
    folds: Annotated[
        str | None, typer.Option(help="Run once per test fold: all, or 1,2.", metavar="LIST")
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Train a tower for a modality into a frozen anchor space, and report what emerged.

    With neither recipe nor data it runs the modality's quick start: nothing to download.
    """
    if resume and force:
        raise RecipeError(
            "--resume with --force asked for; one keeps the run, the other replaces it; give one"
        )
    many_seeds, many_folds = parse_seeds(seeds), _parse_folds(folds)
    request = Request(modality, recipe, data, anchor, root, seed, device, tuple(set_ or ()))
    if resume and request == Request() and not (many_seeds or many_folds):
        chosen, many_seeds, many_folds = _read_started(out)
    else:
        chosen = _choose(request, resume)

    from modalbind import pipeline, report, sweeps

    console = None if json else progress_console()
    if dry_run:
        plan = sweeps.plan_sweep(chosen, many_seeds, many_folds)
        runs = dict(plan.list_runs())
        planned = pipeline.describe(next(iter(runs.values())))
        if len(runs) > 1:
            planned["runs"] = list(runs)
        print_json(planned) if json else print_mapping(planned)
    elif many_seeds or many_folds:
        path = sweeps.sweep(
            chosen,
            seeds=many_seeds,
            folds=many_folds,
            out=out,
            resume=resume,
            force=force,
            console=console,
        )
        summary = report.read_summary(path)
        _print_result(summary, report.render_summary_terminal(summary), path, json)
    else:
        run = pipeline.align(chosen, out=out, resume=resume, force=force, console=console)
        if read_rank()[0] > 0:
            return
        _print_result(run.report, report.render_terminal(run.report), run.path, json)


def evaluate(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="A run or a sweep; several runs are bound to their common anchor space.",
        ),
    ],
    data: Annotated[
        Path | None, typer.Option(help="Other pairs to test on than the run's.", metavar="FILE")
    ] = None,
    controls: Annotated[
        bool, typer.Option("--controls", help="Add shuffled and trivial-feature controls.")
    ] = False,
    against: Annotated[
        Path | None,
        typer.Option(help="Compare with this run or sweep, item by item.", metavar="RUN"),
    ] = None,
    calibrate: Annotated[
        list[str] | None,
        typer.Option(
            help="Take means away that are fitted on this file (may stand several times): pairs, "
            "or a .txt of English sentences. The run's own report stays.",
            metavar="FILE",
        ),
    ] = None,
    by_language: Annotated[
        bool, typer.Option("--by-language", help="With --calibrate: a mean for each language.")
    ] = False,
    root: Annotated[
        Path | None, typer.Option(help="Folder that paths in --data start at.", metavar="DIR")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Of several runs: folder to write the report to.", metavar="DIR"),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure a finished run: every direction and language, beside chance and an interval.

    Of several runs, every pair of modalities that was never trained together.
    """
    _check_evaluate(runs, data, root, controls, against)
    section = _read_calibration(runs, calibrate, by_language, controls)
    if out is not None and len(runs) == 1:
        raise RecipeError(
            "--out with one run asked for; its report lies in the run; leave --out away"
        )

    from modalbind import binding, pipeline, report, sweeps
    from modalbind.run import find_run
    from modalbind.rundir import is_sweep

    console = None if json else progress_console()
    if len(runs) > 1:
        found = binding.evaluate_together(runs, data=data, root=root, out=out, console=console)
        _print_result(found, report.render_terminal(found), out, json)
        return
    run = find_run(runs[0])
    if against is not None:
        other = find_run(against)
        compared = sweeps.compare(
            run, other, data=data, root=root, console=console, calibration=section
        )
        _print_result(compared, report.render_comparison_terminal(compared), None, json)
    elif not is_sweep(run):
        found = pipeline.evaluate(
            run, data=data, root=root, controls=controls, console=console, calibration=section
        )
        _print_result(found, report.render_terminal(found), None, json)
    elif data is None:
        summary = sweeps.evaluate_sweep(run, controls=controls, console=console)
        _print_result(summary, report.render_summary_terminal(summary), None, json)
    else:
        raise RecipeError(
            f"evaluating sweep {run} on other pairs asked for; each of its runs has a tower of its "
            "own; name one of them, or compare with --against"
        )


def _read_calibration(
    runs: list[Path], files: list[str] | None, by_language: bool, controls: bool
) -> CalibrationSection | None:
    if not files:
        if by_language:
            raise RecipeError("--by-language without --calibrate asked for; name a file to fit on")
        return None
    if len(runs) > 1 or controls:
        other = "--controls" if controls else f"{len(runs)} runs"
        raise RecipeError(f"--calibrate with {other} asked for; it is for one run; name one")
    from modalbind.recipe.schema import CalibrationSection

    paths = tuple(str(Path(file).expanduser().absolute()) for file in files)
    return CalibrationSection(data=paths, by_language=by_language)


def _check_evaluate(
    runs: list[Path], data: Path | None, root: Path | None, controls: bool, against: Path | None
) -> None:
    if len(runs) > 1 and (controls or against):
        other = "--against" if against else "--controls"
        raise RecipeError(
            f"{other} with {len(runs)} runs asked for; it is for one run or sweep; name one"
        )
    if root is not None and data is None:
        raise RecipeError("--root without --data asked for; a run knows its own; leave it out")
    if controls and (against or data):
        other = "--against" if against else "--data"
        raise RecipeError(
            f"--controls with {other} asked for; controls belong to a run's own test; give one"
        )


def embed(
    run: RunArgument,
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            help="Files of that modality. For text: texts, or .txt files with one a line.",
        ),
    ],
    modality: Annotated[
        str, typer.Option(help="The run's own, or text or image of its anchor.", metavar="NAME")
    ],
    out: Annotated[
        Path, typer.Option(help="Written: .parquet, .npz or .safetensors.", metavar="FILE")
    ],
    windows: Annotated[
        bool, typer.Option("--windows", help="One row per window of a long sample, with times.")
    ] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Read otherwise, e.g. modality.options.max_duration_s=3600.",
            metavar="KEY=VALUE",
        ),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Embed files with a run's tower, or texts and pictures with its anchor, in one space."""
    from modalbind import pipeline

    given = _read_texts(inputs) if modality == "text" else inputs
    rows = pipeline.embed_files(run, modality, given, out, windows, overrides=tuple(set_ or ()))
    if read_rank()[0] > 0:
        return
    if json:
        print_json({"out": str(out), "modality": modality, "rows": rows})
    else:
        print(f"{rows} embeddings written to {out}")


def _read_texts(inputs: list[str]) -> list[str]:
    """Return the texts: a `.txt` file that exists stands for its lines, all else for itself."""
    texts: list[str] = []
    for given in inputs:
        if given.endswith(".txt") and Path(given).is_file():
            lines = Path(given).read_text(encoding="utf-8").splitlines()
            texts += [line for line in lines if line.strip()]
        else:
            texts.append(given)
    return texts


def _choose(request: Request, resume: bool) -> Recipe:
    """Return the recipe that is asked for."""
    if resume and request.recipe is None and request.modality is None:
        raise RecipeError(
            "resuming with other options asked for; a run keeps the recipe it was started with; "
            "leave them out, or repeat all that it was started with"
        )
    return build_request(request, load_plugins())


def _read_started(out: Path | None) -> tuple[Recipe, tuple[int, ...], tuple[str, ...] | None]:
    """Return recipe, seeds and folds of what is to go on: `--resume` alone needs no other option.

    A single run has no list of seeds and folds.
    """
    from modalbind.rundir import RunDirectory, SweepPlan, is_sweep, latest_run_path

    path = out or latest_run_path()
    if not is_sweep(path):
        return RunDirectory(path).read_recipe(), (), None
    plan = SweepPlan.read(path)
    folds = tuple(fold for fold in plan.folds if fold is not None)
    has_folds = folds != (plan.recipe.data.test_fold,)
    return plan.recipe, plan.seeds, folds if folds and has_folds else None


def progress_console() -> Console:
    """Return where progress is shown; stdout is for results."""
    from rich.console import Console

    return Console(stderr=True)


def _print_result(result: Any, rendered: RenderableType, path: Path | None, as_json: bool) -> None:
    if as_json:
        print_json(result.model_dump(mode="json"))
        return
    print_result(rendered)
    if path is not None:
        print(f"written to {path}")


def parse_seeds(text: str | None) -> tuple[int, ...]:
    """Return the seeds of a list; none if the option is not given."""
    parts = _split("seeds", text)
    if not all(part.isdecimal() for part in parts):
        raise RecipeError(f"seeds '{text}' asked for; not all are numbers; write --seeds 0,1,2")
    return tuple(int(part) for part in parts)


def _parse_folds(text: str | None) -> Literal["all"] | tuple[str, ...] | None:
    return "all" if text == "all" else _split("folds", text) or None


def _split(option: str, text: str | None) -> tuple[str, ...]:
    """Return the items of a list; none if the option is not given."""
    if text is None:
        return ()
    parts = tuple(part.strip() for part in text.split(","))
    if not all(parts) or len(set(parts)) < len(parts):
        raise RecipeError(
            f"{option} '{text}' asked for; an item is empty or stands twice; "
            f"write for example --{option} 0,1,2"
        )
    return parts
