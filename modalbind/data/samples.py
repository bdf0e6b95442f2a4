"""Pairs grouped by sample, and the check that every sample can be read before training starts.

A broken sample is counted by reason, listed and left out; it is never replaced by another.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from modalbind.errors import BrokenSampleError, DataError
from modalbind.processes import join, share_of
from modalbind.types import Pair

logger = logging.getLogger(__name__)

LISTED_BROKEN = 5
"""Broken samples named in a message; the run directory has all of them."""


@dataclass(frozen=True, slots=True)
class Caption:
    """A text of a sample, with its language and positive key."""

    text: str
    language: str
    positive_key: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample of the modality with all that it is paired with.

    Attributes:
        key: Its key in its data set.
        source: Index of that data set.
        captions: Its texts, in manifest order.
        images: Keys of its pictures, each with a positive key.
        group: Never cut by a split.
        columns: All columns of its first row but paths and text.
        has_keys: Whether the data named its positive keys.
        language: Of the sample itself, or empty.
    """

    key: str
    source: int
    captions: tuple[Caption, ...]
    images: tuple[tuple[str, str], ...]
    group: str
    columns: Mapping[str, str] = field(default_factory=dict)
    has_keys: bool = False
    language: str = ""


def group_pairs(pairs: Sequence[Pair], source: int) -> list[Sample]:
    """Gather the rows of each sample, in order of first appearance.

    Without a `positive_key`, a text's key is the text itself, and a picture's the key of the
    text beside it.
    """
    by_sample: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_sample.setdefault(pair.sample, []).append(pair)
    return [_build_sample(key, rows, source) for key, rows in by_sample.items()]


def _build_sample(key: str, rows: Sequence[Pair], source: int) -> Sample:
    captions: dict[Caption, None] = {}
    images: dict[tuple[str, str], None] = {}
    for row in rows:
        positive_key = row.positive_key or row.text or row.image or key
        if row.text is not None:
            captions[Caption(row.text, row.language, positive_key)] = None
        if row.image is not None:
            images.setdefault((row.image, positive_key))
    return Sample(
        key=key,
        source=source,
        captions=tuple(captions),
        images=tuple(images),
        group=rows[0].group or key,
        columns={**rows[0].columns, **_known_values(rows[0])},
        has_keys=all(row.positive_key for row in rows),
        language=rows[0].sample_language,
    )


def known_columns(pair: Pair) -> dict[str, str]:
    """Return the columns of a pair that have a meaning, less paths and text."""
    return {
        "split": pair.split,
        "fold": pair.fold,
        "group": pair.group,
        "language": pair.language,
        "positive_key": pair.positive_key,
    }


def _known_values(pair: Pair) -> dict[str, str]:
    filled = {name: value for name, value in known_columns(pair).items() if value}
    return {"positive_key": pair.text or pair.image or pair.sample, **filled}


def list_anchors(sample: Sample, modality: str) -> list[tuple[Any, str]]:
    """Return `(bank key, positive key)` of all that a sample is paired with in a modality.

    The bank key of a text is `(text, language)`, that of a picture `(source, path)`.
    """
    if modality == "text":
        return [((c.text, c.language), c.positive_key) for c in sample.captions]
    return [((sample.source, image), positive_key) for image, positive_key in sample.images]


@dataclass(frozen=True, slots=True)
class CheckedSamples:
    """What is left after the check.

    Attributes:
        kept: Readable samples.
        broken: `(key, reason, detail)` of the others.
    """

    kept: tuple[Sample, ...]
    broken: tuple[tuple[str, str, str], ...]

    def count_reasons(self) -> dict[str, int]:
        """Return how many samples are broken, by reason."""
        return dict(Counter(reason for _, reason, _ in self.broken))


def check_samples(
    samples: Sequence[Sample],
    load: Callable[[Sample], object],
    max_broken_fraction: float,
    threads: int = 2,
) -> CheckedSamples:
    """Try every sample once; several processes try their shares.

    Args:
        samples: What to try.
        load: Reads one; raises `BrokenSampleError`.
        max_broken_fraction: How many may be broken before this stops.
        threads: Samples read at the same time; the result does not depend on it.

    Raises:
        DataError: If more are broken than allowed, or none is left.
    """

    def try_one(sample: Sample) -> tuple[str, str, str] | None:
        try:
            load(sample)
        except BrokenSampleError as error:
            return sample.key, error.reason, error.detail
        return None

    processes = join()
    own = share_of(len(samples), processes.rank, processes.count)
    with ThreadPoolExecutor(threads) as pool:
        verdicts = zip(own, pool.map(try_one, samples[own.start : own.stop]), strict=True)
        found = [(place, fault) for place, fault in verdicts if fault is not None]
    faults = {place: fault for part in processes.gather(found) for place, fault in part}
    kept = tuple(sample for place, sample in enumerate(samples) if place not in faults)
    broken = tuple((key, reason, detail) for key, reason, detail in faults.values())
    checked = CheckedSamples(kept, broken)
    if broken:
        listed = "; ".join(f"{key} ({reason})" for key, reason, _ in broken[:LISTED_BROKEN])
        message = f"{len(broken)} of {len(samples)} samples are broken: {listed}"
        if len(broken) > max_broken_fraction * len(samples) or not kept:
            raise DataError(
                f"readable samples asked for; {message}; the first: {broken[0][2]}; mend or remove "
                "them, or raise data.max_broken_fraction"
            )
        logger.warning("%s; they are left out", message)
    return checked
