from __future__ import annotations

import copy

import modalbind_audio
import numpy as np
import pytest
import soundfile
import torch
from modalbind_audio import augment
from modalbind_audio.modality import build as build_modality
from modalbind_audio.options import (
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
from modalbind_audio.reading import Waveform
from modalbind_audio.tables import Frames

from modalbind.api import AnchorSide, InputError, PairBatch

AUDIO = build_modality(AudioOptions())
TABLE = build_modality(AudioOptions(features="table", table="frames.npz"))
SPECS = {spec.name: spec for spec in modalbind_audio.modalbind_augmentations()}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sound(count: int = 32_000) -> Waveform:
    return Waveform(0.1 * torch.randn(count, generator=generator(7)))


def batch(rows: int = 6, lengths: tuple[int, ...] | None = None) -> PairBatch:
    features = torch.randn(rows, 20, 128, generator=generator(8))
    valid_mask = None
    if lengths is not None:
        valid_mask = torch.arange(20) < torch.tensor(lengths).unsqueeze(1)
        features = features * valid_mask.unsqueeze(-1)
    excluded = torch.zeros(rows, rows, dtype=torch.bool)
    excluded[0, 1] = excluded[1, 0] = True
    side = AnchorSide("text", torch.eye(rows), torch.eye(rows), excluded)
    return PairBatch(features, valid_mask, (side,), tuple(map(str, range(rows))))


def values(result) -> torch.Tensor:
    if isinstance(result, PairBatch):
        return torch.cat([result.features.flatten(), result.sides[0].positives.flatten()])
    if isinstance(result, Frames):
        return result.frames
    return result.samples if isinstance(result, Waveform) else result


@pytest.mark.parametrize("name", SPECS)
def test_seeded_pure_and_alone_with_its_generator(name):
    spec = SPECS[name]
    function = getattr(augment, spec.build.partition(":")[2])(spec.options(), AUDIO)
    argument = {"sample": sound(), "features": torch.randn(200, 128), "batch": batch()}[spec.stage]
    before = copy.deepcopy(values(argument))
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    results = [values(function(argument, generator(seed))) for seed in (0, 0, *range(1, 7))]
    assert torch.equal(results[0], results[1])
    assert any(
        result.shape != results[0].shape or not torch.equal(result, results[0])
        for result in results[2:]
    )
    assert torch.equal(values(argument), before)
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy_state).all()


def test_truncation_keeps_a_stretch():
    function = augment.build_random_truncate(RandomTruncateOptions(min_s=0.5, max_s=1.0), AUDIO)
    ramp = Waveform(torch.arange(32_000.0))
    starts = set()
    for seed in range(20):
        part = function(ramp, generator(seed)).samples
        assert 8000 <= len(part) <= 16_000
        assert torch.equal(part, torch.arange(part[0], part[0] + len(part)))
        starts.add(part[0].item())
    assert len(starts) > 10
    short = Waveform(torch.zeros(4000))
    assert function(short, generator()) is short
    frames = Frames(torch.arange(100.0).unsqueeze(1), 80.0)
    assert 6 <= len(function(frames, generator()).frames) <= 13


def test_short_samples_are_repeated_if_asked():
    options = RandomTruncateOptions(min_s=0.5, max_s=0.5, repeat=True)
    function = augment.build_random_truncate(options, AUDIO)
    short = Waveform(torch.arange(3000.0))
    starts = set()
    for seed in range(8):
        found = function(short, generator(seed)).samples
        assert found.shape == (8000,)
        steps = found.diff()
        assert ((steps == 1) | (steps == -2999)).all()
        starts.add(found[0].item())
    assert len(starts) > 4
    frames = Frames(torch.arange(4.0).unsqueeze(1), 80.0)
    assert function(frames, generator()).frames.shape == (6, 1)


def test_time_shift_only_moves():
    function = augment.build_time_shift(TimeShiftOptions(max_s=0.1), AUDIO)
    ramp = Waveform(torch.arange(32_000.0))
    for seed in range(10):
        shifted = function(ramp, generator(seed)).samples
        assert torch.equal(shifted.sort().values, ramp.samples)
        where = int(shifted.argmin())
        assert min(where, 32_000 - where) <= 1600


def test_gain_in_db():
    function = augment.build_gain(GainOptions(low_db=6, high_db=6), AUDIO)
    ratio = function(sound(), generator()).samples / sound().samples
    assert torch.allclose(ratio, torch.tensor(10 ** (6 / 20)))


