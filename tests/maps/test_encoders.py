"""Encoders of maps: small convolutions, timm families, the anchor's own tower with one channel."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from modalbind.encoders.tower import build_tower
from modalbind.errors import InputError, ShapeError
from modalbind.maps.encoders import (
    SplitAttention,
    build_anchor_tower,
    build_grid_map,
    build_timm_map,
    build_vision_tower,
    read_exported,
)
from modalbind.maps.options import AnchorTowerOptions, GridMapOptions, TimmMapOptions
from modalbind.recipe.schema import HeadSection, LoraSection, TowerSection

SIZE_PX = 32
CONVNEXT = TimmMapOptions(
    model="convnext_atto", args={"depths": [1, 1, 2, 1], "dims": [8, 12, 16, 20]}
)
VIT = TimmMapOptions(
    model="vit_tiny_patch16_224",
    args={"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2},
)
ARCHITECTURE: dict[str, Any] = {
    "embed_dim": 12,
    "vision_cfg": {
        "image_size": SIZE_PX,
        "layers": 2,
        "width": 16,
        "head_width": 8,
        "patch_size": 8,
    },
    "quick_gelu": False,
}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def modality(size_px: int = SIZE_PX) -> Any:
    return SimpleNamespace(options=SimpleNamespace(size_px=size_px))


def maps(n: int = 3, size_px: int = SIZE_PX) -> Tensor:
    return torch.randn(n, 1, size_px, size_px, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """What an anchor exports: a tower with random weights, its biases too."""
    tower = build_vision_tower(ARCHITECTURE)
    for parameter in tower.parameters():
        nn.init.normal_(parameter, std=0.2)
    path = tmp_path / "image-tower.safetensors"
    weights = {name: tensor.contiguous() for name, tensor in tower.state_dict().items()}
    save_file(weights, path, {"architecture": json.dumps(ARCHITECTURE)})
    return path


def build_anchor(exported: Path | None, **options: Any) -> Any:
    return build_anchor_tower(AnchorTowerOptions(**options), modality(), exported)


def lora_layers(encoder: nn.Module) -> set[str]:
    """Names of the layers that adapters stand beside, from the names of their parameters."""
    return {
        name.partition(".lora_A")[0] for name, _ in encoder.named_parameters() if ".lora_A" in name
    }


@pytest.mark.parametrize("options", [CONVNEXT, VIT], ids=["convnext", "vit"])
def test_timm_families_take_one_channel_and_give_one_vector(options: TimmMapOptions) -> None:
    encoder = build_timm_map(options, modality()).eval()
    with torch.no_grad():
        together = encoder(maps(), None)
        alone = torch.cat([encoder(each[None], None) for each in maps()])
        flipped = encoder(maps().flip(0), None).flip(0)
    assert together.shape == (3, encoder.width)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together, flipped, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-4)


@pytest.mark.parametrize("options", [CONVNEXT, VIT], ids=["convnext", "vit"])
def test_timm_encoders_are_built_again_from_their_options(options: TimmMapOptions) -> None:
    encoder = build_timm_map(options, modality()).eval()
    portable = TimmMapOptions.model_validate_json(encoder.portable_options().model_dump_json())
    torch.manual_seed(7)
    again = build_timm_map(portable, modality()).eval()
    again.load_state_dict(encoder.state_dict())
    with torch.no_grad():
        assert torch.equal(again(maps(), None), encoder(maps(), None))


def test_weights_of_a_file_are_read_and_never_asked_for_again(tmp_path: Path) -> None:
    encoder = build_timm_map(CONVNEXT, modality()).eval()
    path = tmp_path / "weights.pth"
    torch.save(encoder.model.state_dict(), path)
    torch.manual_seed(7)
    options = CONVNEXT.model_copy(update={"weights": str(path)})
    read = build_timm_map(options, modality()).eval()
    with torch.no_grad():
        assert torch.equal(read(maps(), None), encoder(maps(), None))
    assert read.portable_options() == CONVNEXT


@pytest.mark.parametrize("options", [CONVNEXT, VIT], ids=["convnext", "vit"])
def test_layer_groups_hold_every_layer_once(options: TimmMapOptions) -> None:
    encoder = build_timm_map(options, modality())
    grouped = [
        id(parameter)
        for group in encoder.layer_groups()
        for module in group
        for parameter in module.parameters()
    ]
    assert len(grouped) == len(set(grouped))
    loose = {name for name, value in encoder.named_parameters() if id(value) not in grouped}
    # Tokens and positions hang on the transformer itself, in no module of their own.
    assert loose <= {"model.cls_token", "model.pos_embed"}


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (TimmMapOptions(model="no_such_network"), "'no_such_network'; .*see timm.list_models"),
        (TimmMapOptions(model="resnet18"), "it is a ResNet; choose a ConvNeXt or a Vision"),
        (TimmMapOptions(model="convnext_atto", args={"dims": [8]}), "'convnext_atto'; "),
        (TimmMapOptions(model="convnext_atto", args={"nonsense": 1}), "nonsense"),
        (CONVNEXT.model_copy(update={"weights": "gone.pth"}), "gone.pth; no such file"),
    ],
)
def test_what_timm_cannot_build_is_refused_in_one_line(
    options: TimmMapOptions, complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint) as caught:
        build_timm_map(options, modality())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(2, 1, 16, 16), (2, 3, SIZE_PX, SIZE_PX), (2, SIZE_PX, SIZE_PX)])
def test_features_of_another_size_are_refused(shape: tuple[int, ...], exported: Path) -> None:
    for encoder in (build_timm_map(VIT, modality()), build_anchor(exported)):
        with pytest.raises(ShapeError, match=r"takes \(n, 1, 32, 32\); found"):
            encoder(torch.zeros(shape), None)


def test_modalities_without_a_size_are_refused() -> None:
    with pytest.raises(InputError, match=r"has no options\.size_px"):
        build_timm_map(VIT, SimpleNamespace(options=SimpleNamespace()))  # type: ignore[arg-type]


def test_a_grey_picture_gives_what_the_anchors_own_tower_gives(exported: Path) -> None:
    own = build_vision_tower(ARCHITECTURE).eval()
    own.load_state_dict(load_file(exported))
    encoder = build_anchor(exported).eval()
    with torch.no_grad():
        expected = own(maps().expand(-1, 3, -1, -1))
        found = encoder(maps(), None)
    assert encoder.width == ARCHITECTURE["embed_dim"]
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)
    assert float(expected.std()) > 0.01, "not trivially equal"


@pytest.mark.parametrize("with_mask", [False, True])
def test_split_attention_is_torchs(with_mask: bool) -> None:
    torchs = nn.MultiheadAttention(16, 4, batch_first=True).eval()
    nn.init.normal_(torchs.in_proj_bias)
    nn.init.normal_(torchs.out_proj.bias)
    tokens = torch.randn(2, 5, 16)
    mask = torch.triu(torch.full((5, 5), float("-inf")), 1) if with_mask else None
    with torch.no_grad():
        expected, _ = torchs(tokens, tokens, tokens, need_weights=False, attn_mask=mask)
        found, weights = SplitAttention(torchs)(tokens, tokens, tokens, attn_mask=mask)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    assert weights is None


def test_the_anchor_tower_is_built_again_without_the_anchor(exported: Path) -> None:
    encoder = build_anchor(exported).eval()
    stored = encoder.portable_options().model_dump_json()
    again = build_anchor(None, **json.loads(stored)).eval()
    again.load_state_dict(encoder.state_dict())
    with torch.no_grad():
        assert torch.equal(again(maps(), None), encoder(maps(), None))
    assert not any("lora" in name for name in encoder.state_dict())


def test_patch_dropout_is_in_training_alone_and_outlives_the_anchor(exported: Path) -> None:
    encoder = build_anchor(exported, patch_dropout=0.5)
    assert encoder.portable_options().patch_dropout == 0.5
    encoder.train()
    assert not torch.equal(encoder(maps(), None), encoder(maps(), None))
    encoder.eval()
    with torch.no_grad():
        assert torch.equal(encoder(maps(), None), encoder(maps(), None))
        torch.testing.assert_close(encoder(maps(), None), build_anchor(exported).eval()(maps()))


def test_lora_trains_a_step_and_loads_again_merged(exported: Path) -> None:
    encoder = build_anchor(exported)
    section = TowerSection(lora=LoraSection(rank=2, alpha=4))
    tower = build_tower(encoder, HeadSection(kind="none"), section, dim=12)
    assert lora_layers(encoder) == {
        f"tower.transformer.resblocks.{block}.{layer}"
        for block in range(2)
        for layer in ("attn.qkv", "attn.proj", "mlp.c_fc", "mlp.c_proj")
    }
    trained = [value for value in tower.parameters() if value.requires_grad]
    frozen = {n: v.clone() for n, v in tower.named_parameters() if not v.requires_grad}
    before = tower(maps(), None).detach()
    optimizer = torch.optim.SGD(trained, lr=0.5)
    for _ in range(2):  # the first step moves one factor of each update, from zero
        optimizer.zero_grad()
        (1 - (tower(maps(), None) @ torch.ones(12))).sum().backward()
        optimizer.step()
    after = tower.eval()(maps(), None).detach()
    assert not torch.allclose(before, after, atol=1e-4)
    assert all(torch.equal(v, frozen[n]) for n, v in tower.named_parameters() if n in frozen)
    fresh = build_tower(
        build_anchor(None, **encoder.portable_options().model_dump()),
        HeadSection(kind="none"),
        TowerSection(),
        dim=12,
    ).eval()
    fresh.load_state_dict(tower.merged_state_dict())
    with torch.no_grad():
        torch.testing.assert_close(fresh(maps(), None), after, atol=1e-5, rtol=1e-5)


def test_towers_that_do_not_fit_are_refused(exported: Path, tmp_path: Path) -> None:
    refusals: list[tuple[Callable[[], object], str]] = [
        (lambda: build_anchor(None), "no anchor gave its image tower"),
        (
            lambda: build_anchor_tower(AnchorTowerOptions(), modality(64), exported),
            r"takes maps of 32 px; modality\.options\.size_px is 64; set modality",
        ),
        (lambda: build_vision_tower({"embed_dim": 8, "vision_cfg": {"width": "x"}}), "OpenCLIP"),
        (lambda: read_exported(tmp_path / "gone.safetensors"), "an exported tower asked for"),
    ]
    (tmp_path / "empty.safetensors").write_bytes(b"")
    refusals.append((lambda: read_exported(tmp_path / "empty.safetensors"), "is none"))
    save_file({"a": torch.zeros(1)}, tmp_path / "plain.safetensors")
    refusals.append((lambda: read_exported(tmp_path / "plain.safetensors"), "is none"))
    for refused, complaint in refusals:
        with pytest.raises(InputError, match=complaint) as caught:
            refused()
        assert "\n" not in str(caught.value)


def test_a_tower_without_colours_is_refused(tmp_path: Path) -> None:
    # A residual network of OpenCLIP has a first layer for colours, and no one list of layers.
    resnet = {
        "embed_dim": 12,
        "vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "image_size": SIZE_PX, "head_width": 16},
    }
    with pytest.raises(InputError, match=r"layers of ModifiedResNet asked for|cannot build it"):
        build_anchor_tower(AnchorTowerOptions(architecture=resnet), modality())


@pytest.mark.parametrize("layers", [0, 2])
def test_the_grid_encoder_by_its_parts(layers: int) -> None:
    options = GridMapOptions(channels=(8, 16), stride=2, layers=layers, grid=2, peaks=1)
    encoder = build_grid_map(options, modality()).eval()
    assert encoder.width == 16 * (2 * 2 + 1)
    with torch.no_grad():
        hidden = maps()
        for stage in encoder.stages:
            hidden = stage(hidden)
        found = encoder(maps(), None)
    assert hidden.shape == (3, 16, 8, 8)
    # Means of the four quarters, channel by channel, and then the largest value of each channel.
    quarters = [
        hidden[:, :, top : top + 4, left : left + 4].mean((2, 3))
        for top in (0, 4)
        for left in (0, 4)
    ]
    expected = torch.cat([torch.stack(quarters, 2).flatten(1), hidden.amax((2, 3))], dim=1)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    plain = build_grid_map(options.model_copy(update={"peaks": 0}), modality())
    assert plain.width == 16 * 2 * 2 and plain(maps(), None).shape == (3, 64)


def test_one_small_thing_is_a_peak_wherever_it_is() -> None:
    torch.manual_seed(3)
    encoder = build_grid_map(
        GridMapOptions(channels=(8,), stride=1, layers=0, grid=1, peaks=1), modality()
    ).eval()
    empty = torch.zeros(1, 1, SIZE_PX, SIZE_PX)
    here, there = empty.clone(), empty.clone()
    here[0, 0, 9, 9], there[0, 0, 20, 14] = 3.0, 3.0
    with torch.no_grad():
        nothing, one, other = (encoder(each, None)[0, 8:] for each in (empty, here, there))
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    assert float((one - nothing).abs().max()) > 0.5


@pytest.mark.parametrize("wrong", [{"grid": 5}, {"peaks": 5}])
def test_a_grid_that_is_too_fine_is_refused(wrong: dict[str, int]) -> None:
    # 32 px, halved by the first stage and thrice more: two by two are left.
    options = GridMapOptions(channels=(8, 8, 8, 8), stride=2, **{"grid": 2, **wrong})
    with pytest.raises(InputError, match=r"encoder 'grid' with 5 by 5 cells; .*leaves 2 by 2"):
        build_grid_map(options, modality())
