"""Affine maps in closed form, and what kind of map one is.

Pure functions in float64. Letters: `n` rows, `p` inputs, `dim` outputs, `r` singular values.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from modalbind.errors import ShapeError
from modalbind.evaluation.retrieval import check_finite
from modalbind.recipe.schema import ClosedFormSection, Solver

_ALPHAS = torch.logspace(-8, 4, 49, dtype=torch.float64)
"""Strengths tried, as multiples of the mean eigenvalue."""
_NO_DIRECTION = 1e-12
"""Eigenvalues below this share of the largest are noise: squaring has halved the digits."""


@dataclass(frozen=True, slots=True)
class AffineFit:
    """An affine map `x @ weights + bias`.

    Attributes:
        weights: Float64 `(p, dim)`.
        bias: Float64 `(dim,)`.
        alpha: The strength of regularisation that was chosen; 0 where there is none.
    """

    weights: Tensor
    bias: Tensor
    alpha: float = 0.0

    def predict(self, x: Tensor) -> Tensor:
        """Map `(n, p)` to float64 `(n, dim)`."""
        return x.double() @ self.weights + self.bias


def fit_affine(solver: Solver, x: Tensor, y: Tensor, section: ClosedFormSection) -> AffineFit:
    """Fit a map from inputs to outputs by one of the solvers in closed form.

    Args:
        solver: `least_squares`, `ridge`, `procrustes` or `cca`; see the function of that name.
        x: Inputs `(n, p)`.
        y: Outputs `(n, dim)`.
        section: Whether both sides are centred first, and what is kept of the map.

    Returns:
        The map. Centred, it takes `x` less its mean; the mean of `y` is its bias if `keep_mean`
        is set, and is left out otherwise. `rank` keeps the largest singular values of the fitted
        outputs (reduced-rank regression).

    Raises:
        ShapeError: If the rows differ or there are none.
        NonFiniteError: If a number is not finite.

    Source:
        Izenman 1975, "Reduced-rank regression for the multivariate linear model", for `rank`.
    """
    x, y = _check(x, y)
    x_mean = x.mean(dim=0) if section.centre else x.new_zeros(x.shape[1])
    y_mean = y.mean(dim=0) if section.centre else y.new_zeros(y.shape[1])
    centred_x, centred_y = x - x_mean, y - y_mean
    freedom = 1 if section.centre else 0
    fits: dict[str, Callable[[], tuple[Tensor, float]]] = {
        "least_squares": lambda: (least_squares(centred_x, centred_y), 0.0),
        "ridge": lambda: _ridge(centred_x, centred_y, freedom),
        "procrustes": lambda: (procrustes(centred_x, centred_y), 0.0),
        "cca": lambda: (cca(centred_x, centred_y, section.components), 0.0),
    }
    weights, alpha = fits[solver]()
    if section.rank is not None:
        weights = _reduce_rank(weights, centred_x, section.rank)
    shift = y_mean if section.keep_mean else torch.zeros_like(y_mean)
    return AffineFit(weights, shift - x_mean @ weights, alpha)


def least_squares(x: Tensor, y: Tensor) -> Tensor:
    """Return the weights `(p, dim)` of least norm that minimise |y - x w|^2."""
    values, basis, projected = _decompose(x, y)
    if not len(values):
        return x.new_zeros(x.shape[1], y.shape[1])
    weights: Tensor = basis @ (projected / values.sqrt()[:, None])
    return weights


def procrustes(x: Tensor, y: Tensor) -> Tensor:
    """Return the (semi-)orthogonal weights `(p, dim)` that minimise |y - x w|^2.

    They turn and reflect, and stretch nothing: where a least squares map gives more weight to what
    English corpora tell apart, this one keeps the encoder's own distances.

    Source:
        Schönemann 1966, "A generalized solution of the orthogonal Procrustes problem"; for
        embeddings Artetxe et al. 2016, "Learning principled bilingual mappings".
    """
    left, _, right = torch.linalg.svd(x.T @ y, full_matrices=False)
    weights: Tensor = left @ right
    return weights


def cca(x: Tensor, y: Tensor, components: int | None = None) -> Tensor:
    """Return weights `(p, dim)` that predict outputs from the first canonical variates.

    Both sides are whitened, the singular value decomposition of their correlation gives the
    canonical pairs, and the kept ones are coloured back to the outputs:
    `Cx^-1/2 U S V' Cy^1/2`. With all of them it is least squares.

    Args:
        x: Inputs `(n, p)`.
        y: Outputs `(n, dim)`.
        components: Pairs kept; None keeps all.

    Source:
        Hotelling 1936, "Relations between two sets of variates".
    """
    x_white, _ = _whitening(x)
    y_white, y_colour = _whitening(y)
    left, values, right = torch.linalg.svd(x_white.T @ (x.T @ y) @ y_white, full_matrices=False)
    kept = slice(None, components)
    weights: Tensor = x_white @ (left[:, kept] * values[kept]) @ right[kept] @ y_colour
    return weights


def _whitening(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return `(x'x)^-1/2` and `(x'x)^1/2`, both `(p, p)`; directions without variance are left."""
    values, vectors = torch.linalg.eigh(x.T @ x)
    keep = values > float(values.max()) * _NO_DIRECTION
    roots, vectors = values[keep].sqrt(), vectors[:, keep]
    return (vectors / roots) @ vectors.T, (vectors * roots) @ vectors.T


