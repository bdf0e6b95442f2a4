from __future__ import annotations

import numpy as np
import pytest
import torch
from modalbind_audio.features import compute_fbank, compute_level_db, min_samples, pad_to
from modalbind_audio.options import AudioOptions

OPTIONS = AudioOptions()


def kaldi_by_hand(samples: np.ndarray) -> np.ndarray:
    """Kaldi's log-mel from its definition, frame by frame, in float64."""
    frames = 1 + (len(samples) - 400) // 160
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)) ** 0.85
    mel = lambda hz: 1127 * np.log1p(hz / 700)  # noqa: E731
    edges = np.linspace(mel(20.0), mel(8000.0), 130)
    bins = mel(np.arange(256) * 16_000 / 512)
    rows = []
    for index in range(frames):
        frame = samples[index * 160 : index * 160 + 400] * 2.0**15
        frame = frame - frame.mean()
        frame = frame - 0.97 * np.concatenate([frame[:1], frame[:-1]])
        power = np.abs(np.fft.rfft(frame * window, 512)[:256]) ** 2
        energies = []
        for left, centre, right in zip(edges[:-2], edges[1:-1], edges[2:], strict=True):
            up, down = (bins - left) / (centre - left), (right - bins) / (right - centre)
            energies.append(np.clip(np.minimum(up, down), 0, None) @ power)
        rows.append(np.log(np.maximum(energies, np.finfo(np.float32).eps)))
    return (np.array(rows) - 15.41663) / (2 * 6.55582)


def test_agrees_with_kaldis_definition(noise):
    features = compute_fbank(torch.from_numpy(noise[:8000]), OPTIONS)
    assert features.shape == (48, 128)
    expected = kaldi_by_hand(noise[:8000].astype(np.float64))
    assert np.abs(features.numpy() - expected).max() < 1e-3


def test_ten_seconds_are_998_frames():
    assert compute_fbank(torch.zeros(160_000), OPTIONS).shape == (998, 128)


def test_the_deviation_enters_twice(noise):
    samples = torch.from_numpy(noise[:8000])
    plain = compute_fbank(samples, AudioOptions(fbank_mean=0.0, fbank_std=0.5))
    expected = (plain - 15.41663) / (2 * 6.55582)
    assert torch.allclose(compute_fbank(samples, OPTIONS), expected, atol=1e-5)


@pytest.mark.parametrize("count", [1, 100, 399, 2799])
def test_short_sounds_are_padded_to_sixteen_frames(count):
    samples = 0.1 * torch.randn(count)
    assert min_samples(OPTIONS) == 2800
    features = compute_fbank(samples, OPTIONS)
    assert features.shape == (16, 128)
    assert torch.equal(features, compute_fbank(pad_to(samples, 2800), OPTIONS))


def test_level():
    seconds = torch.arange(16_000) / 16_000
    assert compute_level_db(torch.ones(10)) == pytest.approx(0.0)
    assert compute_level_db(torch.sin(2 * torch.pi * 100 * seconds)) == pytest.approx(
        -3.01, abs=0.01
    )
    assert compute_level_db(torch.zeros(10)) == pytest.approx(-120.0)


def test_a_floor_raises_silence_and_nothing_else() -> None:
    rng = np.random.default_rng(3)
    samples = torch.from_numpy(rng.normal(0, 0.1, 16_000).astype(np.float32))
    samples[8000:] = 0
    options = AudioOptions(fbank_floor=10.0)
    plain, floored = compute_fbank(samples, OPTIONS), compute_fbank(samples, options)
    floor = (10.0 - OPTIONS.fbank_mean) / (2 * OPTIONS.fbank_std)
    assert torch.equal(floored, torch.maximum(plain, torch.tensor(floor)))
    assert plain.min() < floor - 1 and floored.max() == plain.max()


def test_half_precision_is_smaller_than_the_sound_of_16_bits():
    sound = torch.zeros(10 * 16_000, dtype=torch.int16)
    features = compute_fbank(sound.float(), AudioOptions()).half()
    assert features.nbytes < sound.nbytes
