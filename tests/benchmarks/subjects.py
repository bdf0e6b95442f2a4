"""What is measured: each prepares something, and returns the work whose cost counts.

Work returns arrays by name where its result is compared with another way's.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from modalbind.anchors import open_anchor, shards
from modalbind.anchors.cache import AnchorCache
from modalbind.data.collate import lay_out, list_columns
from modalbind.encoders import Tower
from modalbind.encoders.head import LinearHead
from modalbind.evaluation.pools import Pool
from modalbind.evaluation.protocol import Protocol
from modalbind.evaluation.retrieval import CUTOFFS, compute_retrieval
from modalbind.objectives.chunks import compute_side_loss
from modalbind.objectives.infonce import InfoNce
from modalbind.plugin_manager import load_plugins
from modalbind.recipe.schema import AnchorSection, EvaluationSection, TrainSection
from modalbind.training import Aligner
from modalbind.types import AnchorSide, PairBatch, text_item
from tests.benchmarks.paired import Outcome, Work

Who = Literal["ours", "reference"]

DIM = 512
SIZES = {
    "base": {
        "embed_dim": 512,
        "encoder_layers": 12,
        "encoder_embed_dim": 768,
        "encoder_ffn_embed_dim": 3072,
        "encoder_attention_heads": 12,
    },
    "tiny": {
        "embed_dim": 192,
        "encoder_layers": 3,
        "encoder_embed_dim": 192,
        "encoder_ffn_embed_dim": 768,
        "encoder_attention_heads": 4,
    },
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
FRAMES_PER_SECOND = 100


def has_reference() -> bool:
    """Whether speechbrain's copy of BEATs is installed."""
    return find_spec("speechbrain") is not None


def beats(
    who: Who,
    size: str,
    batch: int,
    *,
    train: bool = True,
    seconds: float = 10.0,
    drop: float = 0.0,
    checkpointing: bool = False,
) -> Work:
    """Forward, or forward and backward, of BEATs with random weights."""
    torch.manual_seed(0)
    options = {**PUBLISHED, **SIZES[size]}
    model = _build_reference(options) if who == "reference" else _build_ours(options, drop)
    model.train(train)
    if checkpointing:
        model.set_checkpointing(True)  # type: ignore[operator]
    features = torch.randn(batch, round(seconds * FRAMES_PER_SECOND) - 2, 128)

    def work() -> None:
        model.zero_grad(set_to_none=True)
        with torch.set_grad_enabled(train):
            out = model(features)
        if train:
            out.sum().backward()

    return work


def _build_ours(options: dict[str, Any], drop: float) -> nn.Module:
    from modalbind_audio.beats import Beats, BeatsConfig

    return Beats(BeatsConfig.from_published(options, patch_drop=drop))


def _build_reference(options: dict[str, Any]) -> nn.Module:
    """Build the reference from a configuration; its constructor wants a file."""
    from speechbrain.lobes.models import beats as published

    class Reference(nn.Module):
        """Log-mel features to the mean of the hidden states, as the reference computes them."""

        def __init__(self) -> None:
            super().__init__()
            config = published.BEATsConfig(options)
            patch = config.input_patch_size
            self.patch_embedding = nn.Conv2d(
                1, config.embed_dim, patch, patch, bias=config.conv_bias
            )
            self.layer_norm = nn.LayerNorm(config.embed_dim)
            is_wider = config.embed_dim != config.encoder_embed_dim
            self.post_extract_proj = (
                nn.Linear(config.embed_dim, config.encoder_embed_dim) if is_wider else nn.Identity()
            )
            self.encoder = published.TransformerEncoder(config)

        def forward(self, features: Tensor) -> Tensor:
            x = self.patch_embedding(features.unsqueeze(1)).flatten(2).transpose(1, 2)
            found, _ = self.encoder(self.post_extract_proj(self.layer_norm(x)), padding_mask=None)
            return found.mean(dim=1)  # type: ignore[no-any-return]

    return Reference()


