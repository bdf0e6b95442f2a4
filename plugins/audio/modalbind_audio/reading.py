"""Read sound files: bounded, checked, mono, 16 kHz.

Features are made in `features`; this module knows nothing about encoders.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile
import torch
import torchaudio
from torch import Tensor

from modalbind.api import BrokenSampleError
from modalbind_audio.completeness import find_missing
from modalbind_audio.options import SAMPLE_RATE_HZ, AudioOptions

_BLOCK_FRAMES = 1 << 18  # decoded at once: bounds memory whatever the header claims


@dataclass(frozen=True, slots=True)
class Waveform:
    """Mono sound.

    Attributes:
        samples: Float32 `(samples,)`, finite, nominally in -1..1.
        sample_rate_hz: Samples per second; 16 000 for everything that this plugin reads.
        start_s: Where in its file it starts, in seconds.
    """

    samples: Tensor
    sample_rate_hz: int = SAMPLE_RATE_HZ
    start_s: float = 0.0

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.samples.shape[0] / self.sample_rate_hz


def load_waveform(path: Path, options: AudioOptions) -> Waveform:
    """Decode one sound file to mono at 16 kHz.

    A file of digital silence is a sample like any other; a file without a single frame is not.

    Args:
        path: wav, flac, ogg (Vorbis, Opus) or mp3.
        options: Stereo policy and bounds.

    Raises:
        BrokenSampleError: With reason `missing`, `empty`, `truncated`, `undecodable`,
            `not_finite` or `too_long`.
    """
    _check_file(path)
    try:
        samples, rate_hz = _decode(path, options)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        # A cut flac fails in the decoder; its header is whole, so it was once a sound file.
        reason = "truncated" if "lost sync" in str(error) else "undecodable"
        raise BrokenSampleError(reason, f"{path.name}: {error}") from error
    if not np.isfinite(samples).all():
        raise BrokenSampleError("not_finite", f"{path.name} holds NaN or infinite samples")
    return Waveform(resample(torch.from_numpy(samples), rate_hz))


def resample(samples: Tensor, rate_hz: int) -> Tensor:
    """Bring `(..., samples)` from `rate_hz` to 16 kHz by windowed sinc interpolation."""
    if rate_hz == SAMPLE_RATE_HZ:
        return samples
    resampled: Tensor = _resampler(rate_hz)(samples)
    return resampled


@lru_cache(maxsize=16)  # the filter costs more than its use on a short clip
def _resampler(rate_hz: int) -> torch.nn.Module:
    module: torch.nn.Module = torchaudio.transforms.Resample(rate_hz, SAMPLE_RATE_HZ)
    return module


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise BrokenSampleError("missing", f"{path} is not a file")
    if path.stat().st_size == 0:
        raise BrokenSampleError("empty", f"{path.name} has no bytes")
    missing = find_missing(path)
    if missing:
        raise BrokenSampleError("truncated", f"{path.name}: {missing}")


def _decode(path: Path, options: AudioOptions) -> tuple[np.ndarray, int]:
    with soundfile.SoundFile(path) as file:
        if file.channels > options.max_channels:
            raise BrokenSampleError(
                "undecodable",
                f"{path.name} has {file.channels} channels, limit {options.max_channels}",
            )
        limit = int(options.max_duration_s * file.samplerate)
        if file.frames == 0:
            raise BrokenSampleError("empty", f"{path.name} has no samples")
        blocks, count = [], 0
        # Blocks, because a header may claim any length, or none (a stream).
        while len(block := file.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)):
            count += len(block)
            if count > limit:
                raise BrokenSampleError(
                    "too_long", f"{path.name} is longer than {options.max_duration_s:g} s"
                )
            blocks.append(_to_mono(block, options.channels))
        if count == 0:
            raise BrokenSampleError("empty", f"{path.name} has no samples")
        if count < file.frames and file.seekable():
            raise BrokenSampleError(
                "truncated", f"{path.name}: header says {file.frames} samples, {count} decoded"
            )
        return np.concatenate(blocks), file.samplerate


def _to_mono(block: np.ndarray, channels: str) -> np.ndarray:
    """Reduce `(frames, channels)` to `(frames,)`."""
    if channels == "mean":
        mono: np.ndarray = block.mean(axis=1)
        return mono
    column = 0 if channels == "left" else min(1, block.shape[1] - 1)
    return np.ascontiguousarray(block[:, column])
