"""The only composer: from recipe to report.

Reads top to bottom like a run: recipe, plugins, anchor space, pairs, anchor embeddings, tower,
objective, run directory, evaluation, report.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from rich.console import Console

from modalbind.anchors.cache import AnchorCache
from modalbind.blocks import Blocks
from modalbind.checkpoint import write_file
from modalbind.cost import CostMeter
from modalbind.data.samples import Sample, list_anchors
from modalbind.data.webdataset import shared_folder
from modalbind.encoders import Tower
from modalbind.engine import build_engine, settle_layout, settle_precision
from modalbind.errors import (
    AnchorMismatchError,
    BrokenSampleError,
    DataError,
    InputError,
    RunError,
)
from modalbind.evaluation.pools import UNIMODAL_LANGUAGE
from modalbind.evaluation.protocol import Protocol
from modalbind.export import check_output, write_embeddings
from modalbind.fit import build_batches, build_run_tower, count_steps, fit_tower
from modalbind.inputs import RunInputs, open_inputs, place_side_files
from modalbind.measure import add_controls, build_protocol, measure
from modalbind.plugin_manager import load_plugins
from modalbind.processes import check_alone, join
from modalbind.progress import Progress
from modalbind.recipe import Recipe, Resolved, kind_of_data, resolve
from modalbind.recipe.schema import CalibrationSection, Choice
from modalbind.report import RunReport, read_report, write_report
from modalbind.reporting import Measured, build_report
from modalbind.run import (
    Run,
    find_run,
    load,
    load_tower,
    read_bound_anchor,
)
from modalbind.rundir import RunDirectory, default_run_path, latest_run_path, point_latest

logger = logging.getLogger(__name__)


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
    processes = join()
    first = processes.is_first
    directory = RunDirectory(Path(processes.share(lambda: str(_choose_path(recipe, out, resume)))))
    progress, meter = Progress(console if first else None), CostMeter()
    accelerator = build_engine(recipe, directory.path)
    resolved = _settle_precision(
        resolved, directory if resume else None, accelerator.device, progress
    )
    recipe = resolved.recipe
    accelerator = build_engine(recipe, directory.path)

    def read_all() -> RunInputs:
        kept = None if force else directory.calibration_file
        device = str(accelerator.device)
        with meter.stage("inputs"):
            return open_inputs(resolved, AnchorCache(), device, progress.count, calibration=kept)

    def start() -> bool:
        return directory.start(recipe, resume=resume, force=force)

    # What is shared is done by the first process alone, which has the run directory to itself.
    with directory.lock() if first else nullcontext(), meter:
        # What is to be replaced stays until its replacement is known to be possible.
        ready = read_all() if force else None
        goes_on = processes.share(start)
        if goes_on and processes.share(directory.is_finished):
            if first:
                point_latest(directory.path)
            progress.say(f"{directory.path} is finished already")
            return Run(directory.path)
        with directory.discarded_if_refused(is_new=first and not goes_on):
            inputs = ready or read_all()
            processes.meet()  # what one refuses, all do
            processes.share(lambda: _record_identity(directory, inputs, recipe.anchor.sides))
        resolved = _settle_layout(resolved, inputs, directory, accelerator, progress)
        with meter.stage("training"):
            fit_tower(resolved, inputs, directory, accelerator, progress, meter)
        device = accelerator.device
        processes.share(lambda: _conclude(resolved, inputs, directory, device, meter))
    return Run(directory.path)


def _settle_precision(
    resolved: Resolved, directory: RunDirectory | None, device: torch.device, progress: Progress
) -> Resolved:
    """Decide on precision by a probe; a run that goes on keeps what it decided on, layout too."""

    def read_kept() -> dict[str, Any]:
        if directory is None or not directory.recipe_file.exists():
            return {}
        kept, wanted = directory.read_recipe().train, resolved.recipe.train
        names = ("precision", "channels_last")
        return {name: getattr(kept, name) for name in names if getattr(wanted, name) == "auto"}

    def probe() -> dict[str, Any]:
        recipe = settle_precision(resolved.recipe, device, progress.say)
        return {"precision": recipe.train.precision}

    resolved = _with_training(resolved, join().share(read_kept))
    if resolved.recipe.train.precision == "auto":
        resolved = _with_training(resolved, join().share(probe))
    return resolved


def _settle_layout(
    resolved: Resolved,
    inputs: RunInputs,
    directory: RunDirectory,
    accelerator: Accelerator,
    progress: Progress,
) -> Resolved:
    """Decide by a probe on the tower whether convolutions have their channels last."""

    def probe() -> dict[str, Any]:
        tower = build_run_tower(resolved, inputs).to(accelerator.device)
        _, batch = next(build_batches(resolved, inputs).iterate(0, 1))
        recipe = settle_layout(resolved.recipe, tower, batch, accelerator, progress.say)
        directory.write_recipe(recipe)
        return {"channels_last": recipe.train.channels_last}

    if resolved.recipe.train.channels_last != "auto":
        return resolved
    return _with_training(resolved, join().share(probe))


def _with_training(resolved: Resolved, changes: dict[str, Any]) -> Resolved:
    section = resolved.recipe.train.model_copy(update=changes)
    return replace(resolved, recipe=resolved.recipe.model_copy(update={"train": section}))


def _choose_path(recipe: Recipe, out: Path | None, resume: bool) -> Path:
    return out or (latest_run_path() if resume else default_run_path(recipe))


def _conclude(
    resolved: Resolved,
    inputs: RunInputs,
    directory: RunDirectory,
    device: torch.device,
    meter: CostMeter,
) -> None:
    """Measure the tower as it was published, and write the report."""
    with meter.stage("evaluation"):
        tower = load_tower(directory, resolved, inputs.anchor.dim).to(device)
        measured = measure(resolved, inputs, tower, build_protocol(directory, resolved.recipe))
    if (count := join().count) > 1:
        measured.notes.append(f"{count} processes trained; the cost is that of the first")
    report = build_report(resolved.recipe, inputs, directory, measured, meter, str(device))
    write_report(report, directory.path)


def evaluate(
    run: Path,
    *,
    data: Path | None = None,
    root: Path | None = None,
    controls: bool = False,
    console: Console | None = None,
    calibration: CalibrationSection | None = None,
) -> RunReport:
    """Measure a finished run again: on its own test split, or on other pairs.

    Args:
        run: Run directory.
        data: Manifest to test on instead; its test split, or all of it if it names none.
        root: Folder of its paths; default: the manifest's.
        controls: Add rows for the shuffled control (the same recipe trained on shuffled pairs, in
            `controls/shuffled`, kept for the next time) and the trivial-feature control. A run
            that has its shuffled control gets these rows each time.
        console: Where progress is shown.
        calibration: Of the test, in place of the recipe's.

    Returns:
        The report; also written into the run, unless `data` or `calibration` is given.
    """
    directory = RunDirectory(find_run(run))
    progress, meter = Progress(console), CostMeter()
    with meter:
        found = open_finished(directory, data, progress, root, calibration)
        measured = measure(found.resolved, found.inputs, found.tower, found.rules)
        if data is None and (changed := _list_changed(directory, found.inputs)):
            measured.notes.append(f"{', '.join(changed)} has changed since the run was trained")
        if controls or (data is None and (directory.shuffled / directory.tower_note.name).exists()):
            _measure_controls(measured, found, directory, console)
        device = str(found.device)
        report = build_report(
            found.resolved.recipe, found.inputs, directory, measured, meter, device
        )
    is_own = data is None and calibration is None
    return _replace_report(directory, report) if is_own else report


def _measure_controls(
    measured: Measured, found: FinishedRun, directory: RunDirectory, console: Console | None
) -> None:
    """Add the controls; the shuffled one is trained once, what is there already is used."""
    recipe = directory.read_recipe()
    section = recipe.data.model_copy(update={"shuffle_pairs": True})
    shuffled = recipe.model_copy(update={"data": section})
    run = align(shuffled, out=directory.shuffled, resume=True, console=console)
    tower = load_tower(run.directory, found.resolved, found.inputs.anchor.dim).to(found.device)
    add_controls(measured, found.resolved, found.inputs, tower, found.rules)


def _replace_report(directory: RunDirectory, report: RunReport) -> RunReport:
    """Write the report of a new measurement into the run, and return it as written."""
    # What the run cost is what it took to train, not to measure it once more.
    with suppress(RunError):
        report = report.model_copy(update={"cost": read_report(directory.path).cost})
    try:
        with directory.lock():
            write_report(report, directory.path)
    except OSError as error:
        logger.warning("the report of %s was not replaced: %s", directory.path, error)
    return report


@dataclass(frozen=True)
class FinishedRun:
    """A run that is trained, and what it is tested on; its tower is read when it is first used."""

    directory: RunDirectory
    resolved: Resolved
    inputs: RunInputs
    rules: Protocol
    device: torch.device

    @cached_property
    def tower(self) -> Tower:
        """The tower, on its device."""
        return load_tower(self.directory, self.resolved, self.inputs.anchor.dim).to(self.device)


def open_finished(
    directory: RunDirectory,
    data: Path | None,
    progress: Progress,
    root: Path | None = None,
    calibration: CalibrationSection | None = None,
) -> FinishedRun:
    """Open a finished run with what it is tested on: its own test split, or other pairs.

    Raises:
        InputError: If it is not finished, or bound to another anchor space than is there now.
    """
    recipe = directory.read_recipe()
    if data is not None:
        recipe = change_data(recipe, data, root)
    if calibration is not None:
        section = recipe.evaluation.model_copy(update={"calibration": calibration})
        recipe = recipe.model_copy(update={"evaluation": section})
    return open_changed(directory, recipe, progress, tests_all=data is not None)


def open_changed(
    directory: RunDirectory, recipe: Recipe, progress: Progress, *, tests_all: bool
) -> FinishedRun:
    """Open a finished run by a recipe that differs from its own in what it is tested on.

    Args:
        directory: Of the run.
        recipe: Its own, or one with other data.
        progress: Told what is going on.
        tests_all: The data is for testing alone.

    Raises:
        InputError: If it is not finished, or bound to another anchor space than is there now.
    """
    check_alone("measuring a finished run")
    directory.check_trained()
    resolved = resolve(recipe, load_plugins())
    device = build_engine(resolved.recipe).device
    inputs = open_inputs(
        resolved,
        AnchorCache(),
        str(device),
        progress.count,
        tests_all=tests_all,
        calibration=directory.calibration_file,
    )
    _check_bound(directory, inputs)
    rules = build_protocol(directory, resolved.recipe)
    return FinishedRun(directory, resolved, inputs, rules, device)


def describe(recipe: Recipe) -> dict[str, Any]:
    """Say what `align` would do, after every check that needs no training; writes nothing.

    Raises:
        InputError: As `align` would.
    """
    check_alone("--dry-run")
    resolved = resolve(recipe, load_plugins())
    recipe = resolved.recipe
    accelerator = build_engine(recipe)
    inputs = open_inputs(
        resolved, AnchorCache(), str(accelerator.device), Progress(None).count, embeds=False
    )
    batches = build_batches(resolved, inputs)
    tower = build_run_tower(resolved, inputs)
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
        "steps": count_steps(recipe, batches),
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
    blocks = Blocks(space, modality, inputs, out, windows)
    try:
        blocks.compute()
    except BrokenSampleError as error:
        remedy = "leave that file out"
        if error.reason == "too_long":
            remedy += ", or raise the limit with --set"
        raise DataError(f"embedding {modality} asked for; {error}; {remedy}") from error

    def write() -> int:
        rows = blocks.collect()
        write_embeddings(out, modality, rows.keys, rows.vectors, space.name, rows.times)
        blocks.remove()
        return len(rows.keys)

    return join().share(write)


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


def _record_identity(directory: RunDirectory, inputs: RunInputs, sides: Collection[str]) -> None:
    if directory.run_file.exists():
        _check_bound(directory, inputs)
        if changed := _list_changed(directory, inputs):
            raise DataError(
                f"resuming {directory.path} asked for; {', '.join(changed)} has changed since it "
                "was started; restore it, or start again with --force"
            )
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
            "manifests": dict(inputs.data.manifest_hashes),
        }
    )
    directory.write_broken(inputs.data.broken)
    if anchor.calibration is not None:
        write_file(directory.calibration_file, anchor.calibration.to_bytes())
    point_latest(directory.path)


def _list_changed(directory: RunDirectory, inputs: RunInputs) -> list[str]:
    """Return the names of manifests whose content is not what the run was started with."""
    before = directory.read_identity().get("manifests", {})
    return [
        name
        for name, found in inputs.data.manifest_hashes.items()
        if before.get(name, found) != found
    ]


def _list_paired(samples: Sequence[Sample], sides: Collection[str]) -> set[tuple[str, str, str]]:
    """Return what training pairs: modality, its language, and the language of the sample."""
    return {
        (side, key[1] if side == "text" else UNIMODAL_LANGUAGE, sample.language)
        for side in sides
        for sample in samples
        for key, _ in list_anchors(sample, side)
    }


def _check_bound(directory: RunDirectory, inputs: RunInputs) -> None:
    inputs.anchor.check_bound(directory.path, read_bound_anchor(directory))


def change_data(recipe: Recipe, data: Path, root: Path | None, **options: object) -> Recipe:
    """Return the recipe with another manifest, or other shards, as its only data.

    Args:
        recipe: Of the run.
        data: The manifest, or the pattern of shards, which are read as the run's own were.
        root: Folder of its paths; default: the manifest's.
        options: Further options of a manifest.
    """
    kind = kind_of_data(str(data))
    if kind != "manifest":
        own = [source.options for source in recipe.data.sources[:1] if source.kind == kind]
        reading = ("members", "columns", "language")
        options = {name: each[name] for each in own for name in reading if name in each}
    source = Choice.model_validate({"kind": kind, "path": str(data), **options})
    update = {"sources": (source,), "test_fold": None, "root": None if root is None else str(root)}
    section = recipe.data.model_copy(update=update)
    evaluation = place_side_files(recipe, shared_folder(str(data)) if root is None else root)
    return recipe.model_copy(update={"data": section, "evaluation": evaluation})
