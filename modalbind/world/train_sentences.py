"""Trains the small multilingual sentence encoder of the generated world.

    python -m modalbind.world.train_sentences --out modalbind/world/sentences

It learns what captions mean from translations alone: two languages that say the same of one scene.
It never meets a picture, nor the anchor's vectors. Only scenes of the train split are used. Same
seed, same number of threads and same machine give the same bytes.

The folder is laid out as sentence-transformers does it: XLM-RoBERTa in small, mean pooling.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import XLMRobertaModel

from modalbind.world import sentence_folder
from modalbind.world.captions import LANGUAGES, caption
from modalbind.world.scenes import ATTRIBUTES, Scene, build_scenes
from modalbind.world.train_anchor import (
    alike,
    build_text_config,
    build_tokenizer,
    contrast,
    draw_attributes,
    lr_factor,
    tokenize,
    write_tokenizer,
)

log = logging.getLogger(__name__)

LAYERS, WIDTH, HEADS = 2, 80, 4
PAD = 1
TEMPERATURE = 0.05
FIRST_SEED = 1
"""Another than the anchor's: the two share neither weights nor draws."""


@dataclass(frozen=True)
class Settings:
    """How the encoder is trained.

    Attributes:
        steps: Optimizer updates.
        seed: Of the weights and the draws.
        n_scenes: Training scenes.
        batch_size: Pairs of sentences in a batch.
        lr: Peak learning rate.
        warmup: Steps over which the learning rate rises.
        threads: Threads of torch; another number gives other bytes.
    """

    steps: int = 1200
    seed: int = FIRST_SEED
    n_scenes: int = 8000
    batch_size: int = 96
    lr: float = 3e-3
    warmup: int = 60
    threads: int = 1


def train_sentences(folder: Path, settings: Settings) -> None:
    """Train the encoder and write its folder.

    Args:
        folder: Where it goes; made if missing, files of the same name are replaced.
        settings: See `Settings`.
    """
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    tokenizer = build_tokenizer()
    config = build_text_config(tokenizer, LAYERS, WIDTH, HEADS)
    model = XLMRobertaModel(config, add_pooling_layer=False)
    log.info("%d parameters", sum(weights.numel() for weights in model.parameters()))
    _fit(model, _pairs(settings), settings)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    write_tokenizer(folder, tokenizer)
    _write_pooling(folder)


def _write_pooling(folder: Path) -> None:
    kinds = (("", "Transformer"), ("1_Pooling", "Pooling"))
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds)
    ]
    (folder / "1_Pooling").mkdir(exist_ok=True)
    pooling = {"word_embedding_dimension": WIDTH, "pooling_mode_mean_tokens": True}
    for name, content in (("modules.json", modules), ("1_Pooling/config.json", pooling)):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _pairs(settings: Settings) -> Iterator[tuple[list[str], list[str]]]:
    """Yield batches without end: sentences, and the same in another language."""
    rng = np.random.default_rng(settings.seed)
    scenes = build_scenes("train", settings.n_scenes, settings.seed)
    kinds = np.array(["+".join(thing.kind for thing in scene.objects) for scene in scenes])
    while True:
        for rows in alike(kinds, settings.batch_size, rng):
            pairs = [_translate(scenes[row], rng) for row in rows]
            yield [one for one, _ in pairs], [other for _, other in pairs]


def _translate(scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
    perceives = draw_attributes(tuple(ATTRIBUTES), rng)
    one, other = rng.choice(len(LANGUAGES), size=2, replace=False)
    seed = int(rng.integers(1000))
    return (
        caption(scene, LANGUAGES[one], perceives, seed),
        caption(scene, LANGUAGES[other], perceives, seed),
    )


def embed(model: XLMRobertaModel, texts: Sequence[str]) -> Tensor:
    """Return the mean of each text's hidden states, unit norm, `(n, WIDTH)`."""
    tokens = tokenize(build_tokenizer(), list(texts))
    mask = tokens != PAD
    hidden = model(tokens, attention_mask=mask).last_hidden_state
    weights = mask.unsqueeze(-1).float()
    return F.normalize((hidden * weights).sum(dim=1) / weights.sum(dim=1), dim=1)


def _fit(
    model: XLMRobertaModel, batches: Iterator[tuple[list[str], list[str]]], settings: Settings
) -> None:
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.lr, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: lr_factor(step, settings.warmup, settings.steps)
    )
    scale = torch.tensor(1 / TEMPERATURE)
    for step, (ones, others) in zip(range(1, settings.steps + 1), batches, strict=False):
        loss = contrast(embed(model, ones), embed(model, others), scale)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == settings.steps:
            chance = math.log(settings.batch_size)
            log.info("step %d loss %.3f, chance %.2f", step, loss.item(), chance)
    model.eval()


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=sentence_folder(), help="folder to write")
    parser.add_argument("--steps", type=int, default=Settings.steps, help="optimizer updates")
    parser.add_argument("--seed", type=int, default=Settings.seed)
    parser.add_argument("--threads", type=int, default=Settings.threads, help="of torch")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    chosen = {name: value for name, value in vars(arguments).items() if name != "out"}
    train_sentences(arguments.out, Settings(**chosen))


if __name__ == "__main__":
    main()
