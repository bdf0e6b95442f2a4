from __future__ import annotations

import pickle

import numpy as np
import pytest
import soundfile
import torch
from modalbind_audio.modality import AudioModality, build
from modalbind_audio.options import AudioOptions
from modalbind_audio.reading import Waveform
from modalbind_audio.tables import Frames

from modalbind.api import BrokenSampleError, InputError


@pytest.fixture
def table_root(tmp_path):
    frames = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float16)
    np.savez(
        tmp_path / "frames.npz",
        frames=frames,
        offsets=np.array([0, 10, 30]),
        paths=np.array(["sounds/a.ogg", "sounds/b.ogg"]),
    )
    return tmp_path


def table_modality() -> AudioModality:
    return build(AudioOptions(features="table", table="frames.npz"))


@pytest.mark.parametrize(("features", "shape"), [("fbank", (398, 128)), ("waveform", (64_000,))])
def test_features(features, shape, sound_files):
    modality = build(AudioOptions(features=features))
    sample = modality.load(sound_files["flac"], "noise.flac")
    assert modality.features(sample).shape == shape
    assert torch.equal(modality.features(sample), modality.features(sample))


def test_describe_gives_duration_and_level(sound_files, noise):
    modality = build(AudioOptions())
    found = modality.describe(modality.load(sound_files["wav"], "noise.wav"))
    level_db = 10 * np.log10((noise.astype(np.float64) ** 2).mean())
    assert found == {
        "duration_s": pytest.approx(4.0),
        "level_db": pytest.approx(level_db, abs=0.01),
    }


def test_table_needs_no_sound_files(table_root):
    modality = table_modality()
    sample = modality.load(table_root / "sounds/b.ogg", "sounds/b.ogg")
    assert modality.features(sample).shape == (20, 4)
    assert modality.describe(sample) == {"duration_s": pytest.approx(1.6)}
    with pytest.raises(BrokenSampleError, match="missing"):
        modality.load(table_root / "sounds/c.ogg", "sounds/c.ogg")


def test_pickles_without_open_tables(table_root):
    modality = table_modality()
    path, key = table_root / "sounds/a.ogg", "sounds/a.ogg"
    sample = modality.load(path, key)
    data = pickle.dumps(modality)
    assert len(data) < 5000
    assert torch.equal(pickle.loads(data).load(path, key).frames, sample.frames)


def test_windows_cover_a_long_sample():
    modality = build(AudioOptions(window_s=2.0, hop_s=1.5))
    sample = Waveform(torch.arange(16_000 * 6.2))
    windows = modality.windows(sample)
    assert [(start, end) for start, end, _ in windows] == [
        (0.0, 2.0),
        (1.5, 3.5),
        (3.0, 5.0),
        (pytest.approx(4.2), pytest.approx(6.2)),
    ]
    for start, _, window in windows:
        assert window.samples.shape == (32_000,)
        assert window.samples[0] == round(start * 16_000)
    assert windows[-1][2].samples[-1] == sample.samples[-1]


def test_windows_by_default_overlap_by_half_and_short_samples_stay_whole():
    modality = build(AudioOptions(window_s=2.0))
    assert [start for start, _, _ in modality.windows(Waveform(torch.zeros(16_000 * 4)))] == [
        0,
        1,
        2,
    ]
    short = Waveform(torch.zeros(8000))
    assert modality.windows(short) == [(0.0, 0.5, short)]


def write_click(path, count, first, last, amplitude=0.5):
    """Write silence with a noise in the samples `first` to `last`."""
    samples = np.zeros(count, np.float32)
    samples[first : last + 1] = amplitude * np.sign(np.arange(last + 1 - first) % 2 - 0.5)
    soundfile.write(path, samples, 16_000, subtype="FLOAT")


