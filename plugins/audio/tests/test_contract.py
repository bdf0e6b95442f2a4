"""The contract of modalbind, by behaviour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from modalbind.testing import contract


def write_files(folder: Path) -> list[Path]:
    paths = [folder / "noise.wav", folder / "noise.flac"]
    noise = 0.1 * np.random.default_rng(0).standard_normal(8000)
    for path in paths:
        soundfile.write(path, noise, 16_000)
    return paths


test_contract = contract("modalbind-audio", files=write_files, without=["quickstart"])
test_quick_start = pytest.mark.slow(contract("modalbind-audio", only=["quickstart"]))
