"""Read sound files: bounded, checked, mono, 16 kHz.

Features are made in `features`; this module knows nothing about encoders.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
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

MIN_RATE_HZ, MAX_RATE_HZ = 1_000, 768_000
"""Sample rates outside are those of a damaged header, not of a recording."""

MAX_AMPLITUDE = 1e6
"""Times full scale. Unscaled 16-bit integers stay far below; at 1e13 a log-mel overflows."""

_BLOCK_FRAMES = 1 << 18  # decoded at once: bounds memory whatever the header claims
_PIECE_SAMPLES = 1 << 20  # resampled at once: what that takes is up to 50 times its piece
_FILTER_SIZE = 1 << 21  # numbers in a resampling filter: 8 MiB

# A cut or forged file makes the decoder, or the reader of its container, fail in any of these ways.
_DECODING_ERRORS = (
    AssertionError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


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
            `not_finite` or `too_long`. Rates below 1 kHz or above 768 kHz are `undecodable`;
            values above a million times full scale count as `not_finite`: their features might
            overflow.
    """
    try:
        _check_file(path)
        samples, rate_hz = _decode(path, options)
        _check_values(path, samples)
        return Waveform(resample(torch.from_numpy(samples), rate_hz))
    except _DECODING_ERRORS as error:
        # A cut flac fails in the decoder; its header is whole, so it was once a sound file.
        reason = "truncated" if "lost sync" in str(error) else "undecodable"
        found = " ".join(str(error).split()) or type(error).__name__
        raise BrokenSampleError(reason, f"{path.name}: {found}") from error


def resample(samples: Tensor, rate_hz: int) -> Tensor:
    """Bring `(..., samples)` from `rate_hz` to 16 kHz by windowed sinc interpolation.

    The filter of a rate that shares no large divisor with 16 kHz would be huge (11 127 Hz: 178
    million numbers). Such a rate is taken for the nearest one with a small filter. That is less
    than 0.035 % away, by which frequencies rise or fall (0.6 cents) and the length shrinks or
    grows (0.2 s in 10 minutes); all rates in common use are exact.
    """
    if rate_hz == SAMPLE_RATE_HZ:
        return samples
    ratio = _nearest_ratio(rate_hz)
    resampler = _resampler(ratio.numerator, ratio.denominator)
    # Pieces of a long recording start where an input and an output sample fall on the same time;
    # each is given more at both ends than the filter reaches (6 zeros of a sinc).
    step, reach = max(1, _PIECE_SAMPLES // ratio.numerator), 8
    pieces = []
    for start in range(0, math.ceil(samples.shape[-1] / ratio.numerator), step):
        left = max(0, start - reach)
        right = start + step + reach
        piece = resampler(samples[..., left * ratio.numerator : right * ratio.numerator])
        skip = (start - left) * ratio.denominator
        pieces.append(piece[..., skip : skip + step * ratio.denominator])
    return torch.cat(pieces, dim=-1)


def _nearest_ratio(rate_hz: int) -> Fraction:
    """Return `rate_hz` / 16 kHz, or what is nearest to it with a filter within bounds.

    The filter has about numerator * denominator numbers. With those limited to F, neighbouring
    ratios lie so close that the nearest is at most 1 / (2 * sqrt(F)) = 0.035 % away.
    """
    ratio = Fraction(rate_hz, SAMPLE_RATE_HZ)
    if ratio.numerator * ratio.denominator <= _FILTER_SIZE:
        return ratio
    return ratio.limit_denominator(math.isqrt(int(_FILTER_SIZE / ratio)))


@lru_cache(maxsize=16)  # the filter costs more than its use on a short clip
def _resampler(numerator: int, denominator: int) -> torch.nn.Module:
    module: torch.nn.Module = torchaudio.transforms.Resample(numerator, denominator)
    return module


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise BrokenSampleError("missing", f"{path} is not a file")
    if path.stat().st_size == 0:
        raise BrokenSampleError("empty", f"{path.name} has no bytes")
    missing = find_missing(path)
    if missing:
        raise BrokenSampleError("truncated", f"{path.name}: {missing}")


def _check_values(path: Path, samples: np.ndarray) -> None:
    if not np.isfinite(samples).all():
        raise BrokenSampleError("not_finite", f"{path.name} holds NaN or infinite samples")
    peak = max(samples.max(), -samples.min())
    if peak > MAX_AMPLITUDE:
        raise BrokenSampleError(
            "not_finite", f"{path.name} reaches {peak:g} times full scale, limit {MAX_AMPLITUDE:g}"
        )


def _decode(path: Path, options: AudioOptions) -> tuple[np.ndarray, int]:
    with soundfile.SoundFile(path) as file:
        if file.channels > options.max_channels:
            raise BrokenSampleError(
                "undecodable",
                f"{path.name} has {file.channels} channels, limit {options.max_channels}",
            )
        if not MIN_RATE_HZ <= file.samplerate <= MAX_RATE_HZ:
            raise BrokenSampleError(
                "undecodable",
                f"{path.name} has {file.samplerate} samples a second, not "
                f"{MIN_RATE_HZ} to {MAX_RATE_HZ}",
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
                    "too_long",
                    f"{path.name} is longer than {options.max_duration_s:g} s "
                    "(modality.options.max_duration_s)",
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
