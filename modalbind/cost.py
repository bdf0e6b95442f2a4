"""What a run cost: seconds, processor seconds, memory, and energy where a meter is installed."""

from __future__ import annotations

import logging
import resource
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")


class CostMeter:
    """Measures from entry until it is read, on top of what a run cost before it was stopped.

    Attributes:
        pairs_seen: Counted by the training loop.
    """

    def __init__(self) -> None:
        """Start nothing."""
        self.pairs_seen = 0
        self._stages: dict[str, float] = {}
        self._energy: Any = None
        self._seconds = self._cpu_seconds = 0.0
        self._before: Mapping[str, Any] = {}

    def __enter__(self) -> CostMeter:
        """Start the clocks, and codecarbon's if it is installed."""
        self._seconds, self._cpu_seconds = time.monotonic(), _cpu_seconds()
        self._energy = _start_energy_meter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the energy meter."""
        if self._energy is not None:
            self._energy.stop()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the seconds of a stage."""
        start = time.monotonic()
        try:
            yield
        finally:
            self._stages[name] = self._stages.get(name, 0.0) + time.monotonic() - start

    def waiting(self, items: Iterable[T]) -> Iterator[T]:
        """Yield items, and count the seconds until each is there as stage `waiting`."""
        iterator = iter(items)
        while True:
            with self.stage("waiting"):
                item = next(iterator, None)
            if item is None:
                return
            yield item

    def go_on_from(self, before: Mapping[str, Any]) -> None:
        """Add what `read` returned at the step that a stopped run goes on from."""
        self._before = before

    def read(self) -> dict[str, Any]:
        """Return seconds, cpu_seconds, kwh (None without a meter), pairs_seen, peak_rss_mib.

        And stages, the seconds of each; `waiting` is part of `training`.
        """
        before = self._before
        stages = dict(before.get("stages", {}))
        for name, seconds in self._stages.items():
            stages[name] = stages.get(name, 0.0) + seconds
        kwh = None
        if self._energy is not None:
            self._energy.flush()
            kwh = float(self._energy._total_energy.kWh) + (before.get("kwh") or 0.0)
        return {
            "seconds": time.monotonic() - self._seconds + before.get("seconds", 0.0),
            "cpu_seconds": _cpu_seconds() - self._cpu_seconds + before.get("cpu_seconds", 0.0),
            "kwh": kwh,
            "pairs_seen": self.pairs_seen + before.get("pairs_seen", 0),
            "stages": stages,
            "peak_rss_mib": max(_peak_rss_mib(), before.get("peak_rss_mib", 0.0)),
        }


def _cpu_seconds() -> float:
    own = time.process_time()
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return own + children.ru_utime + children.ru_stime


def _peak_rss_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes.
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _start_energy_meter() -> Any:
    try:
        from codecarbon import OfflineEmissionsTracker
    except ImportError:
        return None
    # Its own option takes effect only after it has spoken.
    logging.getLogger("codecarbon").setLevel(logging.ERROR)
    tracker = OfflineEmissionsTracker(
        country_iso_code="USA", save_to_file=False, log_level="error", allow_multiple_runs=True
    )
    tracker.start()
    # It keeps to itself what fails while it sets up, and then lacks what it would count in.
    return tracker if hasattr(tracker, "_total_energy") else None
