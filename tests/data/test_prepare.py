"""From data sets to samples: what is kept, what is left out, and why."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from modalbind.data.files import text_item
from modalbind.data.prepare import PreparedData, prepare_data
from modalbind.data.store import SampleStore
from modalbind.errors import BrokenSampleError, DataError
from modalbind.recipe.schema import DataSection
from modalbind.types import AnchorItem, Pair


@dataclass
class Listed:
    """A data set in memory; `contents` maps a key to what its sample holds."""

    rows: Sequence[Pair]
    name: str = "listed"
    licence: str = "CC0"
    contents: dict[str, str] = field(default_factory=dict)
    broken: frozenset[str] = frozenset()
    undecodable: frozenset[str] = frozenset()

    def pairs(self) -> Sequence[Pair]:
        return self.rows

    def load_sample(self, key: str, modality: Any) -> Any:
        if key in self.undecodable:
            raise BrokenSampleError("undecodable", key)
        return self.sample_hash(key, modality)

    def sample_hash(self, key: str, modality: Any) -> bytes:
        if key in self.broken:
            raise BrokenSampleError("missing", key)
        return hashlib.sha256(self.contents.get(key, key).encode()).digest()

    def anchor_item(self, modality: str, key: str, language: str | None = None) -> AnchorItem:
        return text_item(key, language)


def make_rows(train: int = 6, test: int = 3) -> list[Pair]:
    splits = [
        *(("train", f"a{n}") for n in range(train)),
        *(("test", f"t{n}") for n in range(test)),
    ]
    return [Pair(key, f"text {key}", split=split, group=key) for split, key in splits]


def prepare(*datasets: Listed, sides: Sequence[str] = ("text",), **options: Any) -> PreparedData:
    tests_all = options.pop("tests_all", False)
    weights = [1.0] * len(datasets)
    section = DataSection(**options)
    store = SampleStore(datasets, None, 0)  # type: ignore[arg-type]
    return prepare_data(store, weights, section, sides, tests_all=tests_all)


def test_samples_by_use_with_name_and_licence() -> None:
    second = Listed([Pair("b0", "x", split="train", group="b0")], "other", "CC0")
    data = prepare(Listed(make_rows()), second)
    assert [s.key for s in data.train] == [*(f"a{n}" for n in range(6)), "b0"]
    assert [s.source for s in data.train][-1] == 1
    assert [s.key for s in data.test] == ["t0", "t1", "t2"]
    assert (data.name, data.licence, data.weights) == ("listed + other", "CC0", (1.0, 1.0))
    assert (data.skipped, data.overlap, data.broken) == ({}, 0, ())


def test_what_is_left_out_is_counted_by_reason() -> None:
    rows = [*make_rows(), Pair("a9", "y", "de", split="train", group="a9")]
    rows.append(Pair("p", None, image="p.png", split="train", group="p"))
    data = prepare(Listed(rows, broken=frozenset({"a1"})), max_broken_fraction=0.2)
    assert data.skipped == {"other_language": 1, "missing": 1, "no_anchor": 1}
    assert data.broken == (("a1", "missing", "a1"),)
    assert [s.key for s in data.train] == ["a0", "a2", "a3", "a4", "a5"]


def test_one_anchor_side_is_enough() -> None:
    rows = [*make_rows(), Pair("p", None, image="p.png", split="train", group="p")]
    assert prepare(Listed(rows), sides=("text", "image")).train[-1].key == "p"


def test_without_the_check_nothing_is_read() -> None:
    dataset = Listed(make_rows(), undecodable=frozenset({"a1"}))
    with pytest.raises(DataError, match=r"a1 \(undecodable\)"):
        prepare(dataset)
    data = prepare(dataset, check="none")
    assert (len(data.train), data.broken, data.overlap) == (6, (), 0)


def test_overlap_is_told_by_content_not_by_name() -> None:
    assert prepare(Listed(make_rows(), contents={"t1": "a2"})).overlap == 1


@pytest.mark.parametrize(("train", "test"), [(1, 3), (6, 0)])
def test_too_little_is_refused(train: int, test: int) -> None:
    rows = make_rows(train, test)
    if not test:
        rows.append(Pair("t", "x", split="test", group="t"))
    broken = frozenset({"t"})
    with pytest.raises(DataError, match="samples asked for"):
        prepare(Listed(rows, broken=broken), max_broken_fraction=1.0)


def test_when_nothing_is_trained_one_test_sample_will_do() -> None:
    data = prepare(Listed([Pair("a", "x", "de", group="a")]), tests_all=True)
    assert ([s.key for s in data.test], data.train) == (["a"], ())


def test_shuffling_moves_anchors_of_training_samples_only() -> None:
    rows = make_rows(train=40)
    plain, shuffled = prepare(Listed(rows)), prepare(Listed(rows), shuffle_pairs=True)
    assert [s.key for s in shuffled.train] == [s.key for s in plain.train]
    assert sorted(s.captions[0].text for s in shuffled.train) == sorted(
        s.captions[0].text for s in plain.train
    )
    moved = [a.captions != b.captions for a, b in zip(plain.train, shuffled.train, strict=True)]
    assert sum(moved) > 30
    assert shuffled.test == plain.test
    assert shuffled.train == prepare(Listed(rows), shuffle_pairs=True).train
