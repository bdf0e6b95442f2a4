"""Trains the small image-text anchor of the generated world, and writes it as an OpenCLIP folder.

    python -m modalbind.world.train_anchor --out modalbind/world/anchor

Pictures are paired with captions in the pictured languages. The other languages are learnt from
sentence pairs alone: a caption and its English translation. Only scenes of the train split are
used, and nothing but pictures and captions: the anchor never meets sound. Same seed, same number of
threads and same machine give the same bytes.

The text tower is XLM-RoBERTa in small, the picture tower OpenCLIP's own transformer.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedTokenizerFast, XLMRobertaConfig

from modalbind.world import anchor_folder
from modalbind.world.captions import LANGUAGES, PICTURED_LANGUAGES, caption
from modalbind.world.picture import PICTURE_PERCEIVES, PICTURE_PX, render_picture
from modalbind.world.scenes import (
    ATTRIBUTES,
    COUNTS,
    DISTANCES,
    KINDS,
    POSITIONS,
    SIZES,
    Scene,
    build_scenes,
)

log = logging.getLogger(__name__)

DIM = 96
CONTEXT_LENGTH = 48
SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>")  # XLM-RoBERTa's order; <pad> is number 1
PICTURE_MEAN, PICTURE_STD = 0.5, 0.25
TEXT_LAYERS, TEXT_WIDTH, TEXT_HEADS = 2, 64, 4
VISION_CFG = {
    "image_size": PICTURE_PX,
    "patch_size": 8,
    "width": 64,
    "layers": 2,
    "head_width": 32,
    "mlp_ratio": 2.0,
    "pool_type": "avg",
}
BLOCK = 8  # scenes of the same kinds that stand side by side in a batch
_ANSWERS = [len(COUNTS) + 1] * len(KINDS) + [len(SIZES) + 1] * len(KINDS) + [3, 3]
MAX_LOGIT_SCALE = 100.0  # as in Radford et al. 2021 (arXiv 2103.00020)


@dataclass(frozen=True)
class Settings:
    """How the anchor is trained.

    Attributes:
        steps: Optimizer updates.
        seed: Of the weights, the draws and the pictures' nuisance.
        n_scenes: Training scenes, each with one picture.
        batch_size: Pictures in a batch.
        n_sentence_pairs: Pairs of English and another language in a batch.
        lr: Peak learning rate.
        warmup: Steps over which the learning rate rises.
        threads: Threads of torch; another number gives other bytes.
    """

    steps: int = 1000
    seed: int = 0
    n_scenes: int = 12000
    batch_size: int = 64
    n_sentence_pairs: int = 32
    lr: float = 2e-3
    warmup: int = 60
    threads: int = 1


def train_anchor(folder: Path, settings: Settings) -> None:
    """Train the anchor and write its folder.

    Args:
        folder: Where it goes; made if missing, files of the same name are replaced.
        settings: See `Settings`.
    """
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    scenes = build_scenes("train", settings.n_scenes, settings.seed)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer()
    write_configuration(folder, tokenizer)
    model = open_clip.CustomTextCLIP(**read_model_cfg(folder))
    log.info("%d parameters", sum(weights.numel() for weights in model.parameters()))
    _fit(model, _batches(scenes, tokenizer, settings), settings)
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")


@cache
def build_tokenizer() -> Tokenizer:
    """Return a Unigram tokenizer that knows every word of the world, and its letters.

    It is computed from word counts, not fitted, so it is the same wherever it is made.
    """
    normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    counts: Counter[str] = Counter()
    for scene in build_scenes("train", 600):
        for language in LANGUAGES:
            for seed in range(2):
                for word in caption(scene, language, seed=seed).split():
                    counts[normalizer.normalize_str(f"▁{word}")] += 1
    total = sum(counts.values())
    pieces = [(word, math.log(count / total)) for word, count in sorted(counts.items())]
    # A letter costs more than any word, so words are split only when they are unknown.
    letters = sorted({letter for word in counts for letter in word} - set(counts))
    vocabulary = [(token, 0.0) for token in SPECIAL_TOKENS] + pieces
    tokenizer = Tokenizer(
        models.Unigram([*vocabulary, *((letter, -30.0) for letter in letters)], unk_id=3)
    )
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


def write_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    """Write the tokenizer as transformers reads it."""
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=CONTEXT_LENGTH,
    ).save_pretrained(folder)


def build_text_config(
    tokenizer: Tokenizer, layers: int, width: int, heads: int
) -> XLMRobertaConfig:
    """Return the shape of a small XLM-RoBERTa without dropout that reads the world's captions."""
    return XLMRobertaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=2 * width,
        max_position_embeddings=CONTEXT_LENGTH + 2,  # its positions begin at 2
        type_vocab_size=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


