"""What a person sees while a run goes on; silent without a console."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Progress as Bar,
)

from modalbind.types import StepResult


class Progress:
    """Writes to a console, or to nothing."""

    def __init__(self, console: Console | None) -> None:
        """Show on `console`; None shows nothing."""
        self._console = console or Console(quiet=True)
        self._said: set[str] = set()

    def say(self, text: str) -> None:
        """Write one line."""
        self._console.print(text, highlight=False)

    def count(self, what: str, done: int, total: int) -> None:
        """Tell that `done` of `total` are done; one line when it begins and one at the end."""
        if done >= total and total:
            self.say(f"{what}: {total}")

    @contextmanager
    def steps(self, total: int, start: int) -> Iterator[Callable[[StepResult], None]]:
        """Show optimizer steps: loss beside its chance level, samples per second, time left."""
        bar = Bar(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[line]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=self._console.quiet,
        )
        task = bar.add_task("training", total=total, completed=start, line="")
        samples = 0

        def show(result: StepResult) -> None:
            nonlocal samples
            samples += result.samples
            elapsed = bar.tasks[0].elapsed or 1e-9
            chance = "" if result.chance_loss is None else f" (chance {result.chance_loss:.3f})"
            line = f"loss {result.loss:.3f}{chance}, {samples / elapsed:.0f} samples/s"
            bar.update(task, completed=result.step, line=line)

        with bar:
            yield show
