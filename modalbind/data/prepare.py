"""From data sets to the samples of a run: split, grouped, checked, and what was left out.

Does not embed anything.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from modalbind.data.samples import CheckedSamples, Sample, check_samples, group_pairs, list_anchors
from modalbind.data.splits import split_pairs, take_test_pairs
from modalbind.data.store import SampleStore, has_files
from modalbind.errors import DataError
from modalbind.processes import join
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
        overlap: Test samples whose content is also a training sample's; None if not checked.
    """

    store: SampleStore
    weights: tuple[float, ...]
    train: tuple[Sample, ...]
    val: tuple[Sample, ...]
    test: tuple[Sample, ...]
    broken: tuple[tuple[str, str, str], ...]
    skipped: dict[str, int]
    overlap: int | None

    @property
    def name(self) -> str:
        """Names of the data sets."""
        return " + ".join(dataset.name for dataset in self.store.datasets)

    @property
    def licence(self) -> str:
        """Licences of the data sets, each once."""
        return "; ".join(dict.fromkeys(d.licence for d in self.store.datasets if d.licence))

    @property
    def manifest_hashes(self) -> Mapping[str, str]:
        """SHA-256 of each manifest by its data set's name; others than manifests have none."""
        hashes: dict[str, str] = {}
        for place, dataset in enumerate(self.store.datasets):
            if found := getattr(dataset, "manifest_hash", ""):
                name = f"{dataset.name} ({place})" if dataset.name in hashes else dataset.name
                hashes[name] = found
        return hashes


def prepare_data(
    store: SampleStore,
    weights: Sequence[float],
    section: DataSection,
    sides: Collection[str],
    *,
    pictured: Collection[str] = (),
    tests_all: bool = False,
) -> PreparedData:
    """Split every data set, shuffle if this is a control, and try every sample.

    Args:
        store: Data sets, and what reads their samples.
        weights: Of each data set in an epoch.
        section: How to split, filter and check.
        sides: Anchor modalities that training samples must be paired with, one at least.
        pictured: Parts (`train`, `val`, `test`) whose pictures the anchor must read: a sample
            whose picture cannot be read is broken.
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
    checked = _check_all(parts, store, section, pictured)
    skipped.update(checked.count_reasons())
    kept = {(sample.source, sample.key) for sample in checked.kept}
    left = {
        name: tuple(s for s in part if (s.source, s.key) in kept) for name, part in parts.items()
    }
    # Samples in a language that is not trained on choose nothing either.
    left["val"] = tuple(
        s for s in left["val"] if not s.language or s.language in section.train_languages
    )
    anchored = tuple(s for s in left["train"] if any(list_anchors(s, side) for side in sides))
    skipped["no_anchor"] += len(left["train"]) - len(anchored)
    left["train"] = anchored
    _check_not_empty(left, skipped, 0 if tests_all else 2)
    train = _shuffle_anchors(left["train"]) if section.shuffle_pairs else left["train"]
    # Hashed by the process that reports it.
    knows_overlap = section.check == "decode" and not tests_all and join().is_first
    return PreparedData(
        store,
        tuple(weights),
        train,
        left["val"],
        left["test"],
        checked.broken,
        dict(+skipped),
        _count_overlap(left["train"], left["test"], store) if knows_overlap else None,
    )


def keep_fractions(
    samples: tuple[Sample, ...], fractions: Mapping[str, float], seed: int
) -> tuple[Sample, ...]:
    """Take the anchors of a side from all samples but a share of their groups.

    Samples that have none left are left out.

    Which groups keep them depends on their names and the seed alone: those of a smaller share are
    among those of a larger one, and more data changes nothing for the rest.

    Args:
        samples: Of training.
        fractions: Share that keeps its anchors, by side.
        seed: Of the draw.

    Raises:
        DataError: If a side would have no anchor left.
    """
    for side, fraction in fractions.items():
        kept = {s.group for s in samples if _draw(seed, side, s.group) < fraction}
        samples = tuple(s if s.group in kept else _without(s, side) for s in samples)
        if not any(list_anchors(sample, side) for sample in samples):
            raise DataError(
                f"anchor.fractions asked for {fraction:g} of {len(samples)} samples with {side}; "
                f"none of these has any; raise it, or leave {side} out of anchor.sides"
            )
    return tuple(sample for sample in samples if sample.captions or sample.images)


def _without(sample: Sample, side: str) -> Sample:
    return replace(sample, captions=()) if side == "text" else replace(sample, images=())


def _draw(seed: int, side: str, group: str) -> float:
    """Return a number in 0..1 that a group always draws."""
    digest = hashlib.sha256(f"{seed}:{side}:{group}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _check_all(
    parts: Mapping[str, Sequence[Sample]],
    store: SampleStore,
    section: DataSection,
    pictured: Collection[str],
) -> CheckedSamples:
    everything = [sample for part in parts.values() for sample in part]
    if section.check == "none":
        return CheckedSamples(tuple(everything), ())
    with_files = {source for source, each in enumerate(store.datasets) if has_files(each)}
    needing = {
        (s.source, s.key) for name in pictured for s in parts[name] if s.source in with_files
    }

    def try_one(sample: Sample) -> None:
        store.try_load(sample)
        if (sample.source, sample.key) in needing:
            store.try_pictures(sample)

    return check_samples(everything, try_one, section.max_broken_fraction)


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
