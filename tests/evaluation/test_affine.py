"""Maps in closed form, each held against another way of finding it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modalbind.errors import NonFiniteError, ShapeError
from modalbind.evaluation.affine import (
    cca,
    compute_spectrum,
    fit_affine,
    least_squares,
    procrustes,
    scale_inputs,
)
from modalbind.recipe.schema import ClosedFormSection

SOLVERS = ("least_squares", "ridge", "procrustes", "cca")


def draw(n=60, p=7, dim=5, noise=0.3, seed=0):
    torch.manual_seed(seed)
    x = torch.randn(n, p, dtype=torch.float64) * torch.arange(1, p + 1) + 2
    y = x @ torch.randn(p, dim, dtype=torch.float64) + noise * torch.randn(n, dim) - 3
    return x, y


@pytest.mark.parametrize("shape", [(60, 7), (5, 9)])
def test_least_squares_is_numpys(shape):
    x, y = draw(*shape)
    expected, *_ = np.linalg.lstsq(x.numpy(), y.numpy(), rcond=None)
    assert np.allclose(least_squares(x, y).numpy(), expected, atol=1e-8)


def test_centred_least_squares_has_the_free_bias_of_a_column_of_ones():
    x, y = draw()
    fit = fit_affine("least_squares", x, y, ClosedFormSection(keep_mean=True))
    expected, *_ = np.linalg.lstsq(np.c_[x.numpy(), np.ones(len(x))], y.numpy(), rcond=None)
    assert np.allclose(fit.weights.numpy(), expected[:-1]) and np.allclose(fit.bias, expected[-1])


def test_a_rotation_is_found_again():
    torch.manual_seed(1)
    x = torch.randn(40, 6, dtype=torch.float64)
    turn, _ = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))
    assert torch.allclose(procrustes(x, 3.0 * x @ turn), turn, atol=1e-10)


@pytest.mark.parametrize("dim", [4, 7, 9])
def test_procrustes_is_orthogonal_and_beats_other_orthogonal_maps(dim):
    x, y = draw(dim=dim)
    found = procrustes(x, y)
    small = min(found.shape)
    square = found.T @ found if found.shape[1] == small else found @ found.T
    assert torch.allclose(square, torch.eye(small, dtype=torch.float64), atol=1e-10)
    agreement = float((x @ found * y).sum())
    for seed in range(50):
        torch.manual_seed(seed)
        left, _, right = torch.linalg.svd(
            found + 0.3 * torch.randn_like(found), full_matrices=False
        )
        assert float((x @ (left @ right) * y).sum()) <= agreement + 1e-9


def test_cca_with_all_components_is_least_squares():
    x, y = draw()
    x, y = x - x.mean(0), y - y.mean(0)
    assert torch.allclose(cca(x, y), least_squares(x, y), atol=1e-8)


def test_cca_components_are_ordered_by_canonical_correlation():
    """One direction of each side is shared exactly, the rest is noise: one component finds it."""
    torch.manual_seed(0)
    shared = torch.randn(500, 1, dtype=torch.float64)
    x = torch.cat([shared, 5 * torch.randn(500, 3)], dim=1)
    y = torch.cat([3 * torch.randn(500, 2), shared], dim=1)
    predicted = (x - x.mean(0)) @ cca(x - x.mean(0), y - y.mean(0), 1)
    expected = (shared - shared.mean()).squeeze()
    assert torch.allclose(predicted[:, 2], expected, atol=0.05)
    assert float(predicted[:, :2].abs().mean()) < 0.5
    assert int(torch.linalg.matrix_rank(predicted)) == 1


@pytest.mark.parametrize("solver", SOLVERS)
def test_what_is_centred_leaves_the_mean_out_unless_it_is_to_be_kept(solver):
    x, y = draw()
    kept = fit_affine(solver, x, y, ClosedFormSection(keep_mean=True))
    left = fit_affine(solver, x, y, ClosedFormSection())
    plain = fit_affine(solver, x, y, ClosedFormSection(centre=False))
    assert torch.allclose(kept.predict(x).mean(0), y.mean(0))
    assert torch.allclose(left.predict(x).mean(0), torch.zeros(5, dtype=torch.float64), atol=1e-9)
    assert torch.allclose(kept.predict(x) - left.predict(x), y.mean(0).expand(60, 5))
    assert not plain.bias.any()


@pytest.mark.parametrize("solver", SOLVERS)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), centre=st.booleans())
def test_the_order_of_rows_means_nothing(solver, seed, centre):
    x, y = draw(seed=seed)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    section = ClosedFormSection(centre=centre)
    one, other = fit_affine(solver, x, y, section), fit_affine(solver, x[order], y[order], section)
    assert torch.allclose(one.weights, other.weights, atol=1e-7)


def test_reduced_rank_is_the_best_of_its_rank_on_the_fitted_outputs():
    x, y = draw(noise=1.0)
    full = fit_affine("least_squares", x, y, ClosedFormSection())
    low = fit_affine("least_squares", x, y, ClosedFormSection(rank=2))
    assert int(torch.linalg.matrix_rank(low.weights)) == 2
    values = torch.linalg.svdvals(full.predict(x))
    lost = (full.predict(x) - low.predict(x)).square().sum()
    assert torch.allclose(lost, values[2:].square().sum())  # Eckart and Young


def test_uncentred_ridge_shrinks_to_nothing_where_nothing_is_to_be_learnt():
    torch.manual_seed(0)
    x, y = torch.randn(200, 4), torch.randn(200, 3)
    fit = fit_affine("ridge", x, y, ClosedFormSection(centre=False))
    assert fit.alpha > 0 and float(fit.weights.norm()) < 0.2 and not fit.bias.any()


def test_the_unit_of_an_input_does_not_matter_once_inputs_are_scaled():
    x, y = draw()
    factors = torch.tensor([1, 10, 0.1, 1000, 1, 1, 5], dtype=torch.float64)

    def fit(inputs):
        return scale_inputs(inputs, lambda s: fit_affine("ridge", s, y, ClosedFormSection()))

    assert torch.allclose(fit(x).predict(x), fit(x * factors).predict(x * factors), atol=1e-8)
    assert torch.isfinite(fit(torch.cat([x, torch.ones(60, 1)], dim=1)).weights).all()


def test_an_effective_rank_counts_equal_directions():
    for rank in (1, 3, 8):
        matrix = torch.zeros(8, 10)
        matrix[:rank, :rank] = 2 * torch.eye(rank)
        found = compute_spectrum(matrix)
        assert found.effective_rank == pytest.approx(rank)
        assert found.rotation == pytest.approx(math.sqrt(rank / 8))
    assert compute_spectrum(torch.eye(5) * -3).rotation == pytest.approx(1)


def test_what_cannot_be_fitted_is_refused():
    with pytest.raises(ShapeError, match="the same rows"):
        fit_affine("cca", torch.eye(3), torch.eye(2), ClosedFormSection())
    with pytest.raises(NonFiniteError):
        fit_affine("procrustes", torch.full((2, 1), torch.nan), torch.eye(2), ClosedFormSection())
    with pytest.raises(ShapeError, match="not zero"):
        compute_spectrum(torch.zeros(3, 3))
