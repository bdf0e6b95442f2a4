"""Checks of a modality: its samples, features, windows, hashes, and what it does with bad files."""

from __future__ import annotations

import math
import os
import pickle
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from modalbind.conformance.material import Material, set_seeds, share_materials
from modalbind.conformance.odd_samples import make_odd_samples
from modalbind.conformance.structure import are_equal, find_difference
from modalbind.conformance.verdict import ContractError, NotCheckedError, one_line, require
from modalbind.data.collate import pad_features
from modalbind.errors import BrokenSampleError, ModalbindError
from modalbind.interfaces import Modality, ModalitySpec

HASH_BYTES = 32
STDERR = 2
WORKERS = 2
WORKER_TIMEOUT_S = 60
RANDOM_BYTES = 4099
CUTS = (0.02, 0.5, 0.95)
"""Shares of a real file that are left when it is cut short."""
MAX_CUT_FILES = 8


class ModalityBench:
    """A modality under the options of its quick start."""

    def __init__(self, around: Any, spec: ModalitySpec) -> None:
        """Keep what to look at; nothing is built yet."""
        self.around = around
        self.spec = spec
        self.files: tuple[Path, ...] = around.files

    @cached_property
    def material(self) -> Material:
        """The modality and its samples."""
        changed = self.spec.example if self.around.options is None else self.around.options
        return share_materials(self.around).of(self.spec.name, changed)

    @property
    def modality(self) -> Modality:
        """The modality."""
        return self.material.modality

    def method(self, name: str) -> Any:
        """Return a method, as the place to look at."""
        return getattr(type(self.modality), name, type(self.modality))


def check_builds(bench: ModalityBench) -> None:
    """Build modality and data set, and read the samples."""
    modality, material = bench.modality, bench.material
    for name in ("load", "render", "features", "windows", "content_hash", "describe"):
        require(callable(getattr(modality, name, None)), f"it has no method {name}()", modality)
    require(
        isinstance(getattr(modality, "is_padded", None), bool), "is_padded is no bool", modality
    )
    require(len(material.samples()) > 1, "its quick start has one sample alone", modality)


def check_features(bench: ModalityBench) -> None:
    """Ask for features of several samples and put them into one batch."""
    where, modality = bench.method("features"), bench.modality
    features = bench.material.features()
    for item in features:
        require(isinstance(item, Tensor), f"features is a {type(item).__name__}, no Tensor", where)
        require(item.dtype == torch.float32, f"features are {item.dtype}, not torch.float32", where)
        require(item.ndim > 0 and item.numel() > 0, f"features are {tuple(item.shape)}", where)
        require(bool(torch.isfinite(item).all()), "features of a good sample not finite", where)
        require(not item.requires_grad, "features carry a gradient", where)
    shapes = sorted({tuple(item.shape) for item in features})
    trailing = {shape[1:] if modality.is_padded else shape for shape in shapes}
    form = "(time, ...)" if modality.is_padded else "one fixed shape"
    require(len(trailing) == 1, f"{form} asked for; features are {shapes}", where)


def check_repeats(bench: ModalityBench) -> None:
    """Load and turn the same key into features twice, under different global seeds."""
    material = bench.material
    for key in material.keys:
        samples, features = [], []
        for seed in (1, 2):
            set_seeds(seed)
            samples.append(material.load(key))
        found = find_difference(*samples)
        where = bench.method("render" if bench.spec.perceives else "load")
        require(not found, f"sample '{key}' read twice differs in {found}", where)
        for seed, sample in enumerate(samples):
            set_seeds(seed)
            features.append(bench.modality.features(sample))
        require(
            are_equal(*features),
            f"features of sample '{key}' made twice differ",
            bench.method("features"),
        )


def check_leaves_sample(bench: ModalityBench) -> None:
    """Call each method that takes a sample, and compare it with a copy made before."""
    for sample in bench.material.samples():
        before = deepcopy(sample)
        for name in ("features", "windows", "describe"):
            getattr(bench.modality, name)(sample)
            found = find_difference(before, sample)
            require(not found, f"{name}() changes {found} of its sample", bench.method(name))


