from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from modalbind_audio import positions
from modalbind_audio.positions import PositionalConv
from torch import Tensor
from torch.nn import functional as F


def convolve_plainly(layer: PositionalConv, x: Tensor) -> Tensor:
    conv, taps = layer.conv, layer.conv.weight.shape[2]
    padded = F.pad(x.transpose(1, 2), (taps // 2, taps))
    plain = F.conv1d(padded, conv.weight, conv.bias, groups=conv.groups)[..., : x.shape[1]]
    return x + F.gelu(plain).transpose(1, 2)


@pytest.mark.parametrize("many", [1, 100], ids=["frequencies", "taps"])
@pytest.mark.parametrize("kernel", [1, 2, 15, 16])
@pytest.mark.parametrize("tokens", [1, 11, 32])
def test_output_and_gradients_are_those_of_torchs_convolution(
    tokens: int, kernel: int, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(positions, "_MANY_TAPS", many)
    torch.manual_seed(0)
    layer = PositionalConv(24, kernel, 4).double()
    x = torch.randn(3, tokens, 24, dtype=torch.float64, requires_grad=True)
    inputs = [x, *layer.parameters()]
    outer = torch.randn(3, tokens, 24, dtype=torch.float64)
    found, expected = layer(x), convolve_plainly(layer, x)
    torch.testing.assert_close(found, expected)
    for ours, theirs in zip(
        torch.autograd.grad(found, inputs, outer),
        torch.autograd.grad(expected, inputs, outer),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_runs_under_mixed_precision(dtype: torch.dtype) -> None:
    layer = PositionalConv(8, 64, 2)
    x = torch.randn(2, 6, 8).to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(x)
    assert out.dtype == dtype
    out.float().sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(
        out.float(), convolve_plainly(layer, x.float()), atol=0.02, rtol=0.02
    )


def test_half_precision_as_a_whole_runs() -> None:
    layer = PositionalConv(8, 64, 2).bfloat16()
    x = torch.randn(2, 6, 8).bfloat16()
    torch.testing.assert_close(
        layer(x).float(), convolve_plainly(layer.float(), x.float()), atol=0.03, rtol=0.03
    )


def run_without_gradients(layer: PositionalConv, x: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = layer(x)
        torch.testing.assert_close(found, convolve_plainly(layer, x), atol=1e-5, rtol=1e-5)
    return found


def write_through_data(layer: PositionalConv) -> None:
    next(layer.conv.parametrizations.weight.parameters()).data.mul_(0.5)  # moves no version


def take_a_step(layer: PositionalConv) -> None:
    layer(torch.randn(1, 6, 8)).sum().backward()
    torch.optim.AdamW(layer.parameters(), lr=0.1, fused=True).step()


def load_another(layer: PositionalConv) -> None:
    layer.load_state_dict(PositionalConv(8, 64, 2).state_dict(), assign=True)


@pytest.mark.parametrize("change", [write_through_data, take_a_step, load_another])
def test_what_is_kept_for_the_next_pass_follows_the_weight(
    change: Callable[[PositionalConv], None],
) -> None:
    torch.manual_seed(0)
    layer, made = PositionalConv(8, 64, 2).eval(), []
    x = torch.randn(2, 70, 8)
    run_without_gradients(layer, x)
    handle = layer.conv.parametrizations.weight.register_forward_hook(lambda *_: made.append(1))
    with torch.no_grad():
        layer(x)
        assert not made  # kept
    handle.remove()
    change(layer)
    run_without_gradients(layer, x)
    run_without_gradients(layer.double(), x.double())
    run_without_gradients(layer.float(), x)


def test_what_is_kept_stays_here() -> None:
    layer = PositionalConv(8, 64, 2).eval()
    run_without_gradients(layer, torch.randn(1, 6, 8))
    assert all("kept" not in name for name in layer.state_dict())
    with torch.inference_mode():
        layer(torch.randn(1, 6, 8))
    layer(torch.randn(1, 6, 8)).sum().backward()


@pytest.mark.parametrize("kernel", [8, 64])
def test_the_weight_is_made_once(kernel: int) -> None:
    layer, made = PositionalConv(8, kernel, 2), []
    layer.conv.parametrizations.weight.register_forward_hook(lambda *_: made.append(1))
    layer(torch.randn(2, 6, 8))
    assert len(made) == 1
