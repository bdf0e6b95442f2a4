"""CPU seconds until audio -> text retrieval is as good as what people use today makes it.

    python -m tests.benchmarks.time_to_quality world --seeds 0,1,2
    python -m tests.benchmarks.time_to_quality esc10 --root DIR --seeds 0,1,2

Contenders see the same clips in the same order, on one thread, one after the other by seed:

- `trimodal`: audio, text and image tower all train, on all three pairs of modalities;
- `locked`: the usual locked loop; text is encoded anew at every step, and does not train;
- the others: modalbind as a user gets it, by recipe options.

The clock counts features, anchor embeddings of the training samples, fits and steps. It stands
still while the test is scored and while scenes are rendered; texts are tokenised and pictures
resized beforehand for those who encode them at every step, which favours them. `to quality` is when
recall@10 of English text is first within a point of what `trimodal` ends with, with the same seed.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from tests.benchmarks.contest import (
    BOTH_SIDES,
    MARGIN,
    Bench,
    Curve,
    open_esc10,
    open_quickstart,
    run_modalbind,
)
from tests.benchmarks.joint import (
    ANCHOR,
    PICTURE,
    TEXT,
    Joint,
    OpenClipTowers,
    PypiTowers,
    find_minilm,
    run_joint,
)

Contender = Callable[[Bench, int], Curve]
BANK = "train.negatives=bank"
DROP = ("encoder.patch_drop=0.5", "encoder.patch_drop_until=0.9")
SHORT = "train.lengths={start: 0.5, until: 0.8}"
SMALL_BATCH = ("train.batch_size=32", "train.lr=3e-3", "train.epochs=3")


def with_options(*overrides: str) -> Contender:
    """Return modalbind with recipe options."""
    return lambda bench, seed: run_modalbind(bench, seed, overrides)


def list_world() -> dict[str, Contender]:
    """Return the contenders on the quick start's world, the baseline first."""

    def joint(how: Joint) -> Contender:
        return lambda bench, seed: run_joint(bench, seed, how, OpenClipTowers)

    everything = (TEXT, PICTURE, ANCHOR)
    return {
        "trimodal": joint(Joint(everything, clip_lr=5e-4, lr=2e-3, epochs=25)),
        "trimodal, 10 epochs": joint(Joint(everything, clip_lr=5e-4, lr=2e-3, epochs=10)),
        "locked": joint(Joint((TEXT,), clip_lr=0.0, lr=2e-3, epochs=5)),
        "cached anchor": with_options(),
        "ridge alone": with_options("train.solver=ridge"),
        "head start": with_options("train.head_start=ridge"),
        "bank": with_options(BANK),
        "token drop": with_options(*DROP),
        "short clips first": with_options(SHORT),
        "small batches": with_options(*SMALL_BATCH),
        "both sides": with_options(BOTH_SIDES),
        "bank, small batches": with_options(BANK, *SMALL_BATCH),
        "bank, layer-wise decay": with_options(BANK, *SMALL_BATCH, "train.layer_decay=0.8"),
        "bank, lowest layer frozen": with_options(BANK, *SMALL_BATCH, "tower.freeze=2"),
        "bank, LoRA": with_options(BANK, *SMALL_BATCH, "tower.lora={rank: 8}"),
        "bank, small batches, drop": with_options(BANK, *SMALL_BATCH, *DROP),
        "bank, small batches, both sides": with_options(BANK, *SMALL_BATCH, BOTH_SIDES),
        "the same, 8 epochs": with_options(BANK, *SMALL_BATCH, BOTH_SIDES, "train.epochs=8"),
    }


