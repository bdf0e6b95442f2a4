"""Means over languages, and the correlation with their resources."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modalbind.evaluation.bootstrap import bootstrap_mean_of_means
from modalbind.evaluation.comparison import compare_systems, list_item_scores
from modalbind.evaluation.languages import correlate_ranks, mean_over_languages
from modalbind.evaluation.pools import Pool
from modalbind.evaluation.protocol import Protocol
from modalbind.recipe.schema import EvaluationSection

RULES = Protocol(EvaluationSection(bootstrap=50), "test", 0, frozenset({("text", "en", "")}))
N = 30


def score(noise: float, languages: str = "en de fr", seed: int = 0):
    """Sounds and texts of the same things; texts are the noisier the later their language."""
    generator = torch.Generator().manual_seed(seed)
    things = torch.randn(N, 6, generator=generator)
    names = tuple(map(str, range(N)))

    def pool(modality: str, language: str, level: float) -> Pool:
        vectors = things + level * torch.randn(N, 6, generator=generator)
        vectors = torch.nn.functional.normalize(vectors, dim=1)
        return Pool(modality, language, vectors, torch.arange(N), names, names)

    texts = [pool("text", name, noise * i) for i, name in enumerate(languages.split())]
    return RULES.score_samples(pool("audio", "", 0.1), texts)


def test_the_mean_is_over_languages_that_were_not_trained_on():
    rows = score(0.8)
    (forth, back) = mean_over_languages(rows, RULES.trained_languages, resamples=50, seed=0)
    assert forth.languages == back.languages == ("de", "fr")
    assert (forth.direction.from_anchor, back.direction.from_anchor) == (False, True)
    values = [
        row.score.metrics["recall_at_1"].value
        for row in rows
        if row.language != "en" and not row.from_anchor
    ]
    found = forth.metrics["recall_at_1"]
    assert found.value == pytest.approx(sum(values) / 2)
    assert found.ci95[0] < found.value < found.ci95[1] and found.chance == pytest.approx(1 / N)


def test_one_other_language_has_no_mean():
    assert mean_over_languages(score(0.5, "en de"), {"en"}, resamples=10, seed=0) == []


def test_groups_are_drawn_for_all_rows_at_once():
    """Two rows that mirror each other have a mean that no draw can change."""
    values = np.random.default_rng(0).random(40)
    groups = [str(i) for i in range(40)]
    found = bootstrap_mean_of_means([values, 1 - values], [groups, groups], resamples=200, seed=0)
    assert found.difference == pytest.approx(0.5)
    assert found.low < 0.5 < found.high, "unseen groups are allowed for"
    apart = [f"x{i}" for i in range(40)]
    free = bootstrap_mean_of_means([values, 1 - values], [groups, apart], resamples=200, seed=0)
    assert free.high - free.low > 0.02


def test_rows_of_other_sizes_count_the_same():
    found = bootstrap_mean_of_means([[1.0], [0.0] * 9], [["a"], ["b"] * 9], resamples=0, seed=0)
    assert found.difference == 0.5


def test_two_systems_are_compared_on_the_mean_over_languages():
    better, worse = (list_item_scores(score(noise), [], "test") for noise in (0.3, 1.5))
    rows = compare_systems([better], [worse], resamples=200, seed=0)
    means = [row for row in rows if row.key.language == "mean"]
    assert {(row.key.query, row.key.from_anchor) for row in means} == {
        ("audio", False),
        ("text", True),
    }
    for row in means:
        single = [
            each
            for each in rows
            if each.key._replace(language="mean") == row.key and each.key.language in ("de", "fr")
        ]
        expected = sum(each.difference.difference for each in single) / len(single)
        assert row.difference.difference == pytest.approx(expected)
        assert row.value - row.other == pytest.approx(expected)
    (first,) = [r for r in means if r.key.metric == "recall_at_1" and not r.key.from_anchor]
    assert first.difference.low > 0


def test_a_perfect_order_correlates_and_chance_does_not():
    assert correlate_ranks([1, 2, 3, 4], [10, 20, 30, 40]).value == pytest.approx(1)
    assert correlate_ranks([1, 2, 3, 4], [4, 3, 2, 1]).value == pytest.approx(-1)
    # of the 24 orders of four, the straight and the reversed one are as extreme
    assert correlate_ranks([1, 2, 3, 4], [10, 20, 30, 40]).p == pytest.approx(2 / 24)
    assert correlate_ranks([1, 2], [1, 2]) is None
    assert correlate_ranks([1, 1, 1], [1, 2, 3]) is None


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=4, max_size=6))
def test_it_is_pearson_on_mean_ranks(points):
    x, y = zip(*points, strict=True)
    found = correlate_ranks(x, y)
    if found is None:
        assert len(set(x)) == 1 or len(set(y)) == 1
        return

    def ranks(values):
        order = sorted(values)
        return [(order.index(v) + len(order) - order[::-1].index(v) + 1) / 2 for v in values]

    a, b = ranks(x), ranks(y)
    assert found.value == pytest.approx(float(np.corrcoef(a, b)[0, 1]))
    tries = [np.corrcoef(a, [b[i] for i in o])[0, 1] for o in itertools.permutations(range(len(a)))]
    assert found.p == pytest.approx(np.mean([abs(t) >= abs(found.value) - 1e-9 for t in tries]))
