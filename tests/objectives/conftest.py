from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional


def make_unit(rows: int, dim: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(rows, dim, generator=generator, dtype=dtype), dim=1)


class Sides:
    """A rectangular batch with soft, shared and missing positives, and excluded columns."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.modality = make_unit(4, 6, seed=1, dtype=dtype)
        self.anchor = make_unit(5, 6, seed=2, dtype=dtype)
        self.positives = torch.tensor(
            [
                [1.0, 0.0, 0.0, 0.0, 0.0],
                [0.0, 0.3, 0.7, 0.0, 0.0],
                [0.0, 0.0, 1.0, 0.0, 0.0],
                [0.0, 0.0, 0.0, 0.0, 0.0],
            ],
            dtype=dtype,
        )
        self.excluded = torch.zeros(4, 5, dtype=torch.bool)
        self.excluded[0, 4] = self.excluded[2, 1] = True
        self.excluded[3] = True

    def __iter__(self):
        return iter((self.modality, self.anchor, self.positives, self.excluded))


@pytest.fixture
def sides() -> Sides:
    return Sides(torch.float64)


@pytest.fixture
def pairs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Eight ordinary pairs: row i belongs to column i."""
    nothing = torch.zeros(8, 8, dtype=torch.bool)
    return make_unit(8, 16, seed=3), make_unit(8, 16, seed=4), torch.eye(8), nothing
