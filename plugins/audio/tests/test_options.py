from __future__ import annotations

import pytest
from modalbind_audio import options
from pydantic import ValidationError

from modalbind.api import Options

MODELS = [
    model
    for model in vars(options).values()
    if isinstance(model, type) and issubclass(model, Options) and model is not Options
]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_field_is_described(model):
    assert model.model_config["extra"] == "forbid"
    for name, field in model.model_fields.items():
        assert field.description and field.description.endswith("."), name


@pytest.mark.parametrize(
    ("model", "values", "message"),
    [
        ("AudioOptions", {"features": "table"}, "need each other"),
        ("AudioOptions", {"table": "x.npz"}, "need each other"),
        ("AudioOptions", {"window_s": 1, "hop_s": 2}, "leave out"),
        ("BeatsOptions", {"weights": "x.pt", "layers": 3}, "leave out layers"),
        ("BeatsOptions", {"width": 100, "heads": 3}, "multiple of heads"),
        ("BeatsOptions", {"width": 72, "heads": 4}, "conv_pos_groups"),
        ("BeatsOptions", {"mels": 16, "patch": (16, 32)}, "32 mels high"),
        ("FramesOptions", {"kernel": 4}, "odd"),
        ("FramesOptions", {"width": 30}, "multiple of heads"),
        ("HfOptions", {}, "give `model`"),
        ("HfOptions", {"config": {"model_type": "hubert"}}, "need each other"),
        ("RandomTruncateOptions", {"min_s": 2, "max_s": 1}, "above"),
        ("GainOptions", {"low_db": 2, "high_db": 1}, "above"),
        ("NoiseOptions", {"low_db": 2, "high_db": 1}, "above"),
        ("SpeedOptions", {"factors": (0.0,)}, "between"),
    ],
)
def test_contradictions_are_refused(model, values, message):
    with pytest.raises(ValidationError, match=message):
        getattr(options, model).model_validate(values)


def test_dropout_may_be_set_beside_weights():
    assert options.BeatsOptions(weights="x.pt", dropout=0.1, patch_drop=0.5).dropout == 0.1
