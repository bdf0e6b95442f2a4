"""Controls: what a score would be if the tower saw next to nothing.

The trivial-feature control fits a closed form from numbers that say nothing about the content
(duration, level) and from declared columns (the spoken language) to the anchor embeddings. A
tower that does not beat it has learnt those. Pure functions; letters: `n` rows, `p` inputs,
`dim` outputs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from modalbind.errors import ShapeError
from modalbind.evaluation.affine import ridge_gcv

_BINS = 8
_MAX_CATEGORIES = 256

Features = Sequence[Mapping[str, float]]
Columns = Sequence[Mapping[str, str]]


def fit_trivial_control(
    train_features: Features,
    train_columns: Columns,
    train_targets: Tensor,
    test_features: Features,
    test_columns: Columns,
) -> Tensor:
    """Predict anchor embeddings of test samples from trivial features alone.

    Numbers are standardised and joined by their squares and by indicators of their quantiles,
    columns become indicators of their categories. What is absent or not finite (the level of
    silence is minus infinity) gets the mean and an indicator of its own. Names and categories
    that training has not seen are ignored. The mean of the targets is left out of the prediction,
    as in a head in closed form: with it the control would look weaker than it is.

    Args:
        train_features: For each training row, trivial numbers by name, as `Modality.describe`
            returns them.
        train_columns: For each training row, its declared columns.
        train_targets: Anchor embeddings of the training rows, `(n, dim)`.
        test_features: As above, for the test rows.
        test_columns: As above, for the test rows.

    Returns:
        Unit-norm float32 `(n_test, dim)` on the CPU; all zero, which ties with everything, if
        no feature varies.

    Raises:
        ShapeError: If the rows of a side differ in number.
        NonFiniteError: If a target is not finite.
    """
    for side, features, columns, n in (
        ("training", train_features, train_columns, len(train_targets)),
        ("test", test_features, test_columns, len(test_features)),
    ):
        if not len(features) == len(columns) == n:
            raise ShapeError(
                f"the same {side} rows everywhere; {len(features)} features, {len(columns)} "
                f"columns, {n} rows; pass one mapping for each row"
            )
    encoding = _Encoding.fit(train_features, train_columns)
    targets = train_targets.detach().cpu().double()
    fit = ridge_gcv(encoding.encode(train_features, train_columns), targets)
    predicted = fit.predict(encoding.encode(test_features, test_columns)) - targets.mean(dim=0)
    return F.normalize(predicted, dim=1).float()


@dataclass(frozen=True, slots=True)
class _Encoding:
    """How trivial features become numbers; fitted on training rows only.

    Attributes:
        numbers: By name: mean, deviation and inner quantile edges.
        categories: By column: the values that get an indicator, most frequent first.
    """

    numbers: Mapping[str, tuple[float, float, Tensor]]
    categories: Mapping[str, tuple[str, ...]]

    @classmethod
    def fit(cls, features: Features, columns: Columns) -> _Encoding:
        numbers = {}
        for name in sorted({name for row in features for name in row}):
            values = _gather(features, name)
            numbers[name] = _describe(values[torch.isfinite(values)])
        categories = {}
        for name in sorted({name for row in columns for name in row}):
            seen = Counter(row[name] for row in columns if name in row)
            # Ties in frequency by name, so that the order of the rows does not matter.
            common = sorted(seen, key=lambda value: (-seen[value], value))
            categories[name] = tuple(common[:_MAX_CATEGORIES])
        return cls(numbers, categories)

    def encode(self, features: Features, columns: Columns) -> Tensor:
        """Return float64 `(n, p)`."""
        parts = [torch.zeros(len(features), 0, dtype=torch.float64)]
        for name, (mean, deviation, edges) in self.numbers.items():
            parts.append(_expand(_gather(features, name), mean, deviation, edges))
        for name, values in self.categories.items():
            index = {value: number for number, value in enumerate(values)}
            found = torch.tensor([index.get(row.get(name, ""), len(values)) for row in columns])
            parts.append(F.one_hot(found.long(), len(values) + 1)[:, :-1].double())
        return torch.cat(parts, dim=1)


def _gather(rows: Features, name: str) -> Tensor:
    return torch.tensor([row.get(name, math.nan) for row in rows], dtype=torch.float64)


def _describe(values: Tensor) -> tuple[float, float, Tensor]:
    """Mean, deviation and distinct inner quantiles of the finite values."""
    if not len(values):
        return 0.0, 1.0, torch.zeros(0, dtype=torch.float64)
    shares = torch.linspace(0, 1, _BINS + 1, dtype=torch.float64)[1:-1]
    ordered = values.sort().values
    edges = torch.unique_consecutive(ordered[(shares * (len(ordered) - 1)).round().long()])
    deviation = float(values.std(correction=0))
    return float(values.mean()), deviation if deviation > 0 else 1.0, edges


def _expand(values: Tensor, mean: float, deviation: float, edges: Tensor) -> Tensor:
    """Standardise, square, bin, and mark what is missing: `(n, 3 + bins)`."""
    is_missing = ~torch.isfinite(values)
    values = torch.where(is_missing, mean, values)
    # Beyond the training data a square runs away; four deviations are far enough.
    z = ((values - mean) / deviation).clamp(-4, 4)
    bins = F.one_hot(torch.bucketize(values, edges, right=True), len(edges) + 1).double()
    return torch.cat([torch.stack([z, z.square(), is_missing.double()], dim=1), bins], dim=1)
