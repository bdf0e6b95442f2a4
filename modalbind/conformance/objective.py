"""Checks of an objective: a loss of embeddings, square or not, that moves one side alone.

Letters: `n` rows of the modality, `m` anchor embeddings (columns), `dim` the anchor space.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from modalbind.conformance.material import build_example, parse_options
from modalbind.conformance.verdict import require
from modalbind.interfaces import ObjectiveSpec
from modalbind.objectives import LogitScale

DIM = 16
SHAPES = ((6, 6), (6, 9), (6, 4), (2, 1))
"""`(n, m)` that are tried; with fewer columns than rows, rows share a positive."""
TOLERANCE = 1e-5


class ObjectiveBench:
    """An objective and made-up embeddings."""

    def __init__(self, around: Any, spec: ObjectiveSpec) -> None:
        """Keep what to look at; nothing is built yet."""
        self.around = around
        self.spec = spec

    @cached_property
    def objective(self) -> Any:
        """The objective."""
        given = self.spec.example if self.around.options is None else self.around.options
        return build_example(self.spec, parse_options(self.spec, given))

    @property
    def where(self) -> Any:
        """The place to look at."""
        return getattr(type(self.objective), "__call__", type(self.objective))  # noqa: B004

    def loss(
        self, modality: Tensor, anchor: Tensor, positives: Tensor, excluded: Tensor | None = None
    ) -> Tensor:
        """Compute the loss with the scale that the objective starts from."""
        if excluded is None:
            excluded = torch.zeros(positives.shape, dtype=torch.bool)
        with torch.no_grad():
            scale, bias = LogitScale(self.objective)(progress=0.0)
        return self.objective(  # type: ignore[no-any-return]
            modality, anchor, positives, excluded, scale, bias
        )


def _unit(n: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, DIM, generator=generator), dim=1)


def _near(anchor: Tensor, rows: list[int]) -> Tensor:
    return F.normalize(anchor[rows] + 0.1 * _unit(len(rows), 5), dim=1)


def _positives(n: int, m: int) -> Tensor:
    found = torch.zeros(n, m)
    found[torch.arange(n), torch.arange(n) % m] = 1.0
    return found


def check_loss(bench: ObjectiveBench) -> None:
    """Compute it for several numbers of rows and columns, and for a row without a positive."""
    for n, m in SHAPES:
        anchor = _unit(m, 1)
        cases = {"": _positives(n, m)}
        if n > 2:
            cases[", one row without a positive"] = _positives(n, m)
            cases[", one row without a positive"][0] = 0.0
        for case, positives in cases.items():
            place = f"n = {n}, m = {m}{case}"
            try:
                found = bench.loss(_unit(n, 2), anchor, positives)
            except (IndexError, RuntimeError, ValueError) as error:
                require(False, f"{place}: {error}", bench.where)
            require(
                isinstance(found, Tensor) and found.ndim == 0, f"{place}: no scalar", bench.where
            )
            require(math.isfinite(float(found)), f"{place}: loss {float(found)}", bench.where)


def check_scale(bench: ObjectiveBench) -> None:
    """Read what it carries for whoever owns scale and bias."""
    objective = bench.objective
    where = type(objective)
    for name in ("initial_scale", "learn_scale", "max_scale", "initial_bias"):
        require(hasattr(objective, name), f"it carries no {name}", where)
    scale, largest = float(objective.initial_scale), float(objective.max_scale)
    require(
        0 < scale <= largest * (1 + 1e-6) and math.isfinite(largest),
        f"initial_scale {scale:g} and max_scale {largest:g} are not in order",
        where,
    )
    bias = objective.initial_bias
    require(bias is None or math.isfinite(float(bias)), f"initial_bias is {bias}", where)
    require(isinstance(objective.learn_scale, bool), "learn_scale is no bool", where)


def check_gradient(bench: ObjectiveBench) -> None:
    """Take a backward pass with both sides asking for a gradient."""
    anchor = _unit(9, 1).requires_grad_()
    modality = _unit(6, 2).requires_grad_()
    loss = bench.loss(modality, anchor, _positives(6, 9))
    require(loss.requires_grad, "the loss carries no gradient", bench.where)
    torch.autograd.backward(loss)
    grad = modality.grad
    require(grad is not None, "no gradient at the modality's embeddings", bench.where)
    assert grad is not None
    require(
        bool(torch.isfinite(grad).all() and (grad.abs().sum(dim=1) > 0).all()),
        "a row of the modality has no gradient, or one that is not finite",
        bench.where,
    )
    moved = anchor.grad is not None and bool(anchor.grad.abs().sum() > 0)
    require(not moved, "the gradient reaches the anchor embeddings", bench.where)


def check_excluded(bench: ObjectiveBench) -> None:
    """Change an anchor embedding that every row excludes."""
    anchor, positives = _unit(7, 1), _positives(6, 7)
    positives[:, 6] = 0.0
    excluded = torch.zeros(6, 7, dtype=torch.bool)
    excluded[:, 6] = True
    modality = _near(anchor, list(range(6)))
    first = bench.loss(modality, anchor, positives, excluded)
    changed = anchor.clone()
    changed[6] = modality[0]  # as hard a negative as there can be
    second = bench.loss(modality, changed, positives, excluded)
    apart = abs(float(first - second))
    require(apart <= TOLERANCE, f"an excluded column moves the loss by {apart:.2g}", bench.where)


def check_prefers_pairs(bench: ObjectiveBench) -> None:
    """Compare embeddings near their own anchors with the same ones moved on by one row."""
    anchor, positives = _unit(8, 1), _positives(8, 8)
    modality = _near(anchor, list(range(8)))
    matched = float(bench.loss(modality, anchor, positives))
    shuffled = float(bench.loss(modality.roll(1, dims=0), anchor, positives))
    require(
        matched < shuffled,
        f"matching pairs cost {matched:.4g}, shuffled ones {shuffled:.4g}",
        bench.where,
    )
