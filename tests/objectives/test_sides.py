from __future__ import annotations

import pytest
import torch

from modalbind.errors import ShapeError
from modalbind.objectives.sides import check_sides, similarities


def test_shapes_that_do_not_belong_together_are_named(pairs):
    modality, anchor, positives, excluded = pairs
    for wrong in (
        (modality[:7], anchor, positives, excluded),
        (modality, anchor[:, :3], positives, excluded),
        (modality, anchor, positives, excluded[:, :3]),
        (modality[0], anchor, positives, excluded),
        (modality[:0], anchor, positives[:0], excluded[:0]),
    ):
        with pytest.raises(ShapeError, match=r"\(n, dim\).*found"):
            check_sides(*wrong)


def test_weights_must_sum_to_one_or_zero(pairs):
    modality, anchor, positives, excluded = pairs
    with pytest.raises(ValueError, match="sums 1 to 2"):
        check_sides(modality, anchor, positives + torch.eye(8)[:1].T * torch.eye(8), excluded)
    negative = positives.clone()
    negative[0, :3] = torch.tensor([1.5, -0.5, 0.0])
    with pytest.raises(ValueError, match="normalise"):
        check_sides(modality, anchor, negative, excluded)


def test_a_column_is_not_positive_and_excluded(pairs):
    modality, anchor, positives, excluded = pairs
    excluded[2, 2] = True
    with pytest.raises(ValueError, match="found 1 that are both"):
        check_sides(modality, anchor, positives, excluded)


def test_similarities_stay_in_float32_under_autocast(pairs):
    modality, anchor, _, _ = pairs
    expected = modality @ anchor.T
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(similarities(modality, anchor), expected)
        assert similarities(modality.bfloat16(), anchor).dtype == torch.float32