def make_side(rows: int, anchors: int, dim: int) -> AnchorSide:
    """Return a side of sparse targets: row `i` belongs to the anchors of key `i // 2`."""
    drawn = torch.randn(anchors, dim, generator=torch.Generator().manual_seed(0))
    unit = nn.functional.normalize(drawn, dim=1)
    columns = list_columns([(row, str(row // 2)) for row in range(anchors)], unit)
    return lay_out("text", range(rows), [{str(row // 2)} for row in range(rows)], columns, 1.0)


def infonce(how: Literal["dense", "chunked"], n: int, m: int) -> Work:
    """Loss of rows against a bank, and its gradient: as one table, or by chunks."""
    side = make_side(n, m, DIM)
    if how == "dense":
        side = side.to_dense()
    drawn = torch.randn(n, DIM, generator=torch.Generator().manual_seed(1))
    rows = nn.functional.normalize(drawn, dim=1).requires_grad_()
    objective = InfoNce(20.0, False, 100.0, direction="modality_to_anchor")
    scale, bias = torch.tensor(20.0), torch.tensor(0.0)

    def work() -> Outcome:
        rows.grad = None
        compute_side_loss(objective, rows, side, scale, bias).backward()
        assert rows.grad is not None
        return {"rows": rows.grad.numpy()}

    return work


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


def large_batch(
    how: Literal["whole", "parts"],
    direction: Literal["modality_to_anchor", "both"],
    n: int,
    frames: int,
) -> Work:
    """One step of a large batch, at once or in parts of 64."""
    torch.manual_seed(0)
    tower = Tower(SmallEncoder(), LinearHead(256, 64))
    size = 64 if how == "parts" else None
    section = TrainSection(batch_size=n, micro_batch_size=size, clip_norm=None)
    objective = InfoNce(20.0, False, 100.0, direction=direction)
    aligner = Aligner(
        tower, objective, section, Accelerator(cpu=True), sides=("text",), total_steps=1, seed=0
    )
    side = make_side(n, n, 64)
    if how == "whole":
        side = side.to_dense()
    features = torch.randn(n, frames, 64, generator=torch.Generator().manual_seed(2))
    batch = PairBatch(features, None, (side,), tuple(map(str, range(n))))

    def work() -> Outcome:
        list(aligner.run([(0, batch)], 0))
        return {name: p.grad.numpy() for name, p in tower.named_parameters() if p.grad is not None}

    return work


def retrieval(who: Literal["ours", "faiss"], n: int, m: int) -> Work:
    """Exact retrieval: ours in both directions; faiss's first ten in one."""
    generator = torch.Generator().manual_seed(0)
    targets = nn.functional.normalize(torch.randn(m, DIM, generator=generator), dim=1)
    near = targets[:n] + 0.12 * torch.randn(n, DIM, generator=generator)
    queries = nn.functional.normalize(near, dim=1)
    of_query, of_target = torch.arange(n), torch.arange(m) % n

    def rank() -> Outcome:
        there = compute_retrieval(queries, targets, of_query, of_target, bootstrap=0)
        compute_retrieval(targets, queries, of_target, of_query, bootstrap=0)
        return {f"hit_at_{k}": np.array(there.metrics[f"hit_at_{k}"].value) for k in CUTOFFS}

    if who == "ours":
        return rank
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.IndexFlatIP(DIM)
    index.add(targets.numpy())

    def search() -> Outcome:
        _, found = index.search(queries.numpy(), max(CUTOFFS))
        is_hit = of_target.numpy()[found] == of_query.numpy()[:, None]
        return {f"hit_at_{k}": is_hit[:, :k].any(axis=1).mean() for k in CUTOFFS}

    return search


def languages(count: int, items: int) -> Work:
    """Score samples against the texts of so many languages, both ways, with intervals."""
    generator = torch.Generator().manual_seed(0)
    groups = tuple(map(str, range(items)))

    def make_pool(modality: str, language: str) -> Pool:
        drawn = torch.randn(items, DIM, generator=generator)
        unit = nn.functional.normalize(drawn, dim=1)
        return Pool(modality, language, unit, torch.arange(items), groups, groups)

    samples = make_pool("audio", "")
    pools = [make_pool("text", f"l{number}") for number in range(count)]
    protocol = Protocol(EvaluationSection(), "test", 0, frozenset())
    return lambda: _discard(protocol.score_samples(samples, pools))


def _discard(_: Any) -> None:
    return None


def write_sparse_cache(root: Path, rows: int) -> None:
    """Write a shard of so many keys whose vectors are zero: a hole in the file."""
    numbers = np.zeros((rows, 4), dtype=">u8")
    numbers[:, 0] = np.arange(rows)
    numbers[:, 3] = 1  # NumPy takes zeros off the end of a string
    keys = numbers.tobytes()
    block = shards.BLOCK_BYTES
    of_keys = [zlib.crc32(keys[i : i + block]) for i in range(0, len(keys), block)]
    whole, rest = divmod(rows * DIM * 4, block)
    of_vectors = [zlib.crc32(bytes(block))] * whole + [zlib.crc32(bytes(rest))] * bool(rest)
    fences = b"".join(keys[i : i + shards.KEY_BYTES] for i in range(0, len(keys), block))
    tail = fences + np.array(of_keys + of_vectors, dtype="<u4").tobytes()
    blank = shards._HEADER.pack(shards._MAGIC, rows, DIM, zlib.crc32(tail), 0)[:-4]
    header = blank + zlib.crc32(blank).to_bytes(4, "little")
    folder = root / ("0" * 64) / "text"
    folder.mkdir(parents=True)
    with (folder / ("0" * 64 + shards.SUFFIX)).open("wb") as file:
        file.write(header.ljust(shards._HEADER_BYTES, b"\0"))
        file.write(keys)
        file.seek(rows * DIM * 4, 1)
        file.write(tail)


def open_cache(root: str, rows: int) -> Work:
    """Open that cache and look a vector up, in the middle; it is opened by the first look."""
    keys = shards.as_keys([np.array([rows // 2, 0, 0, 1], dtype=">u8").tobytes()])

    def work() -> None:
        found, vectors = AnchorCache(Path(root)).lookup("0" * 64, "text", keys)
        assert found.all() and vectors.shape == (1, DIM)

    return work


def embed_texts(weights: Path, root: Path, count: int) -> Work:
    """Embed texts with a sentence encoder; from the second time on, from the cache under `root`."""
    kind = load_plugins().anchor("transformers")
    section = AnchorSection(spec=f"transformers:{weights}")
    anchor = open_anchor(section, kind, AnchorCache(root))
    items = [text_item(f"recording {number}: rain falls on a roof") for number in range(count)]
    anchor.embed("text", [text_item("opens the weights")])
    return lambda: _discard(anchor.embed("text", items))


SUBJECTS: dict[str, Callable[..., Work]] = {
    "beats": beats,
    "infonce": infonce,
    "languages": languages,
    "large_batch": large_batch,
    "open_cache": open_cache,
    "retrieval": retrieval,
}
"""Those whose memory is measured, in a process of their own."""