def test_trimming_leaves_silence_out_and_remembers_where_the_sound_was(tmp_path):
    write_click(tmp_path / "late.wav", 48_000, 16_000, 39_999)
    modality = build(AudioOptions(trim_below_db=-80, window_s=1.0, hop_s=0.5))
    sample = modality.load(tmp_path / "late.wav", "late.wav")
    assert sample.samples.shape == (24_000,)
    assert modality.describe(sample)["duration_s"] == pytest.approx(1.5)
    windows = modality.windows(sample)
    assert [(start, end) for start, end, _ in windows] == [(1.0, 2.0), (1.5, 2.5)]
    short = build(AudioOptions(trim_below_db=-80)).windows(sample)
    assert [(start, end) for start, end, _ in short] == [(1.0, 2.5)]
    whole = build(AudioOptions()).load(tmp_path / "late.wav", "late.wav")
    assert whole.samples.shape == (48_000,)


def test_trimming_keeps_what_is_all_silence_or_above_the_level(tmp_path):
    modality = build(AudioOptions(trim_below_db=-60))
    soundfile.write(tmp_path / "silence.wav", np.zeros(800, np.float32), 16_000)
    assert modality.load(tmp_path / "silence.wav", "s").samples.shape == (800,)
    for amplitude, kept in ((1.1e-3, 200), (0.9e-3, 1000)):  # -60 dB is an amplitude of 0.001
        write_click(tmp_path / "c.wav", 1000, 300, 499, amplitude)
        assert modality.load(tmp_path / "c.wav", "c").samples.shape == (kept,)


def test_windows_of_frames():
    modality = build(AudioOptions(features="table", table="t.npz", window_s=0.8))
    windows = modality.windows(Frames(torch.zeros(25, 4), 80.0))
    assert [window.frames.shape[0] for _, _, window in windows] == [10, 10, 10, 10]
    assert windows[-1][1] == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("sample", "found"),
    [
        (np.zeros(16_000, np.float32), "ndarray"),
        (torch.zeros(16_000), "Tensor"),
        (None, "NoneType"),
        (Waveform(torch.zeros(44_100), 44_100), "a Waveform at 44100 Hz"),
    ],
)
def test_what_is_no_sound_is_refused_in_one_sentence(sample, found):
    modality = build(AudioOptions())
    for use in (modality.windows, modality.features):
        with pytest.raises(InputError, match=f"a sound asked for; found {found}; give .* 16000 Hz"):
            use(sample)


def test_content_hash_follows_bytes_and_reading(sound_files):
    path = sound_files["wav"]
    first = build(AudioOptions()).content_hash(path, "noise.wav")
    assert len(first) == 32
    assert build(AudioOptions()).content_hash(path, "elsewhere.wav") == first
    for changes in ({"channels": "left"}, {"trim_below_db": -80}):
        assert build(AudioOptions(**changes)).content_hash(path, "noise.wav") != first
    # Features are made later, so their options are no part of the sample's content.
    assert build(AudioOptions(mels=64)).content_hash(path, "noise.wav") == first
    path.write_bytes(path.read_bytes()[:-2] + b"\1\1")
    assert build(AudioOptions()).content_hash(path, "noise.wav") != first


def test_content_hash_of_frames_and_of_nothing(table_root):
    modality = table_modality()
    hashes = {
        modality.content_hash(table_root / key, key) for key in ("sounds/a.ogg", "sounds/b.ogg")
    }
    assert len(hashes) == 2
    with pytest.raises(BrokenSampleError, match="missing"):
        build(AudioOptions()).content_hash(table_root / "none.wav", "none.wav")


def test_one_sample_is_enough(tmp_path):
    soundfile.write(tmp_path / "click.wav", np.array([0.5], np.float32), 16_000)
    for features, shape in (("fbank", (16, 128)), ("waveform", (2800,))):
        modality = build(AudioOptions(features=features))
        sample = modality.load(tmp_path / "click.wav", "click.wav")
        assert modality.features(sample).shape == shape
