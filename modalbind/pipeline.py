"""The only composer: from recipe to report.

Reads top to bottom like a run: recipe, plugins, anchor space, pairs, anchor embeddings, tower,
objective, run directory, evaluation, report.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from rich.console import Console

from modalbind.anchors.cache import AnchorCache
from modalbind.closed_form import fit_head
from modalbind.cost import CostMeter
from modalbind.data.loader import Augmentations, FeatureSet, TrainingBatches
from modalbind.data.samples import Sample, list_anchors
from modalbind.data.splits import list_folds
from modalbind.encoders import Tower, build_tower
from modalbind.errors import (
    AnchorMismatchError,
    BrokenSampleError,
    DataError,
    InputError,
    RunError,
)
from modalbind.evaluation.comparison import RunScores, compare_systems, list_item_scores
from modalbind.evaluation.pools import UNIMODAL_LANGUAGE
from modalbind.evaluation.protocol import Protocol
from modalbind.export import check_output, write_embeddings
from modalbind.inputs import RunInputs, build_datasets, open_inputs
from modalbind.measure import add_controls, build_protocol, measure
from modalbind.plugin_manager import build, load_plugins
from modalbind.progress import Progress
from modalbind.recipe import Recipe, Resolved, resolve
from modalbind.recipe.schema import Choice
from modalbind.report import (
    Comparison,
    RunReport,
    SweepSummary,
    read_summary,
    summarise,
    write_report,
    write_summary,
)
from modalbind.reporting import build_comparison, build_report
from modalbind.run import (
    Run,
    describe_encoder,
    find_run,
    load,
    load_tower,
    publish_tower,
    read_bound_anchor,
)
from modalbind.rundir import (
    RunDirectory,
    default_run_path,
    latest_run_path,
    list_runs,
    point_latest,
)
from modalbind.selection import Selection
from modalbind.training import Aligner

CHECKPOINTS_PER_RUN = 10
COMPARISON_RESAMPLES = 10_000
SIGTERM_EXIT_CODE = 143


def align(
    recipe: Recipe,
    *,
    out: Path | None = None,
    resume: bool = False,
    force: bool = False,
    console: Console | None = None,
) -> Run:
    """Train a tower for a new modality into a frozen anchor space, and measure what emerged.

    Args:
        recipe: The whole run.
        out: Run directory; default `runs/<recipe>-<time>`.
        resume: Go on with the run in `out`, or with the latest one; starts it if there is none.
        force: Replace the run in `out`.
        console: Where progress is shown; None shows none.

    Raises:
        InputError: If recipe, data, anchor or run directory cannot be used; nothing is changed.
        NonFiniteError: If training diverges.
    """
    resolved = resolve(recipe, load_plugins())
    recipe = resolved.recipe
    directory = RunDirectory(out or (latest_run_path() if resume else default_run_path(recipe)))
    progress, meter = Progress(console), CostMeter()
    accelerator = _build_accelerator(recipe, directory)

    def read_all() -> RunInputs:
        return open_inputs(resolved, AnchorCache(), str(accelerator.device), progress.count)

    with directory.lock(), meter:
        # What is to be replaced stays until its replacement is known to be possible.
        ready = read_all() if force else None
        goes_on = directory.start(recipe, resume=resume, force=force)
        if goes_on and directory.report_file.exists():
            point_latest(directory.path)
            progress.say(f"{directory.path} is finished already")
            return Run(directory.path)
        with directory.discarded_if_refused(is_new=not goes_on):
            inputs = ready or read_all()
            _record_identity(directory, inputs, recipe.anchor.sides)
        point_latest(directory.path)
        tower = _train(resolved, inputs, directory, accelerator, progress, meter)
        rules = build_protocol(directory, recipe)
        measured = measure(resolved, inputs, tower, rules)
        device = str(accelerator.device)
        report = build_report(recipe, inputs, directory, measured, meter, device)
        write_report(report, directory.path)
    return Run(directory.path)


def evaluate(
    runs: Sequence[Path],
    *,
    data: Path | None = None,
    controls: bool = False,
    console: Console | None = None,
) -> RunReport:
    """Measure a finished run again: on its own test split, or on other pairs.

    Args:
        runs: One run directory.
        data: Manifest to test on instead; its test split, or all of it if it names none.
        controls: Add rows for the shuffled control (the same recipe trained on shuffled pairs, in
            `controls/shuffled`, kept for the next time) and the trivial-feature control.
        console: Where progress is shown.

    Returns:
        The report; also written into the run, unless `data` is given.
    """
    if len(runs) != 1:
        raise InputError(f"one run to evaluate asked for; {len(runs)} given; name one")
    directory = RunDirectory(runs[0])
    progress, meter = Progress(console), CostMeter()
    with meter:
        resolved, inputs, tower, rules = _open_finished(directory, data, progress)
        measured = measure(resolved, inputs, tower, rules)
        device = next(tower.parameters()).device
        if controls:
            shuffled = _train_shuffled(directory, console)
            other = load_tower(shuffled.directory, resolved, inputs.anchor.dim).to(device)
            add_controls(measured, resolved, inputs, other, rules)
        report = build_report(resolved.recipe, inputs, directory, measured, meter, str(device))
    if data is None:
        # What the run cost is what it took to train, not to measure it once more.
        if directory.report_file.exists():
            report = report.model_copy(update={"cost": Run(directory.path).report.cost})
        with directory.lock():
            write_report(report, directory.path)
    return report


def evaluate_sweep(
    path: Path, *, controls: bool = False, console: Console | None = None
) -> SweepSummary:
    """Measure every run of a sweep again, as `evaluate` does, and summarise them anew."""
    before = read_summary(path)
    reports = [evaluate([run], controls=controls, console=console) for run in list_runs(path)]
    summary = summarise(reports, name=before.name, command=before.command)
    write_summary(summary, path)
    return summary


def compare(
    run: Path, other: Path, *, data: Path | None = None, console: Console | None = None
) -> Comparison:
    """Score two runs, or sweeps, on the same test items, and compare them item by item.

    Args:
        run: Run or sweep directory.
        other: What it is held against; it may be bound to another anchor space.
        data: Manifest to test both on, instead of their own test splits.
        console: Where progress is shown.

    Raises:
        DataError: If they were not tested on the same items.
    """
    progress = Progress(console)

    def score(path: Path) -> RunScores:
        resolved, inputs, tower, rules = _open_finished(RunDirectory(path), data, progress)
        measured = measure(resolved, inputs, tower, rules)
        return list_item_scores(measured.retrieval, measured.zero_shot, rules.split)

    rows = compare_systems(
        [score(path) for path in list_runs(run)],
        [score(path) for path in list_runs(other)],
        resamples=COMPARISON_RESAMPLES,
        seed=0,
    )
    return build_comparison(str(run), str(other), rows)


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
    """Run a recipe once per seed and fold, and summarise.

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
    """
    resolved = resolve(recipe, load_plugins())
    recipe = resolved.recipe
    places: list[str | None] = [recipe.data.test_fold]
    if folds is not None:
        places = [*(_list_folds(resolved) if folds == "all" else folds)]
    path = out or (latest_run_path() if resume else default_run_path(recipe))
    progress = Progress(console)
    reports = []
    for seed in seeds or [recipe.seed]:
        for fold in places:
            section = recipe.data.model_copy(update={"test_fold": fold})
            one = recipe.model_copy(update={"seed": seed, "data": section})
            name = f"seed-{seed}" + (f"-fold-{fold}" if fold is not None else "")
            progress.say(f"{path / name}")
            goes_on = resume and (path / name / "recipe.yaml").exists()
            run = align(one, out=path / name, resume=goes_on, force=force, console=console)
            reports.append(run.report)
    write_summary(summarise(reports, name=recipe.name), path)
    point_latest(path)
    return path


def describe(recipe: Recipe) -> dict[str, Any]:
    """Say what `align` would do, after every check that needs no training; writes nothing.

    Raises:
        InputError: As `align` would.
    """
    resolved = resolve(recipe, load_plugins())
    recipe = resolved.recipe
    accelerator = _build_accelerator(recipe, None)
    inputs = open_inputs(
        resolved, AnchorCache(), str(accelerator.device), Progress(None).count, embeds=False
    )
    batches = _build_batches(resolved, inputs)
    tower = _build_tower(resolved, inputs)
    return {
        "recipe": recipe.model_dump(mode="json"),
        "anchor": {"space": inputs.anchor.name, "fingerprint": inputs.anchor.fingerprint},
        "data": {
            "name": inputs.data.name,
            "train_samples": len(inputs.data.train),
            "val_samples": len(inputs.data.val),
            "test_samples": len(inputs.data.test),
            "skipped": inputs.data.skipped,
        },
        "steps": _count_steps(recipe, batches),
        "parameters": {
            "trained": sum(p.numel() for p in tower.parameters() if p.requires_grad),
            "all": sum(p.numel() for p in tower.parameters()),
        },
    }


def embed_files(
    run: Path,
    modality: str,
    inputs: Sequence[str],
    out: Path,
    windows: bool = False,
    overrides: Sequence[str] = (),
) -> int:
    """Embed files with a run's tower, or texts and pictures with its anchor, into one file.

    Args:
        run: Run directory or hub id.
        modality: Of the inputs.
        inputs: Paths; texts for `text`.
        out: Written in the layout of a table of vectors.
        windows: One row per window of a long sample, with its times.
        overrides: As for `load`: options of the modality, `modality.options.KEY=VALUE`.

    Returns:
        Rows written.

    Raises:
        InputError: For a bad output name, an unknown modality or a file that cannot be read.
    """
    check_output(out)
    if not inputs:
        raise InputError(f"embeddings of {modality} asked for; no input given; name files")
    space = load(run, overrides=overrides)
    try:
        if not windows:
            vectors = space.embed(modality, inputs)
            write_embeddings(out, modality, inputs, vectors, space.name)
            return len(inputs)
        rows = [(key, *row) for key in inputs for row in space.embed_windows(modality, key)]
    except BrokenSampleError as error:
        remedy = "leave that file out"
        if error.reason == "too_long":
            remedy += ", or raise the limit with --set"
        raise DataError(f"embedding {modality} asked for; {error}; {remedy}") from error
    times = {"start_s": [row[1] for row in rows], "end_s": [row[2] for row in rows]}
    vectors = torch.stack([row[3] for row in rows])
    write_embeddings(out, modality, [row[0] for row in rows], vectors, space.name, times)
    return len(rows)


def verify_anchor(path: Path) -> dict[str, Any]:
    """Compare the anchor space of a run with the one that its spec names now.

    Raises:
        AnchorMismatchError: If they differ.
    """
    run = find_run(path)
    bound = read_bound_anchor(RunDirectory(run))
    fingerprint, verified = load(run).anchor.verify()
    if fingerprint != bound["fingerprint"]:
        raise AnchorMismatchError(
            f"run {path} is bound to anchor space {bound['fingerprint'][:16]}; {bound['spec']} is "
            f"{fingerprint[:16]} now; restore the anchor that it was aligned to"
        )
    return {**bound, "fingerprint_now": fingerprint, "verified": verified}


def _build_accelerator(recipe: Recipe, directory: RunDirectory | None) -> Accelerator:
    _check_device(recipe.device)
    if recipe.train.threads:
        torch.set_num_threads(recipe.train.threads)
    trackers = list(recipe.train.trackers) if directory is not None else []
    return Accelerator(
        cpu=recipe.device == "cpu",
        mixed_precision=recipe.train.precision,
        log_with=trackers or None,
        project_dir=str(directory.path) if directory is not None and trackers else None,
    )


def _check_device(name: str) -> None:
    kind, _, index = name.partition(":")
    here = {"auto": 1, "cpu": 1, "cuda": torch.cuda.device_count()}
    here["mps"] = int(torch.backends.mps.is_available())
    number = int(index) if index.isdigit() else 0
    if number >= here.get(kind, 0):
        found = ", ".join(n for n, count in here.items() if count and n != "auto")
        raise InputError(f"device '{name}' asked for; this machine has {found}; use --device auto")
    if kind == "cuda":
        torch.cuda.set_device(number)


def _open_finished(
    directory: RunDirectory, data: Path | None, progress: Progress
) -> tuple[Resolved, RunInputs, Tower, Protocol]:
    """Open a finished run with what it is tested on: its own test split, or other pairs."""
    recipe = directory.read_recipe()
    resolved = resolve(recipe if data is None else _tested_on(recipe, data), load_plugins())
    device = _build_accelerator(resolved.recipe, directory).device
    inputs = open_inputs(
        resolved, AnchorCache(), str(device), progress.count, tests_all=data is not None
    )
    _check_bound(directory, inputs)
    tower = load_tower(directory, resolved, inputs.anchor.dim).to(device)
    return resolved, inputs, tower, build_protocol(directory, resolved.recipe)


def _record_identity(directory: RunDirectory, inputs: RunInputs, sides: Collection[str]) -> None:
    if directory.run_file.exists():
        _check_bound(directory, inputs)
    anchor = inputs.anchor
    directory.write_identity(
        {
            "anchor": {
                "spec": anchor.spec,
                "space": anchor.name,
                "fingerprint": anchor.fingerprint,
                "dim": anchor.dim,
                "modalities": list(anchor.modalities),
                "tables": anchor.tables,
            },
            "paired": sorted(_list_paired(inputs.data.train, sides)),
        }
    )
    directory.write_broken(inputs.data.broken)


def _list_paired(samples: Sequence[Sample], sides: Collection[str]) -> set[tuple[str, str]]:
    """Return `(modality, language)` of everything that training pairs the samples with."""
    return {
        (side, key[1] if side == "text" else UNIMODAL_LANGUAGE)
        for side in sides
        for sample in samples
        for key, _ in list_anchors(sample, side)
    }


def _check_bound(directory: RunDirectory, inputs: RunInputs) -> None:
    inputs.anchor.check_bound(directory.path, directory.read_identity()["anchor"])


def _build_tower(resolved: Resolved, inputs: RunInputs) -> Tower:
    recipe = resolved.recipe
    set_seed(recipe.seed)
    encoder = build(resolved.encoder, resolved.encoder_options, inputs.modality)
    return build_tower(encoder, recipe.head, recipe.tower, inputs.anchor.dim)


def _build_batches(resolved: Resolved, inputs: RunInputs) -> TrainingBatches:
    recipe = resolved.recipe
    stages: dict[str, list[Any]] = {"sample": [], "features": [], "batch": []}
    for spec, options in resolved.augmentations:
        stages[spec.stage].append(build(spec, options, inputs.modality))
    features = FeatureSet(
        inputs.data.train,
        inputs.data.store,
        Augmentations(**{name: tuple(found) for name, found in stages.items()}),
        seed=recipe.seed,
        memory_mib=recipe.data.memory_mib,
    )
    return TrainingBatches(
        features,
        inputs.banks,
        recipe.anchor.sides,
        batch_size=recipe.train.batch_size,
        source_weights=inputs.data.weights,
        workers=recipe.data.workers,
    )


def _count_steps(recipe: Recipe, batches: TrainingBatches) -> int:
    if recipe.train.solver == "ridge":
        return 0
    total = batches.steps_per_epoch * recipe.train.epochs
    return min(total, recipe.train.max_steps or total)


def _train(
    resolved: Resolved,
    inputs: RunInputs,
    directory: RunDirectory,
    accelerator: Accelerator,
    progress: Progress,
    meter: CostMeter,
) -> Tower:
    """Train until the recipe says stop, publish the tower, and return it as published."""
    if not directory.tower_note.exists():
        tower = _build_tower(resolved, inputs)
        describe_encoder(tower)  # what could not be loaded again is refused before it is trained
        if resolved.recipe.train.solver == "ridge":
            strength = fit_head(tower.to(accelerator.device), inputs, resolved.recipe)
            meter.pairs_seen += len(inputs.data.train)
            progress.say(f"linear head in closed form, ridge strength {strength:.3g}")
        else:
            _train_by_steps(tower, resolved, inputs, directory, accelerator, progress, meter)
        publish_tower(directory, tower, inputs.anchor.fingerprint)
    return load_tower(directory, resolved, inputs.anchor.dim).to(accelerator.device)


def _train_by_steps(
    tower: Tower,
    resolved: Resolved,
    inputs: RunInputs,
    directory: RunDirectory,
    accelerator: Accelerator,
    progress: Progress,
    meter: CostMeter,
) -> None:
    batches = _build_batches(resolved, inputs)
    aligner = Aligner(
        tower,
        build(resolved.objective, resolved.objective_options),
        resolved.recipe.train,
        accelerator,
        total_steps=_count_steps(resolved.recipe, batches),
        seed=resolved.recipe.seed,
    )
    selection = Selection(resolved.recipe, inputs, directory)
    _loop(aligner, batches, selection, directory, progress, meter)
    selection.restore_best(aligner)


def _loop(
    aligner: Aligner,
    batches: TrainingBatches,
    selection: Selection,
    directory: RunDirectory,
    progress: Progress,
    meter: CostMeter,
) -> None:
    section, total = aligner.section, aligner.total_steps
    checkpoints = directory.checkpoints(section.keep_checkpoints)
    every = section.checkpoint_every or max(1, total // CHECKPOINTS_PER_RUN)
    start = 0
    if (found := checkpoints.load_latest()) is not None:
        start, tensors, state = found
        aligner.load_state_tensors(tensors)
        selection.load_state(state)
        meter.go_on_from(state.get("cost", {}))
        progress.say(f"going on from step {start}")
    directory.forget_after(start)
    if selection.should_stop:
        return
    with _sigterm_noted() as terminated, progress.steps(total, start) as show:
        for result in aligner.run(batches.iterate(start, total), start):
            directory.log_step(result)
            aligner.accelerator.log({"loss": result.loss, "lr": result.lr}, step=result.step)
            meter.pairs_seen += result.samples
            show(result)
            if result.step % batches.steps_per_epoch == 0:
                selection.end_epoch(aligner.plain_tower, aligner, result)
            leaves = terminated() or selection.should_stop
            if leaves or result.step % every == 0:
                state = {**selection.state(), "cost": meter.read()}
                checkpoints.save(result.step, aligner.state_tensors(), state)
            if terminated():
                raise SystemExit(SIGTERM_EXIT_CODE)
            if leaves:
                return


@contextmanager
def _sigterm_noted() -> Iterator[Callable[[], bool]]:
    """Turn SIGTERM into a question that the loop asks between steps."""
    seen: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        seen.append(number)

    try:
        before = signal.signal(signal.SIGTERM, note)
    except ValueError:  # not in the main thread: whoever owns the process handles its signals
        yield lambda: False
        return
    try:
        yield lambda: bool(seen)
    finally:
        signal.signal(signal.SIGTERM, before)


def _train_shuffled(directory: RunDirectory, console: Console | None) -> Run:
    """Train the recipe of a run on shuffled pairs, once; what is there already is used."""
    recipe = directory.read_recipe()
    section = recipe.data.model_copy(update={"shuffle_pairs": True})
    shuffled = recipe.model_copy(update={"data": section})
    path = directory.path / "controls" / "shuffled"
    return align(shuffled, out=path, resume=True, console=console)


def _tested_on(recipe: Recipe, data: Path) -> Recipe:
    """Return the recipe with another manifest as its only data."""
    source = Choice.model_validate({"kind": "manifest", "path": str(data)})
    update = {"sources": (source,), "test_fold": None}
    return recipe.model_copy(update={"data": recipe.data.model_copy(update=update)})


def _list_folds(resolved: Resolved) -> list[str]:
    pairs = [pair for dataset in build_datasets(resolved)[0] for pair in dataset.pairs()]
    folds = list_folds(pairs, resolved.recipe.data)
    if not folds:
        raise RunError(
            f"all folds asked for; column '{resolved.recipe.data.fold_column}' is absent or empty; "
            "set data.fold_column, or leave out --folds"
        )
    return folds
