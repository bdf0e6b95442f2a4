"""Checks of a data set: the same pairs each time, no leak, and no sample in place of another."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from modalbind.conformance.material import (
    Material,
    build_example,
    parse_options,
    share_materials,
    spread,
)
from modalbind.conformance.modality import HASH_BYTES
from modalbind.conformance.structure import are_equal, flatten
from modalbind.conformance.verdict import ContractError, NotCheckedError, one_line, require
from modalbind.errors import BrokenSampleError, ModalbindError
from modalbind.interfaces import DatasetSpec, Modality, Options, PairedDataset
from modalbind.types import AnchorItem, Pair

KEYS = 8
"""Samples that are read."""


class DatasetBench:
    """A data set built from its example, or from what the caller gave."""

    def __init__(self, around: Any, spec: DatasetSpec) -> None:
        """Keep what to look at; nothing is built yet."""
        self.around = around
        self.spec = spec
        self.root: Path | None = around.root
        self._materials = share_materials(around)

    @cached_property
    def material(self) -> Material:
        """The modality whose samples it has; for any, the first that is installed."""
        return self._materials.of(self.spec.modality, self.spec.example_modality)

    @cached_property
    def modality(self) -> Modality:
        """The modality itself; raises `NotCheckedError` if it cannot be built."""
        try:
            return self.material.modality
        except Exception as error:
            raise NotCheckedError(
                f"modality '{self.material.spec.name}': {one_line(error)}"
            ) from error

    @cached_property
    def options(self) -> Options:
        """Options of the caller, of the quick start, or of its example."""
        if self.around.options is not None:
            return parse_options(self.spec, self.around.options)
        if not self.spec.example and (found := self._quick_start_options()) is not None:
            return found
        return parse_options(self.spec, self.spec.example)

    def _quick_start_options(self) -> Options | None:
        if self.spec.modality == "*":
            return None
        try:
            chosen = self.material.resolved.datasets
        except ModalbindError:
            return None
        return next((options for spec, options in chosen if spec == self.spec), None)

    def build_again(self) -> PairedDataset:
        """Build the data set."""
        extra = (self.material.spec,) if self.spec.modality == "*" else ()
        return build_example(  # type: ignore[no-any-return]
            self.spec, self.options, self.root, *extra
        )

    @cached_property
    def dataset(self) -> PairedDataset:
        """The data set."""
        return self.build_again()

    @cached_property
    def pairs(self) -> tuple[Pair, ...]:
        """All its pairs."""
        return tuple(self.dataset.pairs())

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of a few samples."""
        return spread(list(dict.fromkeys(pair.sample for pair in self.pairs)), KEYS)

    def method(self, name: str) -> Any:
        """Return a method, as the place to look at."""
        return getattr(type(self.dataset), name, type(self.dataset))


def check_builds(bench: DatasetBench) -> None:
    """Build it and read its pairs."""
    dataset, where = bench.dataset, type(bench.dataset)
    require(isinstance(dataset, PairedDataset), f"a {where.__name__} is no PairedDataset", where)
    for name in ("name", "licence"):
        value = getattr(dataset, name)
        said = isinstance(value, str) and "\n" not in value and (value != "" or name == "licence")
        require(said, f"{name} is {value!r}, no line of text", where)
    pairs = bench.method("pairs")
    require(len(bench.pairs) > 0, "it has no pairs", pairs)
    for pair in bench.pairs:
        require(isinstance(pair, Pair), f"pairs() holds a {type(pair).__name__}", pairs)
        require(bool(pair.sample), "a pair names no sample", pairs)
        named = pair.text is not None or pair.image is not None
        require(named, f"'{pair.sample}' is paired with neither text nor picture", pairs)


def check_repeats(bench: DatasetBench) -> None:
    """Ask for the pairs again, and build it again."""
    where = bench.method("pairs")
    require(tuple(bench.dataset.pairs()) == bench.pairs, "pairs differ when asked again", where)
    again = tuple(bench.build_again().pairs())
    require(again == bench.pairs, "pairs differ when it is built again", where)


def check_groups(bench: DatasetBench) -> None:
    """Look for groups and samples in several splits."""
    for what in ("group", "sample"):
        splits: dict[str, set[str]] = {}
        for pair in bench.pairs:
            name = getattr(pair, what) or pair.sample
            splits.setdefault(name, set()).add(pair.split)
        cut = {name: sorted(found) for name, found in splits.items() if len(found) > 1}
        if cut:
            name = next(iter(cut))
            require(
                False,
                f"{len(cut)} {what}s stand in several splits, such as '{name}' in "
                f"{', '.join(cut[name])}",
                bench.method("pairs"),
            )


