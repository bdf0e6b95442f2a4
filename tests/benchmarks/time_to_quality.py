"""CPU seconds until audio -> text retrieval is as good as what people use today makes it.

On the quick start's world, with its languages and pictures. Contenders see the same clips, captions
and pictures in the same order, on one thread:

- `trimodal`: audio, text and image tower all train, on all three pairs of modalities;
- `trimodal-text`: the same without pairs of sound and picture;
- `locked`: the usual locked loop; text is encoded anew at every step, and does not train;
- `cached` and the levers: modalbind as a user gets it, by recipe options.

The clock counts features, anchor embeddings of the training samples, fits and steps; it stands
still while the test is scored, and while clips are rendered. Texts are tokenised and pictures
resized beforehand for those who encode them, which favours them.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from modalbind import pipeline
from modalbind.anchors.cache import AnchorCache
from modalbind.closed_form import fit_head
from modalbind.data.samples import list_anchors
from modalbind.engine import build_engine
from modalbind.evaluation.embed import embed_samples
from modalbind.evaluation.pools import Pool, build_pool
from modalbind.evaluation.retrieval import compute_retrieval
from modalbind.frozen_outputs import keep_frozen_outputs
from modalbind.inputs import RunInputs, open_inputs
from modalbind.objectives.infonce import InfoNce
from modalbind.plugin_manager import build, load_plugins
from modalbind.recipe import Recipe, Resolved, resolve
from modalbind.recipe.load import Request, build_request
from modalbind.training import Aligner
from modalbind.types import AnchorItem

MARGIN = 0.01
"""Below the baseline's final recall@10 that still counts as no loss."""
STEPS_BETWEEN_SCORES = 5


class Clock:
    """CPU seconds of this process, with pauses."""

    def __init__(self) -> None:
        self._started, self._paused = time.process_time(), 0.0

    def read(self) -> float:
        return time.process_time() - self._started - self._paused

    @contextmanager
    def paused(self) -> Iterator[None]:
        before = time.process_time()
        yield
        self._paused += time.process_time() - before


@dataclass
class Curve:
    """What one run reached, and when.

    Attributes:
        points: `(CPU seconds, audio -> text recall@10)` at every score.
        final: Recall@10 by direction after the last step.
    """

    points: list[tuple[float, float]] = field(default_factory=list)
    final: dict[str, float] = field(default_factory=dict)

    def seconds_to(self, wanted: float) -> float:
        """CPU seconds at the first score that is at least `wanted`; infinite if none is."""
        return next((s for s, recall in self.points if recall >= wanted), math.inf)


@dataclass(frozen=True, eq=False)
class Bench:
    """A recipe with its data read, and what scores towers on it."""

    resolved: Resolved
    inputs: RunInputs
    cache: Path

    @property
    def recipe(self) -> Recipe:
        return self.resolved.recipe

    def change(self, overrides: Sequence[str], seed: int) -> Bench:
        """Return the same data under a recipe with other options."""
        request = Request(modality=self.recipe.modality.name, seed=seed, overrides=tuple(overrides))
        resolved = resolve(build_request(request, load_plugins()), load_plugins())
        return Bench(resolved, self.inputs, self.cache)

    def score(self, tower: nn.Module, pools: Sequence[Pool]) -> dict[str, float]:
        """Recall@10 of the test by direction; `en` and other languages from sound to text."""
        inputs = self.inputs
        samples = inputs.load_all(inputs.data.test)
        found = embed_samples(
            tower, inputs.modality, samples, device=torch.device("cpu"), batch_size=64
        )
        labels = torch.tensor(inputs.test.sample_labels)
        scores: dict[str, float] = {}
        for pool in pools:
            there, back = (
                compute_retrieval(*sides, bootstrap=0).metrics["recall_at_10"].value
                for sides in (
                    (found, pool.embeddings, labels, pool.labels),
                    (pool.embeddings, found, pool.labels, labels),
                )
            )
            name = pool.language or pool.modality
            scores[f"audio->{name}"], scores[f"{name}->audio"] = there, back
        return scores


def open_bench(train: int, test: int, cache: Path) -> Bench:
    """Read the quick start's data, decode every clip, embed the test's side."""
    sizes = (f"data.sources.0.train={train}", f"data.sources.0.test={test}")
    plugins = load_plugins()

    def choose(*overrides: str) -> Resolved:
        request = Request(modality="audio", seed=0, overrides=(*sizes, *overrides))
        return resolve(build_request(request, plugins), plugins)

    both = choose("anchor.sides={text: 1, image: 1}")
    return Bench(choose(), open_inputs(both, AnchorCache(cache), "cpu", lambda *_: None), cache)


