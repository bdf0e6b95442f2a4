"""The steps of a run between its checkpoints: logged, scored, stopped early or by a signal.

What a step does is in `training`; what comes before and after all steps, in `pipeline`.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from accelerate import Accelerator

from modalbind.checkpoint import Checkpoints
from modalbind.cost import CostMeter
from modalbind.data.loader import TrainingBatches
from modalbind.encoders import Tower
from modalbind.errors import RunError
from modalbind.processes import join
from modalbind.progress import Progress
from modalbind.rundir import RunDirectory
from modalbind.selection import Selection
from modalbind.training import Aligner

CHECKPOINTS_PER_RUN = 10
SIGTERM_EXIT_CODE = 143


def take_steps(
    aligner: Aligner,
    batches: TrainingBatches,
    tower: Tower,
    selection: Selection,
    directory: RunDirectory,
    progress: Progress,
    meter: CostMeter,
) -> None:
    """Take the steps of a run that are left, from its last checkpoint on.

    Of several processes all take them, and the first alone writes.

    Args:
        aligner: Takes them.
        batches: Of the whole run.
        tower: The whole of it, which is what is scored; the aligner may have its upper part alone.
        selection: Scores it.
        directory: Of the run.
        progress: Shown each step.
        meter: Counts pairs.

    Raises:
        SystemExit: With code 143 after a checkpoint, if a process was told to terminate.
        RunError: If the processes see different checkpoints.
    """
    section, total = aligner.section, aligner.total_steps
    every = section.checkpoint_every or max(1, total // CHECKPOINTS_PER_RUN)
    checkpoints = directory.checkpoints(section.keep_checkpoints)
    accelerator, is_first = aligner.accelerator, join().is_first
    start = _go_on(aligner, selection, checkpoints, progress, meter)
    join().share(lambda: directory.forget_after(start))
    if selection.should_stop:
        return
    ends = False
    with _sigterm_noted() as terminated, progress.steps(total, start) as show:
        for result in aligner.run(meter.waiting(batches.iterate(start, total)), start):
            if is_first:
                directory.log_step(result)
            accelerator.log({"loss": result.loss, "lr": result.lr}, step=result.step)
            meter.pairs_seen += result.samples
            show(result)
            if result.step % batches.steps_per_epoch == 0:
                selection.end_epoch(tower, aligner, result)
            ends = _is_any(accelerator, terminated())
            leaves = ends or selection.should_stop
            if is_first and (leaves or result.step % every == 0):
                state = {**selection.state(), "cost": meter.read()}
                checkpoints.save(result.step, aligner.state_tensors(), state)
            if leaves:
                break
    if ends:
        raise SystemExit(SIGTERM_EXIT_CODE)


def _go_on(
    aligner: Aligner,
    selection: Selection,
    checkpoints: Checkpoints,
    progress: Progress,
    meter: CostMeter,
) -> int:
    """Take up the last checkpoint, if there is one, and return its step."""
    start = 0
    if (found := checkpoints.load_latest()) is not None:
        start, tensors, state = found
        aligner.load_state_tensors(tensors)
        selection.load_state(state)
        meter.go_on_from(state.get("cost", {}))
        progress.say(f"going on from step {start}")
    if (first := join().share(lambda: start)) != start:
        raise RunError(
            f"the checkpoint of step {first} asked for; this process sees that of step {start}; "
            "put the run directory where all processes can read it"
        )
    return start


def _is_any(accelerator: Accelerator, claim: bool) -> bool:
    """Say whether a claim is true in any process."""
    if claim:
        accelerator.set_trigger()
    return bool(accelerator.check_trigger())


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