def test_equaliser_gives_each_tone_one_gain_and_draws_it_in_db():
    function = augment.build_equalise(EqualiseOptions(std_db=4.0, points=2), AUDIO)
    time = torch.arange(16_000) / 16_000
    gains_db = []
    for seed in range(300):
        # With two points the gain is the first at 0 Hz and the second at 8 kHz.
        for frequency_hz in (1.0, 7990.0):
            tone = torch.sin(2 * torch.pi * frequency_hz * time)
            out = function(Waveform(tone), generator(seed)).samples
            ratio = (out.square().mean() / tone.square().mean()).sqrt()
            likeness = torch.cosine_similarity(out, tone, dim=0)
            assert likeness > 0.999, "a tone stays a tone, in phase"
            gains_db.append(20 * ratio.log10().item())
    low, high = np.array(gains_db).reshape(-1, 2).T
    assert [low.std(), high.std()] == pytest.approx([4.0, 4.0], rel=0.15)
    assert abs(np.corrcoef(low, high)[0, 1]) < 0.15


def test_equaliser_is_linear_in_mel_between_its_points():
    draw = generator(5)
    gains_db = 3.0 * torch.randn(3, generator=draw)
    function = augment.build_equalise(EqualiseOptions(std_db=3.0, points=3), AUDIO)
    top_mel = 1127 * np.log(1 + 8000 / 700)
    frequency_hz = round(700 * (np.exp(0.75 * top_mel / 1127) - 1))  # midway between the last two
    tone = torch.sin(2 * torch.pi * frequency_hz * torch.arange(16_000) / 16_000)
    out = function(Waveform(tone), generator(5)).samples
    found_db = 10 * torch.log10(out.square().mean() / tone.square().mean())
    assert found_db.item() == pytest.approx(float(gains_db[1] + gains_db[2]) / 2, abs=0.01)


@pytest.mark.parametrize("color", ["white", "pink"])
def test_noise_at_the_ratio_asked_for(color):
    options = NoiseOptions(color=color, low_db=10, high_db=10)
    clean = sound()
    added = augment.build_noise(options, AUDIO)(clean, generator()).samples - clean.samples
    ratio_db = 10 * torch.log10(clean.samples.square().mean() / added.square().mean())
    assert ratio_db.item() == pytest.approx(10, abs=0.01)
    power = torch.fft.rfft(added).abs().square()
    octaves = [power[k : 2 * k].mean().log10().item() * 10 for k in (1000, 2000, 4000, 8000)]
    falls = np.diff(octaves)
    assert falls == pytest.approx([-3.0 if color == "pink" else 0.0] * 3, abs=0.5)


def test_noise_from_a_folder(tmp_path):
    soundfile.write(tmp_path / "hum.wav", np.full(1000, 0.5, np.float32), 16_000)
    options = NoiseOptions(folder=str(tmp_path), low_db=0, high_db=0)
    clean = sound()
    added = augment.build_noise(options, AUDIO)(clean, generator()).samples - clean.samples
    assert torch.allclose(added, added[0].expand_as(added), atol=1e-6)
    (tmp_path / "hum.wav").unlink()
    with pytest.raises(InputError, match="no sound file"):
        augment.build_noise(options, AUDIO)


def test_noise_leaves_silence_and_its_share():
    silence = Waveform(torch.zeros(100))
    assert augment.build_noise(NoiseOptions(), AUDIO)(silence, generator()).samples.abs().max() == 0
    clean = sound()
    rarely = augment.build_noise(NoiseOptions(share=0.0), AUDIO)
    assert rarely(clean, generator()) is clean


def test_speed_changes_length_and_pitch():
    tone = Waveform(torch.sin(2 * torch.pi * 400 * torch.arange(16_000) / 16_000))
    fast = augment.build_speed(SpeedOptions(factors=(1.25,)), AUDIO)(tone, generator()).samples
    assert len(fast) == 12_800
    peak = torch.fft.rfft(fast).abs().argmax().item() * 16_000 / 12_800
    assert peak == pytest.approx(500, abs=2)


