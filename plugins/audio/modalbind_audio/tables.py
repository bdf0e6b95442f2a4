"""Frames that a frozen encoder computed before: features as the payload.

The layout is one npz with `frames (total, width)`, `offsets (n + 1)` and `paths (n)`: sample
`paths[i]` has `frames[offsets[i]:offsets[i + 1]]`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from modalbind.api import BrokenSampleError, DataError


@dataclass(frozen=True, slots=True)
class Frames:
    """Frames of one sample.

    Attributes:
        frames: Float32 `(time, width)`.
        frame_ms: Time from one frame to the next, in ms.
    """

    frames: Tensor
    frame_ms: float

    @property
    def duration_s(self) -> float:
        """Length in seconds, as far as the frames tell."""
        return self.frames.shape[0] * self.frame_ms / 1000


class FrameTable:
    """All frames of a table, looked up by the sample's key."""

    def __init__(self, path: Path) -> None:
        """Read the table.

        Args:
            path: The npz file.

        Raises:
            DataError: If it is absent, is no npz, or contradicts its layout.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                self._frames = file["frames"]
                self._offsets = file["offsets"].astype(np.int64)
                paths = [str(name) for name in file["paths"]]
        except (OSError, KeyError, ValueError, TypeError, EOFError) as error:
            raise DataError(
                f"frame table {path}; {type(error).__name__}: {error}; "
                "give an npz with frames, offsets and paths, relative to the data root"
            ) from error
        self._check(path, len(paths))
        self._rows = {name: row for row, name in enumerate(paths)}

    def _check(self, path: Path, count: int) -> None:
        offsets = self._offsets
        fits = (
            self._frames.ndim == 2
            and offsets.shape == (count + 1,)
            and offsets[0] == 0
            and offsets[-1] == len(self._frames)
            and bool((np.diff(offsets) >= 0).all())
        )
        if not fits:
            raise DataError(
                f"frame table {path}; frames {self._frames.shape}, offsets {offsets.shape}, "
                f"{count} paths; offsets must rise from 0 to the number of frames, one per path"
            )

    def get(self, key: str) -> np.ndarray:
        """Return the frames `(time, width)` of a sample, as stored.

        Raises:
            BrokenSampleError: `missing` or `empty`.
        """
        row = self._rows.get(key)
        if row is None:
            raise BrokenSampleError("missing", f"{key} is not in the table of frames")
        frames: np.ndarray = self._frames[self._offsets[row] : self._offsets[row + 1]]
        if len(frames) == 0:
            raise BrokenSampleError("empty", f"{key} has no frames in the table")
        return frames

    def load(self, key: str, frame_ms: float) -> Frames:
        """Return one sample; raises `BrokenSampleError` if it cannot be used."""
        frames = torch.from_numpy(self.get(key).astype(np.float32))
        if not bool(torch.isfinite(frames).all()):
            raise BrokenSampleError("not_finite", f"{key} holds NaN or infinite frames")
        return Frames(frames, frame_ms)
