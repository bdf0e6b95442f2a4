from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from modalbind_audio.options import AudioOptions
from modalbind_audio.reading import load_waveform, resample

from modalbind.api import BrokenSampleError

OPTIONS = AudioOptions()


def write(path: Path, samples: np.ndarray, rate_hz: int = 16_000, subtype: str = "FLOAT") -> Path:
    soundfile.write(path, samples, rate_hz, subtype=subtype)
    return path


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "opus", "mp3"])
def test_reads_every_format(suffix, sound_files, noise):
    waveform = load_waveform(sound_files[suffix], OPTIONS)
    assert waveform.sample_rate_hz == 16_000
    assert waveform.samples.dtype == torch.float32
    assert waveform.samples.shape == (64_000,)
    assert waveform.duration_s == pytest.approx(4.0)
    # Lossy codecs keep the level, lossless ones the samples.
    tolerance = 1e-4 if suffix in ("wav", "flac") else 0.05
    rms = waveform.samples.square().mean().sqrt().item()
    assert rms == pytest.approx(float(np.sqrt((noise**2).mean())), rel=0.15, abs=tolerance)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "opus", "mp3"])
def test_finds_cut_files(suffix, share, sound_files, tmp_path):
    data = sound_files[suffix].read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(BrokenSampleError) as caught:
        load_waveform(cut, OPTIONS)
    assert caught.value.reason == "truncated"


def test_names_what_is_broken(tmp_path):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "junk.wav").write_bytes(b"this is no sound" * 100)
    write(tmp_path / "nothing.wav", np.zeros(0, np.float32))
    write(tmp_path / "nan.wav", np.array([0.1, np.nan, 0.1], np.float32))
    expected = {
        "absent.wav": "missing",
        "empty.wav": "empty",
        "junk.wav": "undecodable",
        "nothing.wav": "empty",
        "nan.wav": "not_finite",
    }
    found = {}
    for name in expected:
        with pytest.raises(BrokenSampleError) as caught:
            load_waveform(tmp_path / name, OPTIONS)
        found[name] = caught.value.reason
    assert found == expected


def test_silence_is_a_sample(tmp_path):
    path = write(tmp_path / "silence.wav", np.zeros(1600, np.float32))
    assert load_waveform(path, OPTIONS).samples.abs().max() == 0


def test_bounds(tmp_path):
    long = write(tmp_path / "long.wav", np.zeros(16_000 * 3, np.float32))
    with pytest.raises(BrokenSampleError, match="too_long"):
        load_waveform(long, AudioOptions(max_duration_s=2))
    wide = write(tmp_path / "wide.wav", np.zeros((1600, 4), np.float32))
    with pytest.raises(BrokenSampleError, match="4 channels"):
        load_waveform(wide, AudioOptions(max_channels=2))


@pytest.mark.parametrize(("channels", "value"), [("mean", 0.3), ("left", 0.2), ("right", 0.4)])
def test_stereo_policy(channels, value, tmp_path):
    stereo = np.full((800, 2), [0.2, 0.4], np.float32)
    path = write(tmp_path / "stereo.wav", stereo)
    samples = load_waveform(path, AudioOptions(channels=channels)).samples
    assert torch.allclose(samples, torch.full((800,), value))


def test_right_of_mono_is_mono(tmp_path):
    path = write(tmp_path / "mono.wav", np.full(800, 0.2, np.float32))
    samples = load_waveform(path, AudioOptions(channels="right")).samples
    assert torch.allclose(samples, torch.full((800,), 0.2))


@pytest.mark.parametrize("rate_hz", [8_000, 44_100, 48_000])
def test_resampling_keeps_a_tone(rate_hz, tmp_path):
    seconds = np.arange(rate_hz) / rate_hz
    path = write(tmp_path / "tone.wav", (0.5 * np.sin(2 * np.pi * 440 * seconds)), rate_hz)
    samples = load_waveform(path, OPTIONS).samples
    assert samples.shape == (16_000,)
    expected = 0.5 * torch.sin(2 * torch.pi * 440 * torch.arange(16_000) / 16_000)
    assert (samples - expected)[400:-400].abs().max() < 2e-3


def test_resample_at_the_same_rate_is_free():
    samples = torch.randn(100)
    assert resample(samples, 16_000) is samples
