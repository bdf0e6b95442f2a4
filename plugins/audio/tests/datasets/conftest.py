"""Made-up copies of published layouts: a few rows, tiny sounds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a text file below `tmp_path`."""

    def write_text(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        return path

    return write_text


@pytest.fixture
def sound(tmp_path: Path) -> Callable[[str], Path]:
    """Write a tenth of a second of a sine below `tmp_path`."""

    def write_sound(name: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        time_s = np.arange(1600) / 16000
        soundfile.write(path, 0.1 * np.sin(2 * np.pi * 440 * time_s), 16000)
        return path

    return write_sound