def write_configuration(folder: Path, tokenizer: Tokenizer) -> None:
    """Write everything but the weights: OpenCLIP's config, the text tower's, the tokenizer."""
    write_tokenizer(folder, tokenizer)
    build_text_config(tokenizer, TEXT_LAYERS, TEXT_WIDTH, TEXT_HEADS).save_pretrained(folder)
    text_cfg = {
        "hf_model_name": ".",  # the folder itself; whoever opens it says where that is
        "hf_tokenizer_name": ".",
        "hf_model_pretrained": False,
        "hf_pooler_type": "mean_pooler",
        "hf_proj_type": "mlp",
        "context_length": CONTEXT_LENGTH,
    }
    config = {
        "model_cfg": {"embed_dim": DIM, "vision_cfg": VISION_CFG, "text_cfg": text_cfg},
        "preprocess_cfg": {
            "mean": [PICTURE_MEAN] * 3,
            "std": [PICTURE_STD] * 3,
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    }
    text = json.dumps(config, indent=2) + "\n"
    (folder / "open_clip_config.json").write_text(text, encoding="utf-8")


def read_model_cfg(folder: Path) -> dict[str, Any]:
    """Return the model's configuration with the text tower's folder as an absolute path."""
    text = (folder / "open_clip_config.json").read_text(encoding="utf-8")
    model_cfg: dict[str, Any] = json.loads(text)["model_cfg"]
    model_cfg["text_cfg"]["hf_model_name"] = str(folder.resolve())
    return model_cfg


@dataclass(frozen=True)
class Batch:
    """One step's data.

    Attributes:
        pictures: Normalised, `(n, 3, height, width)`.
        attributes: What each picture shows as class numbers, `(n, n_questions)`; see `_answers`.
        captions: Token numbers of the pictures' captions, padded.
        english: Token numbers of sentences.
        translations: Token numbers of the same sentences in other languages.
    """

    pictures: Tensor
    attributes: Tensor
    captions: Tensor
    english: Tensor
    translations: Tensor


def _batches(scenes: Sequence[Scene], tokenizer: Tokenizer, settings: Settings) -> Iterator[Batch]:
    """Yield batches without end; pictures are rendered once, captions anew each time."""
    rng = np.random.default_rng(settings.seed)
    pixels = np.stack([np.asarray(render_picture(scene, settings.seed)) for scene in scenes])
    answers = torch.tensor([_answers(scene) for scene in scenes])
    log.info("%d pictures", len(pixels))
    kinds = np.array(["+".join(thing.kind for thing in scene.objects) for scene in scenes])
    while True:
        for rows in alike(kinds, settings.batch_size, rng):
            captions = [_picture_caption(scenes[row], rng) for row in rows]
            pairs = [_sentence_pair(scenes[row], rng) for row in rows[: settings.n_sentence_pairs]]
            pictures = torch.from_numpy(pixels[rows]).permute(0, 3, 1, 2).float() / 255
            yield Batch(
                pictures=(pictures - PICTURE_MEAN) / PICTURE_STD,
                attributes=answers[torch.from_numpy(rows)],
                captions=tokenize(tokenizer, captions),
                english=tokenize(tokenizer, [english for english, _ in pairs]),
                translations=tokenize(tokenizer, [other for _, other in pairs]),
            )


def alike(
    kinds: NDArray[np.str_], batch_size: int, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Yield the rows of one epoch's batches, in blocks of the same kinds.

    Scenes of other kinds are easily told apart; count, size and place are learnt from negatives
    that show the same things.
    """
    order = rng.permutation(len(kinds))
    order = order[np.argsort(kinds[order], kind="stable")]
    n_blocks = len(order) // BLOCK
    blocks = order[: n_blocks * BLOCK].reshape(n_blocks, BLOCK)[rng.permutation(n_blocks)]
    rows = blocks.reshape(-1)
    for start in range(0, len(rows) - batch_size + 1, batch_size):
        yield rows[start : start + batch_size]


def _answers(scene: Scene) -> list[int]:
    """Answer, for every kind, how many and how big (0: none there), then where and how far."""
    counts, sizes = dict.fromkeys(KINDS, 0), dict.fromkeys(KINDS, 0)
    for thing in scene.objects:
        counts[thing.kind] = thing.count
        sizes[thing.kind] = 1 + SIZES.index(thing.size)
    place = [POSITIONS.index(scene.position), DISTANCES.index(scene.distance)]
    return [*counts.values(), *sizes.values(), *place]


def _picture_caption(scene: Scene, rng: np.random.Generator) -> str:
    """Describe a picture in one of its languages: English half as often again as the rest."""
    weights = np.array([1.5] + [1.0] * (len(PICTURED_LANGUAGES) - 1))
    language = PICTURED_LANGUAGES[rng.choice(len(weights), p=weights / weights.sum())]
    return caption(
        scene, language, draw_attributes(PICTURE_PERCEIVES, rng), seed=int(rng.integers(1000))
    )


def _sentence_pair(scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
    """Say the same of a scene in English and in another language, warmth included."""
    perceives = draw_attributes(tuple(ATTRIBUTES), rng)
    language = LANGUAGES[rng.integers(1, len(LANGUAGES))]
    seed = int(rng.integers(1000))
    return caption(scene, "en", perceives, seed), caption(scene, language, perceives, seed)


def draw_attributes(attributes: Sequence[str], rng: np.random.Generator) -> tuple[str, ...]:
    """Keep kind, and most of the rest; a modality to come may perceive any of them."""
    kept = rng.random(len(attributes)) < 0.85
    return tuple(
        name for name, keep in zip(attributes, kept, strict=True) if keep or name == "kind"
    )


def tokenize(tokenizer: Tokenizer, texts: list[str]) -> Tensor:
    """Return token numbers `(n, longest)`, padded with 1."""
    rows = [torch.tensor(encoding.ids) for encoding in tokenizer.encode_batch_fast(texts)]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=1)


def _fit(model: Any, batches: Iterator[Batch], settings: Settings) -> None:
    readout = torch.nn.Linear(DIM, sum(_ANSWERS))
    matrices = [weights for weights in model.parameters() if weights.ndim > 1]
    others = [weights for weights in model.parameters() if weights.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": 0.05},
            {"params": [*others, *readout.parameters()], "weight_decay": 0.0},
        ],
        lr=settings.lr,
        betas=(0.9, 0.98),
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: lr_factor(step, settings.warmup, settings.steps)
    )
    started = time.monotonic()
    for step, batch in zip(range(1, settings.steps + 1), batches, strict=False):
        scale = model.logit_scale.exp()
        pictures = model.encode_image(batch.pictures, normalize=True)
        captions = model.encode_text(batch.captions, normalize=True)
        english = model.encode_text(batch.english, normalize=True)
        translations = model.encode_text(batch.translations, normalize=True)
        picture_loss = contrast(pictures, captions, scale)
        sentence_loss = contrast(english, translations, scale)
        readout_loss = _readout_loss(readout(pictures * 10), batch.attributes)
        optimizer.zero_grad()
        torch.autograd.backward(picture_loss + 0.5 * sentence_loss + readout_loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(MAX_LOGIT_SCALE))
        if step % 25 == 0 or step == settings.steps:
            values = (picture_loss, sentence_loss, readout_loss, scale)
            text = "step %d pictures %.3f sentences %.3f readout %.3f scale %.1f"
            log.info(text, step, *(value.item() for value in values))
            log.info("%.2f s a step", (time.monotonic() - started) / step)


def _readout_loss(logits: Tensor, attributes: Tensor) -> Tensor:
    """Sum the cross-entropies of all questions about a picture, weighted to matter alike."""
    losses = [
        F.cross_entropy(part, attributes[:, question])
        for question, part in enumerate(torch.split(logits, _ANSWERS, dim=1))
    ]
    return torch.stack(losses).sum() / 4


def lr_factor(step: int, warmup: int, steps: int) -> float:
    """Rise linearly, then fall along a half cosine."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def contrast(a: Tensor, b: Tensor, scale: Tensor) -> Tensor:
    """CLIP's symmetric loss of paired unit-norm rows, in nats."""
    logits = scale * a @ b.T
    labels = torch.arange(len(a))
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=anchor_folder(), help="folder to write")
    parser.add_argument("--steps", type=int, default=Settings.steps, help="optimizer updates")
    parser.add_argument("--seed", type=int, default=Settings.seed)
    parser.add_argument("--threads", type=int, default=Settings.threads, help="of torch")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    chosen = {name: value for name, value in vars(arguments).items() if name != "out"}
    train_anchor(arguments.out, Settings(**chosen))


if __name__ == "__main__":
    main()
