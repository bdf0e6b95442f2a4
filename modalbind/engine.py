"""accelerate, set up for a run: device, precision, threads, trackers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from accelerate.utils import (
    DistributedType,
    InitProcessGroupKwargs,
    ProjectConfiguration,
)
from torch import nn

from modalbind.errors import InputError
from modalbind.processes import join
from modalbind.recipe import Recipe
from modalbind.rundir import TRACKERS_FOLDER
from modalbind.types import PairBatch

COLLECTIVE_TIMEOUT = timedelta(minutes=30)
"""Of one exchange between processes; a process that is gone is noticed long before."""
_KINDS = {DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU}

PROBE_SIZE = {"cpu": 256, "gpu": 4096}
PROBE_TRIES = 4
PROBE_SAMPLES = 8
PROBE_SECONDS = 1.0
"""After which no further pass is timed; two each are in any case."""
PROBE_GAIN = 1.2
"""Least factor by which another way must be faster to be worth its other rounding."""


def build_engine(recipe: Recipe, folder: Path | None = None) -> Accelerator:
    """Build the engine that a recipe asks for.

    Args:
        recipe: Device, precision, threads and trackers.
        folder: Run directory; None for what trains nothing and tracks nothing.

    Raises:
        InputError: If this machine lacks the device, a tracker is unknown or not installed, or
            the processes of the run cannot meet.
    """
    count = join().count
    _check_device(recipe.device, count)
    if recipe.train.threads:
        torch.set_num_threads(recipe.train.threads)
    trackers = list(recipe.train.trackers) if folder is not None else []
    _check_trackers(trackers)
    # Its state is one for the whole process, and would keep the precision of an earlier run.
    AcceleratorState._reset_state()
    project = None
    if folder is not None and trackers:
        project = ProjectConfiguration(str(folder), logging_dir=str(folder / TRACKERS_FOLDER))
    has_none = count > 1 and torch.accelerator.current_accelerator(check_available=True) is None
    precision = recipe.train.precision  # `auto` is settled before anything is trained
    accelerator = Accelerator(
        cpu=recipe.device == "cpu" or has_none,
        mixed_precision="no" if precision == "auto" else precision,
        log_with=trackers or None,
        project_config=project,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=COLLECTIVE_TIMEOUT)],
    )
    if accelerator.distributed_type not in _KINDS or accelerator.num_processes != count:
        raise InputError(
            f"a run of {count} processes asked for; accelerate is set up for "
            f"{accelerator.distributed_type.value} by {accelerator.num_processes}; start it with "
            "torchrun, or with `accelerate launch` for several CPUs or GPUs and nothing else"
        )
    return accelerator


def settle_precision(
    recipe: Recipe, device: torch.device, say: Callable[[str], None] = lambda _: None
) -> Recipe:
    """Return the recipe with `train.precision: auto` decided by what a device does well.

    Products of matrices are timed for a moment in float32 and in bfloat16, which some processors
    compute hundreds of times slower.

    Args:
        recipe: Of the run.
        device: That it trains on.
        say: Told what was decided, and why.
    """
    if recipe.train.precision != "auto":
        return recipe
    size = PROBE_SIZE["cpu" if device.type == "cpu" else "gpu"]
    full, half = (_time_products(size, kind, device) for kind in (torch.float32, torch.bfloat16))
    is_faster = half < full / PROBE_GAIN
    say(
        f"precision {'bf16' if is_faster else 'float32'}: products of matrices in bfloat16 take "
        f"{half / full:.2g} times as long here"
    )
    section = recipe.train.model_copy(update={"precision": "bf16" if is_faster else "no"})
    return recipe.model_copy(update={"train": section})


def settle_layout(
    recipe: Recipe,
    tower: nn.Module,
    batch: PairBatch,
    accelerator: Accelerator,
    say: Callable[[str], None] = lambda _: None,
) -> Recipe:
    """Return the recipe with `train.channels_last: auto` decided by what suits its own tower.

    Passes forward and back over a few samples are timed in both layouts, for a moment.

    Args:
        recipe: Of the run.
        tower: That it trains, on its device; its gradients are lost.
        batch: Of the run.
        accelerator: Its precision.
        say: Told what was decided, and why.
    """
    if recipe.train.channels_last != "auto":
        return recipe
    is_faster = False
    if any(parameter.ndim == 4 for parameter in tower.parameters()):
        first, last = _time_layouts(tower, batch, accelerator)
        is_faster = last < first / PROBE_GAIN
        say(
            f"channels {'last' if is_faster else 'first'}: passes with channels last take "
            f"{last / first:.2g} times as long here"
        )
    section = recipe.train.model_copy(update={"channels_last": is_faster})
    return recipe.model_copy(update={"train": section})


def _time_layouts(
    tower: nn.Module, batch: PairBatch, accelerator: Accelerator
) -> tuple[float, float]:
    """Return the shortest times of a pass with channels first and with channels last."""
    features = batch.features[:PROBE_SAMPLES].to(accelerator.device)
    mask = batch.valid_mask
    mask = None if mask is None else mask[:PROBE_SAMPLES].to(accelerator.device)
    tower.train()

    def take_time(layout: torch.memory_format) -> float:
        tower.to(memory_format=layout)
        start = time.perf_counter()
        with accelerator.autocast():
            embeddings = tower(features, mask)
        embeddings.float().sum().backward()
        tower.zero_grad(set_to_none=True)
        if accelerator.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    layouts = torch.channels_last, torch.contiguous_format
    times: list[list[float]] = []
    started = time.perf_counter()
    # The first pass of each is for what is only done once.
    while len(times) < 2 or (
        len(times) <= PROBE_TRIES and time.perf_counter() - started < PROBE_SECONDS
    ):
        times.append([take_time(layout) for layout in layouts])
    last, first = (min(found) for found in zip(*times[1:], strict=True))
    return first, last


def _time_products(size: int, kind: torch.dtype, device: torch.device) -> float:
    """Return the shortest of a few times, in seconds."""
    left = torch.ones(size, size, dtype=kind, device=device)
    times = []
    for _ in range(PROBE_TRIES):
        start = time.perf_counter()
        float((left @ left)[0, 0])  # waits for the device
        times.append(time.perf_counter() - start)
    return min(times)


def _check_device(name: str, processes: int) -> None:
    kind, _, index = name.partition(":")
    if processes > 1 and index:
        raise InputError(
            f"device '{name}' by {processes} processes asked for; each takes one of its own; "
            f"use --device {kind}"
        )
    here = {"auto": 1, "cpu": 1, "cuda": torch.cuda.device_count()}
    here["mps"] = int(torch.backends.mps.is_available())
    own = int(os.environ.get("LOCAL_RANK", "0"))  # torchrun numbers the processes of a machine
    number = int(index) if index.isdigit() else own if kind == "cuda" else 0
    if number >= here.get(kind, 0):
        found = ", ".join(n for n, count in here.items() if count and n != "auto")
        raise InputError(f"device '{name}' asked for; this machine has {found}; use --device auto")
    if kind == "cuda":
        torch.cuda.set_device(number)


def _check_trackers(names: Sequence[str]) -> None:
    known = sorted(LOGGER_TYPE_TO_CLASS)
    installed = {str(tracker) for tracker in get_available_trackers()}
    for name in names:
        if name not in known:
            raise InputError(
                f"tracker '{name}' asked for; accelerate knows {', '.join(known)}; name one of "
                "these in train.trackers"
            )
        if name not in installed:
            raise InputError(
                f"tracker '{name}' asked for; its package is not installed; try: pip install {name}"
            )
