from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from modalbind.encoders.tower import Tower, build_tower, split_frozen
from modalbind.errors import RecipeError, ShapeError
from modalbind.recipe.schema import HeadSection, TowerSection

DIM = 5


def build(encoder, head=None, **section) -> Tower:
    return build_tower(encoder, head or HeadSection(), TowerSection(**section), DIM)


def train_a_step(tower, features) -> None:
    trained = [p for p in tower.parameters() if p.requires_grad]
    tower.train()
    tower(features)[:, 0].sum().backward()
    torch.optim.SGD(trained, lr=1.0).step()


def snapshot(module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(module, before) -> set[str]:
    return {name for name, value in module.state_dict().items() if not value.equal(before[name])}


def test_embeddings_are_unit_norm_float32_also_under_autocast(encoder, features):
    tower = build(encoder).eval()
    with torch.autocast("cpu", torch.bfloat16):
        embeddings = tower(features, torch.ones(5, 7, dtype=torch.bool))
    assert embeddings.dtype == torch.float32
    assert embeddings.shape == (5, DIM)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(5), atol=1e-6, rtol=0)


def test_a_zero_projection_stays_zero_with_a_finite_gradient(encoder, features):
    tower = build(encoder, HeadSection(bias=False))
    nn.init.zeros_(tower.head.projection.weight)
    embeddings = tower(features)
    embeddings.sum().backward()
    assert embeddings.abs().max() == 0
    assert torch.isfinite(tower.head.projection.weight.grad).all()


def test_an_encoder_that_does_not_pool_is_refused(features):
    class Unpooled(nn.Module):
        width, lora_targets = 4, ()

        def forward(self, features, valid_mask):
            return features

        def layer_groups(self):
            return []

    with pytest.raises(ShapeError, match="pool over time"):
        build(Unpooled())(features)


def test_names_are_stable(encoder):
    plain = {name.split(".")[0] for name in build(encoder).state_dict()}
    assert plain == {"encoder", "head"}


def test_nothing_frozen_trains_everything(encoder):
    assert all(p.requires_grad for p in build(encoder).parameters())


def test_a_frozen_encoder_keeps_its_weights_statistics_and_silence(encoder, features):
    tower = build(encoder, freeze="encoder")
    before = snapshot(tower.encoder)
    train_a_step(tower, features)
    assert changed(tower.encoder, before) == set()
    assert all(p.grad is None for p in tower.encoder.parameters())
    assert not any(module.training for module in tower.encoder.modules())
    assert tower.head.training
    assert torch.equal(tower(features), tower(features))  # its dropout does not act


def test_a_number_freezes_so_many_layer_groups(encoder, features):
    tower = build(encoder, freeze=2)
    before = snapshot(tower.encoder)
    train_a_step(tower, features)
    parts = {".".join(name.split(".")[:2]) for name in changed(tower.encoder, before)}
    # The shared table is frozen with the lowest layer that has it.
    assert parts == {"gain", "layers.2"}
    assert "layers.2.table.weight" not in changed(tower.encoder, before)
    assert [layer.training for layer in tower.encoder.layers] == [False, False, True]


def test_all_layers_can_be_frozen_but_no_more(encoder):
    with pytest.raises(RecipeError, match="4 layer groups asked for; the encoder has 3"):
        build(encoder, freeze=4)
    with pytest.raises(RecipeError, match="-1 layer groups"):
        build(encoder, freeze=-1)
    assert not any(p.requires_grad for p in build(encoder, freeze=3).encoder.layers.parameters())


def test_eval_mode_reaches_everything(encoder):
    tower = build(encoder, freeze=1).eval()
    assert not any(module.training for module in tower.modules())


class Counting(nn.Module):
    """Counts its forward passes: twice a step if it is recomputed."""

    def __init__(self, inner) -> None:
        super().__init__()
        self.inner, self.calls = inner, 0

    def forward(self, hidden):
        self.calls += 1
        return self.inner(hidden)


@pytest.mark.parametrize("freeze", ["none", 1])
def test_checkpointing_recomputes_and_changes_no_gradient(encoder, features, freeze):
    # Running statistics would be updated twice.
    for layer in encoder.layers:
        layer.norm = nn.Identity()
    encoder.layers[2] = Counting(encoder.layers[2])
    torch.manual_seed(1)
    plain = build(copy.deepcopy(encoder), freeze=freeze)
    torch.manual_seed(1)
    saving = build(encoder, freeze=freeze, checkpointing=True)
    for tower in (plain, saving):
        torch.manual_seed(2)  # the dropout must be replayed
        tower(features)[:, 0].sum().backward()
    assert (plain.encoder.layers[2].calls, saving.encoder.layers[2].calls) == (1, 2)
    assert plain.state_dict().keys() == saving.state_dict().keys()
    for mine, other in zip(saving.parameters(), plain.parameters(), strict=True):
        assert (mine.grad is None) == (other.grad is None)
        if mine.grad is not None:
            assert torch.equal(mine.grad, other.grad)


def test_an_encoders_own_checkpointing_is_preferred(encoder):
    asked = []
    encoder.set_checkpointing = asked.append
    build(encoder, checkpointing=True)
    assert asked == [True]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_saved_and_loaded_weights_are_equal_in_every_bit(encoder, tmp_path, dtype):
    tower = build(encoder).to(dtype).eval()
    save_file(tower.merged_state_dict(), tmp_path / "tower.safetensors")
    torch.manual_seed(9)
    other = build(type(encoder)()).to(dtype).eval()
    other.load_state_dict(load_file(tmp_path / "tower.safetensors"))
    features = torch.randn(3, 7, 4).to(dtype)
    assert torch.equal(other(features), tower(features))
    assert changed(other, tower.state_dict()) == set()


def test_a_tower_is_cut_where_its_frozen_part_ends(encoder, features):
    mask = torch.ones(5, 7, dtype=torch.bool)
    tower = build(encoder, freeze="encoder")
    frozen, moving = split_frozen(tower, "encoder")
    assert frozen is tower.encoder and moving.head is tower.head
    torch.testing.assert_close(moving(frozen(features, mask)), tower(features, mask))
    assert {n for n, p in moving.named_parameters()} == {
        n for n, p in tower.named_parameters() if p.requires_grad
    }


@pytest.mark.parametrize("freeze", ["none", 0, 1])
def test_nothing_is_cut_where_nothing_is_frozen_or_the_encoder_cannot(encoder, freeze):
    assert split_frozen(build(encoder, freeze=freeze), freeze) is None
