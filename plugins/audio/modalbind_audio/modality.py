"""The modality itself: how a sound becomes a sample, and a sample becomes features."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from modalbind.api import BrokenSampleError, InputError
from modalbind_audio.features import compute_fbank, compute_level_db, min_samples, pad_to
from modalbind_audio.options import SAMPLE_RATE_HZ, AudioOptions
from modalbind_audio.reading import Waveform, load_waveform, resample
from modalbind_audio.tables import Frames, FrameTable

Sample = Waveform | Frames


def build(options: AudioOptions) -> AudioModality:
    """Factory named by the plugin's `ModalitySpec`."""
    return AudioModality(options)


class AudioModality:
    """Sound: files, generated scenes, or frames from a table.

    Attributes:
        options: As the recipe has them; encoders check that they get what they need.
        is_padded: True: all features are `(time, ...)`.
    """

    is_padded = True

    def __init__(self, options: AudioOptions) -> None:
        """Keep the options; nothing is opened yet."""
        self.options = options
        self._tables: dict[Path, FrameTable] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave open tables behind: a worker reads its own."""
        return {"options": self.options, "_tables": {}}

    @property
    def frame_ms(self) -> float:
        """Time from one step of the features to the next, in ms."""
        if self.options.features == "waveform":
            return 1000 / SAMPLE_RATE_HZ
        if self.options.features == "table":
            return self.options.table_frame_ms
        return self.options.frame_shift_ms

    def load(self, path: Path, key: str) -> Sample:
        """Read a file, or look up its frames; raises `BrokenSampleError`."""
        if self.options.table is None:
            return trim(load_waveform(path, self.options), self.options.trim_below_db)
        return self._table(path, key).load(key, self.options.table_frame_ms)

    def render(self, scene: Any, seed: int) -> Waveform:
        """Make the sound of a generated scene."""
        from modalbind_audio import world  # the renderer is needed in quick starts alone

        samples, rate_hz = world.render(scene, seed)
        waveform = Waveform(resample(torch.from_numpy(samples), rate_hz))
        return trim(waveform, self.options.trim_below_db)

    def features(self, sample: Sample) -> Tensor:
        """Return float32 `(time, mels)`, `(samples,)` or `(time, width)`.

        Sounds shorter than 16 log-mel frames (175 ms) are padded to them with zeros.

        Raises:
            InputError: If it is no sample of this modality.
        """
        values, _ = sample_values(sample)
        if isinstance(sample, Frames):
            return values
        if self.options.features == "waveform":
            return pad_to(values, min_samples(self.options))
        return compute_fbank(values, self.options)

    def windows(self, sample: Sample) -> list[tuple[float, float, Sample]]:
        """Cut into windows of `window_s`; the last one ends with the sample, so all are full.

        Times are those of the file: what was trimmed from its start counts.

        Raises:
            InputError: If it is no sample of this modality.
        """
        values, step_s = sample_values(sample)
        offset_s = sample.start_s if isinstance(sample, Waveform) else 0.0
        size = max(1, round(self.options.window_s / step_s))
        hop = max(1, round((self.options.hop_s or self.options.window_s / 2) / step_s))
        total = values.shape[0]
        if total <= size:
            return [(offset_s, offset_s + sample.duration_s, sample)]
        starts = [*range(0, total - size, hop), total - size]
        return [
            (
                offset_s + start * step_s,
                offset_s + (start + size) * step_s,
                cut(sample, start, start + size),
            )
            for start in starts
        ]

    def content_hash(self, path: Path, key: str) -> bytes:
        """Hash the bytes of the file (or frames) and the options that reading depends on."""
        options = self.options
        if options.table is not None:
            frames = self._table(path, key).get(key)
            digest = hashlib.sha256(f"{frames.dtype}{frames.shape}".encode())
            digest.update(frames.tobytes())
        elif path.is_file():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256")
        else:
            raise BrokenSampleError("missing", f"{path} is not a file")
        reading: tuple[Any, ...] = (
            options.channels,
            options.max_duration_s,
            options.max_channels,
        )
        if options.trim_below_db is not None:
            reading = (*reading, options.trim_below_db)
        digest.update(repr((SAMPLE_RATE_HZ, reading)).encode())
        return digest.digest()

    def describe(self, sample: Sample) -> Mapping[str, float]:
        """Return duration (of what trimming leaves), and level where there is a waveform.

        Raises:
            InputError: If it is no sample of this modality.
        """
        sample_values(sample)
        if isinstance(sample, Frames):
            return {"duration_s": sample.duration_s}
        return {
            "duration_s": sample.duration_s,
            "level_db": compute_level_db(sample.samples),
        }

    def _table(self, path: Path, key: str) -> FrameTable:
        # The key is the path below the data root, so what is above it is the root.
        root = path.parents[len(PurePosixPath(key).parts) - 1]
        location = root / (self.options.table or "")
        if location not in self._tables:
            self._tables[location] = FrameTable(location)
        return self._tables[location]


def trim(sample: Waveform, below_db: float | None) -> Waveform:
    """Leave out what is no louder than `below_db` (peak, re full scale) at both ends.

    Returns:
        The rest, which knows where it started; the sample itself if nothing is to be left out, or
        nothing would be left.
    """
    if below_db is None:
        return sample
    heard = torch.nonzero(sample.samples.abs() > 10 ** (below_db / 20)).squeeze(1)
    if not len(heard) or len(heard) == len(sample.samples):
        return sample
    first, last = int(heard[0]), int(heard[-1])
    start_s = sample.start_s + first / sample.sample_rate_hz
    return Waveform(sample.samples[first : last + 1], sample.sample_rate_hz, start_s)


def cut(sample: Sample, start: int, end: int) -> Sample:
    """Return steps `start` to `end` of a sample, in its own unit (samples or frames)."""
    if isinstance(sample, Frames):
        return Frames(sample.frames[start:end], sample.frame_ms)
    return Waveform(sample.samples[start:end], sample.sample_rate_hz)


def sample_values(sample: Sample) -> tuple[Tensor, float]:
    """Return `(time, ...)` values and the seconds between them.

    Raises:
        InputError: If it is neither; numbers alone do not say their rate.
    """
    if isinstance(sample, Frames):
        return sample.frames, sample.frame_ms / 1000
    if not is_mono(sample):
        raise InputError(
            f"a sound asked for; found {_describe(sample)}; give a sound file's path, or "
            f"modalbind_audio.reading.Waveform of `(samples,)` at {SAMPLE_RATE_HZ} Hz"
        )
    return sample.samples, 1 / sample.sample_rate_hz


def is_mono(sample: Any) -> bool:
    """Say whether a sample is what files are read to: one channel, at the plugin's rate."""
    if not isinstance(sample, Waveform):
        return False
    return sample.samples.ndim == 1 and sample.sample_rate_hz == SAMPLE_RATE_HZ


def _describe(sample: Any) -> str:
    if isinstance(sample, Waveform):
        channels = "" if sample.samples.ndim == 1 else f" {tuple(sample.samples.shape)}"
        return f"a Waveform{channels} at {sample.sample_rate_hz} Hz"
    return type(sample).__name__
