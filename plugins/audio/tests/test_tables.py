from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from modalbind_audio.tables import FrameTable

from modalbind.api import BrokenSampleError, DataError


def write_table(path: Path, **changes: np.ndarray) -> Path:
    frames = np.arange(24, dtype=np.float16).reshape(6, 4)
    frames[5] = np.nan
    table = {
        "frames": frames,
        "offsets": np.array([0, 2, 2, 5, 6]),
        "paths": np.array(["a/x.ogg", "a/none.ogg", "b.ogg", "nan.ogg"]),
    }
    np.savez(path, **(table | changes))
    return path


def test_finds_frames_by_key(tmp_path):
    table = FrameTable(write_table(tmp_path / "t.npz"))
    frames = table.load("b.ogg", 80.0)
    assert torch.equal(frames.frames, torch.arange(8.0, 20.0).view(3, 4))
    assert frames.duration_s == pytest.approx(0.24)


@pytest.mark.parametrize(
    ("key", "reason"), [("c.ogg", "missing"), ("a/none.ogg", "empty"), ("nan.ogg", "not_finite")]
)
def test_names_what_is_broken(key, reason, tmp_path):
    table = FrameTable(write_table(tmp_path / "t.npz"))
    with pytest.raises(BrokenSampleError) as caught:
        table.load(key, 80.0)
    assert caught.value.reason == reason


def test_refuses_what_is_no_table(tmp_path):
    with pytest.raises(DataError, match=r"t\.npz"):
        FrameTable(tmp_path / "t.npz")
    (tmp_path / "junk.npz").write_bytes(b"junk")
    with pytest.raises(DataError):
        FrameTable(tmp_path / "junk.npz")
    pickled = write_table(tmp_path / "p.npz", frames=np.array([{}], dtype=object))
    with pytest.raises(DataError, match="pickle"):
        FrameTable(pickled)


@pytest.mark.parametrize(
    "offsets", [[0, 2, 2, 5], [0, 3, 2, 5, 6], [1, 2, 2, 5, 6], [0, 2, 2, 5, 7]]
)
def test_refuses_offsets_that_do_not_fit(offsets, tmp_path):
    path = write_table(tmp_path / "t.npz", offsets=np.array(offsets))
    with pytest.raises(DataError, match="offsets must rise"):
        FrameTable(path)
