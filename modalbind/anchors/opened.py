"""An anchor space in use: vectors from the cache, and from the weights only what is not there.

What was just computed is written and read back, so that a cold run and a warm run see the same
bits.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from modalbind.anchors.cache import AnchorCache
from modalbind.anchors.calibration import Calibration
from modalbind.anchors.fingerprint import hash_fields
from modalbind.anchors.frozen import check_modality
from modalbind.anchors.golden import check_probes
from modalbind.anchors.index import Identity, find_identity, stamp_files, store_identity
from modalbind.anchors.shards import DamagedFileError, Keys, Vectors, as_keys
from modalbind.anchors.spec import AnchorName
from modalbind.errors import AnchorError, AnchorMismatchError, ShapeError
from modalbind.interfaces import AnchorSpace, AnchorSpec, Options
from modalbind.plugin_manager import build
from modalbind.types import AnchorItem

if TYPE_CHECKING:
    from modalbind.recipe.schema import AnchorSection

logger = logging.getLogger(__name__)

# What a kill may cost: this many embeddings, or this much time.
SHARD_ITEMS = 4096
SHARD_S = 60.0

Progress = Callable[[int, int], None]
VerifiedBy = Literal["weights", "cache", "table"]


class OpenAnchor:
    """An anchor space, open for one run.

    Args:
        section: The recipe's section.
        name: Its spec, taken apart.
        spec: Of its kind.
        options: Valid options of its kind.
        cache: Where embeddings are kept.

    Raises:
        AnchorError: If neither the cache knows the space nor its weights can be opened, or if
            its golden probes have moved.
    """

    def __init__(
        self,
        section: AnchorSection,
        name: AnchorName,
        spec: AnchorSpec,
        options: Options,
        cache: AnchorCache,
    ) -> None:
        self.spec = section.spec
        self.computed = 0
        """Distinct embeddings computed, over all calls."""
        self.reused = 0
        """Distinct embeddings found in the cache or a table, over all calls."""
        self._source = name
        self._kind = spec
        self._options = options
        self._cache = cache
        self._batch_size = section.batch_size
        self._space: AnchorSpace | None = None
        known = self._find_known() if section.verify == "auto" else self._open_unknown()
        self.name = known.name
        self.dim = known.dim
        self.modalities = known.modalities
        self.fingerprint = known.fingerprint
        self.calibration: Calibration | None = None
        """What is done to all embeddings after they come from the cache."""
        self._base_fingerprint = known.fingerprint
        self.tables = _list_tables(self._space)
        """File name and content hash of each table of vectors; none if it has weights."""

    @property
    def _identity_options(self) -> dict[str, Any]:
        return self._options.model_dump(mode="json", exclude={"device"})

    def _find_known(self) -> Identity:
        try:
            known = find_identity(self._cache, self._source, self._identity_options)
        except DamagedFileError as damage:
            return self._open_despite(damage)
        return known or self._open_unknown()

    def _open_despite(self, damage: DamagedFileError) -> Identity:
        logger.warning("%s in %s; %s is opened anew", damage.found, damage.path, self.spec)
        try:
            return self._open_unknown()
        except AnchorError as error:
            raise AnchorError(
                f"asked to open anchor {self.spec}; {damage.found} in {damage.path}, which says "
                f"what the cache holds of it, and its weights cannot be opened ({error}); "
                "copy the file again, or make the weights available once"
            ) from damage

    def _open_unknown(self) -> Identity:
        stamps = stamp_files(self._source)  # before reading: a file that changes meanwhile shows
        space = self._build()
        fingerprint = space.compute_fingerprint()
        identity = Identity(fingerprint, space.name, space.dim, tuple(space.modalities), stamps)
        if not _is_direct(space):
            self._accept(space, fingerprint)
            with self._cache.storing():
                store_identity(self._cache, self._source, self._identity_options, identity)
        self._space = space
        return identity

    def _accept(self, space: AnchorSpace, fingerprint: str) -> None:
        folder = self._cache.folder(fingerprint)
        with self._cache.storing():
            folder.mkdir(parents=True, exist_ok=True)
            check_probes(space, folder)

    def _build(self) -> AnchorSpace:
        source = self._source
        space: AnchorSpace = build(self._kind, source.source, source.tag, self._options)
        return space

    def _open_weights(self) -> AnchorSpace:
        if self._space is not None:
            return self._space
        space = self._build()
        fingerprint = space.compute_fingerprint()
        if fingerprint != self._base_fingerprint:
            raise AnchorMismatchError(
                f"asked to continue with the embeddings of {self.spec} that are cached; they are "
                f"of {self._base_fingerprint[:12]}, its weights are now {fingerprint[:12]}; "
                "set anchor.verify=weights to use the new ones"
            )
        self._accept(space, fingerprint)
        self._space = space
        return space

    def calibrate(self, calibration: Calibration) -> None:
        """Make another space of it: the base's cache serves, its fingerprint no longer does."""
        self.calibration = calibration
        self.name = f"{self.name}, calibrated"
        self.fingerprint = self._identify(self._base_fingerprint)

    def _identify(self, base: str) -> str:
        if self.calibration is None:
            return base
        fields = {"base": base, "calibration": self.calibration.hash_content()}
        return hash_fields({"kind": "calibrated", **fields})

    def embed(
        self, modality: str, items: Sequence[AnchorItem], on_progress: Progress | None = None
    ) -> Tensor:
        """Embed items; those of equal content are computed once.

        Args:
            modality: Of the items.
            items: Loaded batch by batch, and only those that are not in the cache.
            on_progress: Called with how many distinct items are done, and how many there are.

        Returns:
            Unit norm, float32 `(len(items), dim)` on the CPU.

        Raises:
            AnchorError: If the space lacks the modality or a key, or embeddings are missing and
                the weights cannot be opened.
            BrokenSampleError: If an item that is needed cannot be read; names its key.
        """
        check_modality(self.spec, modality, self.modalities)
        if not items:
            return torch.empty(0, self.dim)
        vectors = self._embed_uncalibrated(modality, items, on_progress)
        if self.calibration is None:
            return vectors
        return self.calibration.apply(modality, [item.language for item in items], vectors)

    def find_missing(self, modality: str, items: Sequence[AnchorItem]) -> list[AnchorItem]:
        """Return the items whose embeddings would have to be computed, equal ones once."""
        if self._space is not None and _is_direct(self._space):
            return []
        keys = as_keys(item.content_hash for item in items)
        distinct, first = np.unique(keys, return_index=True)
        found, _ = self._lookup(modality, distinct)
        return [items[position] for position in first[~found]]

    def _embed_uncalibrated(
        self, modality: str, items: Sequence[AnchorItem], on_progress: Progress | None
    ) -> Tensor:
        if self._space is not None and _is_direct(self._space):
            return self._read_directly(self._space, modality, items, on_progress)
        keys = as_keys(item.content_hash for item in items)
        distinct, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        found, vectors = self._lookup(modality, distinct)
        self.reused += int(found.sum())
        if not found.all():
            missing = [items[position] for position in first[~found]]
            self._compute(modality, missing, len(distinct), on_progress)
            vectors = self._read_back(modality, distinct)
        elif on_progress is not None:
            on_progress(len(distinct), len(distinct))
        return torch.from_numpy(vectors[inverse])

    def _read_directly(
        self,
        space: Any,
        modality: str,
        items: Sequence[AnchorItem],
        on_progress: Progress | None,
    ) -> Tensor:
        vectors: Tensor = space.encode(modality, items)
        if _is_composed(space):
            self.computed, self.reused = space.computed, space.reused
        else:
            self.reused += len({(item.key, item.language) for item in items})
        if on_progress is not None:
            on_progress(len(items), len(items))
        return vectors

    def _lookup(self, modality: str, keys: Keys) -> tuple[NDArray[np.bool_], Vectors]:
        while True:
            try:
                return self._cache.lookup(self._base_fingerprint, modality, keys)
            except DamagedFileError as damage:
                try:
                    self._open_weights()
                except AnchorError as error:
                    raise AnchorError(
                        f"asked for cached embeddings of {self.spec}; {damage.found} in "
                        f"{damage.path}, and its weights cannot be opened to compute them again "
                        f"({error}); copy the file again, or make the weights available"
                    ) from damage
                self._cache.quarantine(damage)

    def _compute(
        self,
        modality: str,
        missing: Sequence[AnchorItem],
        total: int,
        on_progress: Progress | None,
    ) -> None:
        space = self._open_for(modality, missing, total)
        done = total - len(missing)
        pending: list[tuple[list[AnchorItem], Vectors]] = []
        flushed_at = time.monotonic()
        try:
            for start in range(0, len(missing), self._batch_size):
                if on_progress is not None:
                    on_progress(done + start, total)
                batch = list(missing[start : start + self._batch_size])
                pending.append((batch, self._encode(space, modality, batch)))
                held = sum(len(each) for each, _ in pending)
                if held >= SHARD_ITEMS or time.monotonic() - flushed_at >= SHARD_S:
                    self._flush(modality, pending)
                    flushed_at = time.monotonic()
        finally:  # a broken item, or Ctrl-C, costs no more than its own batch
            self._flush(modality, pending)
        if on_progress is not None:
            on_progress(total, total)

    def _open_for(self, modality: str, missing: Sequence[AnchorItem], total: int) -> AnchorSpace:
        try:
            return self._open_weights()
        except AnchorMismatchError:
            raise
        except AnchorError as error:
            raise AnchorError(
                f"asked for {total} {modality} embeddings of {self.spec}; {len(missing)} are not "
                f"in the cache at {self._cache.root}, such as {missing[0].key!r}, and its weights "
                f"cannot be opened ({error}); make the weights available once"
            ) from error

    def _encode(self, space: AnchorSpace, modality: str, batch: list[AnchorItem]) -> Vectors:
        encoded = space.encode(modality, batch)
        if encoded.shape != (len(batch), self.dim):
            raise ShapeError(
                f"asked {self.spec} to embed {len(batch)} items in {self.dim} dimensions; got "
                f"{tuple(encoded.shape)}; report it to the authors of anchor kind {self._kind.name}"
            )
        vectors: Vectors = encoded.numpy().astype(np.float32, copy=False)
        return vectors

    def _flush(self, modality: str, pending: list[tuple[list[AnchorItem], Vectors]]) -> None:
        if not pending:
            return
        keys = as_keys(item.content_hash for batch, _ in pending for item in batch)
        vectors = np.concatenate([each for _, each in pending])
        pending.clear()
        self._cache.append(self._base_fingerprint, modality, keys, vectors)
        self.computed += len(keys)

    def _read_back(self, modality: str, keys: Keys) -> Vectors:
        found, vectors = self._cache.lookup(self._base_fingerprint, modality, keys)
        if not found.all():
            raise AnchorError(
                f"asked to read back embeddings just stored in {self._cache.root}; "
                f"{int((~found).sum())} are gone; let no other process prune this cache meanwhile"
            )
        return vectors

    def check_bound(self, run: Path, bound: Mapping[str, Any]) -> None:
        """Refuse a run that was aligned to another space, or to a table that is not here.

        The identity of a table space says nothing of its vectors, so its tables are compared by
        content. More tables than the run had do no harm.

        Args:
            run: The run's folder.
            bound: What its run.json says of the anchor; older runs name no tables.

        Raises:
            AnchorMismatchError: In one sentence.
        """
        fingerprint = bound["fingerprint"]
        if fingerprint != self.fingerprint:
            raise AnchorMismatchError(
                f"run {run} is bound to anchor space {fingerprint[:16]}; {self.spec} is "
                f"{self.fingerprint[:16]} now; restore the anchor that it was aligned to"
            )
        here = {content for _, content in self.tables}
        gone = [table for table in bound.get("tables", ()) if table[1] not in here]
        if gone:
            raise AnchorMismatchError(
                f"run {run} is bound to table {_name_table(*gone[0])}; {self.spec} has "
                f"{', '.join(_name_table(*table) for table in self.tables)} now; "
                "restore the table that it was aligned to"
            )

    @contextmanager
    def exported_tower(self, modality: str) -> Iterator[Path]:
        """Write the anchor's own tower of a modality to a file that lives as long as the context.

        Yields:
            A safetensors file; its metadata has `architecture` (JSON) and `fingerprint`.

        Raises:
            AnchorError: If the weights cannot be opened, or this kind of anchor exports none.
        """
        space: Any = self._open_weights()
        if not hasattr(space, "copy_tower"):
            raise AnchorError(
                f"the {modality} tower of {self.spec} asked for; anchors of kind "
                f"'{self._kind.name}' export none; choose an encoder that does not start from it"
            )
        architecture, weights = space.copy_tower(modality)
        metadata = {"architecture": json.dumps(architecture), "fingerprint": self.fingerprint}
        tensors = {name: tensor.cpu().contiguous() for name, tensor in weights.items()}
        with tempfile.TemporaryDirectory(prefix="modalbind-") as folder:
            path = Path(folder) / f"{modality}-tower.safetensors"
            save_file(tensors, path, metadata)
            yield path

    @property
    def is_table(self) -> bool:
        """Whether it is a table of vectors: such a space reads keys, never files."""
        return self._space is not None and self._space.is_table

    def verify(self) -> tuple[str, VerifiedBy]:
        """Return the fingerprint as it is now, and what it was read from.

        `weights`: the live weights were hashed again. `cache`: the weights were never opened;
        every vector came from the cache, under this fingerprint, with its checksum right.
        `table`: the space is a table, and what is in memory was compared with what was read.
        Of a space made of parts, what the least certain of them was read from.
        """
        if self._space is None:
            return self.fingerprint, "cache"
        if _is_composed(self._space):
            found, by = cast(Any, self._space).verify()
            return self._identify(found), by
        found = self._identify(self._space.compute_fingerprint())
        return found, "table" if self.is_table else "weights"


def _is_composed(space: AnchorSpace) -> bool:
    return getattr(space, "is_composed", False)


def _is_direct(space: AnchorSpace) -> bool:
    """Say whether the space is asked itself, as there is nothing to be saved by a cache."""
    return space.is_table or _is_composed(space)


def _list_tables(space: AnchorSpace | None) -> tuple[tuple[str, str], ...]:
    # Only a table has content hashes; their order is that of the names, wherever the files lie.
    hashes: Mapping[str, str] = getattr(space, "content_hashes", {})
    return tuple(sorted((Path(path).name, content) for path, content in hashes.items()))


def _name_table(name: str, content: str) -> str:
    return f"{name} ({content[:16]})"
