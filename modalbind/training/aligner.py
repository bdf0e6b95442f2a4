"""The training loop: batches in, one `StepResult` per optimizer step out.

Knows no modality, no anchor space and no files: anchor embeddings arrive as tensors in the batch.
Letters: `n` samples, `m` anchors, `dim` the anchor space.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn

from modalbind.data.loader import derive_seed
from modalbind.encoders.tower import Tower, tell_progress
from modalbind.errors import NonFiniteError, RunError
from modalbind.objectives import LogitScale
from modalbind.objectives.chunks import (
    compute_side_chance,
    compute_side_loss,
    count_asking,
    slice_side,
)
from modalbind.processes import share_of
from modalbind.recipe.schema import TrainSection
from modalbind.training.gather import gather_rows
from modalbind.training.optimizer import build_optimizer, learning_rate_factor
from modalbind.types import AnchorSide, PairBatch, StepResult

PADDING_WORTH = 0.7
"""Share of real frames in a batch below which it is embedded in parts of similar length."""
LENGTH_PARTS = 4
OPTIMIZER_PREFIX = "optimizer."
TOWER_PREFIX = "tower."
SCALE_PREFIX = "scale."

Scales = Mapping[str, tuple[Tensor, Tensor]]
"""Scale and bias by anchor side."""


class Aligner:
    """Trains a tower towards anchor embeddings.

    Invariant: what step `s` does depends on the weights before it, the seed and `s` alone, so a
    run continued from saved state ends in the same bits as one that was never stopped.
    """

    def __init__(
        self,
        tower: Tower,
        objective: Any,
        section: TrainSection,
        accelerator: Accelerator,
        *,
        sides: Sequence[str],
        total_steps: int,
        seed: int,
    ) -> None:
        """Prepare the tower for the device and build its optimizer.

        Each anchor side has a scale of its own: cosines with texts and with pictures differ in
        range, as the modality gap does.
        """
        self.objective, self.section, self.accelerator = objective, section, accelerator
        self.total_steps, self.seed = total_steps, seed
        self.scales = nn.ModuleDict({side: LogitScale(objective, side) for side in sides})
        self.scales.to(accelerator.device)
        trained = [p for p in self.scales.parameters() if p.requires_grad]
        tower.to(accelerator.device)
        if section.channels_last is True:
            tower.to(memory_format=torch.channels_last)
        optimizer = build_optimizer(tower, trained, section)
        self.plain_tower = tower
        self.tower, self.optimizer = accelerator.prepare(tower, optimizer)
        self._base_rates = [group["lr"] for group in self.optimizer.param_groups]

    def run(
        self, batches: Iterable[tuple[int, PairBatch]], start_step: int
    ) -> Iterator[StepResult]:
        """Take one optimizer step per batch, yielding after each.

        Raises:
            NonFiniteError: If a loss or a gradient is not a finite number.
        """
        for step, (epoch, batch) in enumerate(batches, start=start_step + 1):
            yield self._take_step(step, epoch, batch)

    def _take_step(self, step: int, epoch: int, batch: PairBatch) -> StepResult:
        self._seed(step)
        self._set_rates(step)
        progress = step / max(1, self.total_steps)
        scales = {side: holder(progress) for side, holder in self.scales.items()}
        self.tower.train()
        tell_progress(self.plain_tower.encoder, (step - 1) / max(1, self.total_steps))
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._backward(step, batch, scales)
        chance = self._compute_chance(batch.sides)
        if not math.isfinite(loss):
            raise NonFiniteError(
                f"step {step}: a finite loss asked for; found {loss}; lower train.lr"
            )
        norm = self._clip(step)
        self.optimizer.step()
        for holder in self.scales.values():
            cast(LogitScale, holder).clamp_()
        return StepResult(
            step=step,
            epoch=epoch,
            loss=loss,
            chance_loss=None if math.isnan(chance) else chance,
            lr=self.optimizer.param_groups[-1]["lr"],
            scale=float(scales[batch.sides[0].modality][0].detach()),
            grad_norm=norm,
            samples=len(batch.samples),
        )

    def _seed(self, step: int, *part: int) -> None:
        """Start the randomness of a step, or of a part of its batch, from a place of its own."""
        # Each process draws its own: its rows are others.
        rank = self.accelerator.process_index
        own = (["rank", rank] if rank else []) + (["part", *part] if part else [])
        set_seed(derive_seed(self.seed, "step", step, *own) % 2**32)

    def _set_rates(self, step: int) -> None:
        factor = learning_rate_factor(step - 1, self.total_steps, self.section)
        for group, rate in zip(self.optimizer.param_groups, self._base_rates, strict=True):
            group["lr"] = rate * factor

    def _backward(self, step: int, batch: PairBatch, scales: Scales) -> float:
        """Leave gradients on the parameters; return the loss."""
        device = self.accelerator.device
        features = batch.features.to(device)
        mask = None if batch.valid_mask is None else batch.valid_mask.to(device)
        size = self.section.micro_batch_size
        sides = [_move_side(side, device) for side in batch.sides]
        # As the largest share of a process has it: all take the same way.
        rows = -(-len(batch.samples) // self.accelerator.num_processes)
        if size is None or size >= rows:
            with self.accelerator.autocast():
                embeddings = self._embed(features, mask)
            loss = self._compute_loss(embeddings, sides, scales)
            self.accelerator.backward(loss)
            return float(loss.detach())
        is_rowwise = getattr(self.objective, "is_rowwise", False)
        if is_rowwise and self.accelerator.num_processes == 1:
            return self._accumulate(features, mask, size, sides, scales)
        return self._backward_in_parts(step, features, mask, size, sides, scales)

    def _embed(self, features: Tensor, mask: Tensor | None) -> Tensor:
        """Embed a batch; where lengths differ much, in parts of similar length.

        A tower is blind to padding, so the parts only save the work that padding costs. Several
        processes keep one forward pass a step, which is what data parallel wrappers expect.
        """
        if mask is None or self.accelerator.num_processes > 1:
            return self.tower(features, mask)  # type: ignore[no-any-return]
        lengths = mask.sum(dim=1)
        if float(lengths.float().mean()) > PADDING_WORTH * mask.shape[1]:
            return self.tower(features, mask)  # type: ignore[no-any-return]
        order = lengths.argsort(stable=True)
        parts = [
            self.tower(features[rows, : (end := int(lengths[rows].max()))], mask[rows, :end])
            for rows in order.chunk(LENGTH_PARTS)
        ]
        return torch.cat(parts)[order.argsort()]

    def _accumulate(
        self,
        features: Tensor,
        mask: Tensor | None,
        size: int,
        sides: Sequence[AnchorSide],
        scales: Scales,
    ) -> float:
        """Compute the exact gradient of a batch whose rows are independent, in one pass.

        Anchor embeddings come from the cache, so a row needs no other row for its loss: each part
        counts as the share of asking rows that it holds, and is forgotten.
        """
        asking = [count_asking(side.positives) for side in sides]
        # Each part goes back through the scale; its own graph is walked once, at the end.
        held = {name: (_detach(scale), _detach(bias)) for name, (scale, bias) in scales.items()}
        total = 0.0
        for start in range(0, len(features), size):
            stop = min(start + size, len(features))
            with self.accelerator.autocast():
                rows = self.tower(features[start:stop], None if mask is None else mask[start:stop])
            parts = [slice_side(side, start, stop) for side in sides]
            shares = [int(asks[start:stop].sum()) / max(1, int(asks.sum())) for asks in asking]
            loss = self._compute_loss(rows, parts, held, shares)
            self.accelerator.backward(loss)
            total += float(loss.detach())
        for name, pair in scales.items():
            for value, leaf in zip(pair, held[name], strict=True):
                if leaf.grad is not None:
                    torch.autograd.backward(value, leaf.grad)
        return total

    def _backward_in_parts(
        self,
        step: int,
        features: Tensor,
        mask: Tensor | None,
        size: int,
        sides: Sequence[AnchorSide],
        scales: Scales,
    ) -> float:
        """Compute the exact gradient of the whole batch with `size` samples in memory at a time.

        Source:
            Gao et al. 2021 (arXiv 2101.06983), section 3: embeddings first without a graph, then
            the gradient of the loss by embedding, then each part again with it. Randomness of
            the first pass is replayed in the second.
        """
        parts = [
            slice(start, min(start + size, len(features)))
            for start in range(0, len(features), size)
        ]
        # One block for all: small ones that live on between two parts would leave holes in which
        # the next part's large ones do not fit, and the process would grow with every part.
        embeddings = torch.empty(0)
        with torch.no_grad(), self.accelerator.autocast():
            for number, part in enumerate(parts):
                self._seed(step, number)
                piece = self.plain_tower(features[part], None if mask is None else mask[part])
                if not number:
                    embeddings = piece.new_empty((len(features), *piece.shape[1:]))
                embeddings[part] = piece
                del piece
        loss = self._compute_loss(embeddings.requires_grad_(), sides, scales)
        self.accelerator.backward(loss)
        assert embeddings.grad is not None
        # Processes exchange gradients once a step: with the last part, when all are summed up.
        towers = [self.plain_tower] * (len(parts) - 1) + [self.tower]
        for number, (part, tower) in enumerate(zip(parts, towers, strict=True)):
            self._seed(step, number)
            with self.accelerator.autocast():
                piece = tower(features[part], None if mask is None else mask[part])
            # The gradient already carries the loss scaling of mixed precision.
            piece.backward(embeddings.grad[part])
        return float(loss.detach())

    def _compute_loss(
        self,
        embeddings: Tensor,
        sides: Sequence[AnchorSide],
        scales: Scales,
        shares: Sequence[float] | None = None,
    ) -> Tensor:
        """Return the mean over anchor sides, by weight.

        Args:
            embeddings: Of this process's rows.
            sides: Of the rows of all processes.
            scales: By side.
            shares: Of a side's asking rows, how many these rows hold; default: all.
        """
        rows = self._gather(embeddings.float(), len(sides[0].positives))
        terms = [
            (side, share)
            for side, share in zip(sides, shares or [1.0] * len(sides), strict=True)
            if len(side.embeddings)
        ]
        if not terms:
            raise NonFiniteError(
                "a finite loss asked for; no row of the batch has an anchor on a side that counts; "
                "check anchor.sides and its weights"
            )
        total = rows.new_zeros(())
        for side, share in terms:
            loss = compute_side_loss(self.objective, rows, side, *scales[side.modality])
            total = total + side.weight * share * loss
        return total / sum(side.weight for side, _ in terms)

    def _compute_chance(self, sides: Sequence[AnchorSide]) -> float:
        """Return the loss of embeddings that know nothing, NaN if it cannot be told."""
        terms = [
            (side.weight, compute_side_chance(self.objective, side))
            for side in sides
            if len(side.embeddings)
        ]
        return sum(w * chance for w, chance in terms) / sum(w for w, _ in terms)

    def _gather(self, own: Tensor, count: int) -> Tensor:
        """Return the rows of the whole batch; one that was read for want of any is left out."""
        if self.accelerator.num_processes == 1:
            return own
        place = self.accelerator.process_index, self.accelerator.num_processes
        return gather_rows(own[: len(share_of(count, *place))])

    def _clip(self, step: int) -> float:
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        limit = self.section.clip_norm if self.section.clip_norm is not None else math.inf
        norm = float(self.accelerator.clip_grad_norm_(parameters, limit))
        # fp16 overflows now and then by design: the scaler skips that step and lowers its scale.
        if not math.isfinite(norm) and self.section.precision != "fp16":
            raise NonFiniteError(
                f"step {step}: a finite gradient asked for; its norm is {norm}; lower train.lr"
            )
        return norm if math.isfinite(norm) else 0.0

    def state_tensors(self) -> dict[str, Tensor]:
        """Return all tensors that a continued run needs, by name."""
        tensors = {TOWER_PREFIX + k: v for k, v in self._tower_state().items()}
        tensors |= {SCALE_PREFIX + k: v for k, v in self.scales.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            for name, value in state.items():
                tensors[f"{OPTIMIZER_PREFIX}{index}.{name}"] = torch.as_tensor(value)
        return tensors

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from what `state_tensors` returned.

        Raises:
            RunError: If it is the state of another tower, or of another version.
        """
        device = self.accelerator.device
        own = self._tower_state()
        wanted = [TOWER_PREFIX + name for name in own]
        wanted += [SCALE_PREFIX + name for name in self.scales.state_dict()]
        if lacking := [name for name in wanted if name not in tensors]:
            raise RunError(
                f"the state of a started run asked for; its checkpoint lacks {lacking[0]}, as one "
                "of another version does; start again with --force"
            )
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(tensors[TOWER_PREFIX + name].to(device))
        scales = {k: tensors[SCALE_PREFIX + k] for k in self.scales.state_dict()}
        self.scales.load_state_dict(scales)
        full = self.optimizer.state_dict()
        full["state"] = {}
        for name, value in tensors.items():
            if name.startswith(OPTIMIZER_PREFIX):
                index, field = name.removeprefix(OPTIMIZER_PREFIX).split(".")
                full["state"].setdefault(int(index), {})[field] = value
        self._lay_out_as_parameters(full["state"])
        self.optimizer.load_state_dict(full)

    def _lay_out_as_parameters(self, states: dict[int, dict[str, Tensor]]) -> None:
        """Give moments the strides of their parameters: a fused step goes through both at once."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        for index, state in states.items():
            like = parameters[index]
            for name, value in state.items():
                if value.shape == like.shape and value.stride() != like.stride():
                    state[name] = torch.empty_like(like, dtype=value.dtype).copy_(value)

    def _tower_state(self) -> dict[str, Tensor]:
        """Return parameters that train, and buffers; the frozen rest is built again."""
        frozen = {n for n, p in self.plain_tower.named_parameters() if not p.requires_grad}
        state = self.plain_tower.state_dict(keep_vars=False)
        return {name: value for name, value in state.items() if name not in frozen}


def _move_side(side: AnchorSide, device: torch.device) -> AnchorSide:
    return replace(
        side,
        embeddings=side.embeddings.to(device),
        positives=side.positives.to(device),
        excluded=side.excluded.to(device),
    )


def _detach(value: Tensor) -> Tensor:
    """A leaf of the same value, which takes a gradient if the value does."""
    return value.detach().requires_grad_(value.requires_grad)
