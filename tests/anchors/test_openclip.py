from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from modalbind.anchors.golden import probe_items
from modalbind.anchors.openclip import OpenClipSpace, build
from modalbind.anchors.options import OpenClipOptions
from modalbind.errors import AnchorError, BrokenSampleError

WEIGHTS = "open_clip_model.safetensors"
CONFIG = "open_clip_config.json"


def opened(folder: Path) -> OpenClipSpace:
    return build(f"local-dir:{folder}", None, OpenClipOptions())


@pytest.fixture(scope="module")
def space(openclip_folder: Path) -> OpenClipSpace:
    return opened(openclip_folder)


@pytest.fixture(scope="module")
def direct(openclip_folder: Path) -> tuple[Any, Any, Any]:
    """The same model through OpenCLIP alone."""
    config = json.loads((openclip_folder / CONFIG).read_text())
    text_cfg = {**config["model_cfg"]["text_cfg"], "hf_model_name": str(openclip_folder)}
    model, _, transform = open_clip.create_model_and_transforms(
        f"local-dir:{openclip_folder}", text_cfg=text_cfg
    )
    tokenizer = open_clip.get_tokenizer(f"local-dir:{openclip_folder}")
    return model.eval(), transform, tokenizer


@pytest.fixture
def copy(openclip_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(openclip_folder, tmp_path / "copy"))


def test_text_is_what_openclip_says(space: Any, direct: Any, fakes: Any) -> None:
    model, _, tokenizer = direct
    with torch.inference_mode():
        expected = model.encode_text(tokenizer(list(fakes.sentences)), normalize=True)
    found = space.encode("text", [fakes.text_item(text) for text in fakes.sentences])
    torch.testing.assert_close(found, expected.clone(), atol=1e-6, rtol=0)
    assert found.dtype == torch.float32 and not found.requires_grad
    torch.testing.assert_close(found.norm(dim=1), torch.ones(len(found)))


def test_pictures_are_what_openclip_says(space: Any, direct: Any) -> None:
    model, transform, _ = direct
    probes = probe_items("image")
    with torch.inference_mode():
        pixels = torch.stack([transform(item.load()) for item in probes])
        expected = model.encode_image(pixels, normalize=True)
    torch.testing.assert_close(space.encode("image", probes), expected.clone(), atol=1e-6, rtol=0)


def test_batch_and_neighbours_change_nothing(space: Any, fakes: Any) -> None:
    items = [fakes.text_item(text) for text in fakes.sentences]
    whole = space.encode("text", items)
    alone = torch.cat([space.encode("text", [item]) for item in items])
    torch.testing.assert_close(whole, alone, atol=1e-6, rtol=0)
    torch.testing.assert_close(space.encode("text", items[::-1]), whole.flip(0), atol=1e-6, rtol=0)
    assert space.encode("text", []).shape == (0, space.dim)


def test_it_is_frozen(space: Any, fakes: Any) -> None:
    before = space.compute_fingerprint()
    space.encode("text", [fakes.text_item("a dog")])
    space.encode("image", probe_items("image"))
    assert space.compute_fingerprint() == before
    assert not space._model.training
    assert not any(weight.requires_grad for weight in space._model.parameters())


