from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from modalbind.encoders.tower import build_tower
from modalbind.errors import RecipeError
from modalbind.recipe.schema import HeadSection, LoraSection, TowerSection

DIM = 5


def build(encoder, freeze="none", **lora):
    section = TowerSection(freeze=freeze, lora=LoraSection(**lora))
    return build_tower(encoder, HeadSection(), section, DIM)


def perturb(tower) -> None:
    """Adapters start at zero: give them something to merge."""
    generator = torch.Generator().manual_seed(5)
    for parameter in tower.parameters():
        if parameter.requires_grad:
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)


def test_peft_is_imported_only_when_asked_for():
    code = "import sys, modalbind.encoders.tower; sys.exit('peft' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.filterwarnings("ignore")  # what peft warns about while it is imported
def test_only_adapters_and_head_train(encoder, features):
    tower = build(encoder)
    before = {name: value.clone() for name, value in tower.named_parameters()}
    tower(features)[:, 0].sum().backward()
    torch.optim.SGD([p for p in tower.parameters() if p.requires_grad], lr=1.0).step()
    trained = {name for name, value in tower.named_parameters() if value.requires_grad}
    assert all(".lora_" in name or name.startswith("head.") for name in trained)
    # 3 layers x 2 targets x (A, B), and the head's weight and bias.
    assert len(trained) == 14
    moved = {n for n, p in tower.named_parameters() if not torch.equal(p, before[n])}
    assert moved <= trained
    assert any(".lora_B." in name for name in moved)


@pytest.mark.filterwarnings("ignore")
def test_merged_weights_fit_the_plain_tower_and_embed_equally(encoder, features):
    plain = build_tower(type(encoder)(), HeadSection(), TowerSection(), DIM).eval()
    tower = build(encoder, rank=2, alpha=6.0, targets=("q_proj",))
    start = tower.merged_state_dict()
    perturb(tower)
    tower.eval()
    merged = tower.merged_state_dict()
    plain.load_state_dict(merged)  # strict: same names, no more, no fewer
    torch.testing.assert_close(plain(features), tower(features), atol=1e-5, rtol=0)
    moved = {name for name in merged if not torch.equal(merged[name], start[name])}
    assert moved == {f"encoder.layers.{i}.q_proj.weight" for i in range(3)} | {
        "head.projection.weight",
        "head.projection.bias",
    }
    # The update by hand: alpha / rank times B A.
    layer = tower.encoder.layers[1].q_proj
    update = 3.0 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    torch.testing.assert_close(
        merged["encoder.layers.1.q_proj.weight"], layer.base_layer.weight + update
    )


@pytest.mark.filterwarnings("ignore")
def test_frozen_layers_have_frozen_adapters(encoder):
    tower = build(encoder, freeze=2)
    trained = {n for n, p in tower.encoder.named_parameters() if p.requires_grad}
    assert trained
    assert all(name.startswith("layers.2.") for name in trained)


@pytest.mark.parametrize("targets", [("query",), ("q_proj", "norm")])
def test_a_target_that_is_no_linear_layer_is_named(encoder, targets):
    with pytest.raises(RecipeError, match=r"available: out_proj, q_proj, stem"):
        build(encoder, targets=targets)


def test_no_targets_at_all_are_refused(encoder):
    encoder.lora_targets = ()
    with pytest.raises(RecipeError, match="none given"):
        build(encoder)


def test_adapters_on_a_frozen_encoder_are_refused(encoder):
    with pytest.raises(RecipeError, match="drop one of them"):
        build(encoder, freeze="encoder")
