"""The modality gap, against double loops and known spheres."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from modalbind.errors import DataError, NonFiniteError, ShapeError
from modalbind.evaluation import compute_gap


def test_agrees_with_double_loops():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(20, 6, generator=generator), torch.randn(31, 6, generator=generator)
    labels_a = torch.randint(5, (20,), generator=generator)
    labels_b = torch.randint(5, (31,), generator=generator)
    found = compute_gap(a, b, labels_a, labels_b)
    x, y = F.normalize(a.double(), dim=1), F.normalize(b.double(), dim=1)
    pairs = [
        float((x[i] - y[j]).square().sum())
        for i in range(20)
        for j in range(31)
        if labels_a[i] == labels_b[j]
    ]
    spread = []
    for side in (x, y):
        near = [
            math.exp(-2 * float((side[i] - side[j]).square().sum()))
            for i in range(len(side))
            for j in range(i)
        ]
        spread.append(math.log(sum(near) / len(near)))
    assert found.alignment == pytest.approx(sum(pairs) / len(pairs))
    assert found.uniformity == pytest.approx(sum(spread) / 2)
    assert found.centroid_distance == pytest.approx(float((x.mean(0) - y.mean(0)).norm()))


def test_identical_sides_have_no_gap():
    a = torch.randn(50, 8)
    found = compute_gap(a, a, torch.arange(50), torch.arange(50))
    assert found.centroid_distance == 0.0
    assert found.alignment == pytest.approx(0.0, abs=1e-12)


def test_opposite_points_are_as_far_as_can_be():
    a = torch.tensor([[1.0, 0.0]]).expand(3, 2)
    found = compute_gap(a, -a, torch.arange(3), torch.arange(3))
    assert found.centroid_distance == pytest.approx(2.0)
    assert found.alignment == pytest.approx(4.0)
    assert found.uniformity == pytest.approx(0.0)


def test_uniform_sphere_reaches_its_closed_form():
    """On the circle, E exp(-2 |x - y|^2) = exp(-4) I0(4)."""
    angles = torch.rand(1500, generator=torch.Generator().manual_seed(0)) * 2 * math.pi
    circle = torch.stack([angles.cos(), angles.sin()], dim=1)
    labels = torch.arange(1500)
    expected = -4 + float(torch.special.i0(torch.tensor(4.0)).log())
    assert compute_gap(circle, circle, labels, labels).uniformity == pytest.approx(
        expected, abs=0.03
    )


def test_large_sides_are_sampled_by_seed():
    a, labels = torch.randn(600, 8), torch.arange(600)
    first, second = (compute_gap(a, a, labels, labels, max_rows=100, seed=3) for _ in range(2))
    assert first == second
    whole = compute_gap(a, a, labels, labels)
    assert first.uniformity == pytest.approx(whole.uniformity, abs=0.2)
    assert first.alignment == whole.alignment


def test_wrong_input_is_refused():
    labels = torch.arange(2)
    with pytest.raises(ShapeError, match="one space"):
        compute_gap(torch.eye(2), torch.eye(3), labels, torch.arange(3))
    with pytest.raises(DataError, match="share a label"):
        compute_gap(torch.eye(2), torch.eye(2), labels, labels + 5)
    with pytest.raises(NonFiniteError, match="second"):
        compute_gap(torch.eye(2), torch.full((2, 2), torch.nan), labels, labels)
