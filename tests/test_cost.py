"""The meter: what a stopped run cost before is part of what it cost."""

from __future__ import annotations

import time

from modalbind.cost import CostMeter


def test_measures_from_entry_on_top_of_what_was_before() -> None:
    before = {"seconds": 100.0, "cpu_seconds": 50.0, "kwh": None, "pairs_seen": 7}
    with CostMeter() as meter:
        meter.go_on_from({**before, "peak_rss_mib": 1e6})
        meter.pairs_seen += 5
        time.sleep(0.05)
        found = meter.read()
    assert 100.05 <= found["seconds"] < 110
    assert 50.0 <= found["cpu_seconds"] < 51.0
    assert found["pairs_seen"] == 12
    assert found["peak_rss_mib"] == 1e6


def test_a_run_that_was_never_stopped_has_nothing_before() -> None:
    with CostMeter() as meter:
        found = meter.read()
    assert 0 <= found["seconds"] < 1
    assert found["pairs_seen"] == 0
    assert 10 < found["peak_rss_mib"] < 1e5
