"""Seeded training batches.

What a batch holds depends on (seed, epoch, sample) alone: not on the number of worker processes,
nor of those that train, not on where a run was resumed. Captions and augmentations are drawn per
sample and epoch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from modalbind.data.collate import Columns, build_side, lay_out, list_columns, pad_features
from modalbind.data.samples import Sample, list_anchors
from modalbind.data.store import SampleStore
from modalbind.errors import BrokenSampleError
from modalbind.processes import share_of
from modalbind.types import PairBatch

Augmentation = Callable[[Any, torch.Generator], Any]


@dataclass(frozen=True, slots=True)
class Augmentations:
    """Augmentations by the stage that they act on."""

    sample: tuple[Augmentation, ...] = ()
    features: tuple[Augmentation, ...] = ()
    batch: tuple[Augmentation, ...] = ()


@dataclass(frozen=True, slots=True)
class AnchorBank:
    """Anchor embeddings of one modality, by key.

    Attributes:
        modality: `text`, `image` …
        rows: Key to row: `(text, language)` of a text, `(source, path)` of a picture.
        embeddings: Unit norm, float32 `(len(rows), dim)`.
    """

    modality: str
    rows: Mapping[Any, int]
    embeddings: Tensor

    def pick(self, keys: Sequence[Any]) -> Tensor:
        """Return the embeddings of keys, `(len(keys), dim)`."""
        return self.embeddings[torch.tensor([self.rows[k] for k in keys], dtype=torch.long)]


@dataclass(frozen=True, slots=True)
class Known:
    """Features that are computed already.

    Attributes:
        features: Of each sample.
        is_padded: Whether their first axis varies.
    """

    features: Sequence[Tensor]
    is_padded: bool


def derive_seed(*parts: object) -> int:
    """Return 63 bits that depend on all parts and on nothing else."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def seeded_generator(*parts: object) -> torch.Generator:
    """Return a generator seeded by `derive_seed`."""
    return torch.Generator().manual_seed(derive_seed(*parts))


@dataclass(frozen=True, slots=True)
class Lengths:
    """How much of each sample is seen at which step: a curriculum from short to whole.

    Attributes:
        start: Share of a sample's features at the first step, 0 to 1.
        steps: After so many steps samples are whole; linear until then.
    """

    start: float
    steps: int

    def share_at(self, step: int) -> float:
        """Return the share of a sample that step `step` (from 0) sees."""
        return min(1.0, self.start + (1 - self.start) * step / max(1, self.steps))


class FeatureSet(Dataset[Tensor]):
    """Features of samples, augmented by (seed, epoch, sample).

    Indexed by `(epoch, index)`. Where no augmentation touches the sample itself, its plain
    features are computed, or read, once and kept, up to the memory budget.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        store: SampleStore,
        augmentations: Augmentations | None = None,
        seed: int = 0,
        memory_mib: int = 0,
        known: Known | None = None,
    ) -> None:
        """Keep what is needed to read; reads nothing.

        Args:
            samples: In the order in which they are indexed.
            store: Reads them.
            augmentations: Applied to each sample anew in every epoch.
            seed: Of the augmentations.
            memory_mib: Budget for plain features.
            known: What a frozen part of the tower makes of each sample, in place of its features.
        """
        self.samples = samples
        self.store = store
        self.augmentations = augmentations or Augmentations()
        self.seed = seed
        self._known = known
        self._budget = memory_mib * 2**20
        self._kept: dict[int, Tensor] = {}

    @property
    def is_known(self) -> bool:
        """Whether the features are computed already."""
        return self._known is not None

    def count_kept(self) -> tuple[list[int], int]:
        """Return the bytes of each sample's features that are kept, and of what may be kept."""
        sizes = [item.nbytes for item in self._kept.values()]
        return sizes, self._budget + sum(sizes)

    @property
    def is_padded(self) -> bool:
        """Whether the first axis of the features varies."""
        return self.store.modality.is_padded if self._known is None else self._known.is_padded

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.samples)

    def __getitem__(self, place: tuple[int, int]) -> Tensor:
        """Return the features of sample `index` in `epoch`."""
        epoch, index = place
        generator = seeded_generator(self.seed, "augment", epoch, self.samples[index].key)
        if self.augmentations.sample:
            loaded = self.store.load(self.samples[index])
            for augment in self.augmentations.sample:
                loaded = augment(loaded, generator)
            features = self.store.modality.features(loaded)
        else:
            features = self._plain_features(index)
        for augment in self.augmentations.features:
            features = augment(features, generator)
        return features

    def _plain_features(self, index: int) -> Tensor:
        if index in self._kept:
            return self._kept[index]
        if self._known is not None:
            features = self._known.features[index]
        else:
            features = self.store.modality.features(self.store.load(self.samples[index]))
        if features.nbytes <= self._budget:
            self._budget -= features.nbytes
            self._kept[index] = features
        return features


