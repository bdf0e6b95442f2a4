"""What a run will cost, from a few steps of it: `modalbind plan`.

Trains on random anchor embeddings, as a step costs the same whatever they are, and throws the
tower away. Writes nothing but the few anchor embeddings that it times, into the cache.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils.flop_counter import FlopCounterMode

from modalbind import cost
from modalbind.alternatives import is_encoder_fixed, list_fits
from modalbind.anchors.cache import AnchorCache
from modalbind.checkpoint import encode_tensors
from modalbind.closed_form import fit_solver
from modalbind.data.loader import (
    AnchorBank,
    FeatureSet,
    Known,
    TrainingBatches,
    seeded_generator,
)
from modalbind.data.samples import Sample
from modalbind.encoders import Tower
from modalbind.encoders.tower import split_frozen
from modalbind.engine import build_engine, settle_layout, settle_precision
from modalbind.errors import InputError, RecipeError
from modalbind.evaluation.embed import embed_samples
from modalbind.evaluation.pools import Pool, PoolPlan, build_pool
from modalbind.evaluation.protocol import Protocol
from modalbind.fit import build_aligner, build_batches, build_run_tower, count_steps
from modalbind.frozen_outputs import compute_known
from modalbind.inputs import RunInputs, Wanted, collect_items, open_inputs
from modalbind.loop import CHECKPOINTS_PER_RUN
from modalbind.measure import sample_pool
from modalbind.plugin_manager import load_plugins
from modalbind.recipe import Recipe, Resolved, resolve
from modalbind.recipe.overrides import apply_overrides
from modalbind.recipe.schema import ClosedFormSection, Solver
from modalbind.recipe.yaml_loader import parse_yaml
from modalbind.together import prepare_samples
from modalbind.training import Aligner
from modalbind.types import PairBatch

SPREAD_STEPS = 9
"""Steps that are timed, spread over the run, so that schedules show."""
ENOUGH_S = 20.0
"""Seconds of steps after which no more are timed."""
TRIED = 64
"""Samples or items whose cost is taken for that of all."""
FITTED = 4000
"""Rows that a closed form is timed on, if there are more."""
UTILISATION = 0.35
"""Share of a named device's peak that is assumed to be reached."""
GAIN = 1.1
"""Least factor by which a lever must help to be named."""