@pytest.mark.parametrize(("factor", "count"), [(0.5, 22), (1.0, 11), (1.1, 10), (4.0, 3)])
def test_speed_of_frames_interpolates_them(factor, count):
    line = torch.stack([torch.arange(11.0), -2 * torch.arange(11.0)], dim=1)
    function = augment.build_speed(SpeedOptions(factors=(factor,)), TABLE)
    found = function(Frames(line, 80.0), generator())
    assert (found.frames.shape, found.frame_ms) == ((count, 2), 80.0)
    # A straight line stays one, from the first frame to the last.
    torch.testing.assert_close(found.frames[:, 0], torch.linspace(0, 10, count))
    torch.testing.assert_close(found.frames[:, 1], torch.linspace(0, -20, count))
    one = Frames(torch.ones(1, 2), 80.0)
    assert function(one, generator()).frames.shape[0] >= 1


def test_spec_augment_masks_within_its_bounds():
    options = SpecAugmentOptions(time_masks=1, time_mask_s=0.3, freq_masks=1, freq_mask_mels=10)
    function = augment.build_spec_augment(options, AUDIO)
    for seed in range(20):
        masked = function(torch.ones(200, 128), generator(seed)) == 0
        stretch, band = masked.all(1).sum(), masked.all(0).sum()
        assert stretch <= 30 and band <= 10
        assert masked.sum() == stretch * 128 + band * 200 - stretch * band
    short = function(torch.ones(20, 128), generator())
    assert (short == 0).all(1).sum() <= 5


def test_mixup_by_loop():
    function = augment.build_mixup(MixupOptions(alpha=1.0, share=0.7), AUDIO)
    given = batch(lengths=(20, 15, 10, 5, 20, 8))
    mixed = function(given, generator())
    side, old = mixed.sides[0], given.sides[0]
    assert torch.allclose(side.positives.sum(1), torch.ones(6))
    for row in range(6):
        share = side.positives[row, row].item()
        others = [j for j in range(6) if j != row and side.positives[row, j] > 0]
        if not others:  # unmixed, or its own partner
            assert torch.equal(mixed.features[row], given.features[row])
            assert torch.equal(mixed.valid_mask[row], given.valid_mask[row])
            assert torch.equal(side.excluded[row], old.excluded[row])
            continue
        (other,) = others
        for time in range(20):
            here, there = given.valid_mask[row, time], given.valid_mask[other, time]
            own, its = given.features[row, time], given.features[other, time]
            expected = share * own + (1 - share) * its if here and there else own + its
            torch.testing.assert_close(mixed.features[row, time], expected)
            assert mixed.valid_mask[row, time] == (here or there)
        for column in range(6):
            left_out = old.excluded[row, column] or old.excluded[other, column]
            expected = bool(left_out and side.positives[row, column] == 0)
            assert side.excluded[row, column] == expected
    assert mixed.samples == given.samples


def test_mixup_of_powers():
    function = augment.build_mixup(MixupOptions(domain="power"), AUDIO)
    given = batch()
    mixed = function(given, generator())

    def power(features: torch.Tensor) -> torch.Tensor:
        return (features.double() * 2 * 6.55582 + 15.41663).exp()

    positives = mixed.sides[0].positives.double()
    for row in range(6):
        expected = sum(positives[row, j] * power(given.features[j]) for j in range(6))
        torch.testing.assert_close(power(mixed.features[row]), expected, rtol=1e-4, atol=1e-6)
    assert torch.isfinite(mixed.features).all()


def test_mixup_with_rows_that_have_no_anchor():
    given = batch()
    positives = torch.eye(6)
    positives[2:] = 0
    side = AnchorSide("image", torch.eye(6), positives, torch.zeros(6, 6, dtype=torch.bool))
    function = augment.build_mixup(MixupOptions(), AUDIO)
    both = PairBatch(given.features, None, (given.sides[0], side), given.samples)
    total = function(both, generator()).sides[1].positives.sum(1)
    assert all(value == pytest.approx(1) or value == 0 for value in total.tolist())


def test_refuses_what_makes_no_sense():
    for build, options in (
        (augment.build_gain, GainOptions()),
        (augment.build_noise, NoiseOptions()),
        (augment.build_equalise, EqualiseOptions()),
    ):
        with pytest.raises(InputError, match="table"):
            build(options, TABLE)
    waves = build_modality(AudioOptions(features="waveform"))
    with pytest.raises(InputError, match="fbank"):
        augment.build_spec_augment(SpecAugmentOptions(), waves)
    with pytest.raises(InputError, match="log-mel"):
        augment.build_mixup(MixupOptions(domain="power"), TABLE)
