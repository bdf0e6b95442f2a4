from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from modalbind_sonar.modality import WIDTH
from modalbind_sonar.options import EchoOptions


class EchoEncoder(nn.Module):
    lora_targets = ("first", "second")

    def __init__(self, options: EchoOptions) -> None:
        super().__init__()
        self.options = options
        self.width = options.width
        self.first = nn.Linear(WIDTH, options.width)
        self.second = nn.Linear(options.width, options.width)
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, features: Tensor, valid_mask: Tensor | None) -> Tensor:
        if valid_mask is None:
            valid_mask = torch.ones(features.shape[:2], dtype=torch.bool)
        hidden = self.dropout(self.first(features).tanh())
        hidden = self.second(hidden)
        weights = valid_mask.unsqueeze(-1).to(hidden.dtype)
        return ((hidden * weights).sum(dim=1) / weights.sum(dim=1)).float()

    def layer_groups(self) -> list[list[nn.Module]]:
        return [[self.first], [self.second]]

    def portable_options(self) -> EchoOptions:
        return self.options


def build(options: EchoOptions, modality: Any) -> EchoEncoder:
    return EchoEncoder(options)
