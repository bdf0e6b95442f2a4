"""Controls: ridge against its normal equations and leave-one-out; what trivial features can do."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from modalbind.errors import NonFiniteError, ShapeError
from modalbind.evaluation import compute_retrieval, fit_trivial_control, ridge_gcv


@pytest.mark.parametrize(("n", "p"), [(80, 5), (12, 30)])
def test_ridge_solves_the_normal_equations(n, p):
    generator = torch.Generator().manual_seed(n)
    x = torch.randn(n, p, generator=generator, dtype=torch.float64) + 3
    truth = torch.randn(p, 4, generator=generator, dtype=torch.float64)
    y = x @ truth + torch.randn(n, 4, generator=generator, dtype=torch.float64) - 7
    fit = ridge_gcv(x, y)
    centred, outputs = x - x.mean(0), y - y.mean(0)
    expected = torch.linalg.solve(
        centred.T @ centred + fit.alpha * torch.eye(p, dtype=torch.float64), centred.T @ outputs
    )
    assert torch.allclose(fit.weights, expected, atol=1e-8)
    assert torch.allclose(fit.predict(x.mean(0, keepdim=True)), y.mean(0, keepdim=True))


@pytest.mark.parametrize(("n", "p", "noise"), [(60, 4, 0.01), (60, 20, 5.0), (20, 40, 1.0)])
def test_gcv_picks_the_best_strength(n, p, noise):
    """The score, from the hat matrix written out, is no lower at any other strength tried."""
    generator = torch.Generator().manual_seed(p)
    x = torch.randn(n, p, generator=generator, dtype=torch.float64)
    y = x[:, :2] @ torch.ones(2, 3, dtype=torch.float64)
    y = y + noise * torch.randn(n, 3, generator=generator, dtype=torch.float64)
    alpha = ridge_gcv(x, y).alpha
    x, y = x - x.mean(0), y - y.mean(0)

    def gcv(strength):
        hat = x @ torch.linalg.solve(
            x.T @ x + strength * torch.eye(p, dtype=torch.float64), x.T
        ) + torch.full((n, n), 1 / n, dtype=torch.float64)
        residual = (y - hat @ y).square().sum()
        return float(residual / (1 - hat.trace() / n) ** 2)

    others = [alpha * 10.0**power for power in (-2, -1, -0.5, 0.5, 1, 2)]
    assert all(gcv(alpha) <= gcv(other) * (1 + 1e-6) for other in others)


def test_noise_is_shrunk_to_the_mean():
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(200, 10, generator=generator), torch.randn(200, 6, generator=generator)
    fit = ridge_gcv(x, y + 5)
    free = torch.linalg.lstsq((x - x.mean(0)).double(), (y - y.mean(0)).double()).solution
    assert fit.weights.norm() < 0.5 * free.norm()
    assert torch.allclose(fit.bias, (y + 5).double().mean(0), atol=0.2)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_ridge_on_hardly_any_rows_is_finite(n):
    fit = ridge_gcv(torch.randn(n, 8), torch.randn(n, 3))
    assert torch.isfinite(fit.weights).all()
    assert torch.isfinite(fit.bias).all()


def test_inputs_that_never_change_give_the_mean():
    y = torch.randn(9, 2)
    fit = ridge_gcv(torch.ones(9, 3), y)
    assert torch.allclose(fit.predict(torch.zeros(1, 3))[0], y.double().mean(0))
    assert torch.allclose(ridge_gcv(torch.zeros(9, 0), y).bias, y.double().mean(0))


def test_ridge_refuses_what_does_not_fit():
    with pytest.raises(ShapeError, match="same rows"):
        ridge_gcv(torch.eye(3), torch.eye(2))
    with pytest.raises(NonFiniteError, match="inputs"):
        ridge_gcv(torch.full((2, 1), torch.nan), torch.eye(2))


def make_world(n, seed):
    """Anchors that depend on duration (not linearly) and on a column, and on nothing else."""
    generator = torch.Generator().manual_seed(seed)
    duration = torch.rand(n, generator=generator) * 9 + 1
    language = torch.randint(3, (n,), generator=generator)
    basis = torch.randn(8, 24, generator=torch.Generator().manual_seed(99))
    where = (duration - 5.5).abs()
    parts = torch.cat(
        [
            where[:, None] * basis[0],
            F.one_hot(language, 3).float() @ basis[1:4] * 3,
        ]
    ).reshape(2, n, 24)
    targets = F.normalize(parts.sum(0), dim=1)
    features = [{"duration_s": float(d), "level_db": -20.0} for d in duration]
    columns = [{"spoken": f"l{int(code)}"} for code in language]
    return features, columns, targets


def test_finds_what_is_in_trivial_features():
    features, columns, targets = make_world(300, 0)
    test_features, test_columns, truth = make_world(100, 1)
    found = fit_trivial_control(features, columns, targets, test_features, test_columns)
    assert found.shape == (100, 24)
    assert found.dtype == torch.float32
    assert torch.allclose(found.norm(dim=1), torch.ones(100), atol=1e-5)
    truth = F.normalize(truth - targets.mean(dim=0), dim=1)
    assert (found * truth).sum(dim=1).mean() > 0.95
    without = fit_trivial_control(features, [{}] * 300, targets, test_features, [{}] * 100)
    assert (without * truth).sum(dim=1).mean() < 0.7


def test_says_nothing_about_what_is_not_in_them():
    generator = torch.Generator().manual_seed(4)
    features, columns, _ = make_world(200, 2)
    targets = F.normalize(torch.randn(400, 16, generator=generator), dim=1)
    test_features, test_columns, _ = make_world(200, 3)
    found = fit_trivial_control(features, columns, targets[:200], test_features, test_columns)
    labels = torch.arange(200)
    top = compute_retrieval(found, targets[200:], labels, labels).metrics["recall_at_10"]
    assert top.ci95[0] <= top.chance <= top.ci95[1]


def test_the_mean_of_the_targets_does_not_hide_what_is_known():
    # Two kinds, told apart by duration, whose anchors differ little beside what they share.
    generator = torch.Generator().manual_seed(8)
    common, kinds = torch.tensor([8.0, 0, 0, 0]), torch.tensor([[0, 1.0, 0, 0], [0, 0, 1.0, 0]])
    kind = torch.randint(2, (200,), generator=generator)
    targets = F.normalize(common + kinds[kind], dim=1)
    # Durations overlap so much that the fit is shrunk to a tenth of the difference.
    features = [
        {"duration_s": float(k) + 3 * float(torch.randn((), generator=generator))} for k in kind
    ]
    found = fit_trivial_control(features, [{}] * 200, targets, features, [{}] * 200)
    assert (found @ F.normalize(common, dim=0)).abs().max() < 0.3
    assert ((found @ (kinds[1] - kinds[0]) > 0) == (kind == 1)).float().mean() > 0.55


def test_nothing_at_all_ties_with_everything_and_scores_chance():
    targets = F.normalize(torch.randn(50, 16), dim=1)
    found = fit_trivial_control([{}] * 50, [{}] * 50, targets, [{}] * 40, [{}] * 40)
    assert torch.allclose(found, torch.zeros(40, 16), atol=1e-6)
    labels = torch.arange(40)
    top = compute_retrieval(found, targets[:40], labels, labels).metrics["recall_at_1"]
    assert top.value == pytest.approx(top.chance)


def test_silence_and_absence_and_novelty_are_taken():
    features = [{"level_db": -20.0}, {"level_db": -math.inf}, {}, {"level_db": -30.0}] * 5
    columns = [{"room": "a"}, {}, {"room": "b"}, {"room": "a"}] * 5
    targets = F.normalize(torch.randn(20, 4), dim=1)
    test = [{"level_db": math.nan}, {"level_db": 1e9}, {"other": 1.0}]
    found = fit_trivial_control(features, columns, targets, test, [{"room": "new"}, {}, {}])
    assert torch.isfinite(found).all()


def test_order_of_training_rows_does_not_matter():
    features, columns, targets = make_world(120, 5)
    order = torch.randperm(120).tolist()
    test_features, test_columns, _ = make_world(30, 6)
    plain = fit_trivial_control(features, columns, targets, test_features, test_columns)
    moved = fit_trivial_control(
        [features[i] for i in order], [columns[i] for i in order], targets[order],
        test_features, test_columns,
    )  # fmt: skip
    assert torch.allclose(plain, moved, atol=1e-5)


def test_rows_must_agree():
    with pytest.raises(ShapeError, match="training rows"):
        fit_trivial_control([{}], [{}], torch.eye(2), [{}], [{}])
    with pytest.raises(ShapeError, match="test rows"):
        fit_trivial_control([{}, {}], [{}, {}], torch.eye(2), [{}], [])