def list_esc10() -> dict[str, Contender]:
    """Return the contenders on ESC-10, the baseline first."""

    def joint(how: Joint) -> Contender:
        return lambda bench, seed: run_joint(bench, seed, how, PypiTowers)

    everything = (TEXT, PICTURE, ANCHOR)
    statistics_head = (
        "encoder={kind: statistics, segments: 3}",
        "augment=[]",
        "tower.freeze=encoder",
    )
    return {
        "trimodal": joint(Joint(everything, clip_lr=2e-5, lr=1e-3, epochs=7)),
        "locked": joint(Joint((TEXT,), clip_lr=0.0, lr=1e-3, epochs=20)),
        "cached anchor": with_options("train.epochs=20"),
        "bank": with_options("train.epochs=20", BANK),
        "bank, token drop": with_options("train.epochs=20", BANK, *DROP),
        "bank, short clips first": with_options("train.epochs=20", BANK, SHORT),
        "bank, small batches": with_options("train.epochs=12", BANK, "train.batch_size=16"),
        "bank, layer-wise decay": with_options("train.epochs=20", BANK, "train.layer_decay=0.8"),
        "bank, lowest layer frozen": with_options("train.epochs=20", BANK, "tower.freeze=2"),
        "ridge on statistics": with_options(*statistics_head, "train.solver=ridge"),
        "ridge start, frozen statistics": with_options(
            *statistics_head, "train.head_start=ridge", "train.epochs=20", "train.lr=1e-4", BANK
        ),
    }


def run(
    bench: Bench, contenders: Mapping[str, Contender], seeds: list[int], console: Console
) -> dict[str, list[Curve]]:
    """Run every contender for each seed in turn, so that all meet the same machine."""
    found: dict[str, list[Curve]] = {name: [] for name in contenders}
    for seed in seeds:
        for name, contender in contenders.items():
            curve = contender(bench, seed)
            found[name].append(curve)
            seconds, recall = curve.points[-1]
            console.print(f"seed {seed}, {name}: {recall:.3f} after {seconds:.1f} CPU s")
    return found


def summarise(found: Mapping[str, list[Curve]]) -> list[dict[str, object]]:
    """Return a row for each contender; ratios and differences are taken seed by seed."""
    baseline = next(iter(found.values()))
    rows = []
    for name, curves in found.items():
        pairs = list(zip(curves, baseline, strict=True))
        to_quality = [c.seconds_to(b.points[-1][1] - MARGIN) for c, b in pairs]
        row: dict[str, object] = {
            "name": name,
            "seconds": [c.points[-1][0] for c in curves],
            "to_quality": to_quality,
            "share_of_run": [
                t / b.points[-1][0] for t, (_, b) in zip(to_quality, pairs, strict=True)
            ],
            "share_of_its_time": [
                t / b.seconds_to(b.points[-1][1] - MARGIN)
                for t, (_, b) in zip(to_quality, pairs, strict=True)
            ],
        }
        for direction in ("audio->en", "en->audio", "audio->image", "image->audio"):
            if direction in curves[0].final:
                row[direction] = [c.final[direction] for c in curves]
        others = [
            key
            for key in curves[0].final
            if key.startswith("audio->") and key not in ("audio->en", "audio->image")
        ]
        if others:
            row["languages"] = [statistics.mean(c.final[k] for k in others) for c in curves]
            row["worst language"] = [min(c.final[k] for k in others) for c in curves]
        rows.append(row)
    return rows


def render(rows: list[dict[str, object]]) -> Table:
    """Return the table: median and range over seeds."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = Table(*columns)
    for row in rows:
        table.add_row(*(_show(row.get(column)) for column in columns))
    return table


def _show(value: object) -> str:
    if not isinstance(value, list):
        return "" if value is None else str(value)
    shown = [
        f"{v:.3g}" if math.isfinite(v) else "never"
        for v in (statistics.median(value), min(value), max(value))
    ]
    return shown[0] if len(value) == 1 else f"{shown[0]} ({shown[1]}-{shown[2]})"


def main() -> None:
    """Run a contest and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("world", choices=["world", "esc10"])
    parser.add_argument("--root", type=Path, help="folder with esc10.csv")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--only", default="", help="names of contenders beside the baseline, by ;")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(width=200)
    with tempfile.TemporaryDirectory() as cache:
        if arguments.world == "world":
            bench, contenders = open_quickstart(Path(cache)), list_world()
        else:
            bench = open_esc10(Path(cache), arguments.root, find_minilm())
            contenders = list_esc10()
        if arguments.only:
            kept = {next(iter(contenders)), *arguments.only.split(";")}
            contenders = {name: each for name, each in contenders.items() if name in kept}
        seeds = [int(seed) for seed in arguments.seeds.split(",")]
        rows = summarise(run(bench, contenders, seeds, console))
    console.print(render(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
