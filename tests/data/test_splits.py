"""Splits: never through a group, the same for every seed, and nothing trained that must not be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modalbind.data.splits import (
    PairSplits,
    column_value,
    list_folds,
    pick_groups,
    split_pairs,
    take_test_pairs,
)
from modalbind.errors import DataError, ManifestError
from modalbind.recipe.schema import DataSection
from modalbind.types import Pair


def pair(sample: str, **fields: Any) -> Pair:
    return Pair(**{"sample": sample, "text": f"text of {sample}", "group": sample, **fields})


def split(pairs: Sequence[Pair], **section: Any) -> PairSplits:
    (found,) = split_pairs([pairs], DataSection(**section))
    return found


def names(pairs: Sequence[Pair]) -> list[str]:
    return [p.sample for p in pairs]


MARKED = [
    pair("a", split="train", fold="1"),
    pair("b", split="train", fold="2"),
    pair("c", split="val", fold="1"),
    pair("d", split="test", fold="2"),
]


def test_the_split_column_divides() -> None:
    found = split(MARKED)
    assert (names(found.train), names(found.val), names(found.test)) == (["a", "b"], ["c"], ["d"])


def test_a_fold_wins_over_the_split() -> None:
    found = split(MARKED, test_fold="1")
    assert (names(found.train), names(found.val), names(found.test)) == (["b", "d"], [], ["a", "c"])
    assert list_folds(MARKED, DataSection()) == ["1", "2"]


def test_own_names_for_column_and_splits() -> None:
    pairs = [pair("a", columns={"part": "dev"}), pair("b", columns={"part": "eval"})]
    found = split(pairs, split_column="part", train_split="dev", test_split="eval")
    assert (names(found.train), names(found.test)) == (["a"], ["b"])
    assert column_value(pairs[0], "part") == "dev" and column_value(pairs[0], "none") == ""


def test_the_val_split_has_a_name_too() -> None:
    pairs = [*MARKED, pair("e", split="dev")]
    assert names(split(pairs, val_split="dev").val) == ["e"]


def test_rows_of_another_split_are_counted_and_named(caplog: pytest.LogCaptureFixture) -> None:
    others = {"Train": 2, "validation": 1, "tset": 1, "unused": 3, "dev ": 1}
    pairs = [
        *MARKED,
        *(pair(f"{name}{n}", split=name) for name, count in others.items() for n in range(count)),
    ]
    found = split(pairs)
    assert (names(found.train), names(found.val), names(found.test)) == (["a", "b"], ["c"], ["d"])
    assert found.dropped == {"other_split": 8}
    (record,) = caplog.records
    for said in (
        "2 say 'Train', did you mean 'train'?",
        "1 say 'validation', did you mean 'val'?",
        "1 say 'dev ', did you mean 'val'?",
        "1 say 'tset', did you mean 'test'?",
        "3 say 'unused'",
    ):
        assert said in record.getMessage()
    assert "unused'," not in record.getMessage()


def test_rows_without_a_split_are_no_others(caplog: pytest.LogCaptureFixture) -> None:
    assert split([*MARKED, pair("e")]).dropped == {}
    assert split(MARKED, test_fold="1").dropped == {}
    assert split(MARKED, test_split="val").dropped == {"other_split": 1}
    assert [r.getMessage() for r in caplog.records] == [
        "column 'split' asked for train, val; rows that say something else are left out: "
        "1 say 'test'"
    ]


def test_a_training_split_of_another_case_is_asked_about() -> None:
    pairs = [pair("a", split="Train"), pair("b", split="test")]
    with pytest.raises(ManifestError, match=r"split 'train' asked for; .* did you mean 'Train'\?"):
        split(pairs)


def test_val_can_be_what_is_tested() -> None:
    found = split(MARKED, test_split="val")
    assert (names(found.val), names(found.test)) == ([], ["c"])


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"test_fold": "3"}, "fold '3' asked for; column 'fold' has 1, 2"),
        ({"test_split": "tset"}, "split 'tset' asked for; column 'split' has test, train, val"),
        ({"train_split": "dev"}, "split 'dev' asked for"),
        ({"split_column": "part"}, "column 'part' asked for; it is absent or empty"),
    ],
)
def test_unknown_names_are_refused(section: dict[str, Any], says: str) -> None:
    with pytest.raises(ManifestError, match=says):
        split(MARKED, **section)


def test_a_training_source_and_a_test_source_are_mixed() -> None:
    first, second = split_pairs(
        [[pair("a", split="train")], [pair("b", split="test")]], DataSection()
    )
    assert (names(first.train), names(first.test)) == (["a"], [])
    assert (names(second.train), names(second.test)) == ([], ["b"])


def test_a_source_without_splits_trains_beside_a_test_source() -> None:
    first, second = split_pairs([[pair("a")], [pair("b", split="test")]], DataSection())
    assert (names(first.train), names(second.test)) == (["a"], ["b"])


def test_a_group_in_two_parts_is_refused_whatever_its_source() -> None:
    train, test = pair("a", split="train", group="g"), pair("b", split="test", group="g")
    with pytest.raises(ManifestError, match=r"group 'g' .* train and test"):
        split([train, test])
    with pytest.raises(ManifestError, match="group 'g'"):
        split_pairs([[train], [test]], DataSection())


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 3)), min_size=30, max_size=80),
    st.floats(0.05, 0.6),
    st.sampled_from([0.0, 0.3]),
)
def test_no_group_is_cut(rows: list[tuple[int, int]], fraction: float, val: float) -> None:
    groups = [g for g, _ in rows]
    if len(set(groups)) < 5:
        return
    pairs = [pair(f"{g}-{n}", group=f"g{g}") for g, n in rows]
    found = split(pairs, test_fraction=fraction, val_fraction=val)
    parts = [{p.group for p in part} for part in (found.train, found.val, found.test)]
    assert sum(map(len, parts)) == len(set(groups)) == len(set().union(*parts))
    assert len(found.train) + len(found.val) + len(found.test) == len(pairs)
    assert len(parts[2]) == max(1, int(fraction * len(set(groups))))


def test_held_out_groups_depend_on_names_alone() -> None:
    groups = [f"g{i}" for i in range(50)]
    held = pick_groups(groups, 0.2, "test")
    assert held == pick_groups([*reversed(groups), *groups], 0.2, "test")
    assert len(held) == 10
    assert held != pick_groups(groups, 0.2, "val")


def test_validation_takes_training_groups_only() -> None:
    pairs = [pair(f"s{i}", split="test" if i % 3 == 0 else "train") for i in range(30)]
    found = split(pairs, val_fraction=0.25)
    assert names(found.test) == [p.sample for p in pairs if p.split == "test"]
    assert len(found.val) == 5 and not {*names(found.val)} & {*names(found.train)}
    assert {p.split for p in found.val} == {"train"}


def test_a_val_split_of_its_own_is_kept() -> None:
    assert names(split(MARKED, val_fraction=0.5).val) == ["c"]


def test_only_training_languages_are_trained_on() -> None:
    pairs = [
        pair("a", split="train"),
        pair("b", split="train", language="de"),
        pair("c", split="test", language="de"),
    ]
    found = split(pairs)
    assert (names(found.train), names(found.test)) == (["a"], ["c"])
    assert found.dropped == {"other_language": 1}
    with pytest.raises(DataError, match=r"none is left \(dropped: 1 other_language\); check"):
        split(pairs[1:])
    assert names(split(pairs, train_languages=("en", "de")).train) == ["a", "b"]


def test_pairs_without_text_have_no_language() -> None:
    pairs = [pair("a", text=None, image="a.png", language="de", split="train"), MARKED[3]]
    assert names(split(pairs).train) == ["a"]


@pytest.mark.parametrize("suffix", ["txt", "csv"])
def test_excluded_samples_and_groups_are_not_trained_on(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"seen.{suffix}"
    lines = ["a", "g", ""] if suffix == "txt" else ["name,place", "a,home", "b,g"]
    file.write_text("\n".join(lines), encoding="utf-8-sig")
    pairs = [
        pair("a", split="train"),
        pair("x", split="train", group="g"),
        pair("z", split="train"),
        pair("d", split="test", group="g"),
    ]
    found = split(pairs, exclude=(str(file),))
    assert (names(found.train), names(found.test)) == (["z"], ["d"])
    assert found.dropped == {"excluded": 2}


def test_an_absent_exclude_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"data.exclude names .*none.txt; no such file"):
        split(MARKED, exclude=(str(tmp_path / "none.txt"),))


def test_low_similarity_is_dropped_from_training_only() -> None:
    pairs = [
        pair("a", split="train", columns={"similarity": "0.2"}),
        pair("b", split="train", columns={"similarity": "0.1999"}),
        pair("c", split="train"),
        pair("d", split="test", columns={"similarity": "0"}),
    ]
    found = split(pairs, min_similarity=0.2)
    assert (names(found.train), names(found.test)) == (["a", "c"], ["d"])
    assert found.dropped == {"low_similarity": 1}


@pytest.mark.parametrize("value", ["", "high", "nan"])
def test_a_similarity_that_is_no_number_is_refused(value: str) -> None:
    pairs = [pair("a", split="train", columns={"similarity": value}), MARKED[3]]
    with pytest.raises(ManifestError, match=f"sample 'a' has '{value}'"):
        split(pairs, min_similarity=0.2)


def test_nothing_left_says_why() -> None:
    pairs = [pair("a", split="train", language="de"), pair("b", split="test")]
    with pytest.raises(DataError, match=r"other_language.*data.train_languages"):
        split(pairs)


def test_when_nothing_is_trained_the_test_split_or_all_is_tested() -> None:
    (marked,) = take_test_pairs([MARKED], DataSection())
    assert (names(marked.test), marked.train) == (["d"], ())
    (every,) = take_test_pairs([[pair("a"), pair("b")]], DataSection())
    assert names(every.test) == ["a", "b"]


def test_a_test_split_that_is_not_named_so_is_told(caplog: pytest.LogCaptureFixture) -> None:
    (every,) = take_test_pairs([MARKED], DataSection(test_split="eval"))
    assert len(every.test) == 4
    assert "split 'eval' asked for; column 'split' has test, train, val; all" in caplog.text
