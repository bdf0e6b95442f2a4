"""Pools: which items a test holds, and which belong together."""

from __future__ import annotations

import torch

from modalbind.data.links import Link
from modalbind.data.samples import Sample, group_pairs
from modalbind.evaluation import pools
from modalbind.evaluation.pools import PoolPlan, build_pool, plan_test
from modalbind.types import Pair


def make(*rows: Pair, source: int = 0) -> list[Sample]:
    return group_pairs(rows, source)


def find(plan: pools.TestPlan, modality: str, language: str = "") -> PoolPlan:
    (pool,) = [p for p in plan.pools if (p.modality, p.language) == (modality, language)]
    return pool


def test_each_sample_belongs_to_its_own_texts() -> None:
    plan = plan_test(make(Pair("a", "one"), Pair("b", "two"), Pair("c", "one")), [])
    assert plan.sample_labels == (0, 1, 0)
    pool = find(plan, "text", "en")
    assert (pool.keys, pool.labels) == ((("one", "en"), ("two", "en")), (0, 1))


def test_captions_of_one_sample_share_its_label() -> None:
    plan = plan_test(make(Pair("a", "one"), Pair("a", "uno", "es"), Pair("b", "two")), [])
    assert plan.sample_labels == (0, 1)
    assert find(plan, "text", "en").labels == (0, 1)
    assert find(plan, "text", "es").labels == (0,)


def test_a_shared_caption_joins_samples_and_all_of_their_other_captions() -> None:
    rows = [Pair("a", "x"), Pair("a", "y"), Pair("b", "y"), Pair("b", "z"), Pair("c", "w")]
    plan = plan_test(make(*rows), [])
    assert plan.sample_labels[0] == plan.sample_labels[1] != plan.sample_labels[2]
    labels = dict(zip(find(plan, "text", "en").keys, find(plan, "text", "en").labels, strict=True))
    assert labels["x", "en"] == labels["y", "en"] == labels["z", "en"] == plan.sample_labels[0]
    assert labels["w", "en"] == plan.sample_labels[2]


def test_links_join_by_positive_key() -> None:
    samples = make(Pair("a", "dog one", positive_key="dog"), Pair("b", "cat", positive_key="cat"))
    links = [
        Link("image", "d.png", "dog", source=7),
        Link("image", "bird.png", "bird", source=7),
        Link("text", "Katze", "cat", "de"),
        Link("text", "plain", "cat"),
    ]
    plan = plan_test(samples, links)
    images = find(plan, "image")
    assert images.keys == ((7, "d.png"), (7, "bird.png"))
    assert images.labels[0] == plan.sample_labels[0]
    assert images.labels[1] not in plan.sample_labels, "it is in the pool, and nobody's"
    assert find(plan, "text", "de").labels == (plan.sample_labels[1],)
    assert ("plain", "en") in find(plan, "text", "en").keys, "without a language it is English"


def test_an_item_stands_once_for_each_label() -> None:
    rows = [Pair("a", "same", positive_key="k1"), Pair("b", "same", positive_key="k2")]
    rows.append(Pair("c", "same", positive_key="k1"))
    pool = find(plan_test(make(*rows), []), "text", "en")
    assert pool.keys == (("same", "en"),) * 2 and sorted(pool.labels) == [0, 1]


def test_pictures_of_samples_are_read_by_their_own_source() -> None:
    samples = [
        *make(Pair("a", "x", image="i.png")),
        *make(Pair("b", "y", image="i.png"), source=1),
    ]
    plan = plan_test(samples, [])
    assert find(plan, "image").keys == ((0, "i.png"), (1, "i.png"))
    assert find(plan, "image").labels == plan.sample_labels


def test_english_comes_first_then_languages_then_pictures() -> None:
    rows = [Pair("a", t, lang, "i.png") for t, lang in (("x", "zh"), ("y", "de"), ("z", "en"))]
    plan = plan_test(make(*rows), [])
    assert [(p.modality, p.language) for p in plan.pools] == [
        ("text", "en"),
        ("text", "de"),
        ("text", "zh"),
        ("image", ""),
    ]


def test_a_sample_without_anchors_belongs_to_nothing() -> None:
    bare = Sample("a", 0, (), (), "a")
    plan = plan_test([bare, *make(Pair("b", "x"))], [])
    assert plan.sample_labels[0] not in find(plan, "text", "en").labels


def test_items_of_one_recording_are_one_group() -> None:
    """Clips 1 and 2 are cut from recording r; clip 3 shares a caption with clip 2."""
    rows = [
        Pair("1", "x", group="r"),
        Pair("2", "y", group="r"),
        Pair("3", "y", group="s"),
        Pair("4", "z", group="t"),
    ]
    links = [Link("text", "Zett", "z", "de"), Link("text", "anderes", "other", "de")]
    plan = plan_test(make(*rows), links)
    groups = dict(zip(find(plan, "text", "en").keys, find(plan, "text", "en").groups, strict=True))
    assert groups["x", "en"] == groups["y", "en"] != groups["z", "en"]
    german = dict(zip(find(plan, "text", "de").keys, find(plan, "text", "de").groups, strict=True))
    assert german["Zett", "de"] == groups["z", "en"]
    assert german["anderes", "de"] not in groups.values(), "nobody's is a group of its own"


def test_a_group_has_the_same_name_in_every_test() -> None:
    """Folds are pooled by group, and number their labels each from 0."""
    rows = [Pair("1", "x", group="r"), Pair("2", "y", group="s")]
    first = find(plan_test(make(*rows), []), "text", "en")
    second = find(plan_test(make(rows[1]), []), "text", "en")
    assert first.groups == ("0/r", "0/s")
    assert second.groups == ("0/s",)


def test_groups_of_two_data_sets_are_never_one() -> None:
    samples = [*make(Pair("1", "x", group="g")), *make(Pair("1", "y", group="g"), source=1)]
    first, second = find(plan_test(samples, []), "text", "en").groups
    assert first != second


def test_samples_are_cut_by_language_and_keep_all_that_they_are() -> None:
    vectors = torch.eye(4)
    whole = pools.Pool(
        "text", "", vectors, torch.tensor([7, 8, 9, 7]), tuple("abca"), tuple("wxyz")
    )
    german, swahili = pools.split_by_language(whole, ["sw", "de", "sw", "de"])
    assert (german.language, swahili.language) == ("de", "sw")
    assert german.keys == ("x", "z") and german.groups == ("b", "a")
    assert german.labels.tolist() == [8, 7] and torch.equal(german.embeddings, vectors[[1, 3]])
    assert swahili.keys == ("w", "y") and swahili.labels.tolist() == [7, 9]
    (same,) = pools.split_by_language(whole, [""] * 4)
    assert same.keys == whole.keys and same.language == ""


def test_a_pool_carries_labels_and_groups() -> None:
    vectors = torch.eye(3)
    plan = PoolPlan("text", "en", ("a", "b", "c"), (4, 4, 5), ("g", "g", "h"))
    pool = build_pool(plan, vectors)
    assert pool.embeddings is vectors and pool.labels.dtype == torch.int64
    assert pool.labels.tolist() == [4, 4, 5]
    assert (pool.groups, pool.keys) == (plan.groups, plan.keys)
