"""One run of a contest: what is read beforehand, what the clock counts, what is scored when."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from modalbind import fit
from modalbind.anchors import open_anchor
from modalbind.anchors.cache import AnchorCache
from modalbind.closed_form import fit_head
from modalbind.data.samples import list_anchors
from modalbind.engine import build_engine
from modalbind.evaluation.embed import embed_samples
from modalbind.evaluation.pools import Pool
from modalbind.evaluation.retrieval import compute_retrieval
from modalbind.frozen_outputs import keep_frozen_outputs
from modalbind.inputs import RunInputs, open_inputs
from modalbind.plugin_manager import build, load_plugins
from modalbind.recipe import Recipe, Resolved, resolve
from modalbind.recipe.load import Request, build_request
from modalbind.training import Aligner
from modalbind.types import AnchorItem

MARGIN = 0.01
"""Below the baseline's final recall@10 that still counts as no loss."""
STEPS_BETWEEN_SCORES = 5
HELD = 3
BOTH_SIDES = "anchor.sides={text: 1, image: 1}"


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
        """CPU seconds at the first score from which `HELD` in a row reach `wanted`, or infinity.

        One alone may be luck; near the end those that are left count.
        """
        for place, (seconds, _) in enumerate(self.points):
            if all(recall >= wanted for _, recall in self.points[place : place + HELD]):
                return seconds
        return math.inf


@dataclass(frozen=True, eq=False)
class Bench:
    """A recipe with its data read, and what scores towers on it."""

    resolved: Resolved
    inputs: RunInputs
    request: Request
    pictures: Mapping[str, list[Any]] = field(default_factory=dict)
    """By positive key, for data whose samples have none of their own."""

    @property
    def recipe(self) -> Recipe:
        return self.resolved.recipe

    def change(self, overrides: Sequence[str], seed: int) -> Bench:
        """Return the same data under a recipe with other options."""
        more = (*self.request.overrides, *overrides)
        request = dataclasses.replace(self.request, seed=seed, overrides=more)
        return dataclasses.replace(self, resolved=choose(request))

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


def choose(request: Request) -> Resolved:
    """Return the recipe that a request asks for."""
    plugins = load_plugins()
    return resolve(build_request(request, plugins), plugins)


def open_quickstart(cache: Path, train: int = 1600, test: int = 320) -> Bench:
    """Read the quick start's data, and embed both sides of it."""
    sizes = (
        f"data.sources.0.train={train}",
        f"data.sources.0.test={test}",
        "train.threads=1",
        "evaluation.bootstrap=0",
    )
    request = Request(modality="audio", overrides=sizes)
    both = dataclasses.replace(request, overrides=(*sizes, BOTH_SIDES))
    inputs = open_inputs(choose(both), AnchorCache(cache), "cpu", lambda *_: None)
    return Bench(choose(request), inputs, request)


def open_esc10(cache: Path, folder: Path, minilm: Path) -> Bench:
    """Read ESC-10, one fold to test on, with the folder's pictures of five of its classes."""
    request = Request(
        recipe="audio/esc10",
        root=str(folder),
        data=str(folder / "esc10.csv"),
        anchor=f"transformers:{minilm}",
        overrides=(
            "anchor.options={}",
            "evaluation.links=[]",
            "evaluation.zero_shot=[]",
            "data.workers=0",
        ),
    )
    inputs = open_inputs(choose(request), AnchorCache(cache), "cpu", lambda *_: None)
    found = json.loads((folder / "esc10" / "pictures.json").read_text())
    pictures = {name: [(0, path) for path in paths] for name, paths in found.items()}
    return Bench(choose(request), inputs, request, pictures)


def embed_training_anchors(bench: Bench) -> None:
    """Pay for the anchor side of training: into a cache that is empty."""
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
    return [find_item(bench, side, key) for key in keys]


@functools.cache
def find_item(bench: Bench, side: str, key: Any) -> AnchorItem:
    """Return an anchor-side item whose content is loaded: rendering is nobody's cost."""
    datasets = bench.inputs.data.store.datasets
    if side == "text":
        return datasets[0].anchor_item("text", *key)
    item = datasets[key[0]].anchor_item(side, key[1])
    content = item.load()
    return dataclasses.replace(item, load=lambda: content)


def run_modalbind(bench: Bench, seed: int, overrides: Sequence[str]) -> Curve:
    """Train as `align` does, scoring on the way."""
    own = bench.change(overrides, seed)
    recipe, curve = own.recipe, Curve()
    pools = own.inputs.embed_pools(own.inputs.test)
    english = [pool for pool in pools if pool.language == "en"]
    accelerator = build_engine(recipe)
    for side in recipe.anchor.sides:
        _list_items(own, side)
    clock = Clock()
    embed_training_anchors(own)
    tower = fit.build_run_tower(own.resolved, own.inputs)

    def score() -> None:
        with clock.paused():
            curve.points.append((clock.read(), own.score(tower, english)["audio->en"]))

    if recipe.train.solver != "adamw":
        fit_head(tower, own.inputs, recipe, recipe.train.solver)
        score()
        curve.final = own.score(tower, pools)
        return curve
    known, moving = keep_frozen_outputs(tower, own.resolved, own.inputs, lambda _: None)
    batches = fit.build_batches(own.resolved, own.inputs, known)
    if recipe.train.head_start != "none":
        fit_head(tower, own.inputs, recipe, recipe.train.head_start)
        score()
    total = fit.count_steps(recipe, batches)
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
