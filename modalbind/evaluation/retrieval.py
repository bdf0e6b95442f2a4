"""Exact retrieval metrics from ranks, in bounded memory, with ties in expectation.

Pure functions of embeddings and integer labels: target `j` is relevant to query `i` when their
labels are equal. Letters: `n` queries, `m` targets, `dim`, `rows` queries of one chunk, `most`
the largest number of relevant targets of one query in it.

How ties are exact. Embeddings are normalised and rounded to multiples of 2^-24, so that every
product and every partial sum of a dot product fits a float64 without rounding: a score has the
same bits whatever the tile, the batch order or the BLAS. Scores are then rounded to multiples of
2^-20 (about 1e-6), and equal ones are tied. A tied block counts as its expectation over random
orders, so constant embeddings score chance, and nothing depends on the order of the targets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from modalbind.errors import DataError, NonFiniteError, ShapeError
from modalbind.evaluation.bootstrap import (
    Floats,
    Interval,
    Ints,
    MetricScore,
    bootstrap_means,
    bootstrap_median,
    number_groups,
)

CUTOFFS = (1, 5, 10)
"""The `k` of recall@k and hit@k."""

AP_CUTOFF = 10
"""Ranks that average precision looks at."""

METRICS = (
    *(f"recall_at_{k}" for k in CUTOFFS),
    *(f"hit_at_{k}" for k in CUTOFFS),
    f"map_at_{AP_CUTOFF}",
)
"""Names of the metrics in 0..1, in the order of a report."""

_EMBEDDING_GRID = 2.0**24
_SCORE_GRID = 2.0**20
_ROWS = 4096
"""Rows looked at together where a pass is made over all of a side."""
_FEW = 32
"""Up to so many relevant targets, comparing with each in turn beats a binary search."""


@dataclass(frozen=True, slots=True)
class RetrievalScore:
    """One direction of retrieval over one pool.

    Attributes:
        n_queries: Queries that have a relevant target; the others are left out.
        n_targets: Size of the pool.
        n_skipped: Queries left out because nothing in the pool is relevant to them.
        n_groups: Groups that the intervals resample.
        metrics: By name, in the order of `METRICS`. `recall_at_k` is the share of the relevant
            targets among the first k, `hit_at_k` whether any is, `map_at_10` average precision
            over the first ten ranks divided by the most that could be relevant there.
        median_rank: Of the first relevant target, 1 = best; its expectation under ties.
        median_rank_chance: The same under random rankings.
        median_rank_ci95: Its interval; `(1, m)` when there are no two groups to resample.
        per_query: By metric, and `rank`: float64 `(n_queries,)`, for paired differences.
        query_index: Int64 `(n_queries,)`, which of the queries given these are.
    """

    n_queries: int
    n_targets: int
    n_skipped: int
    n_groups: int
    metrics: Mapping[str, MetricScore]
    median_rank: float
    median_rank_chance: float
    median_rank_ci95: Interval
    per_query: Mapping[str, Floats]
    query_index: Ints


@dataclass(frozen=True, slots=True)
class _Ranks:
    """Where the relevant targets of some queries stand; all float64.

    Attributes:
        above: Targets with a higher score, `(rows, most)`.
        tied: Targets with the same score, itself included.
        tied_relevant: Relevant ones among those.
        relevant_above: Relevant ones among the higher.
        weight: Relevant targets that a column stands for; 0 pads.
        best: Int64 `(rows, 1)`, the column of the best relevant target.
    """

    above: Tensor
    tied: Tensor
    tied_relevant: Tensor
    relevant_above: Tensor
    weight: Tensor
    best: Tensor


def compute_retrieval(  # noqa: PLR0913 - a pool has four parts, its scoring four settings
    queries: Tensor,
    targets: Tensor,
    query_labels: Tensor,
    target_labels: Tensor,
    *,
    query_groups: Sequence[str | int] | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    tile: int = 1024,
) -> RetrievalScore:
    """Rank all targets for each query by cosine and score the ranks of the relevant ones.

    Memory is a few tiles of `tile * tile` and `tile * dim` numbers, and a few numbers a row.

    Args:
        queries: Embeddings `(n, dim)`, any float type and norm; zero vectors tie with everything.
        targets: Embeddings `(m, dim)`, on the same device.
        query_labels: Int64 `(n,)`.
        target_labels: Int64 `(m,)`.
        query_groups: Group of each query, for the intervals; None makes each its own.
        bootstrap: Resamples of an interval; 0 gives Wilson's interval instead.
        seed: Of the resamples.
        tile: Queries and targets compared at once; changes speed and memory, never a number.

    Raises:
        ShapeError: If shapes do not fit, or `tile` is below 1.
        NonFiniteError: If an embedding is not finite.
        DataError: If no query has a relevant target.

    Source:
        Ties in expectation: McSherry & Najork 2008, "Computing information retrieval
        performance measures efficiently in the presence of tied scores".
    """
    _check_sides(queries, targets, query_labels, target_labels, tile)
    groups = number_groups(query_groups, len(queries))
    order, start, count = _find_relevant(query_labels.cpu(), target_labels.cpu())
    kept = torch.nonzero(count).squeeze(1)
    if not len(kept):
        raise DataError(
            f"retrieval of {len(targets)} targets; none is relevant to any of {len(queries)} "
            "queries; check that both sides use the same positive keys"
        )
    sides = _Rows.of(queries), _Rows.of(targets, order)
    table = _score_queries(*sides, _Relevant(start, count, kept), tile)
    chance = _compute_chance(count[kept], len(targets))
    kept_groups = np.unique(groups[kept.numpy()], return_inverse=True)[1].astype(np.int64)
    return _summarise(
        table, chance, kept_groups, kept, (len(queries), len(targets)), bootstrap, seed
    )


@dataclass(frozen=True, slots=True)
class _Relevant:
    """Which targets, sorted by label, are relevant: `start[i] : start[i] + count[i]` to query i."""

    start: Tensor
    count: Tensor
    kept: Tensor


def _check_sides(
    queries: Tensor, targets: Tensor, query_labels: Tensor, target_labels: Tensor, tile: int
) -> None:
    if queries.ndim != 2 or targets.ndim != 2 or queries.shape[1] != targets.shape[1]:
        raise ShapeError(
            f"queries (n, dim) and targets (m, dim); {tuple(queries.shape)} and "
            f"{tuple(targets.shape)}; embed both in one space"
        )
    for name, side, labels in (
        ("query", queries, query_labels),
        ("target", targets, target_labels),
    ):
        if tuple(labels.shape) != (len(side),):
            raise ShapeError(
                f"one label for each of {len(side)} {name} embeddings; shape "
                f"{tuple(labels.shape)}; pass int64 of shape ({len(side)},)"
            )
        check_finite(side, f"{name} embeddings")
    if tile < 1:
        raise ShapeError(f"a tile of at least 1 row; {tile}; set evaluation.tile=1024")


def check_finite(embeddings: Tensor, what: str) -> None:
    """Raise `NonFiniteError` naming `what` and its first row with a NaN or an infinity."""
    is_finite = [torch.isfinite(part).all(dim=-1) for part in torch.split(embeddings, _ROWS)]
    bad = torch.nonzero(~torch.cat(is_finite))
    if len(bad):
        raise NonFiniteError(
            f"finite {what}; {len(bad)} of {len(embeddings)} rows are not, the first is row "
            f"{int(bad[0, 0])}; look for an overflow in the tower or in the table"
        )


def _find_relevant(query_labels: Tensor, target_labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sort targets by label and find each query's slice of them."""
    order = torch.argsort(target_labels, stable=True)
    ordered = target_labels[order].contiguous()
    start = torch.searchsorted(ordered, query_labels.contiguous())
    stop = torch.searchsorted(ordered, query_labels.contiguous(), right=True)
    return order, start, stop - start


