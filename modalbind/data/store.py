"""Decoded samples, kept in memory up to a budget, for whoever needs them next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modalbind.data.samples import Sample
from modalbind.errors import BrokenSampleError
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
        self._pictures: dict[tuple[int, str], BrokenSampleError | None] = {}

    def load(self, sample: Sample) -> Any:
        """Return the decoded sample.

        Raises:
            BrokenSampleError: If it cannot be read; names it and says what to do.
        """
        try:
            return self.try_load(sample)
        except BrokenSampleError as error:
            raise BrokenSampleError(
                error.reason,
                f"sample '{sample.key}' asked for; {error.detail}; mend or remove it, or let "
                "data.check=decode leave such samples out",
            ) from error

    def try_load(self, sample: Sample) -> Any:
        """Return the decoded sample; raises `BrokenSampleError` with what was found alone."""
        place = (sample.source, sample.key)
        if place in self._kept:
            return self._kept[place]
        loaded = self.datasets[sample.source].load_sample(sample.key, self.modality)
        size = count_bytes(loaded)
        if size <= self._budget:
            self._budget -= size
            self._kept[place] = loaded
        return loaded

    def try_pictures(self, sample: Sample) -> None:
        """Decode the pictures that a sample is paired with, each once, and keep none.

        Raises:
            BrokenSampleError: If one cannot be read, with a reason that says so.
        """
        for key, _ in sample.images:
            place = (sample.source, key)
            if place not in self._pictures:
                self._pictures[place] = self._find_fault(*place)
            fault = self._pictures[place]
            if fault is not None:
                raise BrokenSampleError(f"picture_{fault.reason}", fault.detail) from fault

    def _find_fault(self, source: int, key: str) -> BrokenSampleError | None:
        try:
            self.datasets[source].anchor_item("image", key).load()
        except BrokenSampleError as error:
            return error
        return None

    def hash_content(self, sample: Sample) -> bytes:
        """Return 32 bytes that identify the sample's content."""
        return self.datasets[sample.source].sample_hash(sample.key, self.modality)


def has_files(dataset: PairedDataset) -> bool:
    """Say whether a data set lies in a folder; one without generates what it is asked for."""
    return getattr(dataset, "root", None) is not None


def count_bytes(sample: Any) -> int:
    """Return the size of the arrays in a sample; what has none counts as too large to keep."""
    if hasattr(sample, "nbytes"):
        return int(sample.nbytes)
    values = list(vars(sample).values()) if hasattr(sample, "__dict__") else []
    # A subclass lists its own slots alone.
    slots = [name for kind in type(sample).__mro__ for name in getattr(kind, "__slots__", ())]
    values += [getattr(sample, name) for name in slots if hasattr(sample, name)]
    sizes = [int(value.nbytes) for value in values if hasattr(value, "nbytes")]
    return sum(sizes) if sizes else 2**62
