"""InfoNCE: find the pair among the other pairs of the batch. Nothing about models or files.

Axes: `n` rows of the modality, `m` anchor embeddings (columns), `dim` the anchor space.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from modalbind.objectives.options import InfoNceOptions, TemperatureSchedule
from modalbind.objectives.sides import check_sides, full_precision, similarities

Direction = Literal["both", "modality_to_anchor", "anchor_to_modality"]


def infonce(
    modality: Tensor,
    anchor: Tensor,
    positives: Tensor,
    excluded: Tensor,
    scale: Tensor | float,
    direction: Direction = "both",
    label_smoothing: float = 0.0,
) -> Tensor:
    """InfoNCE over the pairs of one batch, with soft, several or no positives per row.

    Each row asks for its positives among all columns that are not excluded for it, and each
    column for its positives among the rows; cross entropy, averaged over those who ask. A row
    or column without a positive asks nothing, but remains a negative of the others. With the
    identity as `positives` this is CLIP's loss.

    Args:
        modality: Unit-norm embeddings, `(n, dim)`; half precision is raised to float32.
        anchor: Unit-norm embeddings, `(m, dim)`; no gradient flows into it.
        positives: Float `(n, m)`, each row sums to one, or to zero if it has no anchor.
        excluded: Bool `(n, m)`: neither positive nor negative, left out of both denominators.
        scale: Positive, 1 / temperature; multiplies cosine similarity. Typical 10 to 100.
        direction: Who asks; `both` is the mean of the two.
        label_smoothing: Share of the target, 0 to 1, spread evenly over all candidates.

    Returns:
        Scalar loss in nats, `log(n)` when nothing is learnt from a square batch of n pairs;
        zero, with zero gradient, if no row has a positive.

    Raises:
        ShapeError: If the shapes do not belong together, or there is no row.
        ValueError: If a row of `positives` sums to neither one nor zero, or a column is both
            positive and excluded for a row.

    Source:
        van den Oord et al. 2018 (arXiv 1807.03748), eq. 4; symmetric form as in Radford et al.
        2021 (arXiv 2103.00020), figure 3.

    Example:
        >>> pairs, nothing = torch.eye(2), torch.zeros(2, 2, dtype=torch.bool)
        >>> round(infonce(pairs, pairs, torch.eye(2), nothing, scale=1.0).item(), 4)
        0.3133
    """
    check_sides(modality, anchor, positives, excluded)
    logits = full_precision(torch.as_tensor(scale)) * similarities(modality, anchor)
    positives = positives.to(logits.dtype)
    losses = [
        _cross_entropy(rows, targets, blocked, label_smoothing)
        for rows, targets, blocked in _askers(direction, logits, positives, excluded)
    ]
    return torch.stack(losses).mean()


def compute_chance(positives: Tensor, excluded: Tensor, direction: Direction = "both") -> float:
    """Loss of embeddings that know nothing: all logits equal.

    Args:
        positives: Float `(n, m)`, as for `infonce`.
        excluded: Bool `(n, m)`.
        direction: As for `infonce`.

    Returns:
        Nats: mean over those who ask of the log of their number of candidates. Label smoothing
        does not change it.

    Example:
        >>> pairs = torch.eye(8)
        >>> round(compute_chance(pairs, pairs > 1), 4), round(math.log(8), 4)
        (2.0794, 2.0794)
    """
    losses = []
    for targets, blocked in _askers(direction, positives, excluded):
        asks = targets.sum(dim=1) > 0
        candidates = (~blocked).sum(dim=1)[asks].double()
        losses.append(float(candidates.log().mean()) if len(candidates) else 0.0)
    return sum(losses) / len(losses)


@dataclass(frozen=True, slots=True)
class InfoNce:
    """`infonce` with its options; see there.

    Use `Sigmoid` when the batch is too small for in-batch negatives to say much, `Regression`
    when there should be no negatives at all.

    Attributes:
        initial_scale: 1 / temperature at the start.
        learn_scale: Whether the scale is a parameter.
        max_scale: Upper bound of a learned scale.
        initial_bias: None: there is no bias.
        direction: Who asks.
        label_smoothing: Share of the target spread over all candidates.
        schedule: Temperature over the run, or None.
        side_scales: `initial_scale` of single anchor sides.
    """

    initial_scale: float
    learn_scale: bool
    max_scale: float
    direction: Direction = "both"
    label_smoothing: float = 0.0
    schedule: TemperatureSchedule | None = None
    side_scales: Mapping[str, float] = field(default_factory=dict)
    initial_bias: None = None

    @property
    def is_rowwise(self) -> bool:
        """Whether the loss is a mean over rows that have a positive, each by itself."""
        return self.direction == "modality_to_anchor"

    def parts(self) -> tuple[tuple[float, InfoNce], ...]:
        """Return objectives of one direction each, and their shares in this one."""
        if self.direction != "both":
            return ((1.0, self),)
        return (
            (0.5, replace(self, direction="modality_to_anchor")),
            (0.5, replace(self, direction="anchor_to_modality")),
        )

    def __call__(
        self,
        modality: Tensor,
        anchor: Tensor,
        positives: Tensor,
        excluded: Tensor,
        scale: Tensor,
        bias: Tensor | None = None,
    ) -> Tensor:
        """Return the loss; `bias` is not used, softmax is blind to it."""
        return infonce(
            modality, anchor, positives, excluded, scale, self.direction, self.label_smoothing
        )

    def chance(self, positives: Tensor, excluded: Tensor) -> float:
        """Return the loss in nats when all logits are equal."""
        return compute_chance(positives, excluded, self.direction)

    def scale_at(self, progress: float) -> float | None:
        """Return the scheduled scale at `progress` (0 to 1), or None without a schedule."""
        if self.schedule is None:
            return None
        return 1 / compute_temperature(self.schedule, 1 / self.initial_scale, progress)


def compute_temperature(schedule: TemperatureSchedule, start: float, progress: float) -> float:
    """Temperature after a share of the run.

    Args:
        schedule: Its form and far end.
        start: Temperature at progress 0.
        progress: 0 to 1; values outside are clipped.

    Source:
        The swinging form: Kukleva et al. 2023 (arXiv 2303.13664), eq. 4.

    Example:
        >>> there = TemperatureSchedule(kind="cosine", final=0.02)
        >>> [round(compute_temperature(there, 0.1, p), 4) for p in (0, 0.5, 1)]
        [0.1, 0.06, 0.02]
    """
    progress = min(max(progress, 0.0), 1.0)
    if schedule.kind == "linear":
        share = progress
    else:
        share = (1 - math.cos(2 * math.pi * schedule.swings * progress)) / 2
    return start + (schedule.final - start) * share


def build(options: InfoNceOptions) -> InfoNce:
    """Build the objective from its options."""
    return InfoNce(
        initial_scale=1 / options.temperature,
        side_scales={side: 1 / value for side, value in options.side_temperatures.items()},
        learn_scale=options.learn,
        max_scale=options.max_scale,
        direction=options.direction,
        label_smoothing=options.label_smoothing,
        schedule=options.schedule,
    )


def _askers(direction: Direction, *tables: Tensor) -> list[tuple[Tensor, ...]]:
    """The tables, `(n, m)`, with those who ask as rows: as they are, transposed, or both."""
    by_row, by_column = tables, tuple(table.T for table in tables)
    if direction == "modality_to_anchor":
        return [by_row]
    return [by_column] if direction == "anchor_to_modality" else [by_row, by_column]


def _cross_entropy(
    logits: Tensor, weights: Tensor, excluded: Tensor, label_smoothing: float
) -> Tensor:
    """Mean cross entropy of the rows that have positives; all arguments `(rows, columns)`."""
    totals = weights.sum(dim=1, keepdim=True)
    asks = totals > 0  # (rows, 1)
    # A row that does not ask keeps its candidates: a softmax over none would be NaN, and NaN
    # gradients survive being multiplied by zero.
    excluded = excluded & asks
    log_probs = logits.masked_fill(excluded, -math.inf).log_softmax(dim=1)
    log_probs = log_probs.masked_fill(excluded, 0.0)  # -inf * 0 is NaN
    targets = weights / totals.where(asks, 1.0)
    if label_smoothing:
        candidates = (~excluded & asks).to(targets.dtype)
        even = candidates / candidates.sum(dim=1, keepdim=True).clamp(min=1)
        targets = (1 - label_smoothing) * targets + label_smoothing * even
    return -(targets * log_probs).sum() / asks.sum().clamp(min=1)