@dataclass(frozen=True, slots=True)
class _Rows:
    """Embeddings that are normalised and rounded to the grid when they are looked at.

    Attributes:
        embeddings: As given, `(n, dim)`.
        norm: Of each, float64 `(n, 1)`; 1 for a zero vector.
        order: Int64 `(n,)`, the place that a row is taken from; None leaves them as they are.
    """

    embeddings: Tensor
    norm: Tensor
    order: Tensor | None

    @classmethod
    def of(cls, embeddings: Tensor, order: Tensor | None = None) -> _Rows:
        """Measure the rows; what is not on a CUDA device goes to the CPU: mps has no float64."""
        rows = embeddings.detach() if embeddings.is_cuda else embeddings.detach().cpu()
        norms = [
            torch.linalg.vector_norm(part.double(), dim=1, keepdim=True)
            for part in torch.split(rows, _ROWS)
        ]
        norm = torch.cat(norms)
        return cls(rows, torch.where(norm > 0, norm, 1.0), _move(order, rows))

    def __len__(self) -> int:
        return len(self.embeddings)

    def snap(self, place: slice | Tensor) -> Tensor:
        """Return some rows as float64 multiples of 2^-24, a unit long but for the rounding."""
        where = place if self.order is None else self.order[place]
        rows = self.embeddings[where].to(torch.float64, copy=True).div_(self.norm[where])
        return rows.mul_(_EMBEDDING_GRID).round_().div_(_EMBEDDING_GRID)


def _move(index: Tensor | None, like: Tensor) -> Tensor | None:
    return None if index is None else index.to(like.device)


