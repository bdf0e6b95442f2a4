"""Augmentations of sound: of samples, of their features, and of batches.

Each is a frozen callable `(value, generator) -> value` that leaves its argument as it is and
takes all randomness from that `torch.Generator`; who seeds it (by sample and epoch) decides
what is drawn, whichever worker runs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torchaudio.functional as audio
from torch import Generator, Tensor

from modalbind.api import AnchorSide, InputError, Modality, PairBatch
from modalbind_audio.fitting import audio_options
from modalbind_audio.modality import Sample, cut, sample_values
from modalbind_audio.options import (
    SAMPLE_RATE_HZ,
    AudioOptions,
    EqualiseOptions,
    GainOptions,
    MixupOptions,
    NoiseOptions,
    RandomTruncateOptions,
    SpecAugmentOptions,
    SpeedOptions,
    TimeShiftOptions,
)
from modalbind_audio.reading import Waveform, load_waveform, resample
from modalbind_audio.tables import Frames


def _uniform(generator: Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))


def _integer(generator: Generator, count: int) -> int:
    """Draw from `0 .. count - 1`."""
    return int(torch.randint(count, (), generator=generator))


def _check_waveforms(name: str, modality: Modality) -> None:
    if audio_options(modality).features == "table":
        raise InputError(
            f"augmentation {name!r} needs waveforms; the modality reads frames from a table; "
            "leave it out"
        )


@dataclass(frozen=True)
class RandomTruncate:
    """Keeps a random stretch of a sample; shorter samples pass whole, or are repeated."""

    options: RandomTruncateOptions

    def __call__(self, sample: Sample, generator: Generator) -> Sample:
        """Draw a length, then where it starts."""
        values, step_s = sample_values(sample)
        length_s = _uniform(generator, self.options.min_s, self.options.max_s)
        size = max(1, round(length_s / step_s))
        spare = values.shape[0] - size
        if spare < 0 and self.options.repeat:
            return _repeat(sample, size, _integer(generator, values.shape[0]))
        if spare <= 0:
            return sample
        start = _integer(generator, spare + 1)
        return cut(sample, start, start + size)


def _repeat(sample: Sample, size: int, start: int) -> Sample:
    """Return `size` steps of a sample played over and over, from its step `start` on."""
    values, _ = sample_values(sample)
    steps = torch.arange(start, start + size) % values.shape[0]
    if isinstance(sample, Frames):
        return Frames(values[steps], sample.frame_ms)
    return Waveform(values[steps], sample.sample_rate_hz)


def build_random_truncate(options: RandomTruncateOptions, modality: Modality) -> RandomTruncate:
    """Factory named by the plugin's `AugmentationSpec`."""
    audio_options(modality)
    return RandomTruncate(options)


@dataclass(frozen=True)
class TimeShift:
    """Rolls a sample in time: what leaves at one end enters at the other."""

    options: TimeShiftOptions

    def __call__(self, sample: Sample, generator: Generator) -> Sample:
        """Draw the shift."""
        values, step_s = sample_values(sample)
        total = values.shape[0]
        limit = self.options.max_s
        most = total // 2 if limit is None else min(round(limit / step_s), total // 2)
        rolled = values.roll(_integer(generator, 2 * most + 1) - most, dims=0)
        if isinstance(sample, Frames):
            return Frames(rolled, sample.frame_ms)
        return Waveform(rolled, sample.sample_rate_hz)


def build_time_shift(options: TimeShiftOptions, modality: Modality) -> TimeShift:
    """Factory named by the plugin's `AugmentationSpec`."""
    audio_options(modality)
    return TimeShift(options)


@dataclass(frozen=True)
class Gain:
    """Makes a sound louder or softer; nothing is clipped."""

    options: GainOptions

    def __call__(self, sample: Waveform, generator: Generator) -> Waveform:
        """Draw the gain in dB."""
        gain_db = _uniform(generator, self.options.low_db, self.options.high_db)
        return Waveform(sample.samples * 10 ** (gain_db / 20), sample.sample_rate_hz)


def build_gain(options: GainOptions, modality: Modality) -> Gain:
    """Factory named by the plugin's `AugmentationSpec`."""
    _check_waveforms("gain", modality)
    return Gain(options)


@dataclass(frozen=True)
class Noise:
    """Adds white or pink noise, or a stretch of a file from a folder; silence stays silent."""

    options: NoiseOptions
    files: tuple[Path, ...] = ()

    def __call__(self, sample: Waveform, generator: Generator) -> Waveform:
        """Draw whether, how loud, and which noise."""
        if _uniform(generator, 0, 1) >= self.options.share:
            return sample
        snr_db = _uniform(generator, self.options.low_db, self.options.high_db)
        noise = self._draw(sample.samples.shape[0], generator)
        signal_power, noise_power = sample.samples.square().mean(), noise.square().mean()
        if noise_power == 0:
            return sample
        factor = (signal_power / noise_power / 10 ** (snr_db / 10)).sqrt()
        return Waveform(sample.samples + factor * noise, sample.sample_rate_hz)

    def _draw(self, count: int, generator: Generator) -> Tensor:
        if self.files:
            noise = _noise_file(self.files[_integer(generator, len(self.files))])
            start = _integer(generator, noise.shape[0])
            return noise.roll(-start).repeat(math.ceil(count / noise.shape[0]))[:count]
        white = torch.randn(count, generator=generator)
        return white if self.options.color == "white" else _to_pink(white)


