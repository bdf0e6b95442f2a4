"""From data sets to the samples of a run: split, grouped, checked, and what was left out.

Does not embed anything.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from modalbind.data.samples import CheckedSamples, Sample, check_samples, group_pairs, list_anchors
from modalbind.data.splits import split_pairs, take_test_pairs
from modalbind.data.store import SampleStore
from modalbind.errors import DataError
from modalbind.recipe.schema import DataSection

SHUFFLE_SEED = 1
"""Of the shuffled control."""


@dataclass(frozen=True, slots=True)
class PreparedData:
    """All samples of a run by use.

    Attributes:
        store: Reads samples; `Sample.source` is an index into its data sets.
        weights: Of each data set in an epoch.
        train: Samples to train on, with texts in the training languages alone.
        val: Samples to select on; may be empty.
        test: Samples to report on.
        broken: `(key, reason, detail)` of samples that cannot be read.
        skipped: How many rows or samples were left out, by reason.
        overlap: Test samples whose content is also a training sample's; 0 if not checked.
    """

    store: SampleStore
    weights: tuple[float, ...]
    train: tuple[Sample, ...]
    val: tuple[Sample, ...]
    test: tuple[Sample, ...]
    broken: tuple[tuple[str, str, str], ...]
    skipped: dict[str, int]
    overlap: int

    @property
    def name(self) -> str:
        """Names of the data sets."""
        return " + ".join(dataset.name for dataset in self.store.datasets)

    @property
    def licence(self) -> str:
        """Licences of the data sets, each once."""
        return "; ".join(dict.fromkeys(d.licence for d in self.store.datasets if d.licence))


def prepare_data(
    store: SampleStore,
    weights: Sequence[float],
    section: DataSection,
    sides: Collection[str],
    *,
    tests_all: bool = False,
) -> PreparedData:
    """Split every data set, shuffle if this is a control, and try every sample.

    Args:
        store: Data sets, and what reads their samples.
        weights: Of each data set in an epoch.
        section: How to split, filter and check.
        sides: Anchor modalities that training samples must be paired with, one at least.
        tests_all: Nothing is trained; the test split, or all rows if none is named, is tested.

    Raises:
        ManifestError: If a list of pairs contradicts itself.
        DataError: If nothing is left to train or test on, or too much is broken.
    """
    parts: dict[str, list[Sample]] = {"train": [], "val": [], "test": []}
    skipped: Counter[str] = Counter()
    divide = take_test_pairs if tests_all else split_pairs
    splits_by_source = divide([dataset.pairs() for dataset in store.datasets], section)
    for source, splits in enumerate(splits_by_source):
        skipped.update(splits.dropped)
        for name, part in parts.items():
            part.extend(group_pairs(getattr(splits, name), source))
    if not parts["test"]:
        raise DataError("test samples asked for; there are none; check data.test_split")
    everything = [sample for part in parts.values() for sample in part]
    checked = CheckedSamples(tuple(everything), ())
    if section.check == "decode":
        checked = check_samples(everything, store.load, section.max_broken_fraction)
    skipped.update(checked.count_reasons())
    kept = {(sample.source, sample.key) for sample in checked.kept}
    left = {
        name: tuple(s for s in part if (s.source, s.key) in kept) for name, part in parts.items()
    }
    anchored = tuple(s for s in left["train"] if any(list_anchors(s, side) for side in sides))
    skipped["no_anchor"] += len(left["train"]) - len(anchored)
    left["train"] = anchored
    _check_not_empty(left, skipped, 0 if tests_all else 2)
    train = _shuffle_anchors(left["train"]) if section.shuffle_pairs else left["train"]
    return PreparedData(
        store,
        tuple(weights),
        train,
        left["val"],
        left["test"],
        checked.broken,
        dict(+skipped),
        _count_overlap(left["train"], left["test"], store) if section.check == "decode" else 0,
    )


def _check_not_empty(
    parts: dict[str, tuple[Sample, ...]], skipped: Counter[str], least_train: int
) -> None:
    for name, least in (("train", least_train), ("test", 1)):
        if len(parts[name]) < least:
            raise DataError(
                f"at least {least} {name} samples asked for; {len(parts[name])} are left "
                f"(skipped: {dict(skipped)}); check the data and its splits"
            )


def _shuffle_anchors(samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
    """Give every sample what a random one is paired with; the same shuffle in every seed.

    A random permutation, not a rotation: where samples share keys, a rotation would map one class
    onto another as a whole, which can be learnt.
    """
    order = random.Random(SHUFFLE_SEED).sample(range(len(samples)), len(samples))
    return tuple(
        replace(sample, captions=samples[other].captions, images=samples[other].images)
        for sample, other in zip(samples, order, strict=True)
    )


def _count_overlap(train: Sequence[Sample], test: Sequence[Sample], store: SampleStore) -> int:
    seen = {store.hash_content(sample) for sample in train}
    return sum(store.hash_content(sample) in seen for sample in test)
