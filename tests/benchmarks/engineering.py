"""Ratios against plain ways of doing the same, and the reference implementation of BEATs.

    python -m tests.benchmarks.engineering [NAME ...] [--rounds 5]

Times are process CPU seconds on one thread, medians over rounds in which both sides take turns,
with the range of the rounds' ratios. Memory is what the peak of a fresh process rises by. The
reference of BEATs is speechbrain's copy, if it is installed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from modalbind.data.collate import lay_out, list_columns
from modalbind.encoders import Tower
from modalbind.encoders.head import LinearHead
from modalbind.objectives.chunks import compute_side_loss
from modalbind.objectives.infonce import InfoNce
from modalbind.recipe.schema import TrainSection
from modalbind.training import Aligner
from modalbind.types import AnchorSide, PairBatch

BASE = {
    "embed_dim": 512,
    "encoder_layers": 12,
    "encoder_embed_dim": 768,
    "encoder_ffn_embed_dim": 3072,
    "encoder_attention_heads": 12,
}
TINY = {
    "embed_dim": 192,
    "encoder_layers": 3,
    "encoder_embed_dim": 192,
    "encoder_ffn_embed_dim": 768,
    "encoder_attention_heads": 4,
}
PUBLISHED = {
    "input_patch_size": 16,
    "deep_norm": True,
    "layer_norm_first": False,
    "conv_bias": False,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "dropout_input": 0.0,
    "encoder_layerdrop": 0.0,
    "relative_position_embedding": True,
    "gru_rel_pos": True,
    "num_buckets": 320,
    "max_distance": 800,
    "conv_pos": 128,
    "conv_pos_groups": 16,
    "activation_fn": "gelu",
    "finetuned_model": False,
}
FRAMES = 998  # ten seconds
CLIP_FRAMES = 200  # two seconds
ROWS, BANK, DIM = 4096, 100_000, 512


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: What is compared.
        wanted: The floor or ceiling, in words.
        measured: The figure.
        low: Of the range.
        high: Of the range.
        passed: Whether it holds.
    """

    name: str
    wanted: str
    measured: float
    low: float
    high: float
    passed: bool


def compare(
    name: str, ours: Callable[[], Any], theirs: Callable[[], Any], least: float, rounds: int
) -> Row:
    """Return how many times the CPU seconds of ours theirs takes."""
    ours(), theirs()
    ratios = []
    for number in range(rounds):
        pair = (ours, theirs) if number % 2 else (theirs, ours)
        seconds = {call: _time(call) for call in pair}
        ratios.append(seconds[theirs] / seconds[ours])
    return _row(name, f">= {least}x", ratios, lambda found: found >= least)


def _row(name: str, wanted: str, found: list[float], holds: Callable[[float], bool]) -> Row:
    median = statistics.median(found)
    return Row(name, wanted, median, min(found), max(found), holds(median))


