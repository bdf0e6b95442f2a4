"""The list of data sets: light, complete, and what it names can be imported."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest
from modalbind_audio.datasets import SPECS

from modalbind.api import API_VERSION


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_spec_names_a_factory_and_describes_every_option(spec):
    module, function = spec.build.split(":")
    assert callable(getattr(importlib.import_module(module), function))
    assert spec.api_version == API_VERSION
    assert spec.modality == "audio"
    assert all(field.description for field in spec.options.model_fields.values())


def test_names_are_unique_and_all_are_there():
    assert sorted(spec.name for spec in SPECS) == [
        "audiocaps",
        "audiosetcaps",
        "auto-acd",
        "clotho",
        "esc50",
        "urbansound8k",
        "vggsound",
        "wavcaps",
    ]


def test_listing_imports_nothing_heavy():
    code = (
        "import sys, modalbind_audio.datasets; "
        "print([m for m in ('torch', 'numpy', 'PIL', 'soundfile') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
