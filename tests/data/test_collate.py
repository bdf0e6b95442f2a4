"""Padding, and the anchor side of a batch against a reference that asks pair by pair."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modalbind.data.collate import build_side, pad_features
from modalbind.errors import NonFiniteError, ShapeError
from modalbind.objectives.sides import check_sides

BANK = torch.nn.functional.normalize(torch.randn(6, 4, generator=torch.Generator()), dim=1)


def test_padding_is_at_the_end_and_masked() -> None:
    padded, mask = pad_features([torch.ones(2, 3), torch.full((4, 3), 2.0)], is_padded=True)
    assert padded.dtype == torch.float32 and padded.shape == (2, 4, 3)
    assert padded[0].tolist() == [[1.0] * 3] * 2 + [[0.0] * 3] * 2
    assert padded[1].tolist() == [[2.0] * 3] * 4
    assert mask is not None and mask.tolist() == [[True, True, False, False], [True] * 4]


def test_fixed_shapes_are_stacked_without_a_mask() -> None:
    stacked, mask = pad_features([torch.zeros(3, 5), torch.ones(3, 5)], is_padded=False)
    assert stacked.shape == (2, 3, 5) and mask is None


@pytest.mark.parametrize(
    ("shapes", "is_padded"), [(((2, 3), (2, 4)), True), (((2, 3), (4, 3)), False)]
)
def test_shapes_that_differ_where_they_must_not(
    shapes: tuple[tuple[int, int], ...], is_padded: bool
) -> None:
    with pytest.raises(ShapeError, match="features of one shape"):
        pad_features([torch.zeros(shape) for shape in shapes], is_padded)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(NonFiniteError, match="features asked for"):
        pad_features([torch.zeros(2), torch.tensor([0.0, value])], is_padded=True)


def test_equal_anchors_are_one_column_positive_for_both() -> None:
    side = build_side("text", [4, 1, 4], ["a", "b", "a"], BANK, weight=0.5)
    assert (side.modality, side.weight) == ("text", 0.5)
    assert torch.equal(side.embeddings, BANK[[1, 4]])
    assert side.positives.tolist() == [[0, 1], [1, 0], [0, 1]]
    assert not side.excluded.any()


def test_another_anchor_of_the_same_key_is_excluded() -> None:
    side = build_side("text", [0, 1, 2], ["a", "a", "b"], BANK, 1.0)
    assert side.positives.tolist() == torch.eye(3).tolist()
    assert side.excluded.tolist() == [
        [False, True, False],
        [True, False, False],
        [False, False, False],
    ]


def test_a_row_without_anchor_asks_for_nothing() -> None:
    side = build_side("image", [-1, 3], ["", "a"], BANK, 1.0)
    assert side.positives.tolist() == [[0], [1]] and not side.excluded.any()


def test_a_side_without_any_anchor_has_no_columns() -> None:
    side = build_side("image", [-1, -1], ["", ""], BANK, 1.0)
    assert side.embeddings.shape == (0, 4)
    assert side.positives.shape == side.excluded.shape == (2, 0)


@given(st.lists(st.tuples(st.integers(-1, 5), st.sampled_from("abc")), min_size=1, max_size=10))
def test_every_cell_is_what_the_keys_say(batch: list[tuple[int, str]]) -> None:
    """Reference: a column is an anchor; its keys are those of all rows that chose it."""
    rows, keys = [r for r, _ in batch], [k for _, k in batch]
    side = build_side("text", rows, keys, BANK, 1.0)
    columns = [r for r in range(6) if r in rows]
    assert torch.equal(side.embeddings, BANK[columns])
    for i, (row, key) in enumerate(batch):
        for j, anchor in enumerate(columns):
            is_own = row == anchor
            shares = row >= 0 and any(r == anchor and k == key for r, k in batch)
            assert side.positives[i, j] == float(is_own)
            assert bool(side.excluded[i, j]) == (shares and not is_own)
    assert side.positives.sum(dim=1).tolist() == [float(row >= 0) for row in rows]
    if columns:
        check_sides(torch.zeros(len(rows), 4), side.embeddings, side.positives, side.excluded)


def test_a_caption_that_a_row_owns_but_did_not_draw_is_no_negative() -> None:
    side = build_side("text", [0, 1], ["a", "b"], torch.eye(2), 1.0, owned=[{"a", "b"}, {"b", "c"}])
    assert side.excluded.tolist() == [[False, True], [False, False]]
    assert side.positives.tolist() == [[1.0, 0.0], [0.0, 1.0]]
