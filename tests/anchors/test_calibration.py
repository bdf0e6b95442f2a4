"""Means taken away and whitening: what they do to numbers, and what they are bound to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from modalbind.anchors.calibration import Calibration, fit_calibration
from modalbind.errors import AnchorError, CorruptFileError


def draw(n: int = 60, dim: int = 5, seed: int = 0, shift: float = 2.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    offset = shift * torch.randn(dim, generator=generator)
    return F.normalize(torch.randn(n, dim, generator=generator) + offset, dim=1)


def fit(groups, kind="mean", by_language=False, shrinkage=0.1) -> Calibration:
    return fit_calibration(groups, kind, by_language=by_language, shrinkage=shrinkage)


def test_the_mean_of_each_modality_is_taken_away() -> None:
    texts, pictures = draw(seed=1), draw(seed=2)
    found = fit({("text", "en"): texts, ("image", ""): pictures})
    for modality, rows in (("text", texts), ("image", pictures)):
        moved = rows.numpy() - rows.numpy().mean(axis=0)
        expected = moved / np.linalg.norm(moved, axis=1, keepdims=True)
        assert np.allclose(found.apply(modality, [None] * 60, rows), expected, atol=1e-5)
    assert found.modalities == ("image", "text") and found.languages == ()


def test_a_language_has_a_mean_of_its_own_only_if_it_is_declared() -> None:
    english, german = draw(seed=1), draw(seed=2, n=20)
    groups = {("text", "en"): english, ("text", "de"): german}
    pooled, split = fit(groups), fit(groups, by_language=True)
    together = torch.cat([english, german]).mean(dim=0)
    assert torch.allclose(pooled.means["text", ""], together, atol=1e-6)
    assert split.languages == ("de", "en") and pooled.languages == ()
    moved = split.apply("text", ["de"] * 20, german)
    assert torch.allclose(moved, F.normalize(german - german.mean(dim=0), dim=1), atol=1e-5)
    unknown = split.apply("text", ["fr"] * 20, german)
    assert torch.allclose(unknown, F.normalize(german - together, dim=1), atol=1e-5)


def test_whitening_makes_the_covariance_round() -> None:
    rows = F.normalize(torch.randn(4000, 4) * torch.tensor([1.0, 2.0, 4.0, 8.0]) + 1, dim=1)
    found = fit({("text", ""): rows}, "whiten", shrinkage=0.0)
    moved = (rows - rows.mean(dim=0)) @ found.whitening["text"]
    covariance = moved.T @ moved / len(rows)
    variance = (rows - rows.mean(dim=0)).square().sum(dim=1).mean() / 4
    assert torch.allclose(covariance, variance * torch.eye(4), atol=1e-3)
    assert torch.allclose(found.whitening["text"], found.whitening["text"].T, atol=1e-5), "ZCA"


def test_shrunk_to_the_end_whitening_is_the_mean_alone() -> None:
    rows = draw()
    whole, plain = fit({("text", ""): rows}, "whiten", shrinkage=1.0), fit({("text", ""): rows})
    found, expected = (each.apply("text", [None] * 60, rows) for each in (whole, plain))
    assert torch.allclose(found, expected, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 500), kind=st.sampled_from(["mean", "whiten"]))
def test_order_means_nothing_and_every_number_is_bound(seed: int, kind: str) -> None:
    rows = draw(seed=seed)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    one, other = fit({("text", ""): rows}, kind), fit({("text", ""): rows[order]}, kind)
    vectors = one.apply("text", [None] * 60, rows)
    assert torch.allclose(vectors, other.apply("text", [None] * 60, rows), atol=1e-4)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(60), atol=1e-5)
    assert fit({("text", ""): rows[:-1]}, kind).hash_content() != one.hash_content()


@pytest.mark.parametrize("kind", ["mean", "whiten"])
def test_it_is_read_as_it_was_written_or_not_at_all(tmp_path: Path, kind: str) -> None:
    found = fit({("text", "de"): draw(), ("image", ""): draw(seed=3)}, kind, by_language=True)
    path = tmp_path / "calibration.safetensors"
    path.write_bytes(found.to_bytes())
    again = Calibration.read(path)
    assert again.hash_content() == found.hash_content() and again.kind == kind
    assert set(again.means) == set(found.means) and set(again.whitening) == set(found.whitening)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptFileError, match="restore it"):
        Calibration.read(path)
    with pytest.raises(CorruptFileError):
        Calibration.read(tmp_path / "nowhere")


def test_what_was_not_fitted_on_and_the_mean_itself_are_refused() -> None:
    found = fit({("text", ""): draw()})
    with pytest.raises(AnchorError, match=r"asked to calibrate image; .* has text; add image"):
        found.apply("image", [None], draw(n=1))
    one = draw(n=1)
    with pytest.raises(AnchorError, match="the mean itself"):
        fit({("text", ""): one}).apply("text", [None], one)
    assert found.apply("text", [], torch.empty(0, 5)).shape == (0, 5)
