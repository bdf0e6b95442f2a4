from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from modalbind.anchors.golden import (
    FILE,
    TEXTS,
    check_probes,
    embed_probes,
    probe_items,
    read_probes,
)
from modalbind.anchors.shards import DamagedFileError
from modalbind.errors import AnchorError
from modalbind.types import AnchorItem


class CountingSpace:
    """Embeds a content by simple statistics of it, plus a drift."""

    name = "counting"
    dim = 4
    is_table = False

    def __init__(self, *modalities: str, drift: float = 0.0) -> None:
        self.modalities = modalities
        self.drift = drift

    def compute_fingerprint(self) -> str:
        return "0" * 64

    def encode(self, modality: str, items: Sequence[AnchorItem]) -> torch.Tensor:
        rows = []
        for item in items:
            content = item.load()
            numbers = (
                [float(ord(c)) for c in content] if modality == "text" else np.ravel(content[0])
            )
            rows.append([len(numbers) + 1.0, float(np.sum(numbers)), 1.0, 2.0])
        vectors = F.normalize(torch.tensor(rows), dim=-1)
        return vectors + self.drift * torch.tensor([0.0, 0.0, 0.0, 1.0])


def test_probes_are_the_same_every_time() -> None:
    assert [item.load() for item in probe_items("text")] == list(TEXTS)
    for first, second in zip(probe_items("image"), probe_items("image"), strict=True):
        assert first.load().mode == "RGB"
        np.testing.assert_array_equal(np.asarray(first.load()), np.asarray(second.load()))
    wave, rate_hz = probe_items("audio")[0].load()
    assert (wave.dtype, wave.ndim, rate_hz) == (np.float32, 1, 16_000)
    assert probe_items("smell") == []
    assert (
        len({item.content_hash for m in ("text", "image", "audio") for item in probe_items(m)})
        == 14
    )


def test_only_what_the_space_holds_is_probed() -> None:
    assert set(embed_probes(CountingSpace("text", "audio", "smell"))) == {"text", "audio"}


@pytest.mark.parametrize("drift", [0.0, 5e-5, -5e-5])
def test_small_changes_pass(tmp_path: Path, drift: float) -> None:
    check_probes(CountingSpace("text", "audio"), tmp_path)
    assert (tmp_path / FILE).is_file()
    check_probes(CountingSpace("text", "audio", drift=drift), tmp_path)


@pytest.mark.parametrize("drift", [2e-4, float("nan")])
def test_drift_is_an_error_that_names_it(tmp_path: Path, drift: float) -> None:
    check_probes(CountingSpace("audio"), tmp_path)
    with pytest.raises(AnchorError, match=r"audio embeddings moved by (2\.0e-04|nan)"):
        check_probes(CountingSpace("audio", drift=drift), tmp_path)


@pytest.mark.parametrize("junk", [b"", b"junk", bytes(64)])
def test_damaged_probes_are_made_anew(tmp_path: Path, junk: bytes) -> None:
    (tmp_path / FILE).write_bytes(junk)
    check_probes(CountingSpace("text"), tmp_path)
    check_probes(CountingSpace("text"), tmp_path)
    with pytest.raises(AnchorError):
        check_probes(CountingSpace("text", drift=1.0), tmp_path)


def test_a_flipped_bit_is_no_drift(tmp_path: Path) -> None:
    check_probes(CountingSpace("text"), tmp_path)
    path = tmp_path / FILE
    before = path.read_bytes()
    path.write_bytes(before[:-1] + bytes([before[-1] ^ 64]))  # the exponent of the last number
    with pytest.raises(DamagedFileError, match="a wrong checksum"):
        read_probes(path)
    check_probes(CountingSpace("text"), tmp_path)
    assert path.read_bytes() == before


def test_probes_are_plain_safetensors(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    space = CountingSpace("text", "audio")
    check_probes(space, tmp_path)
    kept = load_file(tmp_path / FILE)
    assert set(kept) == {"text", "audio"}
    assert all(torch.equal(kept[name], vectors) for name, vectors in embed_probes(space).items())
