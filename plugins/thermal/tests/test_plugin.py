from __future__ import annotations

import importlib
import subprocess
import sys

import modalbind_thermal
import pytest

from modalbind.api import API_VERSION, NoOptions

SPECS = [
    *modalbind_thermal.modalbind_modalities(),
    *modalbind_thermal.modalbind_encoders(),
    *modalbind_thermal.modalbind_augmentations(),
    *modalbind_thermal.modalbind_datasets(),
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_specs_name_what_exists(spec):
    module, _, name = spec.build.partition(":")
    assert callable(getattr(importlib.import_module(module), name))
    assert spec.api_version == API_VERSION
    assert spec.summary.endswith(".")
    assert spec.options is not NoOptions
    assert getattr(spec, "modality", "thermal") == "thermal"


def test_listing_imports_nothing_heavy():
    code = (
        "import sys, modalbind_thermal as plugin;"
        "plugin.modalbind_modalities(); plugin.modalbind_encoders();"
        "plugin.modalbind_augmentations(); plugin.modalbind_datasets();"
        "print(sorted({'torch', 'numpy', 'PIL', 'timm', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