def check_loads(bench: DatasetBench) -> None:
    """Read samples, and see what the data set asks of a modality that only takes notes."""
    modality = bench.modality
    where = bench.method("load_sample")
    for key in bench.keys:
        modality.features(bench.dataset.load_sample(key, modality))
    requests: dict[str, str] = {}
    for key in bench.keys:
        first, second = (bench.dataset.load_sample(key, _Noting()) for _ in range(2))
        require(are_equal(first, second), f"sample '{key}' asked for twice differs", where)
        other = requests.setdefault(repr(sorted(flatten(first).items())), key)
        require(other == key, f"'{key}' and '{other}' lead to one sample", where)


def check_hashes(bench: DatasetBench) -> None:
    """Hash samples, twice, in two builds."""
    modality, where = bench.modality, bench.method("sample_hash")
    again = bench.build_again()
    seen: dict[bytes, str] = {}
    for key in bench.keys:
        first = bench.dataset.sample_hash(key, modality)
        is_hash = isinstance(first, bytes) and len(first) == HASH_BYTES
        require(is_hash, f"{HASH_BYTES} bytes asked for; found {first!r}", where)
        same = first == bench.dataset.sample_hash(key, modality) == again.sample_hash(key, modality)
        require(same, f"the hash of '{key}' differs from time to time", where)
        other = seen.setdefault(first, key)
        if other != key:
            equal = are_equal(*(bench.dataset.load_sample(k, modality) for k in (key, other)))
            require(equal, f"'{key}' and '{other}' differ and share a hash", where)


def check_anchor_items(bench: DatasetBench) -> None:
    """Ask for texts and pictures of a few pairs."""
    where = bench.method("anchor_item")
    for pair in spread(list(bench.pairs), KEYS):
        for modality, key in (("text", pair.text), ("image", pair.image)):
            if key is None:
                continue
            language = pair.language if modality == "text" else None
            item = bench.dataset.anchor_item(modality, key, language)
            require(isinstance(item, AnchorItem), f"a {type(item).__name__} for {modality}", where)
            is_hash = isinstance(item.content_hash, bytes) and len(item.content_hash) == HASH_BYTES
            require(is_hash, f"{HASH_BYTES} bytes asked for; found {item.content_hash!r}", where)
            content = item.load()
            if modality == "text":
                require(isinstance(content, str), f"a text is a {type(content).__name__}", where)


def check_broken_samples(bench: DatasetBench) -> None:
    """Ask for samples through a modality that refuses all, and for a key that is not there."""
    where = bench.method("load_sample")
    reads_itself = False
    for key in bench.keys[:2]:
        refusing = _Refusing()
        try:
            found = bench.dataset.load_sample(key, refusing)
        except BrokenSampleError as error:
            told = error.reason == _Refusing.REASON
            require(told, f"'{key}': the modality's refusal comes out as {error}", where)
        except Exception as error:
            raise ContractError(f"'{key}': {one_line(error)}", where) from error
        else:
            kind = type(found).__name__
            require(not refusing.asked, f"'{key}' cannot be read, and a {kind} came back", where)
            reads_itself = True
            continue
        require(refusing.asked == 1, f"'{key}': {refusing.asked} samples tried, not one", where)
    absent = "no-such-sample"
    try:
        found = bench.dataset.load_sample(absent, bench.modality)
    except (ModalbindError, KeyError, ValueError):
        if reads_itself:
            raise NotCheckedError("it reads samples without its modality") from None
        return
    raise ContractError(f"'{absent}' is no key of it, and a {type(found).__name__} came", where)


class _Noting:
    """A modality whose samples are what it was asked for, and what it was given."""

    is_padded = True

    def load(self, path: Path, key: str) -> Any:
        # A file that is lent for the moment has another path each time.
        return ("file", path.read_bytes() if path.is_file() else str(path), key)

    def render(self, scene: Any, seed: int) -> Any:
        return ("scene", scene, seed)

    def features(self, sample: Any) -> Any:
        raise NotCheckedError("load_sample makes features; it returns samples")

    def windows(self, sample: Any) -> list[tuple[float, float, Any]]:
        return [(0.0, 0.0, sample)]

    def content_hash(self, path: Path, key: str) -> bytes:
        return bytes(HASH_BYTES)

    def describe(self, sample: Any) -> Mapping[str, float]:
        return {}


class _Refusing(_Noting):
    """A modality to which each sample is broken."""

    REASON = "refused"

    def __init__(self) -> None:
        self.asked = 0

    def load(self, path: Path, key: str) -> Any:
        self.asked += 1
        raise BrokenSampleError(self.REASON, f"{key}: a made-up fault")

    def render(self, scene: Any, seed: int) -> Any:
        return self.load(Path(), "scene")