def check_picklable(bench: ModalityBench) -> None:
    """Pickle the modality, after use, and a sample; ask the copy for features."""
    sample = bench.material.samples()[0]
    expected = bench.modality.features(sample)
    try:
        copied, sample = pickle.loads(pickle.dumps((bench.modality, sample)))
    except (AttributeError, TypeError, ValueError, pickle.PicklingError) as error:
        raise ContractError(
            f"a copy for a loader process asked for; {one_line(error)}", type(bench.modality)
        ) from error
    require(
        are_equal(expected, copied.features(sample)),
        "features of the pickled copy differ",
        bench.method("features"),
    )


class _Features(Dataset[Tensor]):
    def __init__(self, material: Material) -> None:
        self.keys, self.modality, self.dataset = (
            material.keys,
            material.modality,
            material.dataset,
        )

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Tensor:
        return self.modality.features(self.dataset.load_sample(self.keys[index], self.modality))


def check_workers(bench: ModalityBench) -> None:
    """Read all samples in two processes and in none."""
    every = _Features(bench.material)

    def read(workers: int) -> list[Tensor]:
        timeout_s = WORKER_TIMEOUT_S if workers else 0
        loader = DataLoader(every, batch_size=None, num_workers=workers, timeout=timeout_s)
        return [item.clone() for item in loader]

    for key, alone, worked in zip(every.keys, read(0), read(WORKERS), strict=True):
        require(
            are_equal(alone, worked),
            f"features of sample '{key}' differ in a loader process",
            bench.method("features"),
        )


def check_windows(bench: ModalityBench) -> None:
    """Cut the samples into windows and look at times and features of each."""
    where = bench.method("windows")
    for sample in bench.material.samples():
        windows = bench.modality.windows(sample)
        require(isinstance(windows, list) and len(windows) > 0, "no list of windows", where)
        for window in windows:
            require(len(window) == 3, f"{len(window)} values in a window, not three", where)
        times = [(float(start), float(end)) for start, end, _ in windows]
        flat = [time for pair in times for time in pair]
        require(all(map(math.isfinite, flat)), f"times {times[:3]} are not finite", where)
        require(
            all(0 <= start <= end for start, end in times) and times == sorted(times),
            f"times {times[:3]} do not go from start to end, in order",
            where,
        )
        whole = bench.modality.features(sample)
        parts = [bench.modality.features(part) for _, _, part in windows]
        pad_features([whole, *parts], bench.modality.is_padded)


def check_describe(bench: ModalityBench) -> None:
    """Describe all samples."""
    where = bench.method("describe")
    found = [bench.modality.describe(sample) for sample in bench.material.samples()]
    for each in found:
        require(isinstance(each, Mapping), f"{type(each).__name__} is no mapping", where)
        for name, value in each.items():
            is_number = isinstance(value, int | float | np.number) and math.isfinite(value)
            require(is_number, f"{name} is {value!r}, no finite number", where)
    names = {tuple(sorted(each)) for each in found}
    require(len(names) == 1, f"names differ from sample to sample: {sorted(names)}", where)


def check_content_hash(bench: ModalityBench) -> None:
    """Hash equal files in two places, another file, and one that is not there."""
    where, modality = bench.method("content_hash"), bench.modality
    if bench.spec.is_text:
        raise NotCheckedError("its samples are texts, not files")
    with tempfile.TemporaryDirectory() as folder:
        first, second, third = _make_files(bench, Path(folder))
        hashes = [_hash(modality, path) for path in (first, first, second, third)]
        require(
            all(isinstance(each, bytes) and len(each) == HASH_BYTES for each in hashes),
            f"{HASH_BYTES} bytes asked for; found {hashes[0]!r}",
            where,
        )
        require(hashes[0] == hashes[1] == hashes[2], "equal files have different hashes", where)
        require(hashes[0] != hashes[3], "different files have equal hashes", where)
        missing = Path(folder) / f"missing{first.suffix}"
        _expect_broken(
            lambda: modality.content_hash(missing, missing.name), "a missing file", where
        )


def _make_files(bench: ModalityBench, folder: Path) -> tuple[Path, Path, Path]:
    """Write a file twice, and another: real ones where there are some, else random bytes."""
    suffix = bench.spec.suffixes[0] if bench.spec.suffixes else ""
    contents = [path.read_bytes() for path in bench.files[:2]]
    suffix = bench.files[0].suffix if contents else suffix
    contents += [_random_bytes(seed) for seed in range(2 - len(contents))]
    paths = (folder / f"first{suffix}", folder / f"second{suffix}", folder / f"third{suffix}")
    for path, content in zip(paths, (contents[0], contents[0], contents[1]), strict=True):
        path.write_bytes(content)
    return paths


