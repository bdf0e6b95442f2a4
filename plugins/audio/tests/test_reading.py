from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from modalbind_audio import reading
from modalbind_audio.features import compute_fbank
from modalbind_audio.options import AudioOptions
from modalbind_audio.reading import (
    MAX_RATE_HZ,
    MIN_RATE_HZ,
    _nearest_ratio,
    load_waveform,
    resample,
)

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
    with pytest.raises(BrokenSampleError, match=r"too_long.*modality\.options\.max_duration_s"):
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


def measure_tone(samples: torch.Tensor) -> tuple[float, float]:
    """Return frequency in Hz and root mean square in dB of a lone tone at 16 kHz."""
    middle = samples[1600:-1600].numpy().astype(np.float64)
    spectrum = np.log(np.abs(np.fft.rfft(middle * np.hanning(len(middle)))))
    peak = int(spectrum.argmax())
    left, top, right = spectrum[peak - 1 : peak + 2]  # a parabola through them has its top there
    bins = peak + 0.5 * (left - right) / (left - 2 * top + right)
    return bins * 16_000 / len(middle), 10 * np.log10((middle**2).mean())


@pytest.mark.parametrize("rate_hz", [1_009, 5_513, 11_127, 16_006, 22_255, 47_999, 767_999])
def test_odd_rates_cost_no_more_and_keep_a_tone(rate_hz, tmp_path):
    tone_hz = min(3_000.0, rate_hz / 4)
    seconds = np.arange(2 * rate_hz) / rate_hz
    tone = 0.5 * np.sin(2 * np.pi * tone_hz * seconds)
    path = write(tmp_path / "tone.wav", tone.astype(np.float32), rate_hz)
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    samples = load_waveform(path, OPTIONS).samples
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
    assert grown_kib < 600 * 1024
    found_hz, level_db = measure_tone(samples)
    assert found_hz == pytest.approx(tone_hz, rel=4e-4)
    assert level_db == pytest.approx(20 * np.log10(0.5) - 10 * np.log10(2), abs=0.1)
    assert samples.shape[0] == pytest.approx(32_000, rel=4e-4)


def test_every_rate_is_taken_for_one_close_by_with_a_small_filter():
    rates_hz = [*range(MIN_RATE_HZ, MAX_RATE_HZ + 1, 211), *range(15_000, 17_000)]
    for rate_hz in rates_hz:
        ratio = _nearest_ratio(rate_hz)
        assert abs(ratio * 16_000 / rate_hz - 1) < 3.5e-4
        assert ratio.numerator * ratio.denominator <= 1.001 * 2**21


@pytest.mark.parametrize("rate_hz", [5_512, 8_000, 11_025, 14_400, 17_600, 22_050, 44_100, 48_000])
def test_common_rates_are_resampled_as_ever(rate_hz):
    samples = torch.randn(rate_hz // 4, generator=torch.Generator().manual_seed(0))
    expected = torchaudio.transforms.Resample(rate_hz, 16_000)(samples)
    assert torch.equal(resample(samples, rate_hz), expected)


@pytest.mark.parametrize("rate_hz", [8_000, 22_050, 37_800, 44_100, 48_000])
def test_pieces_of_a_long_recording_join_without_a_seam(rate_hz, monkeypatch):
    samples = torch.randn(2, 100_003, generator=torch.Generator().manual_seed(0))
    whole = torchaudio.transforms.Resample(rate_hz, 16_000)(samples)
    monkeypatch.setattr(reading, "_PIECE_SAMPLES", 9_000)
    found = resample(samples, rate_hz)
    assert found.shape == whole.shape
    assert torch.allclose(found, whole, atol=1e-6)


@pytest.mark.parametrize("rate_hz", [999, 768_001, 2_000_000_000])
def test_implausible_rates_are_refused(rate_hz, tmp_path):
    path = write(tmp_path / "odd.wav", np.zeros(100, np.float32), rate_hz)
    with pytest.raises(BrokenSampleError, match=f"undecodable: .* {rate_hz} samples a second"):
        load_waveform(path, OPTIONS)


@pytest.mark.parametrize("value", [1.01e6, -1e38, 1e13])
def test_values_whose_features_overflow_are_refused(value, tmp_path):
    samples = np.array([0.1, value, 0.1], np.float32)
    path = write(tmp_path / "loud.wav", samples)
    with pytest.raises(BrokenSampleError, match=r"not_finite: loud\.wav reaches") as caught:
        load_waveform(path, OPTIONS)
    assert caught.value.reason == "not_finite"


def test_the_loudest_that_is_read_has_finite_features(tmp_path):
    rng = np.random.default_rng(0)
    path = write(tmp_path / "loud.wav", np.sign(rng.normal(size=16_000)).astype(np.float32) * 1e6)
    assert compute_fbank(load_waveform(path, OPTIONS).samples, OPTIONS).isfinite().all()


def test_whatever_the_decoder_raises_has_a_reason(tmp_path):
    (tmp_path / "headerless.raw").write_bytes(bytes(1000))  # a TypeError of soundfile
    (tmp_path / "stub.ogg").write_bytes(b"OggS" * 2)  # an IndexError on the last page
    for name in ("headerless.raw", "stub.ogg"):
        with pytest.raises(BrokenSampleError) as caught:
            load_waveform(tmp_path / name, OPTIONS)
        assert caught.value.reason in ("undecodable", "truncated")


def test_what_memory_cannot_hold_has_a_reason(tmp_path, monkeypatch):
    path = write(tmp_path / "a.wav", np.zeros(100, np.float32))

    def refuse(blocks):
        raise MemoryError

    monkeypatch.setattr(np, "concatenate", refuse)
    with pytest.raises(BrokenSampleError, match=r"undecodable: a\.wav: MemoryError"):
        load_waveform(path, OPTIONS)


def test_resample_at_the_same_rate_is_free():
    samples = torch.randn(100)
    assert resample(samples, 16_000) is samples
