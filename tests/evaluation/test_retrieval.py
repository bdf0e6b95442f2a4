"""Retrieval metrics: against loops, enumeration of tied orders, and invariances."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from modalbind.errors import DataError, NonFiniteError, ShapeError
from modalbind.evaluation import METRICS, compute_retrieval, paired_difference, retrieval

KEYS = (*METRICS, "rank")


def score(queries, targets, query_labels, target_labels, **options):
    return compute_retrieval(
        queries,
        targets,
        torch.as_tensor(query_labels),
        torch.as_tensor(target_labels),
        **{"bootstrap": 0, **options},
    )


def score_order(relevance):
    """All metrics of one ranking, written as one would read them aloud."""
    total = sum(relevance)
    found = {f"recall_at_{k}": sum(relevance[:k]) / total for k in (1, 5, 10)}
    found |= {f"hit_at_{k}": float(any(relevance[:k])) for k in (1, 5, 10)}
    precisions = [
        sum(relevance[: i + 1]) / (i + 1) for i in range(min(10, len(relevance))) if relevance[i]
    ]
    found["map_at_10"] = sum(precisions) / min(10, total)
    found["rank"] = relevance.index(1) + 1
    return found


def enumerate_ties(scores, relevance):
    """Mean over every order of the tied targets."""
    blocks = [
        [r for s, r in zip(scores, relevance, strict=True) if s == value]
        for value in sorted(set(scores), reverse=True)
    ]
    orders = [
        score_order(list(itertools.chain(*order)))
        for order in itertools.product(*(itertools.permutations(block) for block in blocks))
    ]
    return {key: math.fsum(order[key] for order in orders) / len(orders) for key in KEYS}


def one_query(scores, relevance, **options):
    """Score a single query whose cosine with target j is `scores[j]`."""
    cosines = torch.tensor(scores, dtype=torch.float64)
    targets = torch.stack([cosines, (1 - cosines.square()).clamp_min(0).sqrt()], dim=1)
    query = torch.tensor([[1.0, 0.0]])
    return score(query, targets, [1], relevance, **options)


def sample_pool(seed, n=37, m=53, classes=9, dim=16):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(n, dim, generator=generator),
        torch.randn(m, dim, generator=generator),
        torch.randint(classes, (n,), generator=generator),
        torch.randint(classes, (m,), generator=generator),
    )


@pytest.mark.parametrize("few", [0, 100])
@pytest.mark.parametrize("classes", [3, 9, 40])
def test_agrees_with_a_loop(classes, few, monkeypatch):
    monkeypatch.setattr(retrieval, "_FEW", few)
    queries, targets, labels_q, labels_t = sample_pool(0, classes=classes)
    found = score(queries, targets, labels_q, labels_t, tile=8)
    cosine = F.normalize(queries.double(), dim=1) @ F.normalize(targets.double(), dim=1).T
    expected = []
    for i in found.query_index:
        order = cosine[i].argsort(descending=True)
        expected.append(score_order((labels_t[order] == labels_q[i]).long().tolist()))
    for key in KEYS:
        assert found.per_query[key] == pytest.approx([e[key] for e in expected]), key
    for key in METRICS:
        assert found.metrics[key].value == pytest.approx(np.mean([e[key] for e in expected]))
    assert found.median_rank == np.median([e["rank"] for e in expected])


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_ties_count_as_the_mean_over_their_orders(data):
    m = data.draw(st.integers(1, 7))
    grid = st.sampled_from([0.1, 0.3, 0.5])
    scores = data.draw(st.lists(grid, min_size=m, max_size=m))
    relevance = data.draw(st.lists(st.integers(0, 1), min_size=m, max_size=m).filter(any))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieval, "_FEW", data.draw(st.sampled_from([0, 100])))
        found = one_query(scores, relevance, tile=data.draw(st.integers(1, 8)))
    for key, expected in enumerate_ties(scores, relevance).items():
        assert found.per_query[key][0] == pytest.approx(expected, abs=1e-12), key


def test_long_tied_blocks_agree_with_random_orders():
    """30 targets, 8 relevant, in blocks of 4, 18 and 8: too many orders to list, so draw them."""
    scores = np.repeat([0.9, 0.5, 0.2], [4, 18, 8])
    relevance = np.zeros(30, dtype=int)
    relevance[[1, 6, 7, 11, 12, 20, 25, 26]] = 1
    generator = np.random.default_rng(0)
    draws = []
    for _ in range(20_000):
        order = np.lexsort((generator.random(30), -scores))
        draws.append(list(score_order(relevance[order].tolist()).values()))
    found = one_query(scores.tolist(), relevance.tolist())
    error = np.std(draws, axis=0) / math.sqrt(len(draws))
    for key, mean, sigma in zip(KEYS, np.mean(draws, axis=0), error, strict=True):
        assert abs(found.per_query[key][0] - mean) <= 4.5 * sigma + 1e-9, key


@pytest.mark.parametrize(("m", "relevant"), [(6, 1), (6, 2), (7, 5), (8, 8)])
def test_chance_agrees_with_enumeration(m, relevant):
    relevance = [1] * relevant + [0] * (m - relevant)
    expected = enumerate_ties([0.0] * m, relevance)
    found = one_query([i / 10 for i in range(m)], relevance)
    for key in METRICS:
        assert found.metrics[key].chance == pytest.approx(expected[key], abs=1e-12), key
    assert found.median_rank_chance == pytest.approx(expected["rank"])


@pytest.mark.parametrize("side", ["queries", "targets", "both"])
@pytest.mark.parametrize("classes", [2, 20, 200])
def test_constant_embeddings_score_chance(side, classes):
    queries, targets, labels_q, labels_t = sample_pool(1, n=200, m=311, classes=classes, dim=96)
    if side in ("queries", "both"):
        queries = torch.randn(1, 96).expand(200, 96)
    if side in ("targets", "both"):
        targets = torch.randn(1, 96).expand(311, 96)
    found = score(queries, targets, labels_q, labels_t, tile=64)
    if side == "queries":
        return_to_chance = found.metrics["recall_at_10"]
        # All queries rank alike, so only the mean over all targets as answers is chance.
        assert abs(return_to_chance.value - return_to_chance.chance) < 0.1
        return
    for key in METRICS:
        assert found.metrics[key].value == pytest.approx(found.metrics[key].chance, abs=1e-12), key
    assert found.median_rank == pytest.approx(found.median_rank_chance)


def test_constant_queries_score_chance_when_each_target_is_asked_for_once():
    targets = torch.randn(300, 32)
    found = score(torch.ones(300, 32), targets, torch.arange(300), torch.arange(300))
    for key in METRICS:
        assert found.metrics[key].value == pytest.approx(found.metrics[key].chance, abs=1e-12), key


def test_scores_closer_than_a_millionth_are_tied():
    found = one_query([0.5, 0.5 + 2e-7, 0.5 - 2e-7, 0.1], [1, 0, 0, 0])
    assert found.metrics["recall_at_1"].value == pytest.approx(1 / 3)
    found = one_query([0.5, 0.5 - 4e-6, 0.1], [1, 0, 0])
    assert found.metrics["recall_at_1"].value == 1.0


def test_identity_is_perfect():
    embeddings = torch.randn(300, 24)
    found = score(embeddings, embeddings, torch.arange(300), torch.arange(300), tile=100)
    assert all(found.metrics[key].value == 1.0 for key in METRICS)
    assert found.median_rank == 1.0


def test_recall_and_hit_differ_with_several_relevant_targets():
    found = one_query([0.9, 0.8, 0.1], [1, 0, 1])
    assert found.metrics["hit_at_1"].value == 1.0
    assert found.metrics["recall_at_1"].value == 0.5


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 60), st.sampled_from([2, 9, 60]))
def test_tiles_and_order_change_nothing(seed, tile, classes):
    queries, targets, labels_q, labels_t = sample_pool(seed, classes=classes)
    targets[10:20] = targets[:10]  # ties
    try:
        whole = score(queries, targets, labels_q, labels_t)
    except DataError:
        return
    generator = torch.Generator().manual_seed(seed)
    of_q = torch.randperm(len(queries), generator=generator)
    of_t = torch.randperm(len(targets), generator=generator)
    moved = score(queries[of_q], targets[of_t], labels_q[of_q], labels_t[of_t], tile=tile)
    back = {int(of_q[index]): place for place, index in enumerate(moved.query_index)}
    places = [back[int(index)] for index in whole.query_index]
    for key in KEYS:
        assert moved.per_query[key][places] == pytest.approx(whole.per_query[key], abs=1e-14), key


def test_a_query_scores_the_same_alone_and_in_a_batch():
    queries, targets, labels_q, labels_t = sample_pool(3, classes=5)
    targets[20:40] = targets[:20] + 1e-9
    whole = score(queries, targets, labels_q, labels_t)
    for place, index in enumerate(whole.query_index):
        alone = score(
            queries[index : index + 1], targets, labels_q[index : index + 1], labels_t, tile=7
        )
        for key in KEYS:
            assert alone.per_query[key][0] == whole.per_query[key][place], key


def test_rotation_and_scale_change_nothing():
    queries, targets, labels_q, labels_t = sample_pool(5)
    rotation = torch.linalg.qr(torch.randn(16, 16, dtype=torch.float64)).Q
    plain = score(queries, targets, labels_q, labels_t)
    turned = score(
        3.0 * queries.double() @ rotation, 0.2 * targets.double() @ rotation, labels_q, labels_t
    )
    for key in KEYS:
        assert turned.per_query[key] == pytest.approx(plain.per_query[key])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_takes_any_float(dtype):
    embeddings = torch.eye(12, dtype=dtype)
    assert score(embeddings, embeddings, torch.arange(12), torch.arange(12)).median_rank == 1.0


def test_queries_without_relevant_targets_are_left_out_and_counted():
    found = score(torch.eye(4), torch.eye(4)[:3], [0, 7, 2, 9], [0, 1, 2])
    assert (found.n_queries, found.n_skipped, found.n_targets) == (2, 2, 3)
    assert found.query_index.tolist() == [0, 2]
    with pytest.raises(DataError, match="none is relevant"):
        score(torch.eye(2), torch.eye(2), [0, 1], [2, 3])


def test_groups_follow_the_queries_that_are_kept():
    found = score(torch.eye(4), torch.eye(4), [0, 9, 1, 1], [0, 1, 1, 2], query_groups=list("abbc"))
    assert (found.n_queries, found.n_groups) == (3, 3)


def test_pools_smaller_than_the_cutoff():
    found = one_query([0.9, 0.8], [0, 1])
    assert found.metrics["recall_at_10"].value == found.metrics["recall_at_10"].chance == 1.0
    assert found.metrics["map_at_10"].value == 0.5


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_scores_that_are_no_numbers_are_an_error(bad, side):
    sides = [torch.eye(4), torch.eye(4)]
    sides[side][2, 1] = bad
    name = ("query", "target")[side]
    with pytest.raises(NonFiniteError, match=f"{name} embeddings; 1 of 4 rows .* row 2"):
        score(*sides, torch.arange(4), torch.arange(4))


def test_shapes_are_checked():
    with pytest.raises(ShapeError, match="embed both in one space"):
        score(torch.eye(4), torch.eye(3), torch.arange(4), torch.arange(3))
    with pytest.raises(ShapeError, match="one label for each of 4 target"):
        score(torch.eye(4), torch.eye(4), torch.arange(4), torch.arange(3))
    with pytest.raises(ShapeError, match="tile"):
        score(torch.eye(4), torch.eye(4), torch.arange(4), torch.arange(4), tile=0)


def test_median_rank_under_ties_is_the_expected_first():
    # 2 relevant among 5 tied: the first stands at (5 + 1) / (2 + 1) on average.
    assert one_query([0.5] * 5, [1, 1, 0, 0, 0]).median_rank == 2.0


def test_per_query_values_serve_paired_differences():
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(300, 32, generator=generator)
    noise = torch.randn(300, 32, generator=generator)
    labels = torch.arange(300)
    near = score(truth + noise, truth, labels, labels)
    far = score(truth + 2 * noise, truth, labels, labels)
    found = paired_difference(near.per_query["recall_at_1"], far.per_query["recall_at_1"])
    assert found.low > 0


@pytest.mark.parametrize("classes", [1, 5, 500])
def test_memory_is_a_few_tiles(classes, monkeypatch):
    """No tensor grows with queries times targets, nor is a copy of either made."""
    n, tile, dim = 500, 64, 40
    queries, targets = torch.randn(n, dim), torch.randn(n, dim)
    labels = torch.arange(n) % classes
    monkeypatch.setattr(retrieval, "_ROWS", tile)
    given = {queries.data_ptr(), targets.data_ptr()}
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            out = function(*args, **(kwargs or {}))
            parts = (part for part in tree_leaves(out) if isinstance(part, torch.Tensor))
            made = (part.numel() for part in parts if part.data_ptr() not in given)
            largest = max(largest, *made, 0)
            return out

    with Watch():
        score(queries, targets, labels, labels, tile=tile)
    assert largest <= 2 * tile * tile < n * dim
