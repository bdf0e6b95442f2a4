from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from modalbind_audio.hf import HfEncoder, build
from modalbind_audio.modality import build as build_modality
from modalbind_audio.options import AudioOptions, HfOptions

from modalbind.api import InputError, ShapeError

WAVES = build_modality(AudioOptions(features="waveform"))
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
}
CONVS = {
    "conv_dim": (16, 16, 16),
    "conv_stride": (5, 8, 8),
    "conv_kernel": (10, 8, 8),
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}


def _whisper() -> tuple[Any, Any]:
    tokens = dict.fromkeys(
        ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 0
    )
    sizes = {"d_model": 32, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "vocab_size": 20}
    layers = {"encoder_layers": 2, "decoder_layers": 1}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    config = tf.WhisperConfig(**sizes, **layers, **heads, **tokens, max_source_positions=100)
    return config, tf.WhisperFeatureExtractor(chunk_length=2)


def _clap() -> tuple[Any, Any]:
    hearing = {
        "patch_embeds_hidden_size": 16,
        "hidden_size": 128,
        "depths": [1, 1, 1, 1],
        "num_attention_heads": [1, 2, 2, 2],
    }
    config = tf.ClapConfig(
        text_config={"vocab_size": 20, **SIZES}, audio_config=hearing, projection_dim=16
    )
    return config, tf.ClapFeatureExtractor(truncation="rand_trunc")


MODELS = {
    "ast": lambda: (
        tf.ASTConfig(**SIZES, max_length=128),
        tf.ASTFeatureExtractor(max_length=128),
    ),
    "wav2vec2": lambda: (tf.Wav2Vec2Config(**SIZES, **CONVS), tf.Wav2Vec2FeatureExtractor()),
    "hubert": lambda: (tf.HubertConfig(**SIZES, **CONVS), tf.Wav2Vec2FeatureExtractor()),
    "wavlm": lambda: (tf.WavLMConfig(**SIZES, **CONVS), tf.Wav2Vec2FeatureExtractor()),
    "whisper": _whisper,
    "clap": _clap,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny random models, saved as transformers saves them."""
    paths = {}
    for name, make in MODELS.items():
        paths[name] = tmp_path_factory.mktemp("hf") / name
        config, extractor = make()
        torch.manual_seed(0)
        tf.AutoModel.from_config(config).save_pretrained(paths[name])
        extractor.save_pretrained(paths[name])
    return paths


def encoder(folder: Path, **changes) -> HfEncoder:
    return build(HfOptions(model=str(folder), **changes), WAVES)


def clips(*lengths: int) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    return [0.1 * torch.randn(length, generator=draw) for length in lengths]


@pytest.mark.parametrize("name", MODELS)
def test_padding_order_and_size_of_the_batch_change_nothing(name, folders, kit):
    kit.check_encoder(encoder(folders[name]), clips(8000, 4000, 8000), atol=2e-6)


@pytest.mark.parametrize("name", MODELS)
def test_gradient_groups_and_targets(name, folders, kit):
    model = encoder(folders[name])
    kit.check_gradient(model, clips(8000, 4000))
    outside = {"model.masked_spec_embed"} & {name for name, _ in model.named_parameters()}
    kit.check_groups(model, outside=outside)
    assert model.lora_targets


def test_checkpointing_changes_no_gradient(folders):
    features = torch.stack(clips(8000, 8000))
    gradients = []
    for enabled in (False, True):
        model = encoder(folders["ast"]).train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        model.set_checkpointing(enabled)
        model(features, None).square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain)
    with pytest.raises(InputError, match="clap"):
        encoder(folders["clap"]).set_checkpointing(True)


@pytest.mark.parametrize("name", ["ast", "whisper", "clap"])
def test_portable_options_need_no_files(name, folders):
    first = encoder(folders[name])
    options = HfOptions.model_validate_json(first.portable_options().model_dump_json())
    assert options.model is None
    second = build(options, WAVES)
    second.load_state_dict(first.state_dict())
    features = torch.stack(clips(8000, 8000))
    assert torch.equal(second.eval()(features, None), first.eval()(features, None))


@torch.no_grad()
def test_speech_model_equals_its_plain_use(folders):
    model = encoder(folders["hubert"]).eval()
    clip = clips(8000)[0]
    plain = tf.AutoModel.from_pretrained(folders["hubert"]).eval()
    normalised = (clip - clip.mean()) / (clip.var(unbiased=False) + 1e-7).sqrt()
    expected = plain(normalised.unsqueeze(0)).last_hidden_state.mean(1)
    torch.testing.assert_close(model(clip.unsqueeze(0), None), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_ast_takes_the_plugins_log_mel(folders, kit):
    # AST's own statistics and window make both inputs one.
    audio = build_modality(
        AudioOptions(
            fbank_window="hanning", fbank_scale=1.0, fbank_mean=-4.2677393, fbank_std=4.5689974
        )
    )
    own = encoder(folders["ast"]).eval()
    ours = build(HfOptions(model=str(folders["ast"]), input="fbank"), audio).eval()
    from modalbind_audio.reading import Waveform

    waves = clips(8000, 24_000)
    features, valid_mask = kit.pad([audio.features(Waveform(wave)) for wave in waves])
    expected = own(*kit.pad(waves))
    torch.testing.assert_close(ours(features, valid_mask), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("pooling", ["pooled", "mean", "cls"])
@torch.no_grad()
def test_poolings_of_ast(pooling, folders):
    model = encoder(folders["ast"], pooling=pooling).eval()
    clip = clips(8000)[0]
    inputs = model.extractor(clip.numpy(), sampling_rate=16_000, return_tensors="pt")
    output = model.model(**inputs)
    hidden = output.last_hidden_state
    expected = {
        "pooled": output.pooler_output,
        "mean": hidden[:, 2:].mean(1),
        "cls": hidden[:, 0],
    }[pooling]
    torch.testing.assert_close(model(clip.unsqueeze(0), None), expected)


def test_refuses(folders, tmp_path):
    with pytest.raises(InputError, match="features=waveform"):
        build(HfOptions(model=str(folders["ast"])), build_modality(AudioOptions()))
    with pytest.raises(InputError, match="choose one of these"):
        encoder(folders["hubert"], pooling="cls")
    fbank = build_modality(AudioOptions())
    with pytest.raises(InputError, match="takes waveforms"):
        build(HfOptions(model=str(folders["hubert"]), input="fbank"), fbank)
    with pytest.raises(InputError, match="nowhere"):
        encoder(tmp_path / "nowhere")
    tf.ViTConfig(**SIZES).save_pretrained(tmp_path / "picture")
    tf.Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / "picture")
    with pytest.raises(InputError, match="its type is vit"):
        encoder(tmp_path / "picture")
    with pytest.raises(ShapeError):
        encoder(folders["hubert"])(torch.zeros(1, 100, 128), None)
