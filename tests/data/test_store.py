"""Decoded samples: read once while the budget lasts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from modalbind.data.samples import Sample, group_pairs
from modalbind.data.store import SampleStore, count_bytes
from modalbind.errors import BrokenSampleError
from modalbind.types import Pair


@dataclass(frozen=True, slots=True)
class Slotted:
    values: np.ndarray
    rate_hz: int = 16_000


class Source:
    """Wraps arrays of 1.14 MiB, so that one fits into 2 MiB and two do not; "2" is small."""

    def __init__(self, wrap: Any) -> None:
        self.wrap = wrap
        self.reads: Counter[str] = Counter()

    def load_sample(self, key: str, modality: Any) -> Any:
        self.reads[key] += 1
        return self.wrap(10 if key == "2" else 300_000)

    def sample_hash(self, key: str, modality: Any) -> bytes:
        return key.encode() * 32


def make_samples(source: int = 0) -> list[Sample]:
    return group_pairs([Pair(str(n), "x") for n in range(3)], source)


def test_a_sample_that_cannot_be_read_is_named_with_what_to_do() -> None:
    def break_(size: int) -> Any:
        raise BrokenSampleError("empty", "no bytes")

    store = SampleStore([Source(break_)], None, 0)  # type: ignore[list-item,arg-type]
    with pytest.raises(BrokenSampleError) as caught:
        store.load(make_samples()[1])
    assert str(caught.value) == (
        "empty: sample '1' asked for; no bytes; mend or remove it, or let data.check=decode leave "
        "such samples out"
    )
    assert caught.value.reason == "empty"
    with pytest.raises(BrokenSampleError, match=r"^empty: no bytes$"):
        store.try_load(make_samples()[1])


@pytest.mark.parametrize(
    "wrap",
    [
        lambda n: np.zeros(n, np.float32),
        lambda n: torch.zeros(n),
        lambda n: Slotted(np.zeros(n, np.float32)),
        lambda n: SimpleNamespace(values=np.zeros(n, np.float32)),
    ],
    ids=["array", "tensor", "slots", "attributes"],
)
@pytest.mark.parametrize(
    ("memory_mib", "reads"), [(0, [2, 2, 2]), (2, [1, 2, 1]), (100, [1, 1, 1])]
)
def test_memory_holds_what_fits_the_budget(wrap: Any, memory_mib: int, reads: list[int]) -> None:
    source = Source(wrap)
    store = SampleStore([source], None, memory_mib)  # type: ignore[list-item,arg-type]
    for _ in range(2):
        for sample in make_samples():
            store.load(sample)
    assert [source.reads[str(n)] for n in range(3)] == reads


def test_samples_of_unknown_size_are_not_kept() -> None:
    source = Source(lambda n: [1.0, 2.0])
    store = SampleStore([source], None, 1000)  # type: ignore[list-item,arg-type]
    assert store.load(make_samples()[0]) == store.load(make_samples()[0]) == [1.0, 2.0]
    assert source.reads["0"] == 2


def test_equal_keys_of_two_sources_are_two_samples() -> None:
    sources = [Source(lambda n: np.zeros(1)), Source(lambda n: np.ones(1))]
    store = SampleStore(sources, None, 1)  # type: ignore[arg-type]
    assert [float(store.load(make_samples(s)[0])[0]) for s in (0, 1, 0)] == [0.0, 1.0, 0.0]
    assert store.hash_content(make_samples(1)[1]) == b"1" * 32


def test_bytes_are_those_of_all_arrays() -> None:
    assert count_bytes(np.zeros(3, np.float64)) == 24
    assert count_bytes(SimpleNamespace(a=np.zeros(2, np.int16), b=torch.zeros(2), c="x")) == 12
    assert count_bytes(Slotted(np.zeros(5, np.int8))) == 5
    assert count_bytes("text") > 2**60