@dataclass
class Plan:
    """What a run is expected to cost.

    Attributes:
        steps: Optimizer steps.
        step_s: Median seconds of one, once samples are in memory, with the range of those timed.
        epoch_s: Seconds of an epoch after the first.
        stages: Seconds of each stage; their sum is `seconds`.
        waiting_share: Of training, spent on waiting for samples.
        padding_share: Of the frames of a batch.
        peak_memory_mib: Of this process on the CPU, or of the device.
        kept_mib: Of that, features that are not read yet.
        disk_mib: By what is written.
        missing_anchors: Anchor embeddings that the cache lacks, by modality.
        kwh: Energy, or None.
        energy: How that is known, or why it is not.
        flops_per_step: Multiplications and additions, forward and backward.
        device: Of the measurement.
        elsewhere: The same for a named device.
        levers: Recipe options, and the factor by which each would shorten a step.
        assumptions: In words.
    """

    steps: int = 0
    step_s: tuple[float, float, float] = (0.0, 0.0, 0.0)
    epoch_s: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)
    waiting_share: float = 0.0
    padding_share: float = 0.0
    peak_memory_mib: float = 0.0
    kept_mib: float = 0.0
    disk_mib: dict[str, float] = field(default_factory=dict)
    missing_anchors: dict[str, int] = field(default_factory=dict)
    kwh: float | None = None
    energy: str = ""
    flops_per_step: float = 0.0
    device: str = ""
    elsewhere: dict[str, Any] | None = None
    levers: dict[str, float] = field(default_factory=dict)
    assumptions: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Seconds of the whole run."""
        return sum(self.stages.values())


def plan_run(
    recipe: Recipe, *, elsewhere: str | None = None, say: Callable[[str], None] | None = None
) -> Plan:
    """Measure a few steps of a run, and work out what all of it costs.

    Args:
        recipe: Of the run.
        elsewhere: Name of a device that is not here (`list_devices`), for the same by FLOPs.
        say: Told what is being measured.

    Raises:
        InputError: As `align` would, or if there is no such device.
    """
    tell = say or (lambda _: None)
    devices = list_devices()
    if elsewhere is not None and elsewhere not in devices:
        raise InputError(
            f"device '{elsewhere}' asked for; known: {', '.join(devices)}; name one of these"
        )
    resolved = resolve(recipe, load_plugins())
    device = build_engine(resolved.recipe).device
    resolved = replace(resolved, recipe=settle_precision(resolved.recipe, device, tell))
    accelerator = build_engine(resolved.recipe)
    plan = Plan(device=str(accelerator.device))
    with cost.CostMeter() as meter:
        start = time.monotonic()
        tell("data and anchor")
        inputs = _open(plan, resolved, accelerator)
        tell("a few steps")
        tower = build_run_tower(resolved, inputs).to(accelerator.device)
        _, batch = next(build_batches(resolved, inputs).iterate(0, 1))
        settled = settle_layout(resolved.recipe, tower, batch, accelerator, tell)
        resolved = replace(resolved, recipe=settled)
        _plan_training(plan, resolved, inputs, tower, accelerator)
        tell("the test")
        _plan_evaluation(plan, resolved, inputs, tower)
        _plan_memory(plan, accelerator, meter.read()["peak_rss_mib"])
        found, measured_s = meter.read(), time.monotonic() - start
        _plan_energy(plan, found["kwh"], measured_s)
        tell("levers")
        _try_levers(plan, resolved, inputs, accelerator)
    if elsewhere is not None:
        plan.elsewhere = _plan_elsewhere(plan, resolved.recipe, devices[elsewhere])
    plan.assumptions += [
        f"{TRIED} samples of each kind, and {SPREAD_STEPS} steps at most, stand for all",
        "nothing else uses this machine",
    ]
    return plan


def list_devices() -> dict[str, dict[str, Any]]:
    """Return the devices that a plan can be made for: name, TFLOP/s, memory, power."""
    text = (files("modalbind") / "devices.yaml").read_text(encoding="utf-8")
    devices: dict[str, dict[str, Any]] = parse_yaml(text, "devices.yaml")
    return devices


@contextmanager
def _timed(seconds: list[float]) -> Iterator[None]:
    start = time.perf_counter()
    yield
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    seconds.append(time.perf_counter() - start)


def _time(call: Callable[[], Any]) -> float:
    seconds: list[float] = []
    with _timed(seconds):
        call()
    return seconds[0]


def _open(plan: Plan, resolved: Resolved, accelerator: Accelerator) -> RunInputs:
    """Read the data as a run does, with random anchor embeddings, and time the real ones."""
    seconds: list[float] = []
    device = str(accelerator.device)
    with _timed(seconds):
        inputs = open_inputs(resolved, AnchorCache(), device, lambda *_: None, embeds=False)
    plans = [found for found in (inputs.test, inputs.val) if found is not None]
    wanted = collect_items(inputs.data, plans, (), resolved.recipe.anchor.sides)
    plan.stages["inputs"] = seconds[0] + _plan_preparation(inputs)
    plan.stages["anchor embeddings"] = _plan_anchors(plan, inputs, wanted)
    return replace(inputs, banks=_make_banks(inputs.anchor.dim, wanted))


def _plan_preparation(inputs: RunInputs) -> float:
    """Return the seconds that a modality takes to compute features of all samples at once."""
    samples = (*inputs.data.train, *inputs.data.val, *inputs.data.test)
    if not hasattr(inputs.modality, "prepare"):
        return 0.0
    tried = [inputs.data.store.load(sample) for sample in samples[: 2 * TRIED]]
    first = _time(lambda: prepare_samples(inputs.modality, tried[:TRIED]))  # opens weights
    second = _time(lambda: prepare_samples(inputs.modality, tried[TRIED:]))
    per_sample = second / max(1, len(tried) - TRIED)
    return first + per_sample * max(0, len(samples) - TRIED)


def _plan_anchors(plan: Plan, inputs: RunInputs, wanted: Wanted) -> float:
    total = 0.0
    for modality, items in wanted.items():
        found: list[Any] = []
        total += _time(
            lambda f=found, m=modality, i=items: f.extend(  # type: ignore[misc]
                inputs.anchor.find_missing(m, list(i.values()))
            )
        )
        if not found:
            continue
        plan.missing_anchors[modality] = len(found)
        plan.disk_mib["anchor cache"] = plan.disk_mib.get("anchor cache", 0.0) + (
            len(found) * (4 * inputs.anchor.dim + 40) / 2**20
        )
        first, rest = found[:1], found[1 : 1 + TRIED]
        total += _time(lambda m=modality, i=first: inputs.anchor.embed(m, i))  # type: ignore[misc]
        if rest:
            seconds = _time(lambda m=modality, i=rest: inputs.anchor.embed(m, i))  # type: ignore[misc]
            total += seconds / len(rest) * (len(found) - 1)
    return total


def _make_banks(dim: int, wanted: Wanted) -> dict[str, AnchorBank]:
    banks = {}
    for modality, items in wanted.items():
        drawn = torch.randn(len(items), dim, generator=seeded_generator("plan", modality))
        rows = {key: row for row, key in enumerate(items)}
        vectors = torch.nn.functional.normalize(drawn, dim=1)
        banks[modality] = AnchorBank(modality, rows, vectors)
    return banks


def _plan_training(
    plan: Plan, resolved: Resolved, inputs: RunInputs, tower: Tower, accelerator: Accelerator
) -> None:
    section = resolved.recipe.train
    fit_s = _plan_fit(resolved, inputs, tower, accelerator)
    if section.solver != "adamw":
        plan.stages["training"] = fit_s
        return
    known_s, known, moving = _plan_known(resolved, inputs, tower, accelerator)
    batches = build_batches(resolved, inputs, known)
    aligner = build_aligner(moving, resolved, batches, accelerator)
    plan.steps = count_steps(resolved.recipe, batches)
    times = _time_steps(aligner, batches, plan.steps)
    again, plan.kept_mib = _count_kept(batches)
    compute = statistics.fmean(times.compute)
    wait_first = _hide(times.first, compute, batches.workers)
    wait_again = _hide(
        [a * again + f * (1 - again) for f, a in zip(times.first, times.again, strict=True)],
        compute,
        batches.workers,
    )
    plan.step_s = (statistics.median(times.compute), min(times.compute), max(times.compute))
    plan.epoch_s = batches.steps_per_epoch * (compute + wait_again)
    in_first = min(plan.steps, batches.steps_per_epoch)
    waiting = in_first * wait_first + (plan.steps - in_first) * wait_again
    steps_s = plan.steps * compute + waiting
    saving, size_mib = _time_saving(aligner)
    saves = min(CHECKPOINTS_PER_RUN, plan.steps)
    if section.checkpoint_every:
        saves = plan.steps // section.checkpoint_every
    plan.disk_mib["checkpoints"] = size_mib * (min(saves, section.keep_checkpoints) + 1)
    head_start_s = fit_s if section.head_start != "none" else 0.0
    select_s = _plan_selection(resolved, inputs, tower)
    plan.stages["training"] = known_s + head_start_s + steps_s + saves * saving + select_s
    plan.waiting_share = waiting / steps_s
    plan.padding_share = times.padding
    plan.flops_per_step = times.flops


@dataclass
class _StepTimes:
    """Seconds of steps that are spread over a run.

    Attributes:
        first: To read the samples of a batch for the first time.
        again: To read them once more.
        compute: Of the step itself.
        padding: Share of frames that are padding.
        flops: Of one step.
    """

    first: list[float] = field(default_factory=list)
    again: list[float] = field(default_factory=list)
    compute: list[float] = field(default_factory=list)
    padding: float = 0.0
    flops: float = 0.0


def _time_steps(aligner: Aligner, batches: TrainingBatches, total: int) -> _StepTimes:
    times, workers = _StepTimes(), batches.workers
    batches.workers = 0
    places = sorted({round(i * (total - 1) / (SPREAD_STEPS - 1)) for i in range(SPREAD_STEPS)})
    paddings = []
    _, batch = next(iter(batches.iterate(0, 1)))
    list(aligner.run([(0, batch)], 0))  # what only the first step costs
    started = time.perf_counter()
    for number, place in enumerate(places):
        _time_reading(times.first, batches, place, total)
        found = _time_reading(times.again, batches, place, total)
        # The shorter of two: what else this machine does in between is no part of the run.
        tries = [_time(lambda p=place, f=found: list(aligner.run([f], p))) for _ in range(2)]  # type: ignore[misc]
        times.compute.append(min(tries))
        mask = found[1].valid_mask
        paddings.append(0.0 if mask is None else 1 - float(mask.float().mean()))
        # The ends of the run are timed in any case: schedules differ most there.
        if time.perf_counter() - started > ENOUGH_S and number >= 1:
            break
    times.padding = statistics.fmean(paddings)
    counter = FlopCounterMode(display=False)
    with counter:
        list(aligner.run([found], place))
    times.flops = float(counter.get_total_flops())
    batches.workers = workers
    return times


def _prepare(features: FeatureSet, samples: Sequence[Sample]) -> None:
    """Do for samples what a run has done for all of them before it trains."""
    store = features.store
    if hasattr(store.modality, "prepare"):
        prepare_samples(store.modality, map(store.load, samples))


def _time_reading(
    seconds: list[float], batches: TrainingBatches, place: int, total: int
) -> tuple[int, PairBatch]:
    """Read one batch behind another, as what starts the loader comes once a run."""
    place = max(1, min(place, total - 1))
    _prepare(batches.features, batches.list_samples(place))
    iterator = iter(batches.iterate(place - 1, place + 1))
    found = next(iterator)
    with _timed(seconds):
        found = next(iterator, found)
    return found


def _hide(seconds: Sequence[float], compute: float, workers: int) -> float:
    """Seconds that a step waits, if workers read while it computes."""
    read = statistics.fmean(seconds)
    return read if not workers else max(0.0, read / workers - compute)


def _count_kept(batches: TrainingBatches) -> tuple[float, float]:
    """Return the share of samples whose features the budget holds, and MiB still to be read."""
    features = batches.features
    if features.is_known:
        return 1.0, 0.0
    kept, budget = features.count_kept()
    if not kept:
        return 0.0, 0.0
    wanted = sum(kept) / len(kept) * len(features)
    return min(1.0, budget / wanted), (min(wanted, budget) - sum(kept)) / 2**20


def _plan_known(
    resolved: Resolved, inputs: RunInputs, tower: Tower, accelerator: Accelerator
) -> tuple[float, Known | None, Tower]:
    """Return the seconds that the frozen part takes, outputs to go on with, and what trains."""
    recipe = resolved.recipe
    cut = split_frozen(tower, recipe.tower.freeze)
    if cut is None or resolved.augmentations or recipe.train.lengths is not None:
        return 0.0, None, tower
    count = len(inputs.data.train)
    samples = [inputs.data.store.load(sample) for sample in inputs.data.train[:TRIED]]
    seconds: list[float] = []
    with _timed(seconds):
        known = compute_known(
            cut[0],
            inputs.modality,
            samples,
            accelerator.device,
            batch_size=recipe.train.batch_size,
            memory_mib=recipe.data.memory_mib,
        )
    if known is None:
        return 0.0, None, tower
    size = sum(item.nbytes for item in known.features) / len(samples) * count
    if size > recipe.data.memory_mib * 2**20:
        return 0.0, None, tower
    features = [known.features[place % len(samples)] for place in range(count)]
    return seconds[0] / len(samples) * count, Known(features, known.is_padded), cut[1]


def _plan_fit(
    resolved: Resolved, inputs: RunInputs, tower: Tower, accelerator: Accelerator
) -> float:
    """Return the seconds of a head in closed form: the encoder's pass and the solver."""
    section = resolved.recipe.train
    solver = section.solver if section.solver != "adamw" else section.head_start
    if solver == "none":
        return 0.0
    count, dim = len(inputs.data.train), inputs.anchor.dim
    per_sample = _time_embedding(resolved, inputs, tower.encoder, inputs.data.train)
    return per_sample * count + _time_solver(tower, count, dim, solver, section.closed_form)


