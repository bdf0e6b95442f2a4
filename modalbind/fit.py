"""Fits the tower of a run: in closed form or by steps, whatever its modality.

What comes before and after is in `pipeline`, what happens between two checkpoints in `loop`, what
one step does in `training`.
"""

from __future__ import annotations

from typing import Any

from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.nn.modules.batchnorm import _BatchNorm

from modalbind.closed_form import fit_head
from modalbind.cost import CostMeter
from modalbind.data.loader import Augmentations, FeatureSet, Known, Lengths, TrainingBatches
from modalbind.encoders import Tower, build_tower
from modalbind.errors import RecipeError
from modalbind.feature_cache import keep_features
from modalbind.frozen_outputs import keep_frozen_outputs
from modalbind.inputs import RunInputs
from modalbind.loop import take_steps
from modalbind.plugin_manager import build
from modalbind.processes import join
from modalbind.progress import Progress
from modalbind.recipe import Recipe, Resolved
from modalbind.recipe.schema import Solver, TrainSection
from modalbind.run import describe_encoder, publish_tower
from modalbind.rundir import RunDirectory
from modalbind.selection import Selection
from modalbind.training import Aligner


def fit_tower(
    resolved: Resolved,
    inputs: RunInputs,
    directory: RunDirectory,
    accelerator: Accelerator,
    progress: Progress,
    meter: CostMeter,
) -> None:
    """Fit a tower until the recipe says stop, and publish it; a published one is left alone."""
    processes = join()
    if processes.share(directory.tower_note.exists):
        meter.go_on_from(directory.read_cost())
        return
    tower = build_run_tower(resolved, inputs).to(accelerator.device)
    describe_encoder(tower)  # what could not be loaded again is refused before it is trained
    if (solver := resolved.recipe.train.solver) == "adamw":
        _take_steps(tower, resolved, inputs, directory, accelerator, progress, meter)
    elif processes.is_first:
        fit_run_head(tower, resolved, inputs, progress, solver)
        meter.pairs_seen += len(inputs.data.train)

    def publish() -> None:
        directory.log_cost(meter.read())
        publish_tower(directory, tower, inputs.anchor.fingerprint)

    processes.share(publish)


def build_run_tower(resolved: Resolved, inputs: RunInputs) -> Tower:
    """Build the tower that a recipe asks for, with the weights that its seed gives it."""
    recipe = resolved.recipe
    spec, arguments = resolved.encoder, (resolved.encoder_options, inputs.modality)
    set_seed(recipe.seed)
    if spec.starts_from:
        with inputs.anchor.exported_tower(spec.starts_from) as exported:
            encoder = build(spec, *arguments, exported)
    else:
        encoder = build(spec, *arguments)
    return build_tower(encoder, recipe.head, recipe.tower, inputs.anchor.dim)


def build_batches(
    resolved: Resolved, inputs: RunInputs, known: Known | None = None
) -> TrainingBatches:
    """Plan the batches of a run.

    Args:
        resolved: The recipe.
        inputs: Training samples and anchor embeddings.
        known: Outputs of the frozen part of the tower, or cached features, in place of features.
    """
    recipe, processes = resolved.recipe, join()
    stages: dict[str, list[Any]] = {"sample": [], "features": [], "batch": []}
    for spec, options in resolved.augmentations:
        stages[spec.stage].append(build(spec, options, inputs.modality))
    features = FeatureSet(
        inputs.data.train,
        inputs.data.store,
        Augmentations(**{name: tuple(found) for name, found in stages.items()}),
        seed=recipe.seed,
        memory_mib=recipe.data.memory_mib,
        known=known,
    )
    batches = TrainingBatches(
        features,
        inputs.banks,
        recipe.anchor.sides,
        batch_size=recipe.train.batch_size,
        source_weights=inputs.data.weights,
        workers=recipe.data.workers,
        share=(processes.rank, processes.count),
    )
    if recipe.train.negatives == "bank":
        batches.use_bank()
    if (section := recipe.train.lengths) is not None:
        steps = round(section.until * count_steps(recipe, batches))
        batches.lengths = Lengths(section.start, steps)
    return batches


def count_steps(recipe: Recipe, batches: TrainingBatches) -> int:
    """Return how many optimizer steps a run takes; none in closed form."""
    if recipe.train.solver != "adamw":
        return 0
    total = batches.steps_per_epoch * recipe.train.epochs
    return min(total, recipe.train.max_steps or total)


def build_aligner(
    tower: Tower, resolved: Resolved, batches: TrainingBatches, accelerator: Accelerator
) -> Aligner:
    """Build what takes the steps of a run."""
    return Aligner(
        tower,
        build(resolved.objective, resolved.objective_options),
        resolved.recipe.train,
        accelerator,
        sides=tuple(resolved.recipe.anchor.sides),
        total_steps=count_steps(resolved.recipe, batches),
        seed=resolved.recipe.seed,
    )


def fit_run_head(
    tower: Tower, resolved: Resolved, inputs: RunInputs, progress: Progress, solver: Solver
) -> None:
    """Fit the head of a tower in closed form, and say so."""
    strength = fit_head(tower, inputs, resolved.recipe, solver)
    with_strength = f", strength {strength:.3g}" if solver == "ridge" else ""
    progress.say(f"linear head in closed form, {solver}{with_strength}")


def _take_steps(
    tower: Tower,
    resolved: Resolved,
    inputs: RunInputs,
    directory: RunDirectory,
    accelerator: Accelerator,
    progress: Progress,
    meter: CostMeter,
) -> None:
    known, moving = keep_frozen_outputs(tower, resolved, inputs, progress.say)
    if known is None:
        known = keep_features(resolved, inputs, progress.say)
    batches = build_batches(resolved, inputs, known)
    _check_rows_apart(tower, batches.features.augmentations, resolved.recipe.train)
    if (start := resolved.recipe.train.head_start) != "none":
        # Also of a run that goes on: its checkpoint, if one can be read, replaces this.
        fit_run_head(tower, resolved, inputs, progress, start)
    aligner = build_aligner(moving, resolved, batches, accelerator)
    selection = Selection(resolved.recipe, inputs, directory)
    accelerator.init_trackers(resolved.recipe.name or "modalbind", {"seed": resolved.recipe.seed})
    try:
        take_steps(aligner, batches, tower, selection, directory, progress, meter)
    finally:
        # Not `end_training`, which would part the processes for good.
        for tracker in accelerator.trackers:
            tracker.finish()
    if join().is_first:
        selection.restore_best(aligner)


def _check_rows_apart(tower: Tower, augmentations: Augmentations, section: TrainSection) -> None:
    """Refuse what mixes the rows of a batch where not all of them are in one place at a time."""
    count = join().count
    mixes = any(
        isinstance(module, _BatchNorm) and module.training for module in tower.train().modules()
    )
    where = f"by {count} processes" if count > 1 else "with train.micro_batch_size"
    found = {
        "an augmentation of whole batches": bool(augmentations.batch) and count > 1,
        "batch normalisation that trains": mixes
        and (count > 1 or section.micro_batch_size is not None),
    }
    for name, is_there in found.items():
        if is_there:
            raise RecipeError(
                f"{name} {where} asked for; it mixes rows, and only a part of a batch is in one "
                "place at a time; leave it out, freeze it, or train whole batches in one process"
            )
