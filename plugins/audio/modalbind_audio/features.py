"""From a waveform to what an encoder sees: Kaldi log-mel, normalised as BEATs does.

No learned weights, no padding, no batches. Letters: `time` frames, `mels` filters.
"""

from __future__ import annotations

import torch
import torchaudio.compliance.kaldi as kaldi
from torch import Tensor
from torch.nn import functional as F

from modalbind_audio.options import SAMPLE_RATE_HZ, AudioOptions

FRAME_LENGTH_MS = 25.0  # Kaldi's default, and BEATs'
MIN_FRAMES = 16  # one patch of BEATs


def min_samples(options: AudioOptions) -> int:
    """Return how many samples 16 log-mel frames need (2 800, i.e. 175 ms, by default)."""
    span_ms = FRAME_LENGTH_MS + (MIN_FRAMES - 1) * options.frame_shift_ms
    return round(span_ms * SAMPLE_RATE_HZ / 1000)


def pad_to(samples: Tensor, count: int) -> Tensor:
    """Append zeros to `(samples,)` until there are `count`; longer ones pass as they are."""
    return F.pad(samples, (0, max(0, count - samples.shape[-1])))


def compute_fbank(samples: Tensor, options: AudioOptions) -> Tensor:
    """Normalised log-mel energies of one waveform at 16 kHz.

    Args:
        samples: Float32 `(samples,)`. Fewer than 16 frames need are padded with zeros at the
            end: a sound may be short, but an encoder has to get one patch.
        options: Mel filters, frame shift, window, scale, floor and statistics.

    Returns:
        Float32 `(time, mels)`: `(log-mel - mean) / (2 * std)`.

    Source:
        Kaldi's `compute-fbank-feats`; scale and statistics from the BEATs reference code,
        `BEATs.preprocess` (microsoft/unilm). The deviation enters twice, as in AST.
    """
    scaled = pad_to(samples, min_samples(options)).unsqueeze(0) * options.fbank_scale
    log_mel: Tensor = kaldi.fbank(
        scaled,
        num_mel_bins=options.mels,
        sample_frequency=float(SAMPLE_RATE_HZ),
        frame_length=FRAME_LENGTH_MS,
        frame_shift=options.frame_shift_ms,
        window_type=options.fbank_window,
    )
    if options.fbank_floor is not None:
        log_mel = log_mel.clamp_min(options.fbank_floor)
    return (log_mel - options.fbank_mean) / (2 * options.fbank_std)


def compute_level_db(samples: Tensor) -> float:
    """Root mean square level in dB relative to full scale, -120 for silence."""
    rms = samples.to(torch.float64).square().mean().sqrt().clamp_min(1e-6)
    return float(20 * torch.log10(rms))
