from __future__ import annotations

import pytest
import torch
from modalbind_audio.modality import build as build_modality
from modalbind_audio.options import AudioOptions, StatisticsOptions
from modalbind_audio.statistics import StatisticsEncoder, build

from modalbind.api import InputError, ShapeError

TABLE = build_modality(AudioOptions(features="table", table="frames.npz"))


def encoder(**changes) -> StatisticsEncoder:
    return build(StatisticsOptions(**({"inputs": 3} | changes)), TABLE)


@pytest.mark.parametrize("segments", [1, 3])
def test_padding_order_and_size_of_the_batch_change_nothing(segments, kit):
    draw = torch.Generator().manual_seed(1)
    clips = [torch.randn(length, 3, generator=draw) for length in (1, 30, 7, 12)]
    kit.check_encoder(encoder(segments=segments), clips, atol=2e-6)


def test_statistics_by_numpy():
    clip = torch.randn(9, 3)
    found = encoder()(clip.unsqueeze(0), None)[0]
    expected = [clip.numpy().mean(0), clip.numpy().std(0), clip.numpy().max(0), clip.numpy().min(0)]
    torch.testing.assert_close(found, torch.cat([torch.from_numpy(part) for part in expected]))


def test_each_stretch_has_its_own():
    clip = torch.randn(12, 3)
    found = encoder(segments=4, statistics=("max", "mean"))(clip.unsqueeze(0), None)[0]
    thirds = clip.view(4, 3, 3)
    torch.testing.assert_close(
        found, torch.cat([thirds.amax(1).flatten(), thirds.mean(1).flatten()])
    )


def test_width_is_what_it_returns_and_nothing_trains():
    model = encoder(segments=2, statistics=("min",))
    assert model(torch.zeros(2, 5, 3), None).shape == (2, model.width)
    assert not list(model.parameters())
    assert model.layer_groups() == []


def test_takes_log_mel_and_refuses_others():
    assert build(StatisticsOptions(), build_modality(AudioOptions(mels=64))).width == 4 * 64
    with pytest.raises(ShapeError, match="3"):
        encoder()(torch.zeros(1, 4, 5), None)
    with pytest.raises(InputError, match="waveform"):
        build(StatisticsOptions(), build_modality(AudioOptions(features="waveform")))