def _hash(modality: Modality, path: Path) -> bytes:
    try:
        return modality.content_hash(path, path.name)
    except BrokenSampleError as error:
        raise NotCheckedError(
            f"it reads what it hashes, and no real file is at hand ({error.reason}); "
            "name some with modalbind.testing.contract(..., files=...)"
        ) from error


def check_bad_files(bench: ModalityBench) -> None:
    """Load what is no sample, under each suffix that the modality reads."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for suffix in bench.spec.suffixes:
            for what, path in _write_bad_files(folder, suffix):
                _expect_broken(
                    partial(bench.modality.load, path, path.name),
                    f"{what}{suffix}",
                    bench.method("load"),
                )


def _write_bad_files(folder: Path, suffix: str) -> Iterator[tuple[str, Path]]:
    yield "a missing file ", folder / f"missing{suffix}"
    empty = folder / f"empty{suffix}"
    empty.write_bytes(b"")
    yield "an empty file ", empty
    noise = folder / f"noise{suffix}"
    noise.write_bytes(_random_bytes(0))
    yield "random bytes in ", noise
    inside = folder / f"folder{suffix}"
    inside.mkdir()
    yield "a folder called ", inside


def check_cut_files(bench: ModalityBench) -> None:
    """Load real files of which the end is missing."""
    if not bench.files:
        raise NotCheckedError(
            "no real file is at hand; name some with modalbind.testing.contract(..., files=...)"
        )
    with tempfile.TemporaryDirectory() as name:
        for path in bench.files[:MAX_CUT_FILES]:
            content = path.read_bytes()
            bench.modality.load(path, path.name)  # whole, it has to be a sample
            for share in CUTS:
                cut = Path(name) / path.name
                cut.write_bytes(content[: int(share * len(content))])
                _expect_broken(
                    partial(bench.modality.load, cut, cut.name),
                    f"{share:.0%} of {path.name}",
                    bench.method("load"),
                )


def check_odd_samples(bench: ModalityBench) -> None:
    """Hand odd samples to each method that takes one."""
    sample = bench.material.samples()[0]
    regular = bench.modality.features(sample)
    acts = {
        "features": lambda odd: _batch_features(bench.modality, regular, odd),
        "windows": lambda odd: _batch_windows(bench.modality, regular, odd),
        "describe": bench.modality.describe,
    }
    for what, odd in make_odd_samples(sample):
        for name, act in acts.items():
            try:
                act(odd)
            except ModalbindError:
                continue
            except Exception as error:
                raise ContractError(
                    f"{what}: a finite result of {name}() or a ModalbindError asked for; "
                    f"{one_line(error)}",
                    bench.method(name),
                ) from error


def _batch_features(modality: Modality, regular: Tensor, odd: Any) -> None:
    """Put features of an odd sample into a batch, as training does.

    That door refuses, as a `ModalbindError`, what is not finite or of another shape.
    """
    _, mask = pad_features([regular, modality.features(odd)], modality.is_padded)
    if mask is not None and not bool(mask.any(dim=1).all()):
        raise ValueError("features of no step at all")


def _batch_windows(modality: Modality, regular: Tensor, odd: Any) -> None:
    for _, _, window in modality.windows(odd):
        _batch_features(modality, regular, window)


@contextmanager
def _silenced() -> Iterator[None]:
    """Send what decoders written in C say of a bad file nowhere."""
    sys.stderr.flush()
    kept = os.dup(STDERR)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, STDERR)
        yield
    finally:
        os.dup2(kept, STDERR)
        os.close(kept)
        os.close(nowhere)


def _expect_broken(act: Callable[[], Any], what: str, where: Any) -> None:
    try:
        with _silenced():
            found = act()
    except BrokenSampleError:
        return
    except Exception as error:
        raise ContractError(
            f"{what}: BrokenSampleError asked for; {one_line(error)}", where
        ) from error
    kind = type(found).__name__
    raise ContractError(f"{what}: BrokenSampleError asked for; a {kind} came back", where)


def _random_bytes(seed: int) -> bytes:
    return np.random.default_rng(seed).bytes(RANDOM_BYTES)
