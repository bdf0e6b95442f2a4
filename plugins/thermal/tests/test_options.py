from __future__ import annotations

import pytest
from modalbind_thermal.options import DriftOptions, GainOptions, ThermalOptions
from pydantic import ValidationError


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"encoding": "linear"}, "needs scale_c and offset_c"),
        ({"encoding": "linear", "scale_c": 0.04}, "needs scale_c and offset_c"),
        ({"encoding": "linear", "scale_c": 0, "offset_c": 0}, "scale_c is 0"),
        ({"scale_c": 0.04}, "belong to encoding linear, found celsius"),
        ({"encoding": "counts8", "min_c": 0}, "counts8 has no temperature"),
        ({"min_c": 5, "max_c": 5}, "min_c is not below max_c"),
        ({"encoding": "centikelvin", "mixes_colours": True}, "belongs to encoding counts8"),
        ({"missing": 0}, "NaN"),
        ({"encoding": "kelvin"}, "celsius"),
        ({"size_px": 4}, "greater than or equal to 8"),
        ({"std": 0}, "greater than 0"),
    ],
)
def test_contradictions_are_refused(options, complaint):
    with pytest.raises(ValidationError, match=complaint):
        ThermalOptions(**options)


@pytest.mark.parametrize(
    ("options", "unit", "standard"),
    [
        ({}, "celsius", (20.0, 10.0)),
        ({"encoding": "centikelvin", "std": 4}, "celsius", (20.0, 4.0)),
        ({"encoding": "counts8"}, "counts", (114.3, 68.6)),
        ({"encoding": "counts8", "mean": 0, "std": 255}, "counts", (0.0, 255.0)),
    ],
)
def test_statistics_are_in_the_unit(options, unit, standard):
    found = ThermalOptions(**options)
    assert (found.unit, found.standard) == (unit, standard)


def test_counts_statistics_are_those_of_clip():
    # Mean over colours of CLIP's published mean and deviation (0..1), in counts.
    mean = (0.48145466 + 0.4578275 + 0.40821073) / 3 * 255
    std = (0.26862954 + 0.26130258 + 0.27577711) / 3 * 255
    assert ThermalOptions(encoding="counts8").standard == pytest.approx((mean, std), abs=0.25)


@pytest.mark.parametrize("model", [ThermalOptions, DriftOptions, GainOptions])
def test_every_option_is_described(model):
    assert all(field.description for field in model.model_fields.values())


def test_gains_in_the_wrong_order_are_refused():
    with pytest.raises(ValidationError, match="min_gain is above max_gain"):
        GainOptions(min_gain=2, max_gain=1)
