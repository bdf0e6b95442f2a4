"""Batches that depend on seed, epoch and sample, and on nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from modalbind.data.loader import (
    AnchorBank,
    Augmentations,
    FeatureSet,
    Known,
    Lengths,
    TrainingBatches,
    derive_seed,
    seeded_generator,
)
from modalbind.data.samples import Sample, group_pairs
from modalbind.data.store import SampleStore
from modalbind.errors import BrokenSampleError
from modalbind.types import Pair, PairBatch

CAPTIONS = ("one", "two", "three")


class Numbers:
    """A modality whose sample is its own number."""

    is_padded = False

    def features(self, sample: Any) -> Tensor:
        return torch.as_tensor(sample, dtype=torch.float32).reshape(-1)


class Source:
    """A data set that counts what is read."""

    def __init__(self) -> None:
        self.reads: Counter[str] = Counter()

    def load_sample(self, key: str, modality: Any) -> Any:
        self.reads[key] += 1
        return np.full(4, float(key.split("-")[1]), dtype=np.float32)


def noise(features: Tensor, generator: torch.Generator) -> Tensor:
    return features + torch.rand(features.shape, generator=generator)


def mark(batch: PairBatch, generator: torch.Generator) -> PairBatch:
    shift = torch.rand((), generator=generator)
    return PairBatch(batch.features + shift, batch.valid_mask, batch.sides, batch.samples)


def make_samples(count: int, source: int = 0, images: bool = False) -> list[Sample]:
    rows = [
        Pair(f"{source}-{n}", f"{text} {n}", image=f"{n}.png" if images and n % 2 else None)
        for n in range(count)
        for text in CAPTIONS
    ]
    return group_pairs(rows, source)


def make_bank(samples: Sequence[Sample]) -> AnchorBank:
    keys = {(c.text, c.language): None for s in samples for c in s.captions}
    rows = {key: row for row, key in enumerate(keys)}
    vectors = torch.randn(len(rows), 3, generator=torch.Generator().manual_seed(0))
    return AnchorBank("text", rows, torch.nn.functional.normalize(vectors, dim=1))


def make_batches(samples: Sequence[Sample], **changes: Any) -> TrainingBatches:
    augmentations = Augmentations((), (noise,), (mark,))
    seed, memory = changes.pop("seed", 0), changes.pop("memory_mib", 0)
    store = SampleStore([Source(), Source()], Numbers(), memory)  # type: ignore[list-item,arg-type]
    features = FeatureSet(samples, store, augmentations, seed=seed, memory_mib=memory)
    options = {"batch_size": 4, "source_weights": (1.0, 1.0), **changes}
    return TrainingBatches(features, {"text": make_bank(samples)}, {"text": 1.0}, **options)


def flatten(found: Sequence[tuple[int, PairBatch]]) -> list[Any]:
    return [
        (epoch, b.samples, b.features.tolist(), b.sides[0].embeddings.tolist())
        for epoch, b in found
    ]


def read(batches: TrainingBatches, start: int = 0, stop: int = 8) -> list[Any]:
    return flatten(list(batches.iterate(start, stop)))


def test_seeds_depend_on_every_part() -> None:
    assert derive_seed("a", 1) == derive_seed("a", 1)
    assert len({derive_seed("a", 1), derive_seed("a", 2), derive_seed("b", 1), derive_seed(1)}) == 4
    assert 0 <= derive_seed("a") < 2**63
    first, second = (torch.rand(3, generator=seeded_generator(5)) for _ in range(2))
    assert torch.equal(first, second)


def test_order_depends_on_seed_and_epoch_alone() -> None:
    samples = make_samples(11)
    one, again, other = (make_batches(samples, seed=seed) for seed in (0, 0, 1))
    torch.rand(7)  # the global generator has no part in it
    assert one.order(3) == again.order(3)
    assert one.order(3) != one.order(4) and one.order(3) != other.order(3)
    assert sorted(one.order(3)) == list(range(11))


def test_an_epoch_holds_each_sample_once() -> None:
    batches = make_batches(make_samples(11))
    assert batches.steps_per_epoch == 3
    found = list(batches.iterate(0, 6))
    assert [epoch for epoch, _ in found] == [0, 0, 0, 1, 1, 1]
    assert [len(batch.samples) for _, batch in found] == [4, 4, 3] * 2
    assert len({key for _, batch in found[:3] for key in batch.samples}) == 11


def test_a_last_batch_of_one_is_dropped() -> None:
    batches = make_batches(make_samples(9))
    assert batches.steps_per_epoch == 2
    assert [len(batch.samples) for _, batch in batches.iterate(0, 4)] == [4] * 4
    assert make_batches(make_samples(3)).steps_per_epoch == 1


@pytest.mark.parametrize("start", [1, 3, 4, 7, 8])
def test_from_any_step_it_is_the_tail_of_the_whole(start: int) -> None:
    samples = make_samples(11)
    assert read(make_batches(samples), start) == read(make_batches(samples))[start:]


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(workers: int) -> None:
    samples = make_samples(11)
    assert read(make_batches(samples)) == read(make_batches(samples, workers=workers))


class Sequences(Numbers):
    """A modality of sequences, each of a length of its own."""

    is_padded = True

    def features(self, sample: Any) -> Tensor:
        return torch.full((1 + int(sample[0]), 2), float(sample[0]))


@pytest.mark.parametrize("shape", ["sequences", "single numbers"])
def test_workers_hand_on_features_of_any_length(
    shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shape == "sequences":
        modality: Numbers = Sequences()
    else:
        modality = Numbers()
        monkeypatch.setattr(modality, "features", lambda sample: torch.tensor(float(sample[0])))
    found = []
    for workers in (0, 1):
        batches = make_batches(make_samples(7), workers=workers)
        batches.features.store.modality = modality  # type: ignore[assignment]
        found.append(read(batches))
    assert found[0] == found[1]


class Reads(Sequence[Tensor]):
    """Features on a disk that notes each read."""

    def __init__(self, count: int) -> None:
        self.count, self.read = count, Counter[int]()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: Any) -> Any:
        self.read[index] += 1
        return torch.full((3,), float(index))


@pytest.mark.parametrize(("memory_mib", "reads"), [(0, 3), (1, 1)])
def test_known_features_are_read_once_within_the_budget(memory_mib: int, reads: int) -> None:
    samples, disk = make_samples(4), Reads(4)
    store = SampleStore([Source()], Numbers(), 0)  # type: ignore[list-item,arg-type]
    features = FeatureSet(samples, store, memory_mib=memory_mib, known=Known(disk, False))
    for epoch in range(3):
        assert [features[epoch, n][0].item() for n in range(4)] == [0, 1, 2, 3]
    assert disk.read == dict.fromkeys(range(4), reads)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_sample_stops_training_as_what_it_is(
    workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_sample(self: Source, key: str, modality: Any) -> Any:
        raise BrokenSampleError("missing", f"no file for {key}")

    monkeypatch.setattr(Source, "load_sample", load_sample)
    with pytest.raises(BrokenSampleError, match=r"missing: sample '0-\d+' asked for; no file for"):
        read(make_batches(make_samples(4), workers=workers))


def test_all_captions_are_drawn_over_epochs() -> None:
    samples = make_samples(8)
    batches = make_batches(samples)
    bank = batches.banks["text"]
    text_of = {tuple(bank.embeddings[row].tolist()): key[0] for key, row in bank.rows.items()}
    drawn: Counter[tuple[str, str]] = Counter()
    for _, batch in batches.iterate(0, 2 * 40):
        side = batch.sides[0]
        for sample, row in zip(batch.samples, side.positives, strict=True):
            text = text_of[tuple(side.embeddings[int(row.argmax())].tolist())]
            assert text.split()[1] == sample.split("-")[1], "a caption of this very sample"
            drawn[sample, text] += 1
    assert len(drawn) == 8 * len(CAPTIONS)
    # 40 draws of three: below 3 has probability 4e-5 for one of 24.
    assert min(drawn.values()) >= 3 and sum(drawn.values()) == 8 * 40


@pytest.mark.parametrize("memory_mib", [0, 1])
def test_augmentation_differs_by_epoch_and_sample(memory_mib: int) -> None:
    features = make_batches(make_samples(4), memory_mib=memory_mib).features
    assert torch.equal(features[0, 1], features[0, 1])
    assert not torch.equal(features[0, 1], features[1, 1])
    assert not torch.equal(features[0, 1] - 1, features[0, 2] - 2)


def test_augmentations_of_samples_come_before_features() -> None:
    def double(sample: Any, generator: torch.Generator) -> Any:
        return sample * 2

    def add(features: Tensor, generator: torch.Generator) -> Tensor:
        return features + 1

    augmentations = Augmentations(sample=(double,), features=(add,))
    store = SampleStore([Source()], Numbers(), 0)  # type: ignore[list-item,arg-type]
    features = FeatureSet(make_samples(4), store, augmentations)
    assert features[0, 3].tolist() == [7.0] * 4


def test_sources_are_drawn_by_weight() -> None:
    samples = [*make_samples(200, 0), *make_samples(100, 1)]
    batches = make_batches(samples, source_weights=(1.0, 4.0))
    drawn = Counter(samples[i].source for epoch in range(10) for i in batches.order(epoch))
    assert sum(drawn.values()) == 3000
    # Expected share of the second: 100 * 4 / (200 * 1 + 100 * 4); its deviation is 0.009.
    assert drawn[1] / 3000 == pytest.approx(2 / 3, abs=0.04)


def test_equal_weights_draw_each_sample_once() -> None:
    samples = [*make_samples(20, 0), *make_samples(10, 1)]
    assert sorted(make_batches(samples, source_weights=(3.0, 3.0)).order(0)) == list(range(30))


def test_rows_without_a_picture_have_no_positive_there() -> None:
    samples = make_samples(4, images=True)
    batches = make_batches(samples)
    vectors = torch.eye(2)
    batches.banks = {
        "text": make_bank(samples),
        "image": AnchorBank("image", {(0, "1.png"): 0, (0, "3.png"): 1}, vectors),
    }
    batches.side_weights = {"text": 2.0, "image": 0.5}
    ((_, batch),) = batches.iterate(0, 1)
    text, image = batch.sides
    assert (text.weight, image.weight) == (2.0, 0.5)
    has_picture = [int(key.split("-")[1]) % 2 == 1 for key in batch.samples]
    assert [bool(row.sum()) for row in image.positives] == has_picture


def test_a_bank_picks_by_key() -> None:
    bank = AnchorBank("text", {"a": 1, "b": 0}, torch.eye(2))
    assert bank.pick(["a", "b", "a"]).tolist() == [[0, 1], [1, 0], [0, 1]]
    assert bank.pick([]).shape == (0, 2)


@pytest.mark.parametrize(("memory_mib", "computed"), [(0, [2, 2, 2]), (2, [1, 2, 1])])
def test_plain_features_are_kept_within_the_budget(memory_mib: int, computed: list[int]) -> None:
    """The first of three fits 2 MiB, the second does not beside it, the third is small."""

    class Counting(Numbers):
        def __init__(self) -> None:
            self.calls: Counter[int] = Counter()

        def features(self, sample: Any) -> Tensor:
            number = int(sample[0])
            self.calls[number] += 1
            return torch.full((10 if number == 2 else 300_000,), float(number))

    modality, samples = Counting(), make_samples(3)
    store = SampleStore([Source()], modality, memory_mib=0)  # type: ignore[list-item,arg-type]
    features = FeatureSet(samples, store, memory_mib=memory_mib)
    for epoch in range(2):
        for index in range(3):
            assert features[epoch, index][0] == index
    assert [modality.calls[number] for number in range(3)] == computed


def test_against_a_bank_all_training_anchors_are_columns() -> None:
    """Each row: its drawn caption is positive, its two others are left out, the rest negative."""
    samples = make_samples(5)
    others = make_samples(9)[5:]  # of a test: in the bank, and no column
    bank = make_bank([*others, *samples])
    batches = make_batches(samples)
    batches.banks = {"text": bank}
    batches.use_bank()
    batches.features.augmentations = Augmentations()
    ordinary = make_batches(samples)
    for (_, found), (_, own) in zip(batches.iterate(0, 2), ordinary.iterate(0, 2), strict=True):
        side = found.sides[0].to_dense()
        assert side.embeddings.shape == (15, 3)
        assert side.positives.sum(dim=1).tolist() == [1.0] * len(found.samples)
        for row, sample in enumerate(found.samples):
            number = sample.split("-")[1]
            captions = {f"{text} {number}" for text in CAPTIONS}
            drawn = side.embeddings[side.positives[row].bool()]
            left_out = side.embeddings[side.excluded[row]]
            keys = {(text, "en") for text in captions}
            wanted = bank.pick(sorted(keys))
            together = torch.cat([drawn, left_out])
            assert len(together) == 3
            assert all(any(torch.equal(a, b) for b in together) for a in wanted)
            # The same caption is drawn as without a bank: only its rivals change.
            theirs = own.sides[0]
            place = own.samples.index(sample)
            picked = make_bank(samples).rows
            assert theirs.positives[place].sum() == 1 and len(picked) == 15


def test_what_mixes_rows_sees_dense_targets() -> None:
    batches = make_batches(make_samples(5))
    batches.use_bank()
    ((_, batch),) = batches.iterate(0, 1)
    assert not batch.sides[0].positives.is_sparse and batch.sides[0].positives.shape == (4, 15)


def test_lengths_grow_from_a_share_to_the_whole() -> None:
    shares = [Lengths(0.5, 4).share_at(step) for step in range(6)]
    assert shares == [0.5, 0.625, 0.75, 0.875, 1.0, 1.0]
    samples = make_samples(4)
    batches = make_batches(samples)
    batches.features.augmentations = Augmentations()
    batches.features.samples = samples
    whole = [batch.features.shape for _, batch in batches.iterate(0, 6)]
    batches.lengths = Lengths(0.5, 4)
    cut = [batch.features.shape for _, batch in batches.iterate(0, 6)]
    assert whole == [(4, 4)] * 6  # each sample is four equal numbers
    assert [shape[1] for shape in cut] == [2, 2, 3, 4, 4, 4]  # round(share * 4)


def test_stretches_are_drawn_by_epoch_and_sample_and_lie_within() -> None:
    batches = make_batches(make_samples(4))
    batches.lengths = Lengths(0.25, 1000)
    long = [torch.arange(100.0) + 1000 * index for index in range(4)]
    first = batches._cut(long, 0, range(4), step=0)
    again = batches._cut(long, 0, range(4), step=0)
    later = batches._cut(long, 1, range(4), step=0)
    for index, (a, b, c) in enumerate(zip(first, again, later, strict=True)):
        assert torch.equal(a, b) and len(a) == len(c) == 25
        start = int(a[0]) - 1000 * index
        assert torch.equal(a, long[index][start : start + 25])
    assert any(not torch.equal(a, c) for a, c in zip(first, later, strict=True))


def test_known_features_are_used_as_they_are() -> None:
    samples = make_samples(4)
    source = Source()
    store = SampleStore([source], Numbers(), 0)  # type: ignore[list-item,arg-type]
    known = Known([torch.full((2 + n, 3), float(n)) for n in range(4)], is_padded=True)
    features = FeatureSet(samples, store, known=known)
    batches = TrainingBatches(
        features, {"text": make_bank(samples)}, {"text": 1.0}, batch_size=4, source_weights=(1.0,)
    )
    ((_, batch),) = batches.iterate(0, 1)
    assert batch.valid_mask is not None and not source.reads
    for row, sample in enumerate(batch.samples):
        number = int(sample.split("-")[1])
        assert int(batch.valid_mask[row].sum()) == 2 + number
        assert batch.features[row, 0].tolist() == [float(number)] * 3
