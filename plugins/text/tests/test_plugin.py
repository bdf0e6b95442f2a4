from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import modalbind_text
import pytest

from modalbind.api import API_VERSION, ModalitySpec

SPECS = [
    *modalbind_text.modalbind_modalities(),
    *modalbind_text.modalbind_encoders(),
    *modalbind_text.modalbind_augmentations(),
    *modalbind_text.modalbind_datasets(),
]
FOLDER = Path(__file__).parents[1]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_specs_name_what_exists(spec):
    module, _, name = spec.build.partition(":")
    assert callable(getattr(importlib.import_module(module), name))
    assert spec.api_version == API_VERSION
    assert spec.summary.endswith(".")
    assert getattr(spec, "modality", "text") == "text"
    spec.options.model_validate(dict(spec.example))


def test_samples_are_texts_in_a_language():
    (spec,) = [spec for spec in SPECS if isinstance(spec, ModalitySpec)]
    assert spec.is_text and "language" in spec.unit and spec.suffixes == ()


def test_it_says_all_that_the_world_has():
    from modalbind.world import ATTRIBUTES

    (spec,) = [spec for spec in SPECS if isinstance(spec, ModalitySpec)]
    assert spec.perceives == tuple(ATTRIBUTES)


def test_listing_imports_nothing_heavy():
    code = (
        "import sys, modalbind_text as plugin;"
        "plugin.modalbind_modalities(); plugin.modalbind_encoders();"
        "plugin.modalbind_augmentations(); plugin.modalbind_datasets();"
        "print(sorted({'torch', 'numpy', 'PIL', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_it_imports_the_door_for_plugins_and_nothing_else_of_the_core():
    for path in (FOLDER / "modalbind_text").rglob("*.py"):
        found = re.findall(
            r"^\s*(?:from|import) (modalbind(?:\.\w+)*)\b(?!_)", path.read_text(), re.M
        )
        assert set(found) <= {"modalbind.api"}, path


def test_each_name_is_told_of_in_the_readme():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    for spec in SPECS:
        assert f"`{spec.name}`" in text, spec.name
    for name in modalbind_text.options.TextOptions.model_fields:
        assert f"`{name}`" in text, name


def test_it_needs_no_more_than_the_core_does():
    project = tomllib.loads((FOLDER / "pyproject.toml").read_text())["project"]
    assert [name.split(">")[0] for name in project["dependencies"]] == [
        "modalbind",
        "pydantic",
        "torch",
    ]