def test_any_current_folder_will_do(
    openclip_folder: Path, space: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert opened(openclip_folder).compute_fingerprint() == space.compute_fingerprint()
    monkeypatch.chdir(openclip_folder.parent)
    relative = Path(openclip_folder.name)
    assert opened(relative).compute_fingerprint() == space.compute_fingerprint()


def test_a_copy_elsewhere_is_the_same_space(copy: Path, space: Any) -> None:
    assert opened(copy).compute_fingerprint() == space.compute_fingerprint()


def _flip_one_bit(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    name = sorted(weights)[3]
    weights[name].view(-1).view(torch.int32)[0] ^= 1
    save_file(weights, folder / WEIGHTS)


def _edit_config(section: str, key: str, value: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        config = json.loads((folder / CONFIG).read_text())
        target = config["model_cfg"]["text_cfg"] if section == "text" else config["preprocess_cfg"]
        target[key] = value
        (folder / CONFIG).write_text(json.dumps(config))

    return edit


def _edit_tokenizer(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"][10][1] -= 1.0
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def _edit_heads(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["num_attention_heads"] = 4
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(_flip_one_bit, id="weight bit"),
        pytest.param(_edit_tokenizer, id="tokenizer"),
        pytest.param(_edit_config("picture", "mean", [0.4, 0.5, 0.61]), id="mean"),
        pytest.param(_edit_config("picture", "interpolation", "bilinear"), id="interpolation"),
        pytest.param(_edit_config("text", "context_length", 20), id="context"),
        pytest.param(
            _edit_config("text", "hf_pooler_type", "cls_last_hidden_state_pooler"), id="pooling"
        ),
        pytest.param(_edit_heads, id="attention heads"),
    ],
)
def test_fingerprint_sees(edit: Callable[[Path], None], copy: Path, space: Any) -> None:
    edit(copy)
    assert opened(copy).compute_fingerprint() != space.compute_fingerprint()


def test_fingerprint_reads_live_weights(copy: Path, space: Any) -> None:
    moved = opened(copy)
    weight = next(moved._model.parameters())
    weight.data.view(-1)[0] += 1e-6
    assert moved.compute_fingerprint() != space.compute_fingerprint()


def test_missing_weights_never_become_random(copy: Path) -> None:
    (copy / WEIGHTS).unlink()
    with pytest.raises(AnchorError, match="could not be loaded") as caught:
        opened(copy)
    assert "\n" not in str(caught.value)


def test_damaged_weights_are_one_line(copy: Path) -> None:
    (copy / WEIGHTS).write_bytes((copy / WEIGHTS).read_bytes()[:1000])
    with pytest.raises(AnchorError, match="asked to open anchor") as caught:
        opened(copy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "tag", "said"),
    [
        ("ViT-B-23", "openai", "ViT-B-32"),
        ("xlm-roberta-base-ViT-B-32", None, "laion5b_s13b_b90k"),
        ("xlm-roberta-base-ViT-B-32", "laion5b", "laion5b_s13b_b90k"),
        ("local-dir:/nowhere/at/all", None, "open_clip_config.json"),
    ],
)
def test_wrong_names_are_told_with_what_there_is(source: str, tag: str | None, said: str) -> None:
    with pytest.raises(AnchorError, match=said):
        build(source, tag, OpenClipOptions())


def test_no_network_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(AnchorError, match="network") as caught:
        build("hf-hub:nobody/nothing", None, OpenClipOptions())
    assert "\n" not in str(caught.value)


def test_a_tag_brings_its_own_activation(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def stop(source: str, **arguments: Any) -> None:
        asked.update(arguments)
        raise RuntimeError("stopped here")

    monkeypatch.setattr(open_clip, "create_model_and_transforms", stop)
    for tag, is_quick in (("openai", True), ("laion2b_s34b_b79k", False)):
        asked.clear()
        with pytest.raises(AnchorError, match="stopped here"):
            build("ViT-B-32", tag, OpenClipOptions())
        assert asked["require_pretrained"] is True
        assert asked.get("force_quick_gelu", False) is is_quick


def test_a_native_text_tower_works_too(tmp_path: Path, fakes: Any) -> None:
    config = {
        "model_cfg": {
            "embed_dim": 8,
            "vision_cfg": {
                "image_size": 32,
                "layers": 1,
                "width": 16,
                "head_width": 8,
                "patch_size": 16,
            },
            "text_cfg": {
                "context_length": 16,
                "vocab_size": 49408,
                "width": 8,
                "heads": 2,
                "layers": 1,
            },
        },
        "preprocess_cfg": {},
    }
    (tmp_path / CONFIG).write_text(json.dumps(config))
    torch.manual_seed(0)
    model = open_clip.model.CLIP(**config["model_cfg"])
    save_file(model.state_dict(), tmp_path / WEIGHTS)
    native = opened(tmp_path)
    with torch.inference_mode():
        expected = model.eval().encode_text(open_clip.tokenize(["a dog"], 16), normalize=True)
    found = native.encode("text", [fakes.text_item("a dog")])
    torch.testing.assert_close(found, expected.clone(), atol=1e-6, rtol=0)
    assert len(native.compute_fingerprint()) == 64


def test_other_modalities_are_refused(space: Any, fakes: Any) -> None:
    with pytest.raises(AnchorError, match="holds text, image"):
        space.encode("audio", [fakes.text_item("x")])


def test_a_broken_picture_is_named(space: Any, fakes: Any) -> None:
    def broken() -> Image.Image:
        raise BrokenSampleError("undecodable", "cut short")

    with pytest.raises(BrokenSampleError, match=r"img/7\.png: cut short"):
        space.encode("image", [fakes.image_item("img/7.png", broken)])


def test_the_shipped_anchor_has_its_own_name() -> None:
    from modalbind.anchors.spec import world_folder

    if not (world_folder("openclip") / CONFIG).is_file():
        with pytest.raises(AnchorError, match="world"):
            build("world", None, OpenClipOptions())
        return
    world = build("world", None, OpenClipOptions())
    assert world.name == "openclip:world"
    assert world.compute_fingerprint() == opened(world_folder("openclip")).compute_fingerprint()
