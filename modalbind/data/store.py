"""Decoded samples, kept in memory up to a budget, for whoever needs them next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modalbind.data.samples import Sample
from modalbind.interfaces import Modality, PairedDataset


class SampleStore:
    """Reads samples through their data set, each once while the budget lasts.

    Safe to be read from several threads; a worker process has a copy of its own.
    """

    def __init__(
        self, datasets: Sequence[PairedDataset], modality: Modality, memory_mib: int
    ) -> None:
        """Read nothing yet; keep at most `memory_mib` MiB of decoded samples."""
        self.datasets = datasets
        self.modality = modality
        self._budget = memory_mib * 2**20
        self._kept: dict[tuple[int, str], Any] = {}

    def load(self, sample: Sample) -> Any:
        """Return the decoded sample.

        Raises:
            BrokenSampleError: If it cannot be read.
        """
        place = (sample.source, sample.key)
        if place in self._kept:
            return self._kept[place]
        loaded = self.datasets[sample.source].load_sample(sample.key, self.modality)
        size = count_bytes(loaded)
        if size <= self._budget:
            self._budget -= size
            self._kept[place] = loaded
        return loaded

    def hash_content(self, sample: Sample) -> bytes:
        """Return 32 bytes that identify the sample's content."""
        return self.datasets[sample.source].sample_hash(sample.key, self.modality)


def count_bytes(sample: Any) -> int:
    """Return the size of the arrays in a sample; what has none counts as too large to keep."""
    if hasattr(sample, "nbytes"):
        return int(sample.nbytes)
    values = list(vars(sample).values()) if hasattr(sample, "__dict__") else []
    values += [getattr(sample, name) for name in getattr(sample, "__slots__", ())]
    sizes = [int(value.nbytes) for value in values if hasattr(value, "nbytes")]
    return sum(sizes) if sizes else 2**62
