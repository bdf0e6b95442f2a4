from __future__ import annotations

import pytest
import torch
from modalbind_audio.frames import FrameEncoder, Pooling, build, segment_weights
from modalbind_audio.modality import build as build_modality
from modalbind_audio.options import AudioOptions, FramesOptions

from modalbind.api import InputError, ShapeError

TABLE = build_modality(AudioOptions(features="table", table="frames.npz"))
KINDS = [
    {"layer": "conv", "pooling": "attentive"},
    {"layer": "conv", "pooling": "segments", "dilation": 2, "full_conv": False},
    {"layer": "transformer", "pooling": "mean_std"},
    {"layer": "transformer", "pooling": "mean"},
    {"layers": 0, "pooling": "segments"},
]


def encoder(**changes) -> FrameEncoder:
    torch.manual_seed(0)
    return build(FramesOptions(**({"inputs": 12, "width": 16, "layers": 2} | changes)), TABLE)


def clips(*lengths: int) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    return [torch.randn(length, 12, generator=draw) for length in lengths]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_padding_order_and_size_of_the_batch_change_nothing(kind, kit):
    kit.check_encoder(encoder(**kind), clips(1, 30, 7, 12), atol=2e-6)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_gradient_and_groups(kind, kit):
    model = encoder(**kind)
    kit.check_gradient(model, clips(9, 4))
    kit.check_groups(model)


def test_segments_by_loop():
    mask = torch.arange(11) < torch.tensor([[10], [3]])
    x = torch.randn(2, 11, 4)
    found = segment_weights(mask, 5) @ x
    # Ten frames in five stretches: two each.
    for part in range(5):
        torch.testing.assert_close(found[0, part], x[0, 2 * part : 2 * part + 2].mean(0))
    # Three frames in five stretches of 0.6: the second has 0.4 of frame 0 and 0.2 of frame 1.
    expected = (0.4 * x[1, 0] + 0.2 * x[1, 1]) / 0.6
    torch.testing.assert_close(found[1, 1], expected)


def test_mean_and_deviation_by_loop():
    pooling = Pooling(FramesOptions(width=8, pooling="mean_std"))
    x, mask = torch.randn(1, 6, 8), torch.arange(6).unsqueeze(0) < 4
    found = pooling(x, mask)[0]
    torch.testing.assert_close(found[:8], x[0, :4].mean(0))
    deviation = (x[0, :4].var(0, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(found[8:], deviation)


def test_takes_log_mel_too():
    model = build(FramesOptions(width=16), build_modality(AudioOptions(mels=64)))
    assert model(torch.zeros(2, 20, 64), None).shape == (2, model.width)


def test_refuses_other_features():
    with pytest.raises(ShapeError, match="12"):
        encoder()(torch.zeros(1, 4, 13), None)
    with pytest.raises(InputError, match="waveform"):
        build(FramesOptions(), build_modality(AudioOptions(features="waveform")))