def _time_solver(
    tower: Tower, count: int, dim: int, solver: Solver, section: ClosedFormSection
) -> float:
    rows = min(count, FITTED)
    generator = seeded_generator("plan", "fit")
    width: int = tower.encoder.width  # type: ignore[assignment]
    x, y = (torch.randn(rows, size, generator=generator).double() for size in (width, dim))
    return _time(lambda: fit_solver(solver, x, y, section)) * count / rows


def _plan_closed_forms(
    resolved: Resolved, inputs: RunInputs, tower: Tower, scoring_s: float
) -> float:
    """Return the seconds of all closed forms beside the run: features, fits and their scores."""
    recipe, count = resolved.recipe, len(inputs.data.train)
    if not (recipe.evaluation.closed_forms and count and is_encoder_fixed(tower, recipe)):
        return 0.0
    per_sample = _time_embedding(resolved, inputs, tower.encoder, inputs.data.train)
    fits = list_fits(tower.encoder.width, inputs.anchor.dim)  # type: ignore[arg-type]
    solving = sum(_time_solver(tower, count, inputs.anchor.dim, *fit) for fit in fits)
    embedding = per_sample * (count + len(inputs.data.test))
    return embedding + solving + len(fits) * scoring_s


def _time_embedding(
    resolved: Resolved, inputs: RunInputs, module: torch.nn.Module, samples: Sequence[Any]
) -> float:
    """Return seconds per sample to read, and to embed with a tower or an encoder."""
    tried = samples[:TRIED]
    if hasattr(inputs.modality, "prepare"):
        prepare_samples(inputs.modality, inputs.load_all(tried))
    seconds: list[float] = []
    with _timed(seconds):
        embed_samples(
            module,
            inputs.modality,
            inputs.load_all(tried),
            device=next(iter(module.parameters()), torch.zeros(0)).device,
            batch_size=resolved.recipe.train.batch_size,
            use_windows=resolved.recipe.evaluation.window,
        )
    return seconds[0] / len(tried)


