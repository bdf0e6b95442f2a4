"""From data sets to samples: what is kept, what is left out, and why."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from modalbind.data.files import FileDataset, text_item
from modalbind.data.prepare import PreparedData, keep_fractions, prepare_data
from modalbind.data.samples import Sample, group_pairs
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
    assert (len(data.train), data.broken, data.overlap) == (6, (), None)


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
    assert data.overlap is None, "what was trained on is not known here"


def picture_rows(folder: Path) -> FileDataset:
    """Samples `s0` to `s5`, two of each split, paired with a picture each; three are bad."""
    for number in range(6):
        Image.new("RGB", (8, 8), (40 * number, 0, 0)).save(folder / f"{number}.png")
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:40])
    (folder / "3.png").unlink()
    (folder / "5.png").write_bytes(b"")
    splits = ("train", "train", "train", "train", "test", "test")
    rows = [
        Pair(f"s{n}", f"text {n}", image=f"{n}.png", split=split, group=f"s{n}")
        for n, split in enumerate(splits)
    ]
    return FileDataset("files", "", folder, tuple(rows), "the hash")


class Anything:
    """A modality that reads whatever there is not."""

    def load(self, path: Path, key: str) -> str:
        return key

    def content_hash(self, path: Path, key: str) -> bytes:
        return hashlib.sha256(key.encode()).digest()


def prepare_pictures(folder: Path, pictured: Sequence[str], **options: Any) -> PreparedData:
    section = DataSection(max_broken_fraction=0.9, **options)
    store = SampleStore([picture_rows(folder)], Anything(), 0)  # type: ignore[arg-type]
    return prepare_data(store, [1.0], section, ("text", "image"), pictured=pictured)


def test_samples_with_a_broken_picture_are_left_out_and_counted(tmp_path: Path) -> None:
    data = prepare_pictures(tmp_path, ("train", "val", "test"))
    assert [s.key for s in (*data.train, *data.test)] == ["s0", "s2", "s4"]
    assert data.skipped == {
        "picture_undecodable": 1,
        "picture_missing": 1,
        "picture_empty": 1,
    }
    assert {(key, reason) for key, reason, _ in data.broken} == {
        ("s1", "picture_undecodable"),
        ("s3", "picture_missing"),
        ("s5", "picture_empty"),
    }
    assert all(f"{key[1]}.png" in detail for key, _, detail in data.broken)


def test_pictures_that_nothing_reads_are_not_missed(tmp_path: Path) -> None:
    data = prepare_pictures(tmp_path, ("val", "test"))
    assert [s.key for s in (*data.train, *data.test)] == ["s0", "s1", "s2", "s3", "s4"]
    assert data.skipped == {"picture_empty": 1}
    assert prepare_pictures(tmp_path, ()).skipped == {}
    assert prepare_pictures(tmp_path, ("train", "test"), check="none").skipped == {}


def test_broken_pictures_count_towards_the_bound(tmp_path: Path) -> None:
    store = SampleStore([picture_rows(tmp_path)], Anything(), 0)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"3 of 6 samples .* s3 \(picture_missing\)"):
        prepare_data(
            store,
            [1.0],
            DataSection(max_broken_fraction=0.4),
            ("text",),
            pictured=("train", "test"),
        )


def test_manifests_are_known_by_their_content(tmp_path: Path) -> None:
    files = picture_rows(tmp_path)
    generated = Listed([Pair("b0", "x", split="train", group="b0")])
    store = SampleStore([files, generated, files], Anything(), 0)  # type: ignore[arg-type]
    data = prepare_data(store, [1.0] * 3, DataSection(), ("text",))
    assert data.manifest_hashes == {"files": "the hash", "files (2)": "the hash"}


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


def sided(n: int) -> tuple[Sample, ...]:
    """Samples in groups of two, each with a text and a picture."""
    pairs = [Pair(f"s{i}", f"t{i}", image=f"{i}.png", group=f"g{i // 2}") for i in range(n)]
    return tuple(group_pairs(pairs, 0))


def pictured(samples: Sequence[Sample]) -> set[str]:
    return {sample.key for sample in samples if sample.images}


def test_a_share_of_the_groups_keeps_its_pictures() -> None:
    samples = sided(400)
    few, many = (keep_fractions(samples, {"image": share}, seed=0) for share in (0.1, 0.5))
    assert len(few) == 400 and all(sample.captions for sample in few)
    assert 20 <= len(pictured(few)) <= 70 and 150 <= len(pictured(many)) <= 250
    assert pictured(few) < pictured(many), "the smaller share is in the larger one"
    groups = {sample.group for sample in many if sample.images}
    assert pictured(many) == {sample.key for sample in samples if sample.group in groups}
    half = keep_fractions(samples[:200], {"image": 0.5}, seed=0)
    assert pictured(half) == pictured(many) & {sample.key for sample in samples[:200]}
    assert pictured(keep_fractions(samples, {"image": 0.5}, seed=1)) != pictured(many)
    assert keep_fractions(samples, {"image": 1.0}, seed=0) == samples


def test_who_keeps_nothing_is_left_out_and_a_side_cannot_vanish() -> None:
    samples = sided(100)
    both = keep_fractions(samples, {"image": 0.5, "text": 0.5}, seed=0)
    assert 0 < len(both) < 100 and all(sample.images or sample.captions for sample in both)
    with pytest.raises(DataError, match=r"anchor\.fractions asked for 1e-09 of 100 samples"):
        keep_fractions(samples, {"image": 1e-9}, seed=0)


def test_samples_in_other_languages_are_not_selected_on() -> None:
    def pair(name: str, language: str, split: str) -> Pair:
        return Pair(name, name, language, split=split, group=name, sample_language=language)

    rows = [pair(f"en{i}", "en", s) for i, s in enumerate(("train", "train", "val", "test"))]
    rows += [pair(f"de{i}", "de", s) for i, s in enumerate(("train", "val", "test"))]
    data = prepare(Listed(rows))
    assert [s.key for s in data.train] == ["en0", "en1"]
    assert [s.key for s in data.val] == ["en2"]
    assert [s.key for s in data.test] == ["en3", "de2"]
