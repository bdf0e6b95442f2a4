"""Checks that a modality's quick start learns: it beats the same recipe on shuffled pairs."""

from __future__ import annotations

import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modalbind.conformance.modality import ModalityBench
from modalbind.conformance.verdict import ContractError, require
from modalbind.pipeline import align
from modalbind.recipe import Recipe
from modalbind.report.models import RunReport
from modalbind.report.parts import Metric

BUDGET_S = 180
"""Processor time of the quick start and its control together: a busy machine changes nothing."""
METRICS = ("recall_at_10", "recall_at_5", "recall_at_1")
"""What is compared: the first of which chance is below `HARD_CHANCE`."""
HARD_CHANCE = 0.35
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")


def check_learns(bench: ModalityBench) -> None:
    """Run it and its control; the intervals of one retrieval must lie apart, above chance."""
    recipe = bench.material.resolved.recipe
    section = recipe.data.model_copy(update={"shuffle_pairs": True})
    shuffled = recipe.model_copy(update={"data": section})
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder, _offline():
        found = _measure(recipe, Path(folder) / "run")
        control = _measure(shuffled, Path(folder) / "control")
    seconds = time.process_time() - start
    where = type(bench.modality)
    side = next(iter(recipe.anchor.sides))
    own = read_retrieval(found, bench.spec.name, side)
    chance = read_retrieval(control, bench.spec.name, side)
    name = next((each for each in METRICS if own[each].chance < HARD_CHANCE), METRICS[-1])
    low, high = own[name].ci95[0], chance[name].ci95[1]
    require(
        low > max(high, own[name].chance),
        f"{bench.spec.quickstart_recipe}: {name} of {bench.spec.name} to {side} is "
        f"{own[name].value:.3f}, at least {low:.3f}; shuffled pairs reach up to {high:.3f}, chance "
        f"is {own[name].chance:.3f}",
        where,
    )
    require(
        seconds <= BUDGET_S,
        f"both took {seconds:.0f} s of a processor; at most {BUDGET_S} s",
        where,
    )


def _measure(recipe: Recipe, out: Path) -> RunReport:
    return align(recipe, out=out).report


def read_retrieval(report: RunReport, query: str, target: str) -> dict[str, Metric]:
    """Return the metrics of what the run trained, in its first language, by name.

    Raises:
        ContractError: If the quick start has no such retrieval on its test split.
    """
    for row in report.retrieval:
        if row.trained and row.control == "none" and (row.query, row.target) == (query, target):
            return {name: getattr(row.metrics, name) for name in METRICS}
    raise ContractError(f"its quick start tests no retrieval from {query} to {target}")


@contextmanager
def _offline() -> Iterator[None]:
    """Refuse connections that leave this machine."""
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else "localhost"
        if host not in LOCAL_HOSTS:
            raise ContractError(f"the quick start opens a connection to {host}")
        connect(self, address)  # type: ignore[arg-type]

    socket.socket.connect = local_only  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        socket.socket.connect = connect  # type: ignore[method-assign]
