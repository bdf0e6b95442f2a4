"""The contract of modalbind, by behaviour; the quick start has a slow test of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from modalbind.testing import contract


def write_maps(folder: Path) -> list[Path]:
    depth_m = np.random.default_rng(0).uniform(0.5, 8, (60, 80)).astype(np.float32)
    depth_m[:10, :10] = np.nan
    paths = [folder / "map.npy", folder / "map.tiff"]
    np.save(paths[0], depth_m)
    Image.fromarray(depth_m).save(paths[1])
    return paths


test_contract = contract("modalbind-depth", files=write_maps, without=("quickstart",))
