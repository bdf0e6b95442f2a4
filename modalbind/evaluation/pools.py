"""What is retrieved from what: the test samples, and per modality and language the anchor items.

Relevance is equality of labels. Texts and pictures that belong to one sample share its label, and
so do those that share a positive key; a test never has to know why two things belong together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modalbind.data.links import Link
from modalbind.data.samples import Sample

UNIMODAL_LANGUAGE = ""
"""Language of what has none: pictures, samples."""


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """Items of one anchor modality, and language if it is text.

    Attributes:
        modality: `text`, `image`.
        language: Or empty.
        keys: Keys in the anchor bank.
        labels: Of each item.
        groups: Items of a group are resampled together: those whose samples share one.
    """

    modality: str
    language: str
    keys: tuple[Any, ...]
    labels: tuple[int, ...]
    groups: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TestPlan:
    """Labels of the test samples and the pools of anchor items they are tested against."""

    sample_labels: tuple[int, ...]
    pools: tuple[PoolPlan, ...]


@dataclass(frozen=True, slots=True)
class Pool:
    """Embedded items.

    Attributes:
        modality: Name for the report.
        language: Or empty.
        embeddings: Unit norm `(n, dim)`.
        labels: Int64 `(n,)`; equal labels belong together.
        groups: Items of a group are resampled together.
        keys: What each item is, the same in every run that tests on it.
    """

    modality: str
    language: str
    embeddings: Tensor
    labels: Tensor
    groups: tuple[str, ...]
    keys: tuple[Any, ...]


def plan_test(samples: Sequence[Sample], links: Sequence[Link]) -> TestPlan:
    """Lay out the pools of a test.

    An item that belongs to two positive keys which no sample joins stands in its pool once for
    each; the two are exact ties, which never favour the model.

    Args:
        samples: Test samples.
        links: Further texts and pictures, joined by positive key.
    """
    union = _Union()
    for sample in samples:
        keys = list(_positive_keys(sample))
        for key in keys:
            union.join(keys[0], key)
    items: dict[tuple[str, str], dict[tuple[Any, int], None]] = {}
    found = [*_sample_items(samples), *map(_link_item, links)]
    for modality, language, bank_key, positive_key in found:
        items.setdefault((modality, language), {})[(bank_key, union.label(positive_key))] = None
    # A sample without any anchor item has a label that nothing else has.
    firsts = (next(_positive_keys(sample), f"\0{sample.key}") for sample in samples)
    labels = tuple(union.label(key) for key in firsts)
    group_of = _join_groups(samples, labels)
    pools = tuple(
        PoolPlan(
            modality,
            language,
            tuple(k for k, _ in found),
            tuple(n for _, n in found),
            tuple(group_of(n) for _, n in found),
        )
        for (modality, language), found in sorted(items.items(), key=_english_first)
    )
    return TestPlan(labels, pools)


def _join_groups(samples: Sequence[Sample], labels: Sequence[int]) -> Callable[[int], str]:
    """Return what tells the group of a label: labels of one recording belong together.

    It is named after a sample in it, as labels have other numbers in another test.
    """
    union = _Union()
    for sample, label in zip(samples, labels, strict=True):
        union.join(name_group(sample), f"label {label}")
    return lambda label: union.root(f"label {label}")


def name_group(sample: Sample) -> str:
    """Name the group of a sample; those of two data sets are never one."""
    return f"{sample.source}/{sample.group}"


Item = tuple[str, str, Any, str]
"""Modality, language, bank key, positive key."""


def _sample_items(samples: Sequence[Sample]) -> Iterator[Item]:
    for sample in samples:
        for c in sample.captions:
            yield "text", c.language, (c.text, c.language), c.positive_key
        for image, key in sample.images:
            yield "image", UNIMODAL_LANGUAGE, (sample.source, image), key


def _link_item(link: Link) -> Item:
    if link.modality == "text":
        language = link.language or "en"
        return "text", language, (link.key, language), link.positive_key
    return "image", UNIMODAL_LANGUAGE, (link.source, link.key), link.positive_key


def build_pool(plan: PoolPlan, embeddings: Tensor) -> Pool:
    """Join a plan with its items' embeddings."""
    return Pool(
        plan.modality,
        plan.language,
        embeddings,
        torch.tensor(plan.labels, dtype=torch.int64),
        plan.groups,
        plan.keys,
    )


def split_by_language(pool: Pool, languages: Sequence[str]) -> list[Pool]:
    """Cut a pool of samples by the language of each, English first; one part if none has any."""
    parts = []
    for language in sorted(set(languages), key=lambda name: (name != "en", name)):
        rows = [row for row, found in enumerate(languages) if found == language]
        picked = torch.tensor(rows)
        parts.append(
            Pool(
                pool.modality,
                language,
                pool.embeddings[picked],
                pool.labels[picked],
                tuple(pool.groups[row] for row in rows),
                tuple(pool.keys[row] for row in rows),
            )
        )
    return parts


def _positive_keys(sample: Sample) -> Iterator[str]:
    yield from (c.positive_key for c in sample.captions)
    yield from (key for _, key in sample.images)


def _english_first(entry: tuple[tuple[str, str], Any]) -> tuple[bool, bool, str]:
    modality, language = entry[0]
    return modality != "text", language != "en", language


class _Union:
    """Joins keys into classes and numbers the classes in order of first use."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}
        self._numbers: dict[str, int] = {}

    def root(self, key: str) -> str:
        self._parent.setdefault(key, key)
        while self._parent[key] != key:
            self._parent[key] = self._parent[self._parent[key]]
            key = self._parent[key]
        return key

    def join(self, first: str, second: str) -> None:
        self._parent[self.root(second)] = self.root(first)

    def label(self, key: str) -> int:
        root = self.root(key)
        return self._numbers.setdefault(root, len(self._numbers))
