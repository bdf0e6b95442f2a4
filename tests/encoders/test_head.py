from __future__ import annotations

import math

import pytest
import torch

from modalbind.encoders.head import LinearHead, build_head, published_section
from modalbind.encoders.tower import build_tower
from modalbind.errors import RecipeError
from modalbind.recipe.schema import HeadSection, TowerSection


def test_the_linear_head_is_one_affine_map():
    head = build_head(HeadSection(), width=3, dim=2)
    pooled = torch.tensor([[1.0, -2.0, 0.5]])
    expected = [
        sum(w * x for w, x in zip(row.tolist(), pooled[0].tolist(), strict=True)) + b.item()
        for row, b in zip(head.projection.weight, head.projection.bias, strict=True)
    ]
    assert head(pooled)[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_the_mlp_head_has_a_gelu_between_two_maps():
    head = build_head(HeadSection(kind="mlp", hidden=4, bias=False), width=3, dim=2)
    pooled = torch.randn(5, 3)
    hidden = pooled @ head.hidden.weight.T
    gelu = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    torch.testing.assert_close(head(pooled), gelu @ head.projection.weight.T)


def test_no_hidden_width_means_the_encoders():
    head = build_head(HeadSection(kind="mlp"), width=7, dim=2)
    assert tuple(head.hidden.weight.shape) == (7, 7)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_bias_and_dropout_are_as_asked(kind):
    head = build_head(HeadSection(kind=kind, bias=False, dropout=0.5), width=32, dim=8)
    assert {name.rpartition(".")[2] for name, _ in head.named_parameters()} == {"weight"}
    pooled = torch.randn(4, 32)
    assert not torch.equal(head(pooled), head(pooled))
    head.eval()
    assert torch.equal(head(pooled), head(pooled))


def test_without_a_head_the_encoders_output_is_the_embedding():
    head = build_head(HeadSection(kind="none"), width=4, dim=4)
    pooled = torch.randn(3, 4)
    assert torch.equal(head(pooled), pooled)
    assert not list(head.parameters()) and not head.state_dict()


def test_without_a_head_the_encoder_has_to_end_in_the_anchors_dim():
    with pytest.raises(RecipeError, match=r"ends in 4 numbers, the anchor space has 3; set head"):
        build_head(HeadSection(kind="none"), width=4, dim=3)


@pytest.mark.parametrize(("width", "dim", "layers"), [(3, 5, 1), (5, 5, 4), (6, 4, 3)])
@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_a_deep_linear_head_is_a_product_of_maps_and_is_published_as_one(
    width, dim, layers, skip, bias
):
    torch.manual_seed(layers)
    section = HeadSection(kind="deep_linear", layers=layers, skip=skip, bias=bias)
    head = build_head(section, width, dim)
    pooled = torch.randn(7, width)
    expected = pooled
    for number, layer in enumerate(head.layers):
        before = expected
        expected = expected @ layer.weight.T + (layer.bias if bias else 0)
        if skip and (number > 0 or width == dim):
            expected = expected + before
    assert torch.allclose(head(pooled), expected, atol=1e-6)
    one = LinearHead(width, dim, bias)
    one.load_state_dict(head.merged_state_dict(""))
    assert torch.allclose(one(pooled), expected, atol=1e-5)
    assert published_section(section).kind == "linear"


def test_a_tower_with_a_deep_linear_head_is_published_with_a_linear_one(encoder, features):
    section = HeadSection(kind="deep_linear", layers=3)
    tower = build_tower(encoder, section, TowerSection(), dim=4).eval()
    again = build_tower(encoder, published_section(section), TowerSection(), dim=4).eval()
    again.load_state_dict(tower.merged_state_dict())
    assert torch.allclose(tower(features), again(features), atol=1e-5)