def _score_queries(
    queries: _Rows, targets: _Rows, relevant: _Relevant, tile: int
) -> dict[str, Tensor]:
    """Return each metric, and `rank`, for the kept queries: float64 `(kept,)` on the CPU."""
    table = {
        name: torch.empty(len(relevant.kept), dtype=torch.float64) for name in (*METRICS, "rank")
    }
    for chunk in _chunk_queries(relevant, tile):
        ranks = _rank_chunk(queries, targets, relevant, relevant.kept[chunk], tile)
        for name, values in _score_ranks(ranks).items():
            table[name][chunk] = values.cpu()
    return table


def _chunk_queries(relevant: _Relevant, tile: int) -> Iterator[Tensor]:
    """Yield places in `kept`: queries with as many relevant targets together, then by label.

    A chunk has at most `tile` queries and, padded to the longest, at most `tile * tile`
    relevant targets (or those of one query).
    """
    count = relevant.count[relevant.kept]
    by_label = torch.argsort(relevant.start[relevant.kept], stable=True)
    order = by_label[torch.argsort(count[by_label], descending=True, stable=True)]
    first = 0
    while first < len(order):
        most = int(count[order[first]])
        rows = min(tile, max(1, tile * tile // most))
        yield order[first : first + rows]
        first += rows


def _rank_chunk(
    queries: _Rows, targets: _Rows, relevant: _Relevant, chunk: Tensor, tile: int
) -> _Ranks:
    """Rank the relevant targets of some queries against all targets."""
    rows = queries.snap(chunk.to(queries.norm.device))
    start, count = relevant.start[chunk], relevant.count[chunk]
    scores = _score_relevant(rows, targets, start, count, tile).sort(dim=1).values
    above, tied = _count_targets(rows, targets, scores, tile)
    # Among the relevant of the same query; a real score is never tied with the padding.
    at_least = torch.searchsorted(scores, scores)
    beyond = torch.searchsorted(scores, scores, right=True)
    real = count.to(scores.device)[:, None]
    return _Ranks(
        above=above.double(),
        tied=tied.double(),
        tied_relevant=(beyond - at_least).double(),
        relevant_above=(real - beyond).double(),
        weight=torch.isfinite(scores).double(),
        best=real - 1,
    )


def _score_relevant(
    rows: Tensor, targets: _Rows, start: Tensor, count: Tensor, tile: int
) -> Tensor:
    """Score each query's own slice of the targets, on the grid; infinity pads `(rows, most)`."""
    most = int(count.max())
    scores = torch.full((len(rows), most), torch.inf, dtype=torch.float64, device=rows.device)
    # Neighbours with one label share their slice, so that it is one product.
    _, sizes = torch.unique_consecutive(start, return_counts=True)
    top = 0
    for size in sizes.tolist():
        first, relevant = int(start[top]), int(count[top])
        block = rows[top : top + size]
        for left in range(0, relevant, tile):
            right = min(left + tile, relevant)
            part = targets.snap(slice(first + left, first + right))
            scores[top : top + size, left:right] = block @ part.T
        top += size
    return (scores * _SCORE_GRID).round_()


def _count_targets(
    rows: Tensor, targets: _Rows, scores: Tensor, tile: int
) -> tuple[Tensor, Tensor]:
    """Count the targets above each of the ascending `scores` `(rows, most)`, and those tied."""
    scaled = rows * _SCORE_GRID  # a power of two: still exact
    # Scores are whole numbers up to 2^20 now, so float32 holds them, in half the memory.
    tiles = (
        (scaled @ targets.snap(slice(first, first + tile)).T).round_().float()
        for first in range(0, len(targets), tile)
    )
    count = _compare_each if scores.shape[1] <= _FEW else _search
    return count(tiles, scores.float())


def _compare_each(tiles: Iterable[Tensor], scores: Tensor) -> tuple[Tensor, Tensor]:
    above = torch.zeros(scores.shape, dtype=torch.float64, device=scores.device)
    reached = torch.zeros_like(above)
    for tile in tiles:
        found = torch.empty_like(tile)  # comparing into numbers adds up faster than into booleans
        for column in range(scores.shape[1]):
            reference = scores[:, column : column + 1]
            above[:, column] += torch.gt(tile, reference, out=found).sum(dim=1)
            reached[:, column] += torch.ge(tile, reference, out=found).sum(dim=1)
    return above, reached - above


def _search(tiles: Iterable[Tensor], scores: Tensor) -> tuple[Tensor, Tensor]:
    # Of whole numbers, those above one are those that reach the next: one search finds both.
    edges, order = torch.cat([scores, scores + 1], dim=1).sort(dim=1)
    places = torch.zeros(len(edges), edges.shape[1] + 1, dtype=torch.int64, device=edges.device)
    one = places.new_ones(())
    for tile in tiles:
        place = torch.searchsorted(edges, tile, right=True)
        places.scatter_add_(1, place, one.expand(place.shape))
    # What is placed beyond an edge reaches it.
    reached = places.flip(1).cumsum(1).flip(1)[:, 1:]
    reached, above = torch.empty_like(reached).scatter_(1, order, reached).chunk(2, dim=1)
    return above, reached - above


def _score_ranks(ranks: _Ranks) -> dict[str, Tensor]:
    """Turn ranks into the metrics of each query, `(rows,)`, in expectation over tied orders."""
    relevant = ranks.weight.sum(dim=1)
    scores = {
        f"recall_at_{k}": (((k - ranks.above) / ranks.tied).clamp(0, 1) * ranks.weight).sum(dim=1)
        / relevant
        for k in CUTOFFS
    }
    above, tied, tied_relevant = (
        part.gather(1, ranks.best).squeeze(1)
        for part in (ranks.above, ranks.tied, ranks.tied_relevant)
    )
    for k in CUTOFFS:
        scores[f"hit_at_{k}"] = 1 - _miss_probability(tied, tied_relevant, k - above, k)
    scores[f"map_at_{AP_CUTOFF}"] = _average_precision(ranks) / relevant.clamp_max(AP_CUTOFF)
    # First of r among t in random order: (t + 1) / (r + 1).
    scores["rank"] = above + (tied + 1) / (tied_relevant + 1)
    return scores


def _miss_probability(tied: Tensor, relevant: Tensor, slots: Tensor, k: int) -> Tensor:
    """Chance that none of `relevant` among `tied` falls into the first `slots` (at most k)."""
    miss = torch.ones_like(tied)
    for drawn in range(k):
        left = (tied - relevant - drawn).clamp_min(0) / (tied - drawn).clamp_min(1)
        miss = torch.where(drawn < slots, miss * left, miss)
    return miss


def _average_precision(ranks: _Ranks) -> Tensor:
    """Expected sum of the precisions at the relevant ranks up to `AP_CUTOFF`, `(rows,)`.

    A target is at each place of its tied block equally often; given that it is at the j-th, each
    other relevant one of the block stands before it with probability (j - 1) / (tied - 1).
    """
    row, column = torch.nonzero((ranks.above < AP_CUTOFF) & (ranks.weight > 0), as_tuple=True)
    above, tied, tied_relevant, relevant_above, weight = (
        part[row, column]
        for part in (
            ranks.above,
            ranks.tied,
            ranks.tied_relevant,
            ranks.relevant_above,
            ranks.weight,
        )
    )
    others = (tied_relevant - 1) / (tied - 1).clamp_min(1)
    found = torch.zeros_like(above)
    for rank in range(1, AP_CUTOFF + 1):
        place = rank - above
        precision = (relevant_above + 1 + (place - 1) * others) / rank
        inside = (place >= 1) & (place <= tied)
        found += torch.where(inside, precision / tied, 0.0)
    return torch.zeros_like(ranks.weight[:, 0]).index_add(0, row, weight * found)


def _compute_chance(count: Tensor, m: int) -> dict[str, float]:
    """Mean over queries of each metric when all targets are tied; `rank` is its median."""
    distinct, member = torch.unique(count, return_inverse=True)
    relevant = distinct.double()[:, None]
    everything = torch.full_like(relevant, m)
    nothing = torch.zeros_like(relevant)
    best = torch.zeros_like(relevant, dtype=torch.int64)
    scores = _score_ranks(_Ranks(nothing, everything, relevant, nothing, relevant, best))
    chance = {name: float(values[member].mean()) for name, values in scores.items()}
    chance["rank"] = float(np.median(scores["rank"][member].numpy()))
    return chance


def _summarise(
    table: dict[str, Tensor],
    chance: dict[str, float],
    groups: Ints,
    kept: Tensor,
    sizes: tuple[int, int],
    bootstrap: int,
    seed: int,
) -> RetrievalScore:
    per_query = {name: values.numpy() for name, values in table.items()}
    columns = np.stack([per_query[name] for name in METRICS], axis=1)
    intervals = bootstrap_means(columns, groups, resamples=bootstrap, seed=seed)
    ranks = per_query["rank"]
    n, m = sizes
    return RetrievalScore(
        n_queries=len(kept),
        n_targets=m,
        n_skipped=n - len(kept),
        n_groups=int(groups.max()) + 1,
        metrics={
            name: MetricScore(float(per_query[name].mean()), chance[name], interval)
            for name, interval in zip(METRICS, intervals, strict=True)
        },
        median_rank=float(np.median(ranks)),
        median_rank_chance=chance["rank"],
        median_rank_ci95=bootstrap_median(ranks, groups, resamples=bootstrap, seed=seed)
        or (1.0, float(m)),
        per_query=per_query,
        query_index=kept.numpy(),
    )
