"""The small convolutional encoder of maps."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from modalbind.errors import InputError, ShapeError
from modalbind.maps.encoders import build_grid_map
from modalbind.maps.options import GridMapOptions


def encoder_of(size_px: int = 64, **options: Any) -> Any:
    torch.manual_seed(0)
    modality: Any = SimpleNamespace(options=SimpleNamespace(size_px=size_px))
    return build_grid_map(GridMapOptions(**options), modality)


def test_width_is_cells_times_channels() -> None:
    encoder = encoder_of(channels=(8, 16, 24), grid=3)
    assert encoder.width == 3 * 3 * 24
    assert encoder(torch.zeros(2, 1, 64, 64), None).shape == (2, 216)


def read_place(grid: int) -> float:
    """Share of the variance of a square's place that a linear readout of random weights tells."""
    draw = torch.Generator().manual_seed(0)
    places = torch.randint(0, 56, (300, 2), generator=draw)
    features = torch.zeros(300, 1, 64, 64)
    for row, (top, left) in enumerate(places.tolist()):
        features[row, 0, top : top + 8, left : left + 8] = 1
    with torch.no_grad():
        found = encoder_of(channels=(8, 8), grid=grid, layers=0).eval()(features, None)
    found, wanted = found - found[:200].mean(0), places.float() - places[:200].float().mean(0)
    ridge = found[:200].T @ found[:200] + 1e-3 * torch.eye(found.shape[1])
    guess = found[200:] @ torch.linalg.solve(ridge, found[:200].T @ wanted[:200])
    return float(1 - ((guess - wanted[200:]) ** 2).sum() / (wanted[200:] ** 2).sum())


def test_place_is_kept_by_the_grid() -> None:
    assert read_place(grid=1) < 0.5
    assert read_place(grid=4) > 0.8


def test_every_weight_learns() -> None:
    encoder = encoder_of(channels=(8, 16))
    encoder(torch.randn(3, 1, 64, 64), None).square().sum().backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in encoder.parameters())
    grouped = [p for group in encoder.layer_groups() for part in group for p in part.parameters()]
    assert len(grouped) == len(list(encoder.parameters()))


def test_other_sizes_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"takes \(n, 1, 64, 64\); found \(2, 1, 32, 64\)"):
        encoder_of()(torch.zeros(2, 1, 32, 64))
    with pytest.raises(InputError, match=r"4 by 4 cells; of 32 px its last stage leaves 2 by 2"):
        encoder_of(size_px=32)


@pytest.mark.parametrize("channels", [(), (4,), (12, 16)])
def test_channels_fit_the_groups(channels: tuple[int, ...]) -> None:
    with pytest.raises(ValueError):
        GridMapOptions(channels=channels)
