"""Renders a scene of the generated world as sound: two seconds, mono, 16 kHz.

Kind is timbre, count the number of events, size the pitch (small is high), distance level and
reverberation. Position and warmth are not heard. A noise floor, the moments at which events begin,
slight detuning and which group sounds first are nuisance. Letters: `f` a frequency in Hz, `t` time
in seconds from the start of an event.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 16000
N_SAMPLES = 32768  # 2.048 s; a power of two, so reverberation is one cheap circular convolution
EVENT_S = 0.13
GAP_S = 0.09
GROUP_GAP_S = 0.1

Array: TypeAlias = NDArray[Any]
_PITCH_HZ = {"small": 1150.0, "medium": 480.0, "big": 200.0}
_LEVEL_DB = {"near": -4.0, "mid": -14.0, "far": -25.0}
_WET = {"near": 0.0, "mid": 0.4, "far": 0.75}
# A body's resonance tells its kind whatever its pitch, as with real instruments and animals.
_BODY_HZ = {
    "bell": 6500.0,
    "drum": 330.0,
    "trumpet": 900.0,
    "flute": 2450.0,
    "bird": 4700.0,
    "frog": 460.0,
    "bee": 3400.0,
    "dog": 1250.0,
    "cat": 640.0,
    "clock": 1750.0,
}
_BODY_LEVEL = 0.6
_REVERB_DECAY_S = 0.08
_FLOOR_DB = -62.0
_TIME = np.arange(int(EVENT_S * SAMPLE_RATE_HZ), dtype=np.float32) / SAMPLE_RATE_HZ
_TAU = np.float32(2 * np.pi)


class Thing(Protocol):
    """What is read of a group of things."""

    kind: str
    count: int
    size: str


class Scene(Protocol):
    """What is read of a scene of the generated world."""

    @property
    def objects(self) -> Sequence[Thing]:
        """One or two groups of things."""

    @property
    def distance(self) -> str:
        """`near`, `mid` or `far`."""


def render(scene: Scene, seed: int = 0) -> tuple[Array, int]:
    """Return the sound of a scene as `(waveform, sample_rate_hz)`.

    The waveform is float32 `(N_SAMPLES,)` in -1..1; same scene and seed, same samples.
    """
    rng = np.random.default_rng([_heard(scene), seed])
    dry = np.zeros(N_SAMPLES, np.float32)
    start_s = 0.05 + rng.uniform(0.0, 0.05)
    for index in rng.permutation(len(scene.objects)):
        thing = scene.objects[index]
        start_s = _add_group(dry, thing, start_s, rng) + GROUP_GAP_S
    waveform = _reverberate(dry, _WET[scene.distance], rng)
    waveform *= _gain(_LEVEL_DB[scene.distance] + rng.uniform(-1.0, 1.0))
    waveform += _gain(_FLOOR_DB) * rng.standard_normal(N_SAMPLES, dtype=np.float32)
    return waveform.clip(-1.0, 1.0), SAMPLE_RATE_HZ


def _heard(scene: Scene) -> int:
    """Hash what is heard, so that scenes that sound alike sound exactly alike."""
    things = [(thing.kind, thing.count, thing.size) for thing in scene.objects]
    return zlib.crc32(repr((things, scene.distance)).encode())


def _add_group(dry: Array, thing: Thing, start_s: float, rng: np.random.Generator) -> float:
    """Add the events of one group; returns when the last one ends."""
    f = _PITCH_HZ[thing.size] * rng.uniform(0.96, 1.04)
    event = _TIMBRES[thing.kind](f, _TIME, rng).astype(np.float32)
    body = _band_noise(_BODY_HZ[thing.kind], 0.1, len(event), rng) * np.exp(-_TIME / 0.05)
    event = event / np.abs(event).max() + _BODY_LEVEL * body / np.abs(body).max()
    event *= _fade() * (0.5 / float(np.abs(event).max()))
    for _ in range(thing.count):
        begin = int((start_s + rng.uniform(-0.012, 0.012)) * SAMPLE_RATE_HZ)
        dry[begin : begin + len(event)] += event * np.float32(rng.uniform(0.85, 1.0))
        start_s += EVENT_S + GAP_S
    return start_s


def _reverberate(dry: Array, wet: float, rng: np.random.Generator) -> Array:
    """Mix in a room of exponentially decaying noise."""
    if wet == 0:
        return dry
    t = np.arange(N_SAMPLES // 4, dtype=np.float32) / SAMPLE_RATE_HZ
    room = rng.standard_normal(len(t), dtype=np.float32) * np.exp(-t / _REVERB_DECAY_S)
    room /= np.linalg.norm(room)
    spectrum = np.fft.rfft(dry) * np.fft.rfft(room, N_SAMPLES)
    tail = np.fft.irfft(spectrum, N_SAMPLES).astype(np.float32)
    return (1 - wet) * dry + wet * tail


def _gain(level_db: float) -> np.float32:
    return np.float32(10 ** (level_db / 20))


def _fade() -> Array:
    """Fade an event in and out over 5 ms, against clicks."""
    return np.asarray(
        np.minimum(1, np.minimum(_TIME, _TIME[-1] - _TIME) / 0.005).astype(np.float32)
    )


def _tone(f: float, t: Array, partials: Sequence[tuple[float, float]]) -> Array:
    """Sum sines at multiples of `f`, given as (multiple, amplitude); none above 7.5 kHz."""
    kept = [(multiple, level) for multiple, level in partials if multiple * f < 7500]
    return sum(
        (level * np.sin(_TAU * multiple * f * t) for multiple, level in kept), np.zeros_like(t)
    )


def _band_noise(f: float, width_octaves: float, n: int, rng: np.random.Generator) -> Array:
    """Return `n` samples of noise around `f`, a bell curve over octaves."""
    noise = np.fft.rfft(rng.standard_normal(n))
    octaves = np.log2(np.maximum(np.fft.rfftfreq(n, 1 / SAMPLE_RATE_HZ), 1) / f)
    return np.fft.irfft(noise * np.exp(-((octaves / width_octaves) ** 2)), n)


def _sweep(f_of_t: Array) -> Array:
    """Return the phase of a tone whose frequency moves."""
    return (_TAU / SAMPLE_RATE_HZ * np.cumsum(f_of_t)).astype(np.float32)


def _bell(f: float, t: Array, rng: np.random.Generator) -> Array:
    """Stretched partials that ring out."""
    return _tone(f, t, [(1, 1), (2.76, 0.8), (5.4, 0.6), (8.93, 0.4)]) * np.exp(-t / 0.06)


def _drum(f: float, t: Array, rng: np.random.Generator) -> Array:
    """A thump that falls in pitch, with a stroke of noise."""
    stroke = rng.standard_normal(len(t), dtype=np.float32) * np.exp(-t / 0.008)
    return np.asarray(
        np.sin(_sweep(f * (0.5 + 0.7 * np.exp(-t / 0.02)))) * np.exp(-t / 0.04) + 0.5 * stroke
    )


def _trumpet(f: float, t: Array, rng: np.random.Generator) -> Array:
    """All harmonics, held, swelling in."""
    return _tone(f, t, [(k, 1 / k**0.6) for k in range(1, 13)]) * np.minimum(1, t / 0.04)


def _flute(f: float, t: Array, rng: np.random.Generator) -> Array:
    """One pure tone, held."""
    return _tone(f, t, [(1, 1), (2, 0.05)]) * np.minimum(1, t / 0.03)


def _bird(f: float, t: Array, rng: np.random.Generator) -> Array:
    """A pure tone that rises by more than an octave."""
    return np.sin(_sweep(f * (1 + 1.5 * t / EVENT_S))) * np.sin(np.pi * t / EVENT_S)


def _frog(f: float, t: Array, rng: np.random.Generator) -> Array:
    """Harmonics cut into pulses, 35 a second."""
    return _tone(f, t, [(1, 1), (2, 0.8), (3, 0.6), (4, 0.4)]) * (np.sin(_TAU * 35 * t) > 0)


def _bee(f: float, t: Array, rng: np.random.Generator) -> Array:
    """Odd harmonics whose pitch trembles widely."""
    phase = _sweep(f * (1 + 0.12 * np.sin(_TAU * 28 * t)))
    return sum((np.sin(k * phase) / k for k in (1, 3, 5, 7) if k * f < 6500), np.zeros_like(t))


def _dog(f: float, t: Array, rng: np.random.Generator) -> Array:
    """A burst of noise around the pitch."""
    band = _band_noise(f, 0.35, len(t), rng)
    return np.asarray(band * np.exp(-t / 0.07) * np.minimum(1, t / 0.01), np.float32)


def _cat(f: float, t: Array, rng: np.random.Generator) -> Array:
    """Two harmonics that fall slowly by an octave."""
    phase = _sweep(f * 1.5 * 2 ** (-t / EVENT_S))
    return np.asarray((np.sin(phase) + 0.7 * np.sin(2 * phase)) * np.sin(np.pi * t / EVENT_S))


def _clock(f: float, t: Array, rng: np.random.Generator) -> Array:
    """Two short clicks, tick high and tock lower."""
    tock_t = np.maximum(t - 0.05, 0)
    tick = np.sin(_TAU * 3 * f * t) * np.exp(-t / 0.006)
    tock = np.sin(_TAU * 2 * f * tock_t) * np.exp(-tock_t / 0.006)
    return np.asarray(tick + tock, np.float32)


_TIMBRES: dict[str, Callable[[float, Array, np.random.Generator], Array]] = {
    "bell": _bell,
    "drum": _drum,
    "trumpet": _trumpet,
    "flute": _flute,
    "bird": _bird,
    "frog": _frog,
    "bee": _bee,
    "dog": _dog,
    "cat": _cat,
    "clock": _clock,
}
