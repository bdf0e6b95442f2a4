"""Fixtures of the thermal plugin's tests: files of every kind, and maps made by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from modalbind_thermal.reading import ThermalSample
from PIL import Image

Write = Callable[[str, Any], Path]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODALBIND_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write an array as a file of the kind that its suffix says."""

    def write_map(name: str, numbers: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        array = np.asarray(numbers)
        if path.suffix == ".npy":
            np.save(path, array)
        else:
            Image.fromarray(array).save(path)
        return path

    return write_map


@pytest.fixture
def make() -> Callable[..., ThermalSample]:
    """Make a sample of a list of rows; NaN was not measured."""

    def make_sample(rows: Any, unit: str = "celsius") -> ThermalSample:
        values = torch.tensor(rows, dtype=torch.float32)
        return ThermalSample(values.nan_to_num(0.0), values.isfinite(), unit)  # type: ignore[arg-type]

    return make_sample
