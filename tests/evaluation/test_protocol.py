"""The rows of a test: every direction, flagged by what was paired and never by its score."""

from __future__ import annotations

import pytest
import torch

from modalbind.evaluation.pools import Pool
from modalbind.evaluation.protocol import ClassSet, Protocol
from modalbind.recipe.schema import EvaluationSection


def make_pool(modality: str, language: str = "", shift: int = 0, n: int = 6) -> Pool:
    vectors = torch.eye(8)[torch.arange(n)]
    names = tuple(map(str, range(n)))
    return Pool(modality, language, vectors, torch.arange(n) + shift, names, names)


def make_protocol(*paired: tuple[str, str, str]) -> Protocol:
    return Protocol(EvaluationSection(bootstrap=20), "test", 0, frozenset(paired))


POOLS = [make_pool("text", "en"), make_pool("text", "de"), make_pool("image")]


def test_a_direction_is_trained_if_its_sides_were_paired() -> None:
    rows = make_protocol(("text", "en", "")).score_samples(make_pool("audio"), POOLS)
    assert [(r.query, r.target, r.language, r.trained) for r in rows] == [
        ("audio", "text", "en", True),
        ("text", "audio", "en", True),
        ("audio", "text", "de", False),
        ("text", "audio", "de", False),
        ("audio", "image", "", False),
        ("image", "audio", "", False),
    ]
    assert {(r.split, r.control) for r in rows} == {("test", "none")}
    assert all(r.score.metrics["hit_at_1"].value == 1.0 for r in rows), "emergent may be perfect"


def test_samples_that_have_a_language_lend_it_to_the_row() -> None:
    rules = make_protocol(("text", "en", "en"))
    english, german = (rules.score_samples(make_pool("text", name), POOLS) for name in ("en", "de"))
    assert [(r.target, r.language, r.anchor_language, r.from_anchor) for r in german] == [
        ("text", "de", "en", False),
        ("text", "de", "en", True),
        ("text", "de", "de", False),
        ("text", "de", "de", True),
        ("image", "de", "", False),
        ("text", "de", "", True),
    ]
    assert [r.trained for r in english] == [True, True, False, False, False, False]
    assert not any(r.trained for r in german), "English alone was paired"


def test_a_row_says_which_items_it_was_scored_on() -> None:
    samples, texts = make_pool("audio"), make_pool("text", "en", shift=4)
    rows = make_protocol().score_samples(samples, [texts])
    assert [row.items.keys for row in rows] == [("4", "5"), ("0", "1")]


def test_pictures_alone_can_be_what_was_paired() -> None:
    rows = make_protocol(("image", "", "")).score_samples(make_pool("audio"), POOLS)
    assert [r.trained for r in rows] == [False] * 4 + [True] * 2


def test_a_control_is_never_trained() -> None:
    rows = make_protocol(("text", "en", "")).score_samples(make_pool("audio"), POOLS, "shuffled")
    assert {(r.trained, r.control) for r in rows} == {(False, "shuffled")}


def test_a_pool_that_belongs_to_nobody_has_no_row() -> None:
    far = make_pool("text", "fr", shift=100)
    assert make_protocol().score_samples(make_pool("audio"), [far]) == []


def test_the_anchor_is_scored_by_itself() -> None:
    rows = make_protocol(("text", "en", "")).score_anchor(POOLS)
    assert [(r.query, r.target, r.language, r.trained) for r in rows] == [
        ("text", "image", "en", False),
        ("text", "image", "de", False),
    ]
    assert make_protocol().score_anchor(POOLS[:2]) == []


def test_classes_are_scored_on_the_samples_that_have_one() -> None:
    samples = make_pool("audio")
    rows = torch.tensor([1, 4])
    # Sample 1 has vector 1, sample 4 vector 4; the second's class is said wrong.
    classes = ClassSet("set", "en", torch.eye(8)[[1, 4, 7]], rows, torch.tensor([0, 2]))
    (row,) = make_protocol().score_classes(samples, [classes])
    assert (row.modality, row.dataset, row.language) == ("audio", "set", "en")
    assert (row.score.n_items, row.score.n_classes) == (2, 3)
    assert row.items.keys == row.items.groups == ("1", "4")
    assert row.score.top1.value == pytest.approx(0.5)
    assert row.score.top1.chance == pytest.approx(1 / 3)


def test_gaps_are_measured_in_english_and_to_pictures() -> None:
    rows = make_protocol().score_gaps(make_pool("audio"), POOLS)
    assert [(r.modality_a, r.modality_b) for r in rows] == [("audio", "text"), ("audio", "image")]
    assert rows[0].score.centroid_distance == pytest.approx(0, abs=1e-6)
    assert make_protocol().score_gaps(make_pool("audio", n=1), POOLS) == []
