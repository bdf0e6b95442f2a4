from __future__ import annotations

from torch import Tensor

from modalbind.api import NoOptions


class Hail:
    initial_scale = 10.0
    learn_scale = True
    max_scale = 100.0
    initial_bias = None

    def __init__(self, options: NoOptions) -> None:
        pass

    def __call__(
        self,
        modality: Tensor,
        anchor: Tensor,
        positives: Tensor,
        excluded: Tensor,
        scale: Tensor,
        bias: Tensor,
    ) -> Tensor:
        logits = scale * modality @ anchor.detach().T
        logits = logits.masked_fill(excluded, float("-inf"))
        losses = -(positives * logits.log_softmax(dim=1).masked_fill(excluded, 0.0)).sum(dim=1)
        asks = positives.sum(dim=1) > 0
        return losses[asks].sum() / asks.sum().clamp(min=1)