def embed_training_anchors(bench: Bench) -> None:
    """Pay for the anchor side of training: into a cache that is empty."""
    from modalbind.anchors import open_anchor

    recipe, resolved = bench.recipe, bench.resolved
    with tempfile.TemporaryDirectory() as folder:
        anchor = open_anchor(
            recipe.anchor,
            resolved.anchor,
            AnchorCache(Path(folder)),
            "cpu",
            resolved.anchor_options,
        )
        for side in recipe.anchor.sides:
            anchor.embed(side, _list_items(bench, side))


def _list_items(bench: Bench, side: str) -> list[AnchorItem]:
    train = bench.inputs.data.train
    keys = dict.fromkeys(key for sample in train for key, _ in list_anchors(sample, side))
    return [_find_item(bench, side, key) for key in keys]


@functools.cache
def _find_item(bench: Bench, side: str, key: Any) -> AnchorItem:
    """Return an anchor-side item whose content is loaded: rendering is nobody's cost."""
    datasets = bench.inputs.data.store.datasets
    if side == "text":
        return datasets[0].anchor_item("text", *key)
    item = datasets[key[0]].anchor_item(side, key[1])
    content = item.load()
    return dataclasses.replace(item, load=lambda: content)


def run_modalbind(bench: Bench, seed: int, overrides: Sequence[str]) -> Curve:
    """Train as `align` does, scoring on the way."""
    own = bench.change([*overrides, "train.threads=1"], seed)
    recipe, curve = own.recipe, Curve()
    pools = own.inputs.embed_pools(own.inputs.test)
    english = [pool for pool in pools if pool.language == "en"]
    accelerator = build_engine(recipe)
    for side in recipe.anchor.sides:
        _list_items(own, side)
    clock = Clock()
    embed_training_anchors(own)
    tower = pipeline._build_tower(own.resolved, own.inputs)

    def score() -> None:
        with clock.paused():
            curve.points.append((clock.read(), own.score(tower, english)["audio->en"]))

    if recipe.train.solver != "adamw":
        fit_head(tower, own.inputs, recipe, recipe.train.solver)
        score()
        curve.final = own.score(tower, pools)
        return curve
    known, moving = keep_frozen_outputs(tower, own.resolved, own.inputs, lambda _: None)
    batches = pipeline._build_batches(own.resolved, own.inputs, known)
    if recipe.train.head_start != "none":
        fit_head(tower, own.inputs, recipe, recipe.train.head_start)
        score()
    total = pipeline._count_steps(recipe, batches)
    aligner = Aligner(
        moving,
        build(own.resolved.objective, own.resolved.objective_options),
        recipe.train,
        accelerator,
        sides=tuple(recipe.anchor.sides),
        total_steps=total,
        seed=seed,
    )
    for result in aligner.run(batches.iterate(0, total), 0):
        if result.step % STEPS_BETWEEN_SCORES == 0 or result.step == total:
            score()
    curve.final = own.score(tower, pools)
    return curve


class ClipTowers(nn.Module):
    """The quick start's anchor with its towers to be encoded with, or trained, at every step."""

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        from modalbind.anchors import open_anchor

        recipe, resolved = bench.recipe, bench.resolved
        anchor = open_anchor(
            recipe.anchor,
            resolved.anchor,
            AnchorCache(Path(tempfile.mkdtemp())),
            "cpu",
            resolved.anchor_options,
        )
        space: Any = anchor._open_weights()
        self.clip = space._model.float()
        self._space, self._bench = space, bench
        self._ready: dict[Any, Tensor] = {}

    def prepare(self, side: str, keys: Sequence[Any]) -> Tensor:
        """Return token ids or pixels, made once."""
        for key in keys:
            if (side, key) not in self._ready:
                content = _find_item(self._bench, side, key).load()
                made = (
                    self._space._tokenizer([content])[0]
                    if side == "text"
                    else self._space._transform(content)
                )
                self._ready[side, key] = made
        return torch.stack([self._ready[side, key] for key in keys])

    def forward(self, side: str, prepared: Tensor) -> Tensor:
        encode = self.clip.encode_text if side == "text" else self.clip.encode_image
        return nn.functional.normalize(encode(prepared), dim=1)

    @torch.no_grad()
    def embed_pools(self) -> list[Pool]:
        """Return the test's pools as these towers embed them now."""
        self.eval()
        pools = []
        for plan in self._bench.inputs.test.pools:
            parts = [
                self(plan.modality, self.prepare(plan.modality, plan.keys[i : i + 256]))
                for i in range(0, len(plan.keys), 256)
            ]
            pools.append(build_pool(plan, torch.cat(parts)))
        return pools


