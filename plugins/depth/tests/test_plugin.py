from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import modalbind_depth
import pytest

from modalbind.api import API_VERSION, DatasetSpec, ModalitySpec, NoOptions

SPECS = [
    *modalbind_depth.modalbind_modalities(),
    *modalbind_depth.modalbind_encoders(),
    *modalbind_depth.modalbind_augmentations(),
    *modalbind_depth.modalbind_datasets(),
]
FOLDER = Path(__file__).parents[1]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_specs_name_what_exists(spec):
    module, _, name = spec.build.partition(":")
    assert callable(getattr(importlib.import_module(module), name))
    assert spec.api_version == API_VERSION
    assert spec.summary.endswith(".")
    assert spec.options is not NoOptions
    assert getattr(spec, "modality", "depth") == "depth"
    spec.options.model_validate(dict(spec.example))


def test_the_unit_is_stated():
    (spec,) = [spec for spec in SPECS if isinstance(spec, ModalitySpec)]
    assert "metres" in spec.unit and "measured" in spec.unit


def test_what_it_perceives_is_what_the_renderer_shows():
    from modalbind.world import DEPTH_PERCEIVES

    (spec,) = [spec for spec in SPECS if isinstance(spec, ModalitySpec)]
    assert spec.perceives == DEPTH_PERCEIVES


def test_listing_imports_nothing_heavy():
    code = (
        "import sys, modalbind_depth as plugin;"
        "plugin.modalbind_modalities(); plugin.modalbind_encoders();"
        "plugin.modalbind_augmentations(); plugin.modalbind_datasets();"
        "print(sorted({'torch', 'numpy', 'PIL', 'h5py', 'scipy', 'timm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_it_imports_the_door_for_plugins_and_nothing_else_of_the_core():
    for path in (FOLDER / "modalbind_depth").rglob("*.py"):
        found = re.findall(
            r"^\s*(?:from|import) (modalbind(?:\.\w+)*)\b(?!_)", path.read_text(), re.M
        )
        assert set(found) <= {"modalbind.api"}, path


def test_each_name_is_told_of_in_the_readme():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    for spec in SPECS:
        assert f"`{spec.name}`" in text, spec.name
    for name in modalbind_depth.options.DepthOptions.model_fields:
        assert f"`{name}`" in text, name


def test_optional_packages_are_extras():
    project = tomllib.loads((FOLDER / "pyproject.toml").read_text())["project"]
    needed = " ".join(project["dependencies"])
    assert "modalbind>=" in needed and "<" not in needed
    assert "h5py" not in needed and "scipy" not in needed
    assert any("h5py" in one for one in project["optional-dependencies"]["nyu"])
    assert any("scipy" in one for one in project["optional-dependencies"]["sunrgbd"])
    datasets = [spec for spec in SPECS if isinstance(spec, DatasetSpec)]
    assert {spec.name for spec in datasets} == {"nyu-depth-v2", "sun-rgbd"}
