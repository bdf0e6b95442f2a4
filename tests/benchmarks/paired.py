"""Measure two ways of doing one thing against each other, on a machine that is never idle."""

from __future__ import annotations

import math
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

Work = Callable[[], Any]
Outcome = dict[str, Any]
"""NumPy arrays by name, or nothing."""


@dataclass(frozen=True)
class Times:
    """CPU seconds of two ways, round by round."""

    first: list[float]
    second: list[float]

    @property
    def ratios(self) -> list[float]:
        """First over second, of each round."""
        return [a / b for a, b in zip(self.first, self.second, strict=True)]


def measure_cpu(work: Work) -> float:
    """Return CPU seconds of this process; wall time would count what others do beside it."""
    start = time.process_time()
    work()
    return time.process_time() - start


def measure_gemm(size: int = 1024) -> float:
    """Return GFLOP/s of a product of square matrices, the best of a few."""
    left = torch.randn(size, size)
    seconds = min(measure_cpu(lambda: left @ left) for _ in range(8))
    return 2 * size**3 / seconds / 1e9


def compare_times(first: Work, second: Work, rounds: int, *, warm: bool = True) -> Times:
    """Do both in turns; who begins alternates."""
    if warm:
        first(), second()
    times = Times([], [])
    for number in range(rounds):
        order = [(first, times.first), (second, times.second)]
        for work, found in reversed(order) if number % 2 else order:
            found.append(measure_cpu(work))
    return times


def fit_exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Return the slope of the values' logarithms over the sizes', by least squares."""
    return statistics.linear_regression(
        [math.log(size) for size in sizes], [math.log(value) for value in values]
    ).slope


def measure_memory(subject: str, options: dict[str, Any]) -> tuple[float, Outcome]:
    """Return MiB that a fresh process reaches above what it had when all was prepared (Linux).

    Large blocks go back to the system when they are freed, so that what tensors need is counted
    and not how glibc happens to lay them out, which differs by a quarter from run to run.

    Args:
        subject: Of `subjects.SUBJECTS`.
        options: Of it.

    Returns:
        The MiB, and what the work returned.
    """
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_report_peak, args=(queue, subject, options))
    with patch.dict(os.environ, {"MALLOC_MMAP_THRESHOLD_": str(2**18)}):
        process.start()
    found: tuple[float, Outcome] = queue.get()
    process.join()
    return found


def _report_peak(queue: Any, subject: str, options: dict[str, Any]) -> None:
    from tests.benchmarks.subjects import SUBJECTS

    torch.set_num_threads(1)
    work = SUBJECTS[subject](**options)
    # What the libraries allocate once, whatever they work on.
    torch.randn(64, 64, requires_grad=True).matmul(torch.randn(64, 64)).sum().backward()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    before = _read_kib("VmRSS")
    outcome = work()
    queue.put(((_read_kib("VmHWM") - before) / 2**10, outcome or {}))


def _read_kib(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


def compare_outcomes(found: Outcome, expected: Outcome) -> float:
    """Return the largest difference, each over the largest entry of its array."""
    assert found.keys() == expected.keys() and found
    return max(
        float(abs(found[name] - value).max() / abs(value).max()) for name, value in expected.items()
    )