@dataclass(frozen=True)
class Joint:
    """How a loop that encodes the anchor's side trains.

    Attributes:
        pairs: Which sides are told apart, e.g. audio and text.
        clip_lr: Of the text and image tower; 0 locks them.
        lr: Of the audio tower.
        epochs: Passes over the training samples.
    """

    pairs: tuple[tuple[str, str], ...]
    clip_lr: float
    lr: float = 2e-3
    epochs: int = 5


def run_joint(bench: Bench, seed: int, how: Joint) -> Curve:
    """Train a loop that encodes texts (and pictures) at every step."""
    own = bench.change(
        [f"train.epochs={how.epochs}", f"train.lr={how.lr}", "train.threads=1"], seed
    )
    recipe, curve = own.recipe, Curve()
    clip = ClipTowers(own)
    sides = sorted({side for pair in how.pairs for side in pair} - {"audio"})
    drawn = _draw_keys(own)
    for side in sides:
        clip.prepare(side, [keys[side] for keys in drawn.values()])
    for plan in own.inputs.test.pools:
        clip.prepare(plan.modality, plan.keys)
    set_seed(seed)
    tower = pipeline._build_tower(own.resolved, own.inputs)
    batches = pipeline._build_batches(own.resolved, own.inputs)
    total = pipeline._count_steps(recipe, batches)
    clip.requires_grad_(how.clip_lr > 0)
    scales = nn.ParameterDict(
        {"-".join(pair): nn.Parameter(torch.tensor(math.log(20.0))) for pair in how.pairs}
    )
    groups = [{"params": [*tower.parameters(), *scales.parameters()], "lr": how.lr}]
    if how.clip_lr:
        groups.append({"params": list(clip.parameters()), "lr": how.clip_lr})
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.05, fused=True)
    peaks = [group["lr"] for group in optimizer.param_groups]
    clock = Clock()

    def score(everything: bool = False) -> dict[str, float]:
        with clock.paused():
            pools = clip.embed_pools()
            wanted = [pool for pool in pools if everything or pool.language == "en"]
            scores = own.score(tower, wanted)
        curve.points.append((clock.read(), scores["audio->en"]))
        return scores

    from modalbind.training.optimizer import learning_rate_factor

    for step, (_, batch) in enumerate(batches.iterate(0, total), start=1):
        factor = learning_rate_factor(step - 1, total, recipe.train)
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * factor
        tower.train()
        clip.train(how.clip_lr > 0)
        made = {"audio": tower(batch.features, batch.valid_mask)}
        keys = [drawn[sample] for sample in batch.samples]
        for side in sides:
            with torch.set_grad_enabled(how.clip_lr > 0):
                made[side] = clip(side, clip.prepare(side, [key[side] for key in keys]))
        names = [key["name"] for key in keys]
        loss = torch.stack(
            [_contrast(made[a], made[b], scales[f"{a}-{b}"].exp(), names) for a, b in how.pairs]
        ).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        trained = [p for group in optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        if step % STEPS_BETWEEN_SCORES == 0 and step != total:
            score()
    curve.final = score(everything=True)
    return curve


def _draw_keys(bench: Bench) -> dict[str, dict[str, Any]]:
    """Return for each training sample one text, one picture, and what makes two of them equal."""
    return {
        sample.key: {
            "text": list_anchors(sample, "text")[0][0],
            "image": list_anchors(sample, "image")[0][0],
            "name": list_anchors(sample, "text")[0][1],
        }
        for sample in bench.inputs.data.train
    }


def _contrast(a: Tensor, b: Tensor, scale: Tensor, names: Sequence[str]) -> Tensor:
    """Symmetric InfoNCE with gradient into both sides; equals are not told apart."""
    logits = scale * a @ b.T
    is_rival = torch.tensor([[x == y for y in names] for x in names])
    is_rival.fill_diagonal_(False)
    logits = logits.masked_fill(is_rival, -math.inf)
    target = torch.arange(len(names))
    cross_entropy = nn.functional.cross_entropy
    return (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2


TEXT, PICTURE, ANCHOR = ("audio", "text"), ("audio", "image"), ("text", "image")
