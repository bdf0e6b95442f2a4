"""What any modality of maps may offer."""

from __future__ import annotations

import subprocess
import sys

from modalbind.maps.specs import map_augmentations, map_encoders
from modalbind.plugin_checks import check_spec
from modalbind.plugin_manager import import_factory


def test_specs_are_of_the_modality_and_can_be_built() -> None:
    offers = {"encoder": map_encoders("height"), "augmentation": map_augmentations("height")}
    assert [spec.name for spec in offers["encoder"]] == ["grid", "timm", "anchor"]
    assert [spec.name for spec in offers["augmentation"]] == ["flip", "crop", "erase"]
    for kind, specs in offers.items():
        for spec in specs:
            check_spec(kind, spec, "modalbind-height")
            assert spec.modality == "height"
            assert callable(import_factory(spec))
            spec.options.model_validate(spec.example)


def test_they_are_light() -> None:
    code = "import sys, modalbind.maps.specs; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
