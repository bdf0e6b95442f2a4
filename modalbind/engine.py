"""accelerate, set up for a run: device, precision, threads, trackers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from accelerate.utils import ProjectConfiguration

from modalbind.errors import InputError
from modalbind.recipe import Recipe
from modalbind.rundir import TRACKERS_FOLDER


def build_engine(recipe: Recipe, folder: Path | None = None) -> Accelerator:
    """Build the engine that a recipe asks for.

    Args:
        recipe: Device, precision, threads and trackers.
        folder: Run directory; None for what trains nothing and tracks nothing.

    Raises:
        InputError: If this machine lacks the device, or a tracker is unknown or not installed.
    """
    _check_device(recipe.device)
    if recipe.train.threads:
        torch.set_num_threads(recipe.train.threads)
    trackers = list(recipe.train.trackers) if folder is not None else []
    _check_trackers(trackers)
    # Its state is one for the whole process, and would keep the precision of an earlier run.
    AcceleratorState._reset_state()
    project = None
    if folder is not None and trackers:
        project = ProjectConfiguration(str(folder), logging_dir=str(folder / TRACKERS_FOLDER))
    return Accelerator(
        cpu=recipe.device == "cpu",
        mixed_precision=recipe.train.precision,
        log_with=trackers or None,
        project_config=project,
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
