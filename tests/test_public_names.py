import pytest

import modalbind
from modalbind import api


def test_public_names_are_these():
    assert modalbind.__all__ == sorted(modalbind.__all__)
    assert modalbind.__all__ == ["Recipe", "Run", "__version__", "align", "load", "load_recipe"]
    assert dir(modalbind) == modalbind.__all__


@pytest.mark.parametrize("name", ["Recipe", "__version__", "align", "load_recipe"])
def test_public_names_are_there(name):
    assert getattr(modalbind, name) is not None


def test_run_and_load_are_those_of_the_run_module():
    from modalbind import run

    assert modalbind.Run is run.Run
    assert modalbind.load is run.load


def test_other_names_are_not():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = modalbind.nonsense


def test_api_is_sorted_and_complete():
    assert api.__all__ == sorted(api.__all__)
    assert all(hasattr(api, name) for name in api.__all__)


@pytest.mark.parametrize("form", ["mapping", "recipe", "path", "text"])
def test_align_takes_every_form(monkeypatch, tmp_path, form):
    raw = {"modality": {"name": "audio"}, "encoder": {"kind": "beats"}}
    path = tmp_path / "r.yaml"
    path.write_text("modality: {name: audio}\nencoder: {kind: beats}\n")
    given = {
        "mapping": raw,
        "recipe": modalbind.Recipe.model_validate(raw),
        "path": path,
        "text": str(path),
    }[form]
    calls = []

    class Pipeline:
        @staticmethod
        def align(recipe, **options):
            calls.append((recipe, options))
            return "a run"

    monkeypatch.setattr(modalbind, "pipeline", Pipeline, raising=False)
    assert modalbind.align(given, overrides=["seed=3"], out=tmp_path / "o") == "a run"
    ((recipe, options),) = calls
    assert (recipe.modality.name, recipe.encoder.kind, recipe.seed) == ("audio", "beats", 3)
    assert options == {"out": tmp_path / "o", "resume": False, "force": False, "console": None}