def _reduce_rank(weights: Tensor, x: Tensor, rank: int) -> Tensor:
    _, _, right = torch.linalg.svd(x @ weights, full_matrices=False)
    reduced: Tensor = weights @ right[:rank].T @ right[:rank]
    return reduced


def ridge_gcv(x: Tensor, y: Tensor) -> AffineFit:
    """Fit ridge regression with a free bias, its strength chosen by generalised cross-validation.

    Args:
        x: Inputs `(n, p)`; scale them beforehand if they differ in unit.
        y: Outputs `(n, dim)`, one strength for all.

    Returns:
        The map that minimises |y - x w - b|^2 + alpha |w|^2.

    Raises:
        ShapeError: If the rows differ or there are none.
        NonFiniteError: If a number is not finite.

    Source:
        Golub, Heath & Wahba 1979, "Generalized cross-validation as a method for choosing a good
        ridge parameter"; the spectral form of Hastie et al., ESL, eq. 3.47.
    """
    return fit_affine("ridge", x, y, ClosedFormSection(keep_mean=True))


def _ridge(x: Tensor, y: Tensor, freedom: int) -> tuple[Tensor, float]:
    values, basis, projected = _decompose(x, y)
    if not len(values):
        return x.new_zeros(x.shape[1], y.shape[1]), 0.0
    alpha = _choose_alpha(values, projected, y, freedom)
    return basis @ (projected * (values.sqrt() / (values + alpha))[:, None]), alpha


def _check(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or not len(x):
        raise ShapeError(
            f"inputs (n, p) and outputs (n, dim); {tuple(x.shape)} and {tuple(y.shape)}; "
            "pass the same rows on both sides"
        )
    check_finite(x, "inputs of the fit")
    check_finite(y, "outputs of the fit")
    return x.double(), y.double()


def _decompose(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return squared singular values `(r,)`, right vectors `(p, r)` and `U' y` `(r, dim)`."""
    n, p = x.shape
    if p <= n:
        values, vectors = torch.linalg.eigh(x.T @ x)
    else:
        values, vectors = torch.linalg.eigh(x @ x.T)
    largest = float(values.max()) if len(values) else 0.0
    keep = values > largest * _NO_DIRECTION
    values, vectors = values[keep], vectors[:, keep]
    if p <= n:
        return values, vectors, (vectors.T @ (x.T @ y)) / values.sqrt()[:, None]
    return values, (x.T @ vectors) / values.sqrt(), vectors.T @ y


def _choose_alpha(values: Tensor, projected: Tensor, y: Tensor, freedom_of_bias: int) -> float:
    """Minimise |residual|^2 / (1 - df / n)^2, with one degree of freedom for a bias."""
    n = len(y)
    energy = projected.square().sum(dim=1)
    rest = (y.square().sum() - energy.sum()).clamp_min(0)
    best, chosen = math.inf, 0.0
    for alpha in (_ALPHAS.to(values.device) * values.mean()).tolist():
        kept = values / (values + alpha)
        freedom = 1 - (float(kept.sum()) + freedom_of_bias) / n
        if freedom <= 1e-6:
            continue
        score = float(rest + (energy * (1 - kept).square()).sum()) / freedom**2
        if score < best:
            best, chosen = score, alpha
    # Nothing fits with freedom left (one or two rows): the strongest, which is the mean.
    return chosen or float(_ALPHAS[-1] * values.mean())


def scale_inputs(x: Tensor, fit: Callable[[Tensor], AffineFit]) -> AffineFit:
    """Fit on inputs of unit deviation, and fold their scale into the map.

    Args:
        x: Inputs `(n, p)`; one that never varies says nothing and is left as it is.
        fit: From scaled inputs to a map.
    """
    deviation = x.double().std(dim=0, correction=0)
    scale = deviation.where(deviation > 0, 1.0)
    found = fit(x.double() / scale)
    return replace(found, weights=found.weights / scale[:, None])


@dataclass(frozen=True, slots=True)
class Spectrum:
    """What kind of map a matrix is.

    Attributes:
        values: Singular values, the largest first.
        effective_rank: Exponential of the entropy of the normalised singular values: 1 to `r`.
        rotation: 0..1: mean singular value over their root mean square. 1 is a rotation, or a
            reflection, times a number; the matrix is that close to its nearest one (cosine).
    """

    values: tuple[float, ...]
    effective_rank: float
    rotation: float


def compute_spectrum(weights: Tensor) -> Spectrum:
    """Describe a linear map `(p, dim)`.

    Raises:
        ShapeError: If it is no matrix, or nothing but zeros.

    Source:
        Roy & Vetterli 2007, "The effective rank: a measure of effective dimensionality".
    """
    if weights.ndim != 2 or not bool(weights.any()):
        raise ShapeError(
            f"a matrix that is not zero asked for; found {tuple(weights.shape)}; give (p, dim)"
        )
    values = torch.linalg.svdvals(weights.detach().cpu().double())
    shares = values / values.sum()
    entropy = float(torch.special.entr(shares).sum())
    rotation = float(values.mean() / values.square().mean().sqrt())
    return Spectrum(tuple(values.tolist()), math.exp(entropy), rotation)
