"""Samples: rows gathered, and every one tried before training."""

from __future__ import annotations

import pytest

from modalbind.data.samples import Caption, Sample, check_samples, group_pairs, list_anchors
from modalbind.errors import BrokenSampleError, DataError
from modalbind.types import Pair


def test_rows_of_a_sample_are_gathered_in_order_of_first_appearance() -> None:
    rows = [
        Pair("b", "one", image="i.png", group="g", columns={"class": "x"}),
        Pair("a", "two"),
        Pair("b", "three", "de", image="i.png", group="g"),
        Pair("b", "one", image="i.png", group="g"),
    ]
    first, second = group_pairs(rows, source=3)
    assert (first.key, second.key, first.source) == ("b", "a", 3)
    assert first.captions == (Caption("one", "en", "one"), Caption("three", "de", "three"))
    # The picture belongs to both texts, so it carries both of their keys.
    assert first.images == (("i.png", "one"), ("i.png", "three"))
    assert (first.group, second.group) == ("g", "a")
    assert first.columns == {"class": "x", "language": "en", "group": "g", "positive_key": "one"}
    assert not first.has_keys


def test_a_named_positive_key_wins() -> None:
    (sample,) = group_pairs([Pair("a", "one", image="i.png", positive_key="k")], 0)
    assert sample.captions[0].positive_key == "k" and sample.images == (("i.png", "k"),)
    assert sample.has_keys


def test_columns_with_a_meaning_are_columns_too() -> None:
    known = {"split": "test", "fold": "3", "group": "g", "language": "de", "positive_key": "k"}
    (sample,) = group_pairs([Pair("a", "one", columns={"class": "x"}, **known)], 0)
    assert sample.columns == {"class": "x", **known}


def test_a_picture_alone_is_its_own_key() -> None:
    (sample,) = group_pairs([Pair("a", None, image="i.png")], 0)
    assert sample.captions == () and sample.images == (("i.png", "i.png"),)


def test_anchors_are_listed_by_their_bank_keys() -> None:
    (sample,) = group_pairs([Pair("a", "one", "en", "i.png"), Pair("a", "zwei", "de")], 2)
    assert list_anchors(sample, "text") == [(("one", "en"), "one"), (("zwei", "de"), "zwei")]
    assert list_anchors(sample, "image") == [((2, "i.png"), "one")]


def load(sample: Sample) -> None:
    if sample.key.startswith("bad"):
        raise BrokenSampleError("empty", f"{sample.key} has no bytes")


def make(*keys: str) -> list[Sample]:
    return group_pairs([Pair(key, "x") for key in keys], 0)


def test_broken_samples_are_counted_listed_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    checked = check_samples(make("a", "bad1", "b", "bad2"), load, max_broken_fraction=0.5)
    assert [s.key for s in checked.kept] == ["a", "b"]
    assert checked.broken[0] == ("bad1", "empty", "bad1 has no bytes")
    assert checked.count_reasons() == {"empty": 2}
    assert "2 of 4 samples are broken: bad1 (empty); bad2 (empty)" in caplog.text


def test_too_many_stop_the_run_and_five_are_named() -> None:
    with pytest.raises(
        DataError, match=r"bad4 \(empty\); the first: bad0 has no bytes; mend"
    ) as caught:
        check_samples(make("a", *(f"bad{i}" for i in range(8))), load, max_broken_fraction=0.5)
    assert "bad5" not in str(caught.value)


def test_none_left_stops_the_run_whatever_is_tolerated() -> None:
    with pytest.raises(DataError):
        check_samples(make("bad1"), load, max_broken_fraction=1.0)


def test_the_verdict_does_not_depend_on_threads() -> None:
    samples = make(*(f"{'bad' if i % 3 == 0 else 'good'}{i}" for i in range(40)))
    one = check_samples(samples, load, 1.0, threads=1)
    assert one == check_samples(samples, load, 1.0, threads=4)


def test_other_errors_are_not_swallowed() -> None:
    def broken_plugin(sample: Sample) -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        check_samples(make("a"), broken_plugin, 1.0)
