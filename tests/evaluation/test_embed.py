"""Embedding samples: windows are averaged, batches change nothing, nothing is random."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from modalbind.errors import NonFiniteError
from modalbind.evaluation.embed import embed_each, embed_samples, embed_windows

CPU = torch.device("cpu")


class Rows:
    """Samples are lists of rows of three numbers; two rows are a window."""

    is_padded = True

    def features(self, sample: Any) -> Tensor:
        return torch.tensor(sample, dtype=torch.float32)

    def windows(self, sample: Any) -> list[tuple[float, float, Any]]:
        return [(float(i), float(i + 2), sample[i : i + 2]) for i in range(0, len(sample), 2)]


class MeanTower(nn.Module):
    """Unit-norm mean over real rows, behind a dropout that would show in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.sizes: list[int] = []

    def forward(self, features: Tensor, valid_mask: Tensor) -> Tensor:
        self.sizes.append(len(features))
        weights = valid_mask.float().unsqueeze(-1)
        mean = (features * weights).sum(1) / weights.sum(1)
        return nn.functional.normalize(self.dropout(mean), dim=1)


X, Y = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]
SAMPLES = [[X, X, Y, Y], [Y], [X, X, X, X, Y], [X, Y]]


def embed(samples: Any, batch_size: int = 8, **options: Any) -> Tensor:
    return embed_samples(MeanTower(), Rows(), samples, device=CPU, batch_size=batch_size, **options)  # type: ignore[arg-type]


def test_a_long_sample_is_the_mean_of_its_windows() -> None:
    found = embed(SAMPLES)
    by_hand = torch.tensor([[1, 1, 0], [0, 1, 0], [2, 1, 0], [1, 1, 0]], dtype=torch.float32)
    assert torch.allclose(found, by_hand / by_hand.norm(dim=1, keepdim=True), atol=1e-6)


def test_without_windows_it_is_embedded_whole() -> None:
    (found,) = embed([SAMPLES[2]], use_windows=False)
    assert torch.allclose(found, torch.tensor([4.0, 1.0, 0.0]) / 17**0.5, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_batches_change_nothing_and_bound_what_runs_at_once(batch_size: int) -> None:
    tower = MeanTower()
    found = embed_samples(tower, Rows(), SAMPLES, device=CPU, batch_size=batch_size)  # type: ignore[arg-type]
    assert torch.allclose(found, embed(SAMPLES), atol=1e-6)
    assert max(tower.sizes) <= batch_size and not tower.training


def test_samples_are_read_one_batch_at_a_time() -> None:
    read: list[int] = []
    seen: list[tuple[int, int]] = []

    def samples() -> Iterator[Any]:
        for number in range(5):
            read.append(number)
            yield SAMPLES[1]

    embed(samples(), batch_size=2, on_progress=lambda done: seen.append((done, len(read))))
    assert seen == [(1, 2), (2, 2), (3, 4), (4, 4), (5, 5)]


def test_a_long_sample_waits_for_no_other() -> None:
    read: list[int] = []

    def samples() -> Iterator[Any]:
        for number, sample in enumerate([SAMPLES[1], SAMPLES[2], SAMPLES[2], SAMPLES[1]]):
            read.append(number)
            yield sample

    found = []
    for windows in embed_each(MeanTower(), Rows(), samples(), CPU, batch_size=3):  # type: ignore[arg-type]
        found.append((len(windows), len(read)))
    assert found == [(1, 2), (3, 2), (3, 3), (1, 4)]


def test_no_samples_no_embeddings() -> None:
    assert len(embed([])) == 0


def test_embeddings_that_are_not_finite_are_refused() -> None:
    with pytest.raises(NonFiniteError, match="finite embeddings"):
        embed_samples(Broken(), Rows(), SAMPLES, device=CPU, batch_size=2)  # type: ignore[arg-type]


class Broken(MeanTower):
    def forward(self, features: Tensor, valid_mask: Tensor) -> Tensor:
        return super().forward(features, valid_mask) * float("nan")


def test_windows_of_each_sample_come_back_apart() -> None:
    modality = Rows()
    cut = [modality.windows(sample) for sample in SAMPLES]
    found = embed_windows(MeanTower(), modality, cut, CPU, 3)  # type: ignore[arg-type]
    assert [len(vectors) for vectors in found] == [2, 1, 3, 1]
    assert torch.equal(found[2], torch.tensor([X, X, Y]))
