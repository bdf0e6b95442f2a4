"""AdamW with parameter groups, and the learning rate over the run. No loop, no clipping."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from modalbind.encoders.tower import Tower
from modalbind.interfaces import Encoder
from modalbind.recipe.schema import TrainSection

_FUSED_DEVICES = frozenset({"cpu", "cuda", "mps", "xpu"})


@dataclass(frozen=True, slots=True)
class GroupSummary:
    """What one parameter group of the optimizer holds.

    Attributes:
        name: `encoder.<depth>` (0 at the input), `encoder.rest`, `head` or `scale`, then
            `.matrices` or `.vectors`.
        lr: Peak learning rate.
        weight_decay: Zero for vectors.
        tensors: Number of parameters as tensors.
        numbers: Number of parameters as numbers.
    """

    name: str
    lr: float
    weight_decay: float
    tensors: int
    numbers: int


def build_optimizer(
    tower: Tower, scale_parameters: Iterable[nn.Parameter], section: TrainSection
) -> torch.optim.AdamW:
    """Build AdamW over everything that trains.

    The head and the scale learn at `lr`; the encoder's last layer group at `encoder_lr` (else
    `lr`), each one below it at `layer_decay` times the rate of the one above. A parameter shared
    by several layer groups belongs to the lowest. What is in no layer group learns at
    `encoder_lr`. Matrices decay; vectors (biases, gains, gates: at most one axis longer than
    one), scale and bias do not.

    Args:
        tower: The tower, frozen as it is to be.
        scale_parameters: Of the objective: scale and bias; frozen ones are left out.
        section: Rates, decay and betas.

    Returns:
        The optimizer, fused where torch has that (3.6 times faster on a CPU). Its groups are
        named; `describe_groups` reads them out.

    Raises:
        ValueError: If nothing trains, or a parameter would be updated twice, or a layer group
            holds a parameter that is not the tower's.
    """
    parts = _parts(tower, section)
    parts["scale"] = (section.lr, list(scale_parameters))
    groups: list[dict[str, Any]] = [
        {
            "name": f"{part}.{form}",
            "params": parameters,
            "lr": lr,
            "weight_decay": section.weight_decay if form == "matrices" else 0.0,
        }
        for part, (lr, trainable) in _claim(parts).items()
        for form, parameters in _by_form(trainable).items()
        if parameters
    ]
    everything = [parameter for group in groups for parameter in group["params"]]
    _check_complete(everything, tower, parts["scale"][1])
    return torch.optim.AdamW(
        groups, lr=section.lr, betas=section.betas, fused=_can_fuse(everything)
    )


def describe_groups(optimizer: torch.optim.Optimizer) -> tuple[GroupSummary, ...]:
    """Say what the groups of an optimizer from `build_optimizer` hold."""
    return tuple(
        GroupSummary(
            name=group["name"],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            tensors=len(group["params"]),
            numbers=sum(parameter.numel() for parameter in group["params"]),
        )
        for group in optimizer.param_groups
    )


def learning_rate_factor(step: int, total_steps: int, section: TrainSection) -> float:
    """Factor on the peak learning rates for one optimizer step.

    Args:
        step: Updates already made: 0 for the first, as `LambdaLR` counts.
        total_steps: Updates of the whole run, at least 1.
        section: `warmup_steps` (a share of the run if below 1) and `schedule`.

    Returns:
        Above 0 at the first step and 1 at the end of warm-up; then towards 0, which `cosine` and
        `linear` reach after the last step.

    Raises:
        ValueError: If there is no step in the run.

    Example:
        >>> section = TrainSection(warmup_steps=2, schedule="linear")
        >>> [round(learning_rate_factor(step, 6, section), 2) for step in range(7)]
        [0.5, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
    """
    if total_steps < 1:
        raise ValueError(f"a run has at least one step; found {total_steps}; give it data")
    warmup = min(count_warmup_steps(total_steps, section), total_steps)
    if step < warmup:
        return (step + 1) / warmup
    progress = min((step - warmup) / max(total_steps - warmup, 1), 1.0)
    if section.schedule == "constant":
        return 1.0
    if section.schedule == "linear":
        return 1.0 - progress
    return (1 + math.cos(math.pi * progress)) / 2


def count_warmup_steps(total_steps: int, section: TrainSection) -> int:
    """Steps of warm-up: as given, or a share of the run if below 1.

    Example:
        >>> count_warmup_steps(200, TrainSection(warmup_steps=0.05))
        10
    """
    given = section.warmup_steps
    return round(given * total_steps) if given < 1 else round(given)


Part = tuple[float, list[nn.Parameter]]
"""Peak learning rate, and all parameters of a part of the tower."""


def _parts(tower: Tower, section: TrainSection) -> dict[str, Part]:
    """The tower's parts from the input up; a shared parameter is in several."""
    encoder_lr = section.lr if section.encoder_lr is None else section.encoder_lr
    layers = cast("Encoder", tower.encoder).layer_groups()
    parts: dict[str, Part] = {}
    for depth, group in enumerate(layers):
        lr = encoder_lr * section.layer_decay ** (len(layers) - 1 - depth)
        parts[f"encoder.{depth}"] = (lr, [p for module in group for p in module.parameters()])
    parts["encoder.rest"] = (encoder_lr, list(tower.encoder.parameters()))
    parts["head"] = (section.lr, list(tower.head.parameters()))
    return parts


def _claim(parts: dict[str, Part]) -> dict[str, Part]:
    """What trains in each part; a parameter goes to the first part that has it."""
    claimed: dict[str, Part] = {}
    seen: set[nn.Parameter] = set()
    for name, (lr, parameters) in parts.items():
        # A dict, as a set of tensors has no fixed order.
        mine = dict.fromkeys(p for p in parameters if p.requires_grad and p not in seen)
        seen.update(mine)
        claimed[name] = (lr, list(mine))
    return claimed


def _by_form(parameters: list[nn.Parameter]) -> dict[str, list[nn.Parameter]]:
    forms: dict[str, list[nn.Parameter]] = {"matrices": [], "vectors": []}
    for parameter in parameters:
        is_vector = sum(size > 1 for size in parameter.shape) < 2
        forms["vectors" if is_vector else "matrices"].append(parameter)
    return forms


def _check_complete(
    grouped: list[nn.Parameter], tower: Tower, scale_parameters: list[nn.Parameter]
) -> None:
    own, scale = set(tower.parameters()), set(scale_parameters)
    expected = {p for p in own | scale if p.requires_grad}
    if own & scale or len(grouped) != len(expected) or set(grouped) != expected or not expected:
        raise ValueError(
            f"each of {len(expected)} trainable tensors asked for once; found {len(grouped)} in "
            f"the groups, {len(set(grouped) - expected)} of them not the tower's, and "
            f"{len(own & scale)} shared with the objective; check the encoder's layer_groups"
        )


def _can_fuse(parameters: list[nn.Parameter]) -> bool:
    return all(p.device.type in _FUSED_DEVICES and p.is_floating_point() for p in parameters)
