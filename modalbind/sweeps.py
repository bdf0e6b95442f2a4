"""Several runs at once: one recipe over seeds and folds, and two systems held side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rich.console import Console

from modalbind.data.splits import list_folds
from modalbind.errors import RunError
from modalbind.evaluation.comparison import RunScores, compare_systems, list_item_scores
from modalbind.inputs import build_datasets
from modalbind.measure import measure
from modalbind.pipeline import align, evaluate, open_finished
from modalbind.plugin_manager import load_plugins
from modalbind.processes import check_alone
from modalbind.progress import Progress
from modalbind.recipe import Recipe, Resolved, resolve
from modalbind.recipe.schema import CalibrationSection
from modalbind.report import Comparison, RunReport, SweepSummary, summarise, write_summary
from modalbind.reporting import build_comparison
from modalbind.rundir import (
    RunDirectory,
    SweepPlan,
    default_run_path,
    latest_run_path,
    list_runs,
    point_latest,
)

COMPARISON_RESAMPLES = 10_000


def sweep(
    recipe: Recipe,
    *,
    seeds: Sequence[int] = (),
    folds: Sequence[str] | Literal["all"] | None = None,
    out: Path | None = None,
    resume: bool = False,
    force: bool = False,
    console: Console | None = None,
) -> Path:
    """Run a recipe once per seed and fold, and summarise after each.

    Args:
        recipe: What varies only in `seed` and `data.test_fold`.
        seeds: Default: the recipe's own.
        folds: Names, or `all` that the data has; default: the recipe's own split.
        out: Sweep directory.
        resume: Go on with the sweep in `out`; finished runs stay as they are.
        force: Replace the runs in `out`.
        console: Where progress is shown.

    Returns:
        The sweep directory, with a run in each folder and `summary.json`.

    Raises:
        InputError: Before anything is trained, if the data has no such fold or `out` is taken.
    """
    check_alone("a sweep")
    plan = plan_sweep(recipe, seeds, folds)
    path = out or (latest_run_path() if resume else default_run_path(plan.recipe))
    plan.start(path, resume=resume, force=force)
    point_latest(path)
    progress = Progress(console)
    reports = []
    for name, one in plan.list_runs():
        progress.say(f"{path / name}")
        goes_on = resume and (path / name / "recipe.yaml").exists()
        run = align(one, out=path / name, resume=goes_on, force=force, console=console)
        reports.append(run.report)
        write_summary(_summarise(plan, reports), path)
    return path


def plan_sweep(
    recipe: Recipe, seeds: Sequence[int], folds: Sequence[str] | Literal["all"] | None
) -> SweepPlan:
    """Say which runs a sweep has, without training any.

    Raises:
        RunError: If the data has no folds, or not one of these.
    """
    resolved = resolve(recipe, load_plugins())
    places: list[str | None] = [resolved.recipe.data.test_fold]
    if folds is not None:
        there = _list_folds(resolved)
        unknown = [fold for fold in folds if fold not in there] if folds != "all" else []
        if unknown:
            raise RunError(
                f"fold {', '.join(unknown)} asked for; the data has {', '.join(there)}; "
                "name some of these, or --folds all"
            )
        places = [*(there if folds == "all" else folds)]
    return SweepPlan(resolved.recipe, tuple(seeds) or (resolved.recipe.seed,), tuple(places))


def evaluate_sweep(
    path: Path, *, controls: bool = False, console: Console | None = None
) -> SweepSummary:
    """Measure every finished run of a sweep again, as `evaluate` does, and summarise them anew."""
    reports = [evaluate(run, controls=controls, console=console) for run in list_runs(path)]
    summary = _summarise(SweepPlan.read(path), reports)
    write_summary(summary, path)
    return summary


def compare(
    run: Path,
    other: Path,
    *,
    data: Path | None = None,
    root: Path | None = None,
    console: Console | None = None,
    calibration: CalibrationSection | None = None,
) -> Comparison:
    """Score two runs, or sweeps, on the same test items, and compare them item by item.

    Args:
        run: Run or sweep directory.
        other: What it is held against; it may be bound to another anchor space.
        data: Manifest to test both on, instead of their own test splits.
        root: Folder of its paths; default: the manifest's.
        console: Where progress is shown.
        calibration: Of the first's test; the other is tested as it is.

    Raises:
        DataError: If they were not tested on the same items.
    """
    progress = Progress(console)
    trained: set[str] = set()

    def score(path: Path, section: CalibrationSection | None = None) -> RunScores:
        finished = open_finished(RunDirectory(path), data, progress, root, section)
        trained.update(finished.rules.trained_languages)
        measured = measure(finished.resolved, finished.inputs, finished.tower, finished.rules)
        return list_item_scores(measured.retrieval, measured.zero_shot, finished.rules.split)

    rows = compare_systems(
        [score(path, calibration) for path in list_runs(run)],
        [score(path) for path in list_runs(other)],
        resamples=COMPARISON_RESAMPLES,
        seed=0,
        trained=trained,
    )
    return build_comparison(str(run), str(other), rows)


def _summarise(plan: SweepPlan, reports: Sequence[RunReport]) -> SweepSummary:
    """Summarise the seeds whose folds are all there; all runs as long as no seed has them all.

    A seed that has only some folds would be compared with others on other test items.
    """
    done = Counter(report.environment.seed for report in reports)
    whole = [r for r in reports if done[r.environment.seed] == len(plan.folds)]
    return summarise(whole or reports, name=plan.recipe.name)


def _list_folds(resolved: Resolved) -> list[str]:
    pairs = [pair for dataset in build_datasets(resolved)[0] for pair in dataset.pairs()]
    folds = list_folds(pairs, resolved.recipe.data)
    if not folds:
        raise RunError(
            f"folds asked for; column '{resolved.recipe.data.fold_column}' is absent or empty; "
            "set data.fold_column, or leave out --folds"
        )
    return folds