def _time_saving(aligner: Aligner) -> tuple[float, float]:
    """Return seconds and MiB of a checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        seconds: list[float] = []
        with _timed(seconds):
            content = encode_tensors(aligner.state_tensors())
            (Path(folder) / "tensors.safetensors").write_bytes(content)
    return seconds[0], len(content) / 2**20


def _plan_selection(resolved: Resolved, inputs: RunInputs, tower: Tower) -> float:
    section = resolved.recipe.train
    if not section.select_every or not inputs.data.val:
        return 0.0
    per_sample = _time_embedding(resolved, inputs, tower, inputs.data.val)
    return per_sample * len(inputs.data.val) * (section.epochs // section.select_every)


def _plan_evaluation(plan: Plan, resolved: Resolved, inputs: RunInputs, tower: Tower) -> None:
    """Time one pool of each modality, and count the others."""
    per_sample = _time_embedding(resolved, inputs, tower, inputs.data.test)
    total, scoring = per_sample * len(inputs.data.test), 0.0
    rules = Protocol(resolved.recipe.evaluation, "test", resolved.recipe.seed, frozenset())
    drawn = torch.randn(
        len(inputs.data.test), inputs.anchor.dim, generator=seeded_generator("plan", "test")
    )
    samples = sample_pool(resolved, inputs, torch.nn.functional.normalize(drawn, dim=1))
    by_modality: dict[str, list[PoolPlan]] = {}
    for planned in inputs.test.pools:
        by_modality.setdefault(planned.modality, []).append(planned)
    firsts: dict[str, Pool] = {}
    for modality, plans in by_modality.items():
        pool = build_pool(plans[0], inputs.banks[modality].pick(plans[0].keys))
        firsts[modality] = pool
        tries = [_time(lambda p=pool: rules.score_samples(samples, [p])) for _ in range(2)]  # type: ignore[misc]
        scoring += min(tries) * sum(len(each.keys) for each in plans) / len(plans[0].keys)
    if resolved.recipe.evaluation.link_text_image and {"text", "image"} <= firsts.keys():
        seconds = _time(lambda: rules.score_anchor([firsts["text"], firsts["image"]]))
        total += seconds * len(by_modality["text"]) * len(by_modality["image"])
    total += scoring + _plan_closed_forms(resolved, inputs, tower, scoring)
    plan.stages["evaluation"] = total


def _plan_memory(plan: Plan, accelerator: Accelerator, peak_mib: float) -> None:
    if accelerator.device.type == "cuda":
        plan.peak_memory_mib = torch.cuda.max_memory_allocated() / 2**20
    else:
        plan.peak_memory_mib = peak_mib + plan.kept_mib


def _plan_energy(plan: Plan, kwh: float | None, measured_s: float) -> None:
    if kwh is None:
        plan.energy = "not known: codecarbon is not installed (pip install 'modalbind[energy]')"
        return
    plan.kwh = kwh / measured_s * plan.seconds
    plan.energy = "estimated: codecarbon's power of what was measured, over the whole time"


LEVERS: Mapping[str, str] = {
    "tower.freeze=encoder": "the head alone trains, on outputs computed once",
    "encoder.patch_drop=0.5": "half of the tokens",
    "train.lengths={start: 0.5, until: 1.0}": "short stretches of each sample first",
    "tower.lora={rank: 8}": "adapters alone train",
    "train.precision=bf16": "half precision",
}
"""Options that are tried, and what they do."""


def _try_levers(
    plan: Plan, resolved: Resolved, inputs: RunInputs, accelerator: Accelerator
) -> None:
    """Time a few steps with each lever that this recipe can take, beside its own."""
    if not plan.steps:
        return
    own = _time_variant(plan, resolved, inputs, accelerator)
    for lever in LEVERS:
        if lever in _list_unfit(inputs, accelerator):
            continue
        with _passed_over():
            changed = _change(resolved.recipe, lever)
            if changed == resolved.recipe:
                continue
            other = resolve(changed, load_plugins())
            factor = own / _time_variant(plan, other, inputs, accelerator)
            if factor >= GAIN:
                plan.levers[lever] = factor


def _list_unfit(inputs: RunInputs, accelerator: Accelerator) -> set[str]:
    """Return levers that make no sense here."""
    unfit = set() if inputs.modality.is_padded else {"train.lengths={start: 0.5, until: 1.0}"}
    return unfit | ({"train.precision=bf16"} if accelerator.device.type == "cpu" else set())


def _time_variant(
    plan: Plan, resolved: Resolved, inputs: RunInputs, accelerator: Accelerator
) -> float:
    """Return seconds of a step, its samples read before, at the start and halfway."""
    tower = build_run_tower(resolved, inputs).to(accelerator.device)
    _, known, moving = _plan_known(resolved, inputs, tower, accelerator)
    batches = build_batches(resolved, inputs, known)
    batches.workers = 0
    aligner = build_aligner(moving, resolved, batches, build_engine(resolved.recipe))
    seconds: list[float] = []
    for place in (0, 0, plan.steps // 2):
        next(iter(batches.iterate(place, place + 1)))
        with _timed(seconds):
            found = next(iter(batches.iterate(place, place + 1)))
            list(aligner.run([found], place))
    return statistics.fmean(seconds[1:])  # without what only the first step costs


@contextmanager
def _passed_over() -> Iterator[None]:
    """Pass over a lever that the recipe or its encoder cannot take."""
    try:
        yield
    except (InputError, RecipeError, ValueError):
        return


def _change(recipe: Recipe, override: str) -> Recipe:
    raw = apply_overrides(recipe.model_dump(mode="json"), (override,))
    return Recipe.model_validate(raw)


def _plan_elsewhere(plan: Plan, recipe: Recipe, device: Mapping[str, Any]) -> dict[str, Any]:
    precision = "fp32" if recipe.train.precision == "no" else "bf16"
    rate = float(device[precision]) * 1e12 * UTILISATION
    seconds = plan.steps * plan.flops_per_step / rate
    return {
        "device": device["name"],
        "step_s": plan.flops_per_step / rate,
        "training_s": seconds,
        "kwh": seconds * float(device["watts"]) / 3.6e6,
        "memory_gib": device["memory_gib"],
        "assumes": f"{UTILISATION:.0%} of {device[precision]} TFLOP/s ({precision}), samples never "
        "waited for, full board power; small batches and towers reach less",
    }