class TrainingBatches:
    """All batches of a run, in order, from any step on.

    Attributes:
        lengths: How samples are cut early in the run; None leaves them whole.
    """

    def __init__(
        self,
        features: FeatureSet,
        banks: Mapping[str, AnchorBank],
        side_weights: Mapping[str, float],
        *,
        batch_size: int,
        source_weights: Sequence[float],
        workers: int = 0,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        """Plan batches of `batch_size` samples; the last of an epoch may be smaller.

        Args:
            features: Of the training samples.
            banks: Anchor embeddings by modality.
            side_weights: Anchor sides, and their weights.
            batch_size: Samples per batch.
            source_weights: Of the data sets in an epoch.
            workers: Loader processes.
            share: Rank of this process and number of them: each plans the same batches, and
                reads its own rows of them alone.
        """
        self.features = features
        self.banks = banks
        self.side_weights = side_weights
        self.batch_size = min(batch_size, len(features))
        self.source_weights = source_weights
        self.workers = workers
        self.share = share
        self.lengths: Lengths | None = None
        self.columns: dict[str, Columns] = {}

    @property
    def steps_per_epoch(self) -> int:
        """Batches in one epoch; a last batch of a single sample is dropped (no negatives)."""
        full, rest = divmod(len(self.features), self.batch_size)
        return full + (rest > 1)

    def order(self, epoch: int) -> list[int]:
        """Return the samples of an epoch: each once, or drawn by their source's weight."""
        generator = seeded_generator(self.features.seed, "order", epoch)
        count = len(self.features)
        if len(set(self.source_weights)) <= 1:
            return torch.randperm(count, generator=generator).tolist()
        weights = torch.tensor([self.source_weights[s.source] for s in self.features.samples])
        drawn = torch.multinomial(weights, count, replacement=True, generator=generator)
        return drawn.tolist()

    def iterate(self, start_step: int, stop_step: int) -> Iterator[tuple[int, PairBatch]]:
        """Yield `(epoch, batch)` for the steps after `start_step` up to `stop_step`.

        Raises:
            BrokenSampleError: If a sample cannot be read, in whatever process it was tried.
        """
        plan = [
            (step // self.steps_per_epoch, step % self.steps_per_epoch)
            for step in range(start_step, stop_step)
        ]
        loader = DataLoader(
            _ErrorsAsItems(self.features),
            batch_sampler=_PlannedBatches(self, plan),
            num_workers=self.workers,
            collate_fn=_join if self.workers else list,
            persistent_workers=False,
        )
        orders: dict[int, list[int]] = {}
        for (epoch, position), found in zip(plan, loader, strict=True):
            features = found.split() if isinstance(found, _Joined) else found
            for item in features:
                if isinstance(item, BrokenSampleError):
                    raise item
            if epoch not in orders:
                orders = {epoch: self.order(epoch)}
            indices = self.slice_order(orders[epoch], position)
            if self.lengths is not None:
                step = epoch * self.steps_per_epoch + position
                features = self._cut(features, epoch, self.slice_own(indices), step)
            yield epoch, self._build_batch(epoch, position, indices, features)

    def slice_order(self, order: list[int], position: int) -> list[int]:
        """Return the samples of batch `position` of an epoch's order."""
        return order[position * self.batch_size : (position + 1) * self.batch_size]

    def list_samples(self, step: int) -> list[Sample]:
        """Return the samples of the batch that step `step` (from 0) of a run takes."""
        epoch, position = divmod(step, self.steps_per_epoch)
        return [self.features.samples[i] for i in self.slice_order(self.order(epoch), position)]

    def use_bank(self) -> None:
        """Compare each row with the anchors of all training samples, not those of its batch."""
        self.columns = {side: self._list_columns(side) for side in self.side_weights}

    def _list_columns(self, side: str) -> Columns:
        bank = self.banks[side]
        anchors = (
            (bank.rows[key], positive_key)
            for sample in self.features.samples
            for key, positive_key in list_anchors(sample, side)
        )
        return list_columns(anchors, bank.embeddings)

    def _cut(
        self, features: Sequence[Tensor], epoch: int, indices: Sequence[int], step: int
    ) -> list[Tensor]:
        """Return a random stretch of each sample, as long as this step has it."""
        assert self.lengths is not None
        share = self.lengths.share_at(step)
        stretches = []
        for item, index in zip(features, indices, strict=True):
            size = max(1, round(share * len(item)))
            key = self.features.samples[index].key
            start = derive_seed(self.features.seed, "cut", epoch, key) % (len(item) - size + 1)
            stretches.append(item[start : start + size])
        return stretches

    def slice_own(self, indices: list[int]) -> list[int]:
        """Return the samples of a batch that this process reads.

        Where there are fewer than processes, some have none of their own: they read the first, as
        every process takes part in a step, and the training loop leaves it out.
        """
        own = share_of(len(indices), *self.share)
        return indices[own.start : own.stop] or indices[:1]

    def _build_batch(
        self, epoch: int, position: int, indices: list[int], features: list[Tensor]
    ) -> PairBatch:
        samples = [self.features.samples[index] for index in indices]
        padded, valid_mask = pad_features(features, self.features.is_padded)
        sides = tuple(
            self._build_side(modality, weight, epoch, samples)
            for modality, weight in self.side_weights.items()
        )
        batch = PairBatch(padded, valid_mask, sides, tuple(sample.key for sample in samples))
        generator = seeded_generator(self.features.seed, "batch", epoch, position)
        for augment in self.features.augmentations.batch:
            batch = augment(batch, generator)
        return batch

    def _build_side(
        self, modality: str, weight: float, epoch: int, samples: Sequence[Sample]
    ) -> Any:
        bank = self.banks[modality]
        rows: list[int] = []
        keys: list[str] = []
        owned: list[set[str]] = []
        for sample in samples:
            choices = list_anchors(sample, modality)
            owned.append({positive_key for _, positive_key in choices})
            if not choices:
                rows.append(-1)
                keys.append("")
                continue
            pick = derive_seed(self.features.seed, modality, epoch, sample.key) % len(choices)
            anchor_key, positive_key = choices[pick]
            rows.append(bank.rows[anchor_key])
            keys.append(positive_key)
        if modality in self.columns:
            side = lay_out(modality, rows, owned, self.columns[modality], weight)
            # What mixes the rows of a batch mixes their targets as dense tables.
            return side.to_dense() if self.features.augmentations.batch else side
        return build_side(modality, rows, keys, bank.embeddings, weight, owned)


class _ErrorsAsItems(Dataset["Tensor | BrokenSampleError"]):
    """Features, or why there are none: what a loader process raises loses its type on the way."""

    def __init__(self, features: FeatureSet) -> None:
        self.features = features

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, place: tuple[int, int]) -> Tensor | BrokenSampleError:
        try:
            return self.features[place]
        except BrokenSampleError as error:
            return error


@dataclass(frozen=True, slots=True)
class _Joined:
    """Features of a batch, behind one another along their first axis."""

    features: Tensor
    sizes: list[int]

    def split(self) -> list[Tensor]:
        return list(torch.split(self.features, self.sizes))


def _join(items: list[Tensor | BrokenSampleError]) -> _Joined | list[Tensor | BrokenSampleError]:
    """Make one tensor of many: each that leaves a loader process costs a file and a connection."""
    tensors = [item for item in items if isinstance(item, Tensor)]
    kinds = {(item.dtype, item.shape[1:]) for item in tensors if item.ndim}
    if len(tensors) < len(items) or len(kinds) != 1 or not all(item.ndim for item in tensors):
        return items
    return _Joined(torch.cat(tensors), [len(item) for item in tensors])


class _PlannedBatches:
    """Batch sampler over `(epoch, index)`, written as a class so that workers can have it."""

    def __init__(self, batches: TrainingBatches, plan: list[tuple[int, int]]) -> None:
        self.batches, self.plan = batches, plan

    def __len__(self) -> int:
        return len(self.plan)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        current, order = -1, list[int]()
        for epoch, position in self.plan:
            if epoch != current:
                current, order = epoch, self.batches.order(epoch)
            indices = self.batches.slice_order(order, position)
            yield [(epoch, index) for index in self.batches.slice_own(indices)]
