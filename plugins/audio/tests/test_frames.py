from __future__ import annotations

import pytest
import torch
from modalbind_audio.frames import FrameEncoder, build
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


def test_takes_log_mel_too():
    model = build(FramesOptions(width=16), build_modality(AudioOptions(mels=64)))
    assert model(torch.zeros(2, 20, 64), None).shape == (2, model.width)


def test_refuses_other_features():
    with pytest.raises(ShapeError, match="12"):
        encoder()(torch.zeros(1, 4, 13), None)
    with pytest.raises(InputError, match="waveform"):
        build(FramesOptions(), build_modality(AudioOptions(features="waveform")))
