from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest
from modalbind_audio.world import N_SAMPLES, SAMPLE_RATE_HZ, render

from modalbind.world import ATTRIBUTES, Scene, SceneObject, build_scenes

SCENE = Scene((SceneObject("flute", 2, "medium"),), "centre", "near", "warm")


def with_object(**values: object) -> Scene:
    return dataclasses.replace(SCENE, objects=(dataclasses.replace(SCENE.objects[0], **values),))


def sound(scene: Scene, seed: int = 0) -> np.ndarray:
    return render(scene, seed)[0]


def level_db(waveform: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(np.square(waveform, dtype=float))))


def test_shape_type_range_and_determinism() -> None:
    for scene in build_scenes("train", 60):
        waveform, rate = render(scene, 1)
        assert rate == SAMPLE_RATE_HZ == 16000
        assert waveform.shape == (N_SAMPLES,)
        assert waveform.dtype == np.float32
        assert 0.01 < np.abs(waveform).max() < 1.0
        np.testing.assert_array_equal(waveform, sound(scene, 1))


def test_the_last_event_ends_inside() -> None:
    scene = Scene(
        (SceneObject("trumpet", 4, "big"), SceneObject("bee", 4, "big")), "left", "near", "cold"
    )
    for seed in range(10):
        waveform = sound(scene, seed)
        tail = waveform[-800:]
        assert level_db(tail) < level_db(waveform) - 20


@pytest.mark.parametrize("name", ["position", "warmth"])
def test_position_and_warmth_are_not_heard(name: str) -> None:
    waveforms = [
        sound(dataclasses.replace(SCENE, **{name: value}), 3) for value in ATTRIBUTES[name]
    ]
    np.testing.assert_array_equal(waveforms[0], waveforms[1])
    np.testing.assert_array_equal(waveforms[0], waveforms[2])


def test_another_seed_sounds_different() -> None:
    assert np.abs(sound(SCENE, 1) - sound(SCENE, 2)).max() > 0.05


def test_size_is_pitch() -> None:
    peaks = {}
    for size in ATTRIBUTES["size"]:
        spectrum = np.abs(np.fft.rfft(sound(with_object(size=size))))
        peaks[size] = np.fft.rfftfreq(N_SAMPLES, 1 / SAMPLE_RATE_HZ)[spectrum.argmax()]
    assert peaks["small"] > 1.8 * peaks["medium"] > 3.2 * peaks["big"]


@pytest.mark.parametrize("kind", ATTRIBUTES["kind"])
def test_count_is_the_number_of_events(kind: str) -> None:
    # Counted from the envelope: moments at which a smoothed level crosses a threshold upwards.
    for count in ATTRIBUTES["count"]:
        envelope = np.abs(sound(with_object(kind=kind, count=count)))
        envelope = np.convolve(envelope, np.ones(1280) / 1280, mode="same")
        loud = envelope > 0.3 * envelope.max()
        assert np.count_nonzero(loud[1:] & ~loud[:-1]) == count


def test_distance_is_level_and_reverberation() -> None:
    # A room passes a pure tone at random, so levels are means over several rooms.
    scenes = [dataclasses.replace(SCENE, distance=distance) for distance in ATTRIBUTES["distance"]]
    sounds = [[sound(scene, seed) for seed in range(8)] for scene in scenes]
    levels = [np.mean([level_db(waveform) for waveform in row]) for row in sounds]
    assert levels[0] > levels[1] + 6
    assert levels[1] > levels[2] + 6
    # Energy in the gap between the two events, against the whole: only a room fills the gap.
    gaps = [np.mean([level_db(w[4200:4800]) - level_db(w) for w in row]) for row in sounds]
    assert gaps[1] > gaps[0] + 10


def test_kinds_have_their_own_timbre() -> None:
    def profile(kind: str) -> np.ndarray:
        spectra = [
            np.abs(np.fft.rfft(sound(with_object(kind=kind, size=size), seed)))[:16000]
            for size in ATTRIBUTES["size"]
            for seed in range(3)
        ]
        octave_bands = np.mean(spectra, axis=0).reshape(-1, 100).mean(axis=1)
        return octave_bands / np.linalg.norm(octave_bands)

    profiles = np.stack([profile(kind) for kind in ATTRIBUTES["kind"]])
    likeness = profiles @ profiles.T - np.eye(len(profiles))
    assert likeness.max() < 0.98


def test_both_groups_are_heard_and_rendering_is_fast() -> None:
    scene = Scene(
        (SceneObject("drum", 1, "big"), SceneObject("flute", 2, "small")), "left", "near", "cold"
    )
    alone = dataclasses.replace(scene, objects=scene.objects[:1])
    assert level_db(sound(scene)) > level_db(sound(alone)) + 1
    started = time.process_time()
    for seed in range(20):
        render(scene, seed)
    assert (time.process_time() - started) / 20 < 0.05
