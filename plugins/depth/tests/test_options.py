from __future__ import annotations

import pytest
from modalbind_depth.options import DepthOptions, SensorNoiseOptions


@pytest.mark.parametrize("representation", ["disparity", "log_depth"])
def test_each_representation_says_its_own_statistics(representation: str) -> None:
    with pytest.raises(ValueError, match=f"{representation} needs its own `mean` and `std`"):
        DepthOptions.model_validate({"representation": representation, "mean": 1.0})
    options = {"representation": representation, "mean": 1.0, "std": 2.0}
    assert DepthOptions.model_validate(options).std == 2.0


def test_clip_range_is_in_order() -> None:
    with pytest.raises(ValueError, match="clip_min_m has to lie below clip_max_m"):
        DepthOptions(clip_min_m=8.0, clip_max_m=8.0)


@pytest.mark.parametrize(
    "options",
    [
        {"encoding": "auto"},
        {"encoding": "cm"},
        {"clip_min_m": 0},
        {"std": 0},
        {"focal_px": 0},
        {"baseline_m": -0.1},
        {"size_px": 0},
        {"unit": "m"},
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        DepthOptions.model_validate(options)


def test_sun_rgbd_practice_is_the_default_range() -> None:
    assert DepthOptions().clip_max_m == 8.0


def test_noise_bounds_are_in_order() -> None:
    with pytest.raises(ValueError, match="min_std_m is above max_std_m"):
        SensorNoiseOptions(min_std_m=0.1, max_std_m=0.01)