def _time(call: Callable[[], Any]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def measure_gemm(size: int = 1024) -> float:
    """Return GFLOP/s of a product of square matrices, the best of a few."""
    left = torch.randn(size, size)
    seconds = min(_time(lambda: left @ left) for _ in range(8))
    return 2 * size**3 / seconds / 1e9


def build_beats(sizes: dict[str, int]) -> tuple[nn.Module, nn.Module | None]:
    """Return our BEATs with random weights, and the reference, if it is installed."""
    from modalbind_audio.beats import Beats, BeatsConfig

    torch.manual_seed(0)
    ours = Beats(BeatsConfig.from_published({**PUBLISHED, **sizes}))
    try:
        from speechbrain.lobes.models.beats import BEATs, BEATsConfig
    except ImportError:
        return ours, None
    theirs = BEATs.__new__(BEATs)
    _init_reference(BEATs, theirs, BEATsConfig({**PUBLISHED, **sizes}))
    return ours, theirs


def _init_reference(kind: Any, model: Any, config: Any) -> None:
    """Build the reference from a configuration; its constructor wants a file."""
    from speechbrain.lobes.models import beats

    nn.Module.__init__(model)
    model.cfg = config
    model.embed = config.embed_dim
    model.post_extract_proj = (
        nn.Linear(model.embed, config.encoder_embed_dim)
        if model.embed != config.encoder_embed_dim
        else None
    )
    size = config.input_patch_size
    model.patch_embedding = nn.Conv2d(1, model.embed, size, size, bias=config.conv_bias)
    model.dropout_input = nn.Dropout(config.dropout_input)
    model.encoder = beats.TransformerEncoder(config)
    model.layer_norm = nn.LayerNorm(model.embed)


def run_reference(model: Any, features: Tensor) -> Tensor:
    """Return the reference's hidden states of log-mel features."""
    x = model.patch_embedding(features.unsqueeze(1)).flatten(2).transpose(1, 2)
    x = model.layer_norm(x)
    if model.post_extract_proj is not None:
        x = model.post_extract_proj(x)
    found, _ = model.encoder(model.dropout_input(x), padding_mask=None)
    return found  # type: ignore[no-any-return]


def bench_beats(rounds: int) -> list[Row]:
    """Forward and train step of BEATs against the reference, and the share of GEMM's peak."""
    rows = []
    for name, sizes, clips in (("base", BASE, 1), ("tiny", TINY, 4)):
        ours, theirs = build_beats(sizes)
        if theirs is None:
            return []
        features = torch.randn(clips, FRAMES, 128)
        ours.eval(), theirs.eval()
        with torch.no_grad():
            least = 1.25 if name == "base" else 1.6
            rows.append(
                compare(
                    f"BEATs {name}, forward",
                    lambda o=ours, f=features: o(f, None),
                    lambda t=theirs, f=features: run_reference(t, f),
                    least,
                    rounds,
                )
            )
        if name == "base":
            ours.train(), theirs.train()
            rows.append(
                compare(
                    "BEATs base, train step",
                    lambda o=ours, f=features: o(f, None).sum().backward(),
                    lambda t=theirs, f=features: run_reference(t, f).sum().backward(),
                    1.2,
                    rounds,
                )
            )
            rows.append(_measure_mfu(ours, features, rounds))
    return rows


def _measure_mfu(model: nn.Module, features: Tensor, rounds: int) -> Row:
    def step() -> None:
        model(features, None).sum().backward()

    counter = FlopCounterMode(display=False)
    with counter:
        step()
    flops = counter.get_total_flops()
    shares = [flops / _time(step) / 1e9 / measure_gemm() for _ in range(rounds)]
    return _row(
        "BEATs base, train step: share of GEMM peak", ">= 0.75", shares, lambda x: x >= 0.75
    )


def make_bank_side(rows: int, bank: int, dim: int) -> AnchorSide:
    """Return a side of sparse targets: row `i` belongs to anchor `i`, and to one like it."""
    generator = torch.Generator().manual_seed(0)
    anchors = nn.functional.normalize(torch.randn(bank, dim, generator=generator), dim=1)
    columns = list_columns([(row, str(row // 2)) for row in range(bank)], anchors)
    return lay_out("text", range(rows), [{str(row // 2)} for row in range(rows)], columns, 1.0)


def _make_rows(rows: int, dim: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    drawn = torch.randn(rows, dim, generator=generator)
    return nn.functional.normalize(drawn, dim=1).requires_grad_()


def compute_bank_loss(how: str, rows: int, bank: int, dim: int) -> tuple[float, Tensor]:
    """Return CPU seconds and gradient of InfoNCE against a bank: `chunked` or `naive`."""
    side, embeddings = make_bank_side(rows, bank, dim), _make_rows(rows, dim)
    objective = InfoNce(20.0, False, 100.0, direction="modality_to_anchor")
    scale, bias = torch.tensor(20.0), torch.tensor(0.0)
    if how == "naive":
        side = side.to_dense()
    start = time.process_time()
    compute_side_loss(objective, embeddings, side, scale, bias).backward()
    assert embeddings.grad is not None
    return time.process_time() - start, embeddings.grad


class SmallEncoder(nn.Module):
    """Under two million parameters; keeps a few activations of each frame."""

    width = 256

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(64, 512), nn.GELU(), nn.Linear(512, 512), nn.GELU(), nn.Linear(512, 256)
        )

    def forward(self, features: Tensor, valid_mask: Tensor | None) -> Tensor:
        return self.layers(features).mean(dim=1)  # type: ignore[no-any-return]

    def layer_groups(self) -> list[list[nn.Module]]:
        return [[self.layers]]


def take_large_step(how: str, rows: int) -> Tensor:
    """Take one step of a large batch; return its gradient. `naive`, `gradcache`, `bank`."""
    torch.manual_seed(0)
    tower = Tower(SmallEncoder(), LinearHead(256, 64))
    direction = "modality_to_anchor" if how.startswith("bank") else "both"
    objective = InfoNce(20.0, False, 100.0, direction=direction)  # type: ignore[arg-type]
    size = None if how.endswith("naive") else 64
    section = TrainSection(batch_size=rows, micro_batch_size=size, clip_norm=None)
    aligner = Aligner(
        tower, objective, section, Accelerator(cpu=True), sides=("text",), total_steps=1, seed=0
    )
    side = make_bank_side(rows, rows, 64)
    if how.endswith("naive"):
        side = side.to_dense()
    features = torch.randn(rows, CLIP_FRAMES, 64, generator=torch.Generator().manual_seed(2))
    batch = PairBatch(features, None, (side,), tuple(map(str, range(rows))))
    list(aligner.run([(0, batch)], 0))
    return torch.cat([p.grad.flatten() for p in tower.parameters() if p.grad is not None])


def _rise(job: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """Return MiB that the peak of a fresh process rises by, and what the job returned."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_measure_rise, args=(queue, job, arguments))
    process.start()
    found: tuple[float, Any] = queue.get()
    process.join()
    return found


def _measure_rise(queue: Any, job: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    torch.randn(64, 64, requires_grad=True).matmul(torch.randn(64, 64)).sum().backward()
    before = _peak_kib()
    result = job(*arguments)
    queue.put(((_peak_kib() - before) / 2**10, _plain(result)))


def _peak_kib() -> int:
    """Peak of this process's own memory; `ru_maxrss` would start at its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def _plain(result: Any) -> Any:
    """What a queue carries without shared memory."""
    if isinstance(result, Tensor):
        return result.numpy()
    if isinstance(result, tuple):
        return tuple(map(_plain, result))
    return result if isinstance(result, float) else None


def bench_bank_loss(rounds: int, rows: int = ROWS, bank: int = BANK, dim: int = DIM) -> list[Row]:
    """InfoNCE against a whole bank, by chunks and as one table."""
    base, _ = _rise(make_bank_side, rows, bank, dim)
    chunked_mib, chunked = _rise(compute_bank_loss, "chunked", rows, bank, dim)
    naive_mib, naive = _rise(compute_bank_loss, "naive", rows, bank, dim)
    share = (chunked_mib - base) / (naive_mib - base)
    off = float(abs(chunked[1] - naive[1]).max())
    ratios = [
        compute_bank_loss("chunked", rows, bank, dim)[0]
        / compute_bank_loss("naive", rows, bank, dim)[0]
        for _ in range(rounds)
    ]
    title = f"InfoNCE {rows:,} x {bank:,}"
    return [
        _row(f"{title}, chunked: memory of naive", "<= 0.08", [share], lambda x: x <= 0.08),
        _row(f"{title}, chunked: CPU time of naive", "<= 1.25x", ratios, lambda x: x <= 1.25),
        _row(f"{title}: largest difference of gradients", "<= 1e-6", [off], lambda x: x <= 1e-6),
    ]


def bench_large_batch(rounds: int, rows: int = ROWS) -> list[Row]:
    """A batch in parts: memory of the whole at once, and its gradient."""
    del rounds
    found = []
    for name, naive, most in (("bank", "bank-naive", 0.04), ("gradcache", "naive", 0.07)):
        base, _ = _rise(torch.randn, rows, CLIP_FRAMES, 64)
        ours_mib, ours = _rise(take_large_step, name, rows)
        naive_mib, theirs = _rise(take_large_step, naive, rows)
        share = (ours_mib - base) / (naive_mib - base)
        off = float(abs(ours - theirs).max())
        title = f"batch {rows:,}, 2 s clips, {'accumulation' if name == 'bank' else 'GradCache'}"
        found += [
            _row(f"{title}: memory of naive", f"<= {most}", [share], lambda x, m=most: x <= m),
            _row(
                f"{title}: largest difference of gradients", "<= 1e-5", [off], lambda x: x <= 1e-5
            ),
        ]
    return found


BENCHES: dict[str, Callable[[int], list[Row]]] = {
    "beats": bench_beats,
    "bank-loss": bench_bank_loss,
    "large-batch": bench_large_batch,
}


def main() -> None:
    """Run the benchmarks that are named, or all, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(BENCHES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for name in arguments.names for row in BENCHES[name](arguments.rounds)]
    if arguments.json:
        sys.stdout.write(json.dumps([vars(row) for row in rows], default=str))
        return
    table = Table("what", "wanted", "measured", "range", "holds")
    for row in rows:
        span = "" if row.low == row.high else f"{row.low:.3g}-{row.high:.3g}"
        holds = "yes" if row.passed else "NO"
        table.add_row(row.name, row.wanted, f"{row.measured:.3g}", span, holds)
    console = Console(width=120)
    console.print(table)
    console.print(f"GEMM peak of one thread: {measure_gemm():.0f} GFLOP/s")


if __name__ == "__main__":
    main()
