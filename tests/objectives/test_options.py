from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from modalbind.objectives.options import InfoNceOptions, SigmoidOptions


def test_listing_the_options_does_not_import_torch():
    code = "import sys, modalbind.objectives.options; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("model", [InfoNceOptions, SigmoidOptions])
def test_a_temperature_beyond_the_largest_scale_is_refused(model):
    with pytest.raises(ValidationError, match="scale 200 is above max_scale 100"):
        model(temperature=0.005)
    assert model(temperature=0.01).temperature == 0.01


def test_a_schedule_is_not_learned_and_keeps_below_the_largest_scale():
    with pytest.raises(ValidationError, match="set learn: false"):
        InfoNceOptions(schedule={"final": 0.02})
    with pytest.raises(ValidationError, match="above max_scale"):
        InfoNceOptions(schedule={"final": 0.001}, learn=False)


def test_unknown_names_are_refused():
    with pytest.raises(ValidationError, match="temprature"):
        InfoNceOptions(temprature=0.1)
