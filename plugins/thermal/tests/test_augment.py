"""Laws of every augmentation: masks survive, units stay, randomness is the generator's alone."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import modalbind_thermal
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from modalbind_thermal.augment import Drift, Gain, build_drift, build_gain
from modalbind_thermal.modality import ThermalModality
from modalbind_thermal.options import DriftOptions, GainOptions, ThermalOptions
from modalbind_thermal.reading import ThermalSample

import modalbind.api
from modalbind.api import InputError

SPECS = {spec.name: spec for spec in modalbind_thermal.modalbind_augmentations()}
QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_random(height: int, width: int, seed: int, unit: str) -> ThermalSample:
    generator = draw(seed)
    low, span = (0.0, 255.0) if unit == "counts" else (-20.0, 60.0)
    values = low + span * torch.rand(height, width, generator=generator)
    mask = torch.rand(height, width, generator=generator) > 0.2
    return ThermalSample(torch.where(mask, values, 0.0), mask, unit)  # type: ignore[arg-type]


def build_all(unit: str) -> dict[str, Any]:
    encoding = "counts8" if unit == "counts" else "celsius"
    thermal = ThermalModality(ThermalOptions(encoding=encoding))  # type: ignore[arg-type]
    built = {}
    for name, spec in SPECS.items():
        if name == ("drift" if unit == "counts" else "gain"):
            continue
        module = modalbind.api if spec.build.startswith("modalbind.api") else None
        builder = (
            getattr(module, spec.build.partition(":")[2])
            if module
            else {"drift": build_drift, "gain": build_gain}[name]
        )
        options = {"max_std": 2.0} if name == "noise" else {}
        built[name] = builder(spec.options(**options), thermal)
    return built


@pytest.mark.parametrize(
    ("unit", "name"), [(unit, name) for unit in ("celsius", "counts") for name in build_all(unit)]
)
@QUICK
@given(height=st.integers(1, 24), width=st.integers(1, 24), seed=st.integers(0, 2**31))
def test_laws(unit: str, name: str, height: int, width: int, seed: int) -> None:
    augment = build_all(unit)[name]
    sample = make_random(height, width, seed, unit)
    values, mask = sample.values.clone(), sample.valid_mask.clone()
    before = torch.random.get_rng_state()
    first, again = augment(sample, draw(seed)), augment(sample, draw(seed))
    assert torch.equal(torch.random.get_rng_state(), before), "global randomness was drawn from"
    assert torch.equal(sample.values, values) and torch.equal(sample.valid_mask, mask)
    assert torch.equal(first.values, again.values)
    assert torch.equal(first.valid_mask, again.valid_mask)
    assert type(first) is ThermalSample and first.unit == unit
    assert first.values.dtype == torch.float32 and first.values.shape == first.valid_mask.shape
    assert bool(torch.isfinite(first.values).all())
    assert not first.values[~first.valid_mask].any(), "what is missing stays zero"
    if name != "crop":
        assert first.values.shape == sample.values.shape
    if name in ("noise", "drift", "gain"):
        assert torch.equal(first.valid_mask, mask)
    elif name == "erase":
        assert not (first.valid_mask & ~mask).any(), "nothing missing becomes measured"
    else:
        kept = first.values[first.valid_mask].sort().values
        assert torch.isin(kept, values[mask]).all(), "numbers move, they do not change"


def test_drift_is_smooth_and_as_strong_as_asked() -> None:
    flat = ThermalSample(torch.full((60, 80), 20.0), torch.ones(60, 80, dtype=torch.bool))
    fields = [Drift(DriftOptions(max_std_c=2.0))(flat, draw(seed)).values - 20 for seed in range(9)]
    for field in fields:
        # A bend between three points: neighbours differ by a small part of the whole range.
        step = max(float(field.diff(dim=axis).abs().max()) for axis in (0, 1))
        assert step < 0.12 * float(field.max() - field.min())
    strengths = [float(field.abs().max()) for field in fields]
    assert 0.2 < max(strengths) < 10 and max(strengths) > 3 * min(strengths)
    assert torch.equal(Drift(DriftOptions(p=0))(flat, draw(0)).values, flat.values)


def test_gain_by_hand() -> None:
    counts = torch.tensor([[127.5, 27.5, 250.0]])
    sample = ThermalSample(counts, torch.tensor([[True, True, True]]), "counts")
    options = GainOptions(min_gain=2.0, max_gain=2.0, max_shift=0.0)
    # 127.5 stays, 100 below it becomes 200 below and is cut at 0, 245 above is cut at 255.
    assert Gain(options)(sample, draw(0)).values.tolist() == [[127.5, 0.0, 255.0]]
    shifted = Gain(GainOptions(min_gain=1, max_gain=1, max_shift=20 / 255))
    moves = [float(shifted(sample, draw(seed)).values[0, 0]) - 127.5 for seed in range(40)]
    assert -20.001 <= min(moves) < -10 and 10 < max(moves) <= 20.001


def test_units_that_do_not_fit_are_refused(make: Any) -> None:
    celsius = ThermalModality(ThermalOptions())
    counts = ThermalModality(ThermalOptions(encoding="counts8"))
    with pytest.raises(InputError, match="'drift' is for celsius"):
        build_drift(DriftOptions(), counts)
    with pytest.raises(InputError, match="'gain' is for counts"):
        build_gain(GainOptions(), celsius)
    with pytest.raises(InputError, match="the modality is object"):
        build_gain(GainOptions(), object())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="counts"):
        Drift(DriftOptions())(make([[1.0]], "counts"), draw(0))
