from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn


class Block(nn.Module):
    def __init__(self, width: int, shared: nn.Embedding) -> None:
        super().__init__()
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        self.norm = nn.BatchNorm1d(width)
        self.dropout = nn.Dropout(0.3)
        # As BEATs does: one table under a name in every layer.
        self.table = shared

    def forward(self, hidden: Tensor) -> Tensor:
        gate = torch.sigmoid(self.q_proj(hidden)) + self.table.weight.mean()
        update = self.dropout(self.out_proj(gate * hidden))
        return self.norm((hidden + update).transpose(1, 2)).transpose(1, 2)


class ToyEncoder(nn.Module):
    """Three layers, shared parameters, dropout, running statistics, and a parameter in no layer."""

    width = 6
    lora_targets = ("q_proj", "out_proj")

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(4, self.width)
        self.gain = nn.Parameter(torch.ones(self.width))
        table = nn.Embedding(5, 2)
        self.layers = nn.ModuleList(Block(self.width, table) for _ in range(3))

    def forward(self, features: Tensor, valid_mask: Tensor | None) -> Tensor:
        hidden = self.stem(features) * self.gain  # (n, time, width)
        for layer in self.layers:
            hidden = layer(hidden)
        if valid_mask is None:
            return hidden.mean(dim=1)
        weights = valid_mask.to(hidden.dtype).unsqueeze(-1)
        return (hidden * weights).sum(dim=1) / weights.sum(dim=1)

    def layer_groups(self) -> list[list[nn.Module]]:
        return [[self.stem, self.layers[0]], [self.layers[1]], [self.layers[2]]]


@pytest.fixture
def encoder() -> ToyEncoder:
    torch.manual_seed(0)
    return ToyEncoder()


@pytest.fixture
def features() -> Tensor:
    return torch.randn(5, 7, 4, generator=torch.Generator().manual_seed(1))
