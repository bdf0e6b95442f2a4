"""The parameters that an objective learns: the log of its scale, and its bias."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn


class LogitScale(nn.Module):
    """Holds the scale (1 / temperature) and bias of an objective towards one anchor side.

    The parameter stored is the log of the scale, so that a step changes the temperature by a
    ratio. `clamp_` belongs after every optimizer step: clamping the parameter, unlike clamping
    its use, leaves it a gradient by which it can come down again.

    Args:
        objective: Anything with the attributes of `modalbind.interfaces.Objective`.
        side: Anchor side that it is for; the objective may name a scale for it (`side_scales`).

    Attributes:
        log_scale: Scalar float32.
        bias: Scalar float32, or None if the objective has none.

    Example:
        >>> from modalbind.objectives.infonce import build
        >>> from modalbind.objectives.options import InfoNceOptions
        >>> scale, bias = LogitScale(build(InfoNceOptions(temperature=0.1)))(progress=0.0)
        >>> round(scale.item(), 4), bias.item()
        (10.0, 0.0)
    """

    def __init__(self, objective: Any, side: str = "") -> None:
        """Start from what the objective says."""
        super().__init__()
        learn = bool(objective.learn_scale)
        self._scale_at = getattr(objective, "scale_at", None)
        self.max_log_scale = math.log(objective.max_scale)
        initial = getattr(objective, "side_scales", {}).get(side, objective.initial_scale)
        self.log_scale = nn.Parameter(torch.tensor(math.log(initial)), requires_grad=learn)
        self.bias: nn.Parameter | None = None
        if objective.initial_bias is not None:
            self.bias = nn.Parameter(
                torch.tensor(float(objective.initial_bias)), requires_grad=learn
            )

    def forward(self, progress: float) -> tuple[Tensor, Tensor]:
        """Return scale and bias, scalar float32.

        Args:
            progress: Share of the run that is done, 0 to 1; used by a schedule alone.
        """
        planned = self._scale_at(progress) if self._scale_at is not None else None
        log_scale = self.log_scale
        scale = log_scale.exp() if planned is None else torch.full_like(log_scale, planned)
        return scale, torch.zeros_like(log_scale) if self.bias is None else self.bias

    @torch.no_grad()
    def clamp_(self) -> None:
        """Keep the scale at or below the objective's `max_scale`; call after each step."""
        self.log_scale.clamp_(max=self.max_log_scale)
