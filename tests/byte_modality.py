"""A modality whose samples are the bytes of files, for tests of where files come from."""

from __future__ import annotations

import hashlib
import io
import wave
from pathlib import Path

import numpy as np
import torch

from modalbind.errors import BrokenSampleError
from modalbind.interfaces import ModalitySpec


def make_spec(name: str = "audio", suffixes: tuple[str, ...] = (".flac", ".wav")) -> ModalitySpec:
    return ModalitySpec(
        name=name, summary="", api_version=1, build="x:y", unit="", suffixes=suffixes,
        default_recipe="", quickstart_recipe="", is_text=name == "text",
    )  # fmt: skip


def make_sound(seed: int) -> bytes:
    """Return a quarter of a second of noise as a wav file."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as sound:
        sound.setparams((1, 2, 16_000, 0, "NONE", ""))
        sound.writeframes(np.random.default_rng(seed).bytes(2 * 4000))
    return buffer.getvalue()


class Bytes:
    """Reads a file's suffix and its bytes, which are those of a number, or the word `broken`."""

    is_padded = False

    def load(self, path: Path, key: str) -> tuple[str, bytes]:
        content = path.read_bytes()
        if content == b"broken":
            raise BrokenSampleError("undecodable", f"{path}: no sound")
        return path.suffix, content

    def content_hash(self, path: Path, key: str) -> bytes:
        return hashlib.sha256(path.read_bytes()).digest()

    def features(self, sample: tuple[str, bytes]) -> torch.Tensor:
        return torch.tensor([float(int(sample[1]))])
