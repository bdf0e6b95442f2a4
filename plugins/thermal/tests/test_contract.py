"""The contract of modalbind, by behaviour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from modalbind.testing import contract


def write_files(folder: Path) -> list[Path]:
    """Files of degrees Celsius: the quick start's encoding."""
    heat_c = np.random.default_rng(0).normal(20, 5, (48, 64)).astype(np.float32)
    paths = [folder / "heat.npy", folder / "heat.tiff"]
    np.save(paths[0], heat_c)
    Image.fromarray(heat_c).save(paths[1])
    return paths


test_contract = contract("modalbind-thermal", files=write_files, without=["quickstart"])
test_quick_start = pytest.mark.slow(contract("modalbind-thermal", only=["quickstart"]))
