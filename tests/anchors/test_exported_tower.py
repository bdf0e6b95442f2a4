"""An anchor exports a copy of its image tower; what is done with it never reaches the anchor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from modalbind.errors import AnchorError
from modalbind.maps.encoders import build_vision_tower


@pytest.fixture
def spec(openclip_folder: Path) -> str:
    return f"openclip:local-dir:{openclip_folder}"


def test_the_file_holds_the_anchors_own_tower(fakes: Any, spec: str, tmp_path: Path) -> None:
    anchor = fakes.open_here(spec, tmp_path / "cache")
    with anchor.exported_tower("image") as path:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
        tower = build_vision_tower(json.loads(metadata["architecture"])).eval()
        tower.load_state_dict(load_file(path))
    assert not path.exists() and not path.parent.exists(), "it lives as long as the context"
    assert metadata["fingerprint"] == anchor.fingerprint
    picture = Image.new("RGB", (32, 32), (200, 30, 90))
    expected = anchor.embed("image", [fakes.image_item("a", lambda: picture)])
    # By hand, from the folder's config: mean .4 .5 .6, deviation .2 .3 .4, nothing to resize.
    pixels = torch.tensor([200, 30, 90]) / 255
    pixels = (pixels - torch.tensor([0.4, 0.5, 0.6])) / torch.tensor([0.2, 0.3, 0.4])
    with torch.no_grad():
        found = tower(pixels.view(1, 3, 1, 1).expand(1, 3, 32, 32))
    found = found / found.norm(dim=1, keepdim=True)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_changing_the_copy_does_not_move_the_anchor(fakes: Any, spec: str, tmp_path: Path) -> None:
    anchor = fakes.open_here(spec, tmp_path / "cache")
    before = anchor.fingerprint
    with anchor.exported_tower("image") as path:
        for tensor in load_file(path).values():
            tensor.add_(1.0)
    assert anchor.verify() == (before, "weights")


def test_a_warm_cache_opens_the_weights_to_export(fakes: Any, spec: str, tmp_path: Path) -> None:
    cold = fakes.open_here(spec, tmp_path / "cache")
    warm = fakes.open_here(spec, tmp_path / "cache")
    assert warm.verify()[1] == "cache"
    with warm.exported_tower("image") as path, cold.exported_tower("image") as other:
        first, second = load_file(path), load_file(other)
    assert first.keys() == second.keys() and len(first) > 4
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert warm.verify() == (cold.fingerprint, "weights")


def test_the_file_is_gone_even_if_building_fails(fakes: Any, spec: str, tmp_path: Path) -> None:
    anchor = fakes.open_here(spec, tmp_path / "cache")
    with pytest.raises(ZeroDivisionError), anchor.exported_tower("image") as path:
        raise ZeroDivisionError
    assert not path.exists()


def test_other_towers_and_other_anchors_are_refused(fakes: Any, spec: str, tmp_path: Path) -> None:
    anchor = fakes.open_here(spec, tmp_path / "cache")
    with pytest.raises(AnchorError, match="text"), anchor.exported_tower("text"):
        pass
    import numpy as np

    table = tmp_path / "table.npz"
    vectors = np.eye(3, dtype=np.float32)
    np.savez(
        table,
        text=np.array(["a", "b", "c"]),
        text_language=np.array(["en"] * 3),
        text_vectors=vectors,
        space="made up",
        normalised=True,
    )
    precomputed = fakes.open_here(f"precomputed:{table}", tmp_path / "cache")
    with pytest.raises(AnchorError, match="kind 'precomputed' export none; choose an encoder"):
        with precomputed.exported_tower("image"):
            pass
