"""Golden probes: embeddings of fixed contents, to notice that the maths of a space has changed.

A fingerprint covers what a space is made of, not the libraries that compute with it. When a space
is opened with its weights, the probes are embedded; the first time they are kept beside the
cache, every later time they are compared.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from modalbind.anchors.shards import DamagedFileError, write_whole
from modalbind.errors import AnchorError
from modalbind.interfaces import AnchorSpace
from modalbind.types import AnchorItem

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

TOLERANCE = 1e-4
FILE = "golden.safetensors"
_CHECKSUM = "sha256"
# Several scripts, a digit, punctuation and an empty text: where tokenizers differ.
TEXTS = (
    "a dog barks twice",
    "The quick brown fox, number 42.",
    "Ein Hund bellt zweimal über den Zaun.",
    "собака лает",
    "犬が吠えている",
    "كلب ينبح",
    "कुत्ता भौंक रहा है",
    "",
)
_PICTURE_PX = 96
_TONE_RATE_HZ = 16_000


def probe_items(modality: str) -> list[AnchorItem]:
    """Return the probes of a modality: texts, generated pictures or tones; none for others."""
    if modality == "text":
        return [_item(f"probe:text/{i}", partial(str, text)) for i, text in enumerate(TEXTS)]
    makers: dict[str, Callable[[int], Any]] = {"image": _picture, "audio": _tone}
    if modality not in makers:
        return []
    return [_item(f"probe:{modality}/{i}", partial(makers[modality], i)) for i in range(3)]


def _item(key: str, load: Callable[[], Any]) -> AnchorItem:
    return AnchorItem(key, hashlib.sha256(key.encode()).digest(), load)


def _picture(number: int) -> Image.Image:
    rows, columns = np.mgrid[0:_PICTURE_PX, 0 : _PICTURE_PX + 32 * number]
    red = 255 * columns // columns.max()
    green = 255 * ((rows // 12 + columns // 12) % 2)
    blue = 255 * (((rows - 40) ** 2 + (columns - 50) ** 2) < (10 + 10 * number) ** 2)
    return Image.fromarray(np.stack([red, green, blue], axis=-1).astype(np.uint8))


def _tone(number: int) -> tuple[np.ndarray[Any, np.dtype[np.float32]], int]:
    times_s = np.arange(_TONE_RATE_HZ * (1 + number)) / _TONE_RATE_HZ
    wave = 0.5 * np.sin(2 * math.pi * 220 * 2**number * times_s)
    return wave.astype(np.float32), _TONE_RATE_HZ


def embed_probes(space: AnchorSpace) -> dict[str, Tensor]:
    """Return the golden embeddings of a space by modality, float32 `(probes, dim)`.

    A modality that the space has by key alone (`looked_up`) cannot be asked for what no table has.
    """
    looked_up = getattr(space, "looked_up", ())
    return {
        modality: space.encode(modality, probe_items(modality))
        for modality in space.modalities
        if modality not in looked_up and probe_items(modality)
    }


def check_probes(space: AnchorSpace, folder: Path) -> None:
    """Compare a space with its golden probes, or keep them if there are none yet.

    Args:
        space: Open, with weights.
        folder: The cache's folder of this fingerprint.

    Raises:
        AnchorError: If an embedding has moved by more than `TOLERANCE`; names modality and drift.
    """
    now = {name: tensor.numpy() for name, tensor in embed_probes(space).items()}
    path = folder / FILE
    try:
        kept = read_probes(path)
    except (FileNotFoundError, DamagedFileError) as error:
        if isinstance(error, DamagedFileError):
            logger.warning("%s in %s; the golden probes are made anew", error.found, path)
        write_whole(path, save(now, {_CHECKSUM: _sum_up(now)}))
        return
    for modality, golden in kept.items():
        if modality not in now or now[modality].shape != golden.shape:
            continue  # probes of another version of modalbind
        drift = float(np.abs(now[modality] - golden).max())
        if not drift <= TOLERANCE:
            raise AnchorError(
                f"asked to open anchor {space.name}; its weights are those of {folder.name[:12]} "
                f"but its {modality} embeddings moved by {drift:.1e}, so another library version "
                "or device computes otherwise; go back to it, or run `modalbind cache prune "
                f"{folder.name[:12]}` to compute them anew"
            )


def read_probes(path: Path) -> dict[str, NDArray[np.float32]]:
    """Return the golden embeddings that are kept in a file, by modality.

    Raises:
        FileNotFoundError: If there is none.
        DamagedFileError: If they are not as they were written.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            probes = {name: file.get_tensor(name) for name in file.keys()}
            stored = (file.metadata() or {}).get(_CHECKSUM)
    except SafetensorError as error:
        raise DamagedFileError(path, "a wrong header") from error
    if stored != _sum_up(probes):
        raise DamagedFileError(path, "a wrong checksum" if stored else "no checksum")
    return probes


def _sum_up(probes: Mapping[str, NDArray[np.float32]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(probes):
        digest.update(f"{name}|{probes[name].dtype}|{probes[name].shape}|".encode())
        digest.update(np.ascontiguousarray(probes[name]).data)
    return digest.hexdigest()