def _to_pink(white: Tensor) -> Tensor:
    """Shape white noise so that its power falls by 3 dB an octave."""
    spectrum = torch.fft.rfft(white)
    bins = torch.arange(len(spectrum), dtype=torch.float32).clamp_min(1)
    pink: Tensor = torch.fft.irfft(spectrum / bins.sqrt(), n=white.shape[0])
    return pink


@lru_cache(maxsize=64)
def _noise_file(path: Path) -> Tensor:
    return load_waveform(path, AudioOptions()).samples


def build_noise(options: NoiseOptions, modality: Modality) -> Noise:
    """Factory named by the plugin's `AugmentationSpec`.

    Raises:
        InputError: If the folder has no sound file.
    """
    _check_waveforms("noise", modality)
    if options.folder is None:
        return Noise(options)
    suffixes = {".flac", ".mp3", ".oga", ".ogg", ".opus", ".wav"}
    files = sorted(
        path for path in Path(options.folder).rglob("*") if path.suffix.lower() in suffixes
    )
    if not files:
        raise InputError(f"noise from {options.folder}; no sound file there; name another folder")
    return Noise(options, tuple(files))


@dataclass(frozen=True)
class Speed:
    """Plays a sample faster or slower: sounds by resampling, frames by linear interpolation.

    A sound's pitch changes with its length; what the frames of a frozen encoder say of pitch stays.
    """

    options: SpeedOptions

    def __call__(self, sample: Sample, generator: Generator) -> Sample:
        """Draw the factor."""
        factor = self.options.factors[_integer(generator, len(self.options.factors))]
        if isinstance(sample, Frames):
            return Frames(_stretch(sample.frames, factor), sample.frame_ms)
        # Hundredths keep the ratio of the two rates, and so the filter, small.
        rate_hz = round(factor * 100) * (SAMPLE_RATE_HZ // 100)
        return Waveform(resample(sample.samples, rate_hz), sample.sample_rate_hz)


def _stretch(frames: Tensor, factor: float) -> Tensor:
    """Interpolate `(time, width)` to `time / factor` frames; the first and the last stay."""
    size = max(1, round(len(frames) / factor))
    if size == len(frames):
        return frames
    curves = frames.T.unsqueeze(0).float()  # (1, width, time)
    stretched = torch.nn.functional.interpolate(curves, size, mode="linear", align_corners=True)
    return stretched[0].T.to(frames.dtype)


def build_speed(options: SpeedOptions, modality: Modality) -> Speed:
    """Factory named by the plugin's `AugmentationSpec`."""
    audio_options(modality)
    return Speed(options)


@dataclass(frozen=True)
class Equalise:
    """Filters a sound by a random smooth curve, as another room or microphone would.

    The gain in dB is drawn at points evenly spaced in mel, and linear between them; the phase
    stays as it is.

    Source:
        The idea and the domain are those of FilterAugment (2022, arXiv 2110.03282), its `linear`
        type; gains here are normal instead of uniform, and points even instead of random.
    """

    options: EqualiseOptions

    def __call__(self, sample: Waveform, generator: Generator) -> Waveform:
        """Draw the gains."""
        gains_db = self.options.std_db * torch.randn(self.options.points, generator=generator)
        spectrum = torch.fft.rfft(sample.samples)
        left, share = _between_points(len(spectrum), self.options.points)
        curve_db = torch.lerp(gains_db[left], gains_db[left + 1], share)
        filtered = torch.fft.irfft(spectrum * 10 ** (curve_db / 20), n=sample.samples.shape[0])
        return Waveform(filtered, sample.sample_rate_hz)


@lru_cache(maxsize=64)
def _between_points(bins: int, points: int) -> tuple[Tensor, Tensor]:
    """Where each bin of a spectrum up to 8 kHz lies between points evenly spaced in mel.

    Returns:
        The point below it, int64 `(bins,)`, and how far it is towards the next, 0..1.
    """
    frequency_hz = torch.linspace(0, SAMPLE_RATE_HZ / 2, bins)
    mel = torch.log1p(frequency_hz / 700)  # Kaldi's scale but for a factor
    place = mel / mel[-1].clamp_min(1e-9) * (points - 1)
    left = place.floor().long().clamp_max(points - 2)
    return left, place - left


def build_equalise(options: EqualiseOptions, modality: Modality) -> Equalise:
    """Factory named by the plugin's `AugmentationSpec`."""
    _check_waveforms("equalise", modality)
    return Equalise(options)


@dataclass(frozen=True)
class SpecAugment:
    """Sets random stretches of time and bands of frequency to zero, the normalised mean.

    Source:
        Park et al. 2019, SpecAugment (arXiv 1904.08779), without time warping.
    """

    options: SpecAugmentOptions
    time_frames: int

    def __call__(self, features: Tensor, generator: Generator) -> Tensor:
        """Mask `(time, width)`; same shape."""
        seed = _integer(generator, 2**62)
        # torchaudio masks with torch's global generator: lend it one seeded from ours.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return self._mask(features)

    def _mask(self, features: Tensor) -> Tensor:
        masked = features
        for _ in range(self.options.time_masks):
            masked = audio.mask_along_axis(
                masked, self.time_frames, 0.0, axis=0, p=self.options.max_time_share
            )
        for _ in range(self.options.freq_masks):
            masked = audio.mask_along_axis(masked, self.options.freq_mask_mels, 0.0, axis=1)
        return masked


def build_spec_augment(options: SpecAugmentOptions, modality: Modality) -> SpecAugment:
    """Factory named by the plugin's `AugmentationSpec`.

    Raises:
        InputError: If features are waveforms, which have no bands.
    """
    audio = audio_options(modality)
    if audio.features == "waveform":
        raise InputError(
            "augmentation 'spec_augment' masks time and frequency; features are waveforms; "
            "leave it out or set modality.options.features=fbank"
        )
    frame_ms = audio.table_frame_ms if audio.features == "table" else audio.frame_shift_ms
    return SpecAugment(options, round(1000 * options.time_mask_s / frame_ms))


@dataclass(frozen=True)
class Mixup:
    """Mixes each row with another of the batch, and their targets in the same shares.

    Where only one of the two clips still sounds, that one is heard alone.

    Source:
        Zhang et al. 2018, mixup (arXiv 1710.09412); a share is drawn for each row.
    """

    options: MixupOptions
    mean: float
    scale: float

    def __call__(self, batch: PairBatch, generator: Generator) -> PairBatch:
        """Draw partners and shares; return a new batch of the same shapes."""
        rows = batch.features.shape[0]
        partner = torch.randperm(rows, generator=generator)
        # torch has no public Beta that takes a generator; numpy's is seeded from ours.
        numpy_draw = np.random.default_rng(_integer(generator, 2**62))
        share = torch.from_numpy(numpy_draw.beta(self.options.alpha, self.options.alpha, rows))
        is_mixed = torch.rand(rows, generator=generator) < self.options.share
        share = torch.where(is_mixed, share, 1.0).to(batch.features)
        partner = partner.to(batch.features.device)
        features, valid_mask = self._mix(batch, partner, share)
        return replace(
            batch,
            features=features,
            valid_mask=valid_mask,
            sides=tuple(_mix_targets(side, partner, share) for side in batch.sides),
        )

    def _mix(
        self, batch: PairBatch, partner: Tensor, share: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        own, other = batch.features, batch.features[partner]
        weight = share.view(-1, *[1] * (own.ndim - 1))
        mixed = self._add(own, other, weight)
        if batch.valid_mask is None:
            return mixed, None
        # An unmixed row keeps its own length.
        here = batch.valid_mask
        there = here[partner] & (share < 1).unsqueeze(1)
        fit = [*here.shape, *[1] * (own.ndim - 2)]
        mixed = torch.where(here.view(fit), own, 0.0).where(~there.view(fit), mixed)
        mixed = torch.where((there & ~here).view(fit), other, mixed)
        return mixed, here | there

    def _add(self, own: Tensor, other: Tensor, weight: Tensor) -> Tensor:
        if self.options.domain == "features":
            return weight * own + (1 - weight) * other
        log_own = own * self.scale + self.mean + weight.log()
        log_other = other * self.scale + self.mean + (1 - weight).log()
        return (torch.logaddexp(log_own, log_other) - self.mean) / self.scale


def _mix_targets(side: AnchorSide, partner: Tensor, share: Tensor) -> AnchorSide:
    weight = share.to(side.positives).unsqueeze(1)
    positives = weight * side.positives + (1 - weight) * side.positives[partner]
    # A row without an anchor on this side lends nothing: what is left is the whole target.
    total = positives.sum(1, keepdim=True)
    positives = positives / total.where(total > 0, 1.0)
    is_other_mixed = (weight < 1) & side.excluded[partner]
    excluded = (side.excluded | is_other_mixed) & (positives == 0)
    return replace(side, positives=positives, excluded=excluded)


def build_mixup(options: MixupOptions, modality: Modality) -> Mixup:
    """Factory named by the plugin's `AugmentationSpec`.

    Raises:
        InputError: If powers are to be mixed and features are not log-mel.
    """
    audio = audio_options(modality)
    if options.domain == "power" and audio.features != "fbank":
        raise InputError(
            f"mixup of powers needs log-mel; features are {audio.features}; set domain=features"
        )
    return Mixup(options, audio.fbank_mean, 2 * audio.fbank_std)
