"""What a run cost: seconds, processor seconds, memory, and energy where a meter is installed."""

from __future__ import annotations

import logging
import resource
import sys
import time
from types import TracebackType
from typing import Any

logger = logging.getLogger(__name__)


class CostMeter:
    """Measures from entry until it is read.

    Attributes:
        pairs_seen: Counted by the training loop.
    """

    def __init__(self) -> None:
        """Start nothing."""
        self.pairs_seen = 0
        self._energy: Any = None
        self._seconds = self._cpu_seconds = 0.0

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

    def read(self) -> dict[str, float | int | None]:
        """Return seconds, cpu_seconds, kwh (None without a meter), pairs_seen, peak_rss_mib."""
        kwh = None
        if self._energy is not None:
            self._energy.flush()
            kwh = float(self._energy._total_energy.kWh)
        return {
            "seconds": time.monotonic() - self._seconds,
            "cpu_seconds": _cpu_seconds() - self._cpu_seconds,
            "kwh": kwh,
            "pairs_seen": self.pairs_seen,
            "peak_rss_mib": _peak_rss_mib(),
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
    tracker = OfflineEmissionsTracker(
        country_iso_code="USA", save_to_file=False, log_level="error", allow_multiple_runs=True
    )
    tracker.start()
    return tracker
