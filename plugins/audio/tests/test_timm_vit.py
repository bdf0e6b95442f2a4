from __future__ import annotations

import pytest
import torch
from modalbind_audio.modality import build as build_modality
from modalbind_audio.options import AudioOptions, TimmOptions
from modalbind_audio.timm_vit import TimmEncoder, build

from modalbind.api import InputError, ShapeError

AUDIO = build_modality(AudioOptions())
TINY = {"depth": 2, "embed_dim": 32, "num_heads": 2}


def encoder(**changes) -> TimmEncoder:
    torch.manual_seed(0)
    return build(TimmOptions(**({"frames": 96, "args": TINY} | changes)), AUDIO)


def clips(*lengths: int) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    return [torch.randn(length, 128, generator=draw) for length in lengths]


def test_padding_order_and_size_of_the_batch_change_nothing(kit):
    kit.check_encoder(encoder(), clips(96, 33, 16, 150))


def test_gradient_and_groups(kit):
    model = encoder()
    kit.check_gradient(model, clips(96, 40))
    # Two parameters hang on the model itself.
    kit.check_groups(model, outside={"model.cls_token", "model.pos_embed"})
    assert len(model.layer_groups()) == 3


def test_the_mean_leaves_out_the_class_token_and_silence():
    model = encoder().eval()
    clip = clips(40)[0]
    filled = torch.zeros(1, 96, 128)
    filled[0, :40] = clip
    seen = torch.zeros(1, 1, 1, 49, dtype=torch.bool)
    seen[..., : 1 + 3 * 8] = True  # 40 frames reach into the third column of eight patches
    with torch.no_grad():
        hidden = model.model.forward_features(filled.unsqueeze(1), attn_mask=seen)
        torch.testing.assert_close(model(clip.unsqueeze(0), None), hidden[:, 1:25].mean(1))


def test_weights_from_a_file(tmp_path):
    from safetensors.torch import save_file

    first = encoder()
    save_file(first.model.state_dict(), tmp_path / "vit.safetensors")
    torch.manual_seed(9)
    second = build(
        TimmOptions(frames=96, args=TINY, weights=str(tmp_path / "vit.safetensors")), AUDIO
    )
    features = clips(50)[0].unsqueeze(0)
    assert torch.equal(second.eval()(features, None), first.eval()(features, None))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "vit_of_nobody"}, "vit_of_nobody"),
        ({"model": "resnet18", "args": {}}, "vision transformer|img_size"),
        ({"args": {"no_such_argument": 1}}, "no_such_argument"),
        ({"weights": "/no/such/file"}, "no such file"),
        ({"mels": 64}, "mels"),
    ],
)
def test_refuses(changes, message):
    with pytest.raises(InputError, match=message):
        encoder(**changes)
    with pytest.raises(ShapeError, match="128"):
        encoder()(torch.zeros(1, 96, 64), None)
