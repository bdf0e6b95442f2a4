from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from modalbind.api import NoOptions
from modalbind_sonar.modality import WIDTH


class LentEncoder(nn.Module):
    lora_targets = ("project",)
    width = 16

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.project = nn.Linear(WIDTH, self.width)
        if weights:
            self.project.load_state_dict(weights)

    def forward(self, features: Tensor, valid_mask: Tensor | None) -> Tensor:
        if valid_mask is None:
            valid_mask = torch.ones(features.shape[:2], dtype=torch.bool)
        weights = valid_mask.unsqueeze(-1).float()
        return (self.project(features).float() * weights).sum(dim=1) / weights.sum(dim=1)

    def layer_groups(self) -> list[list[nn.Module]]:
        return [[self.project]]

    def portable_options(self) -> NoOptions:
        return NoOptions()


def build(options: NoOptions, modality: Any, exported: Path | None) -> LentEncoder:
    return LentEncoder({} if exported is None else load_file(exported))
