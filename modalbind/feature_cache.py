"""Plain features of training samples on disk, in half precision, for this run and the next.

One file holds those of many samples; what each was computed from is its name, so files of several
runs and data sets live beside each other. Not here: anchor embeddings, which have their own cache.
"""

from __future__ import annotations

import json
import logging
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from modalbind.anchors.fingerprint import hash_fields
from modalbind.cache_root import FEATURES, default_root
from modalbind.checkpoint import encode_tensors, write_file
from modalbind.data.loader import Known
from modalbind.data.samples import Sample
from modalbind.errors import CorruptFileError, DataError
from modalbind.inputs import RunInputs
from modalbind.processes import join, share_of
from modalbind.recipe import Resolved

logger = logging.getLogger(__name__)

SUFFIX = ".safetensors"
FILE_SAMPLES = 256
_NOTE = "modalbind"
_MEND = "try: modalbind cache prune"


def keep_features(
    resolved: Resolved, inputs: RunInputs, say: Callable[[str], None]
) -> Known | None:
    """Compute the plain features of all training samples that are not on disk, and use those.

    Args:
        resolved: The recipe; nothing is done unless it asks for it (`data.feature_cache`).
        inputs: Training samples.
        say: Told what was done.

    Returns:
        Features as they are read back, also those computed just now; None if the recipe does not
        ask for them, or augments samples before there are features.

    Raises:
        DataError: If a number is too large for half precision.
    """
    if not resolved.recipe.data.feature_cache:
        return None
    if any(spec.stage == "sample" for spec, _ in resolved.augmentations):
        say("features are not cached: an augmentation acts on the samples themselves")
        return None
    name = f"{resolved.modality.name}-{identify(resolved)}"
    cache = FeatureCache(default_root() / FEATURES / name)
    samples = inputs.data.train
    keys = [inputs.data.store.hash_content(sample).hex() for sample in samples]
    missing = {key: sample for key, sample in zip(keys, samples, strict=True) if key not in cache}
    processes = join()
    own = share_of(len(missing), processes.rank, processes.count)
    cache.fill(inputs, dict(islice(missing.items(), own.start, own.stop)))
    processes.meet()
    with suppress(OSError):  # a cache that is only read serves as well
        os.utime(cache.folder)  # by which `modalbind cache prune` sees that it is in use
    say(f"features of {len(keys):,} samples on disk, {len(missing):,} of them new")
    return Known(CachedFeatures(cache, keys), inputs.modality.is_padded)


def identify(resolved: Resolved) -> str:
    """Return what tells features of one front end from those of another."""
    options = resolved.modality_options.model_dump(mode="json")
    return hash_fields(
        {
            "modality": resolved.modality.name,
            "build": str(resolved.modality.build),
            "options": options,
            "torch": torch.__version__,
        }
    )


class FeatureCache:
    """A folder of files of features; what is damaged is computed again.

    Args:
        folder: Of one front end.
    """

    def __init__(self, folder: Path) -> None:
        """Read which features there are."""
        self.folder = folder
        self._place: dict[str, Path] = {}
        self._open: dict[Path, tuple[Any, Mapping[str, int]]] = {}
        self.refresh()

    def __contains__(self, key: str) -> bool:
        """Say whether there are features of this content."""
        return key in self._place

    def __getstate__(self) -> dict[str, Any]:
        """Go to a loader process without open files."""
        return {**self.__dict__, "_open": {}}

    def refresh(self) -> None:
        """Look for files that others have written."""
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            if path in self._open:
                continue
            try:
                _, sums = self._open_file(path)
            except CorruptFileError as error:
                logger.warning("%s; its features are computed again", error)
                continue
            self._place.update(dict.fromkeys(sums, path))

    def fill(self, inputs: RunInputs, missing: Mapping[str, Sample]) -> None:
        """Compute features by content, and write them.

        Raises:
            DataError: If a number is too large for half precision.
        """
        items = iter(missing.items())
        while batch := list(islice(items, FILE_SAMPLES)):
            self.write(
                {
                    key: inputs.modality.features(inputs.data.store.load(sample))
                    for key, sample in batch
                }
            )

    def write(self, features: Mapping[str, Tensor]) -> None:
        """Write one file."""
        halves = {key: value.half() for key, value in features.items()}
        if not all(bool(torch.isfinite(value).all()) for value in halves.values()):
            raise DataError(
                "data.feature_cache asked for; features hold numbers above 65504, too large for "
                "half precision; leave it out"
            )
        sums = {key: _checksum(value) for key, value in halves.items()}
        content = encode_tensors(halves, json.dumps(sums, sort_keys=True))
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{sha256(content).hexdigest()[:32]}{SUFFIX}"
        write_file(path, content)
        self._place.update(dict.fromkeys(sums, path))

    def read(self, key: str) -> Tensor:
        """Return features, float32.

        Raises:
            CorruptFileError: If they were damaged.
        """
        if key not in self._place:
            self.refresh()
        path = self._place[key]
        return _read_checked(path, *self._open_file(path), key).float()

    def _open_file(self, path: Path) -> tuple[Any, Mapping[str, int]]:
        if path not in self._open:
            self._open[path] = _open_features(path)
        return self._open[path]


def check_features(path: Path) -> int:
    """Read a file of features whole; return how many samples' it holds.

    Raises:
        CorruptFileError: If it is damaged.
    """
    file, sums = _open_features(path)
    for key in sums:
        _read_checked(path, file, sums, key)
    return len(sums)


def count_features(path: Path) -> int:
    """Return how many samples' features a file says that it holds.

    Raises:
        CorruptFileError: If it cannot be opened.
    """
    return len(_open_features(path)[1])


def _open_features(path: Path) -> tuple[Any, Mapping[str, int]]:
    try:
        file = safe_open(path, framework="pt")
        note: Any = file.metadata()  # type: ignore[no-untyped-call]
        return file, dict(json.loads(note[_NOTE]))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CorruptFileError(f"features in {path} asked for; {error}; {_MEND}") from None


def _read_checked(path: Path, file: Any, sums: Mapping[str, int], key: str) -> Tensor:
    try:
        value: Tensor = file.get_tensor(key)
    except SafetensorError as error:
        raise CorruptFileError(f"features in {path} asked for; {error}; {_MEND}") from None
    if _checksum(value) != sums[key]:
        raise CorruptFileError(f"features in {path} asked for; they are damaged; {_MEND}")
    return value


class CachedFeatures(Sequence[Tensor]):
    """Features of samples in order, read when they are asked for.

    Args:
        cache: That holds them.
        keys: Of the samples.
    """

    def __init__(self, cache: FeatureCache, keys: Sequence[str]) -> None:
        """Read nothing yet."""
        self.cache, self.keys = cache, keys

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.keys)

    def __getitem__(self, index: Any) -> Any:
        """Return the features of a sample, float32."""
        return self.cache.read(self.keys[index])

    def __iter__(self) -> Iterator[Tensor]:
        """Yield all features."""
        return map(self.cache.read, self.keys)


def _checksum(value: Tensor) -> int:
    return zlib.crc32(value.contiguous().numpy().tobytes())
