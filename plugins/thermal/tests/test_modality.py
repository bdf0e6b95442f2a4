from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from modalbind_thermal.modality import ThermalModality, build
from modalbind_thermal.options import ThermalOptions
from modalbind_thermal.reading import ThermalSample

from modalbind.api import BrokenSampleError, InputError, MapSample, ShapeError
from modalbind.world import build_scenes, render_heat

NAN = float("nan")
ROWS = [[20.0, 30.0, 10.0, 20.0]] * 4


def modality(**options) -> ThermalModality:
    return build(ThermalOptions(**{"size_px": 8, **options}))


def test_features_are_standardised_in_celsius(make):
    features = modality(mean=15, std=5).features(make([[10.0, 20.0]]))
    # Enlarged by repetition: the left half is (10 - 15) / 5, the right one (20 - 15) / 5.
    assert features.shape == (1, 8, 8)
    assert features.dtype == torch.float32
    assert torch.equal(features[0, :, :4], torch.full((8, 4), -1.0))
    assert torch.equal(features[0, :, 4:], torch.full((8, 4), 1.0))


def test_what_is_too_cold_or_hot_is_clipped_before_it_is_averaged(make):
    # One dead pixel of four at 3000 degrees counts as 100: the mean is (3 * 20 + 100) / 4 = 40.
    rows = [[3000.0, 20.0] * 8, [20.0, 20.0] * 8] * 8
    features = modality(mean=0, std=1, max_c=100).features(make(rows))
    torch.testing.assert_close(features, torch.full((1, 8, 8), 40.0))
    cold = modality(mean=0, std=1, min_c=-10).features(make([[-200.0]]))
    assert torch.equal(cold, torch.full((1, 8, 8), -10.0))


def test_counts_have_their_own_statistics(make):
    features = modality(encoding="counts8").features(make([[114.3, 182.9]], "counts"))
    # (182.9 - 114.3) / 68.6 = 1
    torch.testing.assert_close(features[0, 0, [0, 7]], torch.tensor([0.0, 1.0]), atol=1e-5, rtol=0)


def test_what_was_not_measured_is_the_mean_and_takes_no_part_in_a_mean(make):
    rows = [[NAN, 30.0] * 8, [30.0, 30.0] * 8] * 4 + [[NAN] * 16] * 8
    features = modality(mean=20, std=10).features(make(rows))
    assert torch.equal(features[0, :4], torch.ones(4, 8)), "the hole is not blended in"
    assert torch.equal(features[0, 4:], torch.zeros(4, 8))
    ones = torch.isfinite(features)
    assert bool(ones.all())


def test_a_sample_in_the_other_unit_is_refused(make):
    with pytest.raises(InputError, match=r"degrees Celsius asked for; found one in counts"):
        modality().features(make(ROWS, "counts"))
    with pytest.raises(InputError, match=r"counts 0\.\.255 asked for; found one in degrees"):
        modality(encoding="counts8").windows(make(ROWS))


@pytest.mark.parametrize("sample", [torch.zeros(4, 4), None, [[1.0]]])
def test_numbers_without_a_unit_are_refused(sample):
    with pytest.raises(InputError, match="degrees Celsius asked for; found"):
        modality().features(sample)
    plain = MapSample(torch.zeros(2, 2), torch.ones(2, 2, dtype=torch.bool))
    with pytest.raises(InputError, match="without a unit"):
        modality().describe(plain)


def test_samples_of_another_shape_are_refused():
    bad = ThermalSample(torch.zeros(2, 2), torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(ShapeError):
        modality().features(bad)


def test_samples_that_are_not_finite_count_as_not_measured(make):
    sample = ThermalSample(
        torch.tensor([[NAN, float("inf"), 30.0]]), torch.ones(1, 3, dtype=torch.bool)
    )
    features = modality(mean=20, std=10, size_px=9).features(sample)
    assert features[0, 0].tolist() == [0.0] * 6 + [1.0] * 3


def test_features_leave_the_sample_as_it_was(make):
    sample = make(ROWS)
    values, mask = sample.values.clone(), sample.valid_mask.clone()
    thermal = modality(max_c=25)
    first = thermal.features(sample)
    assert torch.equal(first, thermal.features(sample))
    assert torch.equal(sample.values, values) and torch.equal(sample.valid_mask, mask)
    copy = pickle.loads(pickle.dumps(thermal))
    assert torch.equal(first, copy.features(pickle.loads(pickle.dumps(sample))))


def test_rendered_scenes_are_those_of_the_world():
    scene = build_scenes("train", 1)[0]
    sample = modality().render(scene, 3)
    np.testing.assert_array_equal(sample.values.numpy(), render_heat(scene, 3))
    assert sample.unit == "celsius" and bool(sample.valid_mask.all())


def test_rendered_counts_are_those_of_automatic_gain():
    scene = build_scenes("train", 1)[0]
    heat_c = render_heat(scene, 3).astype(float)
    sample = modality(encoding="counts8").render(scene, 3)
    assert sample.unit == "counts"
    counts = sample.values.numpy()
    assert (counts.min(), counts.max()) == (0.0, 255.0)
    # By another road: numpy's interpolation between the two ends, to the nearest count.
    expected = np.interp(heat_c, [heat_c.min(), heat_c.max()], [0, 255])
    assert np.abs(counts - expected).max() <= 0.501
    assert (counts == counts.round()).all()


def test_description_by_hand(make):
    found = modality().describe(make([[10.0, 20.0, 30.0, NAN], [20.0, 20.0, 20.0, NAN]]))
    # Six measured: median 20, deviations 10, 0, 10, 0, 0, 0: sqrt(200 / 6).
    assert found == pytest.approx(
        {
            "median_c": 20.0,
            "spread_c": (200 / 6) ** 0.5,
            "missing_fraction": 0.25,
            "aspect": 2.0,
        }
    )
    counts = modality(encoding="counts8").describe(make([[7.0]], "counts"))
    assert counts == {
        "median_counts": 7.0,
        "spread_counts": 0.0,
        "missing_fraction": 0.0,
        "aspect": 1.0,
    }
    nothing = modality().describe(make([[NAN]]))
    assert (nothing["median_c"], nothing["missing_fraction"]) == (0.0, 1.0)


def test_the_content_hash_follows_bytes_and_what_reading_depends_on(write):
    path = write("a.png", np.full((3, 3), 30000, np.uint16))
    centikelvin = modality(encoding="centikelvin").content_hash(path, "a.png")
    assert len(centikelvin) == 32
    linear = {"encoding": "linear", "offset_c": 0.0}
    others = [
        modality(**linear, scale_c=0.04).content_hash(path, "a.png"),
        modality(**linear, scale_c=0.4).content_hash(path, "a.png"),
        modality(encoding="centikelvin", missing=3).content_hash(path, "a.png"),
    ]
    assert len({centikelvin, *others}) == 4
    same = modality(encoding="centikelvin", mean=3, size_px=16, max_c=50)
    assert same.content_hash(path, "b.png") == centikelvin, "features are made after reading"
    write("a.png", np.full((3, 3), 30001, np.uint16))
    assert modality(encoding="centikelvin").content_hash(path, "a.png") != centikelvin
    with pytest.raises(BrokenSampleError, match="missing"):
        modality().content_hash(path.with_name("gone.png"), "gone.png")


def test_windows_are_the_whole_picture(make):
    ((start_s, end_s, sample),) = modality().windows(make(ROWS))
    assert (start_s, end_s) == (0.0, 0.0)
    assert torch.equal(sample.values, make(ROWS).values)
