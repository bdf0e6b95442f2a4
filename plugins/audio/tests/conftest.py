"""Fixtures of the audio plugin's tests: sound files, and checkpoints in the published layout."""

from __future__ import annotations

from collections.abc import Iterator, Set
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

RELEASED_CFG: dict[str, Any] = {
    "input_patch_size": 16,
    "embed_dim": 512,
    "conv_bias": False,
    "encoder_layers": 12,
    "encoder_embed_dim": 768,
    "encoder_ffn_embed_dim": 3072,
    "encoder_attention_heads": 12,
    "activation_fn": "gelu",
    "layer_norm_first": False,
    "deep_norm": True,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "dropout_input": 0.0,
    "encoder_layerdrop": 0.05,
    "layer_wise_gradient_decay_ratio": 0.6,
    "conv_pos": 128,
    "conv_pos_groups": 16,
    "relative_position_embedding": True,
    "num_buckets": 320,
    "max_distance": 800,
    "gru_rel_pos": True,
    "finetuned_model": False,
    "predictor_dropout": 0.0,
    "predictor_class": 527,
}
SMALL_CFG = RELEASED_CFG | {
    "embed_dim": 48,
    "encoder_layers": 3,
    "encoder_embed_dim": 64,
    "encoder_ffn_embed_dim": 96,
    "encoder_attention_heads": 4,
    "conv_pos": 32,
    "conv_pos_groups": 4,
    "num_buckets": 64,
    "max_distance": 100,
}


def published_state(cfg: dict[str, Any], seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights under the names and shapes of a published file, table shared."""
    draw = torch.Generator().manual_seed(seed)
    width, heads = cfg["encoder_embed_dim"], cfg["encoder_attention_heads"]
    state: dict[str, torch.Tensor] = {}

    def put(name: str, *shape: int, scale: float = 0.02, centre: float = 0.0) -> None:
        state[name] = centre + scale * torch.randn(*shape, generator=draw)

    def put_norm(name: str, size: int) -> None:
        put(f"{name}.weight", size, scale=0.1, centre=1.0)
        put(f"{name}.bias", size, scale=0.1)

    def put_linear(name: str, rows: int, cols: int) -> None:
        put(f"{name}.weight", rows, cols, scale=1.2 * cols**-0.5)
        put(f"{name}.bias", rows, scale=0.1)

    patch, kernel = cfg["input_patch_size"], cfg["conv_pos"]
    put("patch_embedding.weight", cfg["embed_dim"], 1, patch, patch, scale=0.06)
    put_norm("layer_norm", cfg["embed_dim"])
    if cfg["embed_dim"] != width:
        put_linear("post_extract_proj", width, cfg["embed_dim"])
    put("encoder.pos_conv.0.bias", width, scale=0.1)
    put("encoder.pos_conv.0.weight_g", 1, 1, kernel, scale=0.05, centre=0.5)
    put("encoder.pos_conv.0.weight_v", width, width // cfg["conv_pos_groups"], kernel)
    put_norm("encoder.layer_norm", width)
    table = 0.7 * torch.randn(cfg["num_buckets"], heads, generator=draw)
    for index in range(cfg["encoder_layers"]):
        layer = f"encoder.layers.{index}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            put_linear(f"{layer}.self_attn.{name}", width, width)
        put_linear(f"{layer}.self_attn.grep_linear", 8, width // heads)
        put(f"{layer}.self_attn.grep_a", 1, heads, 1, 1, scale=0.3, centre=1.0)
        state[f"{layer}.self_attn.relative_attention_bias.weight"] = table
        put_norm(f"{layer}.self_attn_layer_norm", width)
        put_linear(f"{layer}.fc1", cfg["encoder_ffn_embed_dim"], width)
        put_linear(f"{layer}.fc2", width, cfg["encoder_ffn_embed_dim"])
        put_norm(f"{layer}.final_layer_norm", width)
    if cfg["finetuned_model"]:
        put_linear("predictor", cfg["predictor_class"], width)
    return state


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("beats") / "small.pt"
    torch.save({"cfg": SMALL_CFG, "model": published_state(SMALL_CFG)}, path)
    return path


@pytest.fixture(scope="session")
def finetuned_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("beats") / "finetuned.pt"
    cfg = SMALL_CFG | {"finetuned_model": True, "predictor_class": 11}
    labels = {index: f"/m/{index}" for index in range(11)}
    torch.save({"cfg": cfg, "model": published_state(cfg, 1), "label_dict": labels}, path)
    return path


@pytest.fixture
def noise() -> np.ndarray:
    """Four seconds of noise with a rising level, `(64000,)` at 16 kHz."""
    draw = np.random.default_rng(0)
    return (draw.normal(size=64_000) * np.linspace(0.01, 0.2, 64_000)).astype(np.float32)


WRITERS = {
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}


@pytest.fixture
def sound_files(tmp_path: Path, noise: np.ndarray) -> Iterator[dict[str, Path]]:
    """The same noise in every format that is read."""
    paths = {}
    for suffix, (kind, subtype) in WRITERS.items():
        paths[suffix] = tmp_path / f"noise.{suffix}"
        soundfile.write(paths[suffix], noise, 16_000, format=kind, subtype=subtype)
    yield paths


def pad(clips: list[torch.Tensor], extra: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad features at the end with zeros, as the core does; `extra` more than needed."""
    longest = max(map(len, clips)) + extra
    features = torch.zeros(len(clips), longest, *clips[0].shape[1:])
    valid_mask = torch.zeros(len(clips), longest, dtype=torch.bool)
    for row, clip in enumerate(clips):
        features[row, : len(clip)] = clip
        valid_mask[row, : len(clip)] = True
    return features, valid_mask


@torch.no_grad()
def check_encoder(encoder: Any, clips: list[torch.Tensor], atol: float = 1e-6) -> None:
    """A clip's vector does not depend on padding, on its batch's order or size, or on a call."""
    encoder.eval()
    alone = torch.cat([encoder(clip.unsqueeze(0), None) for clip in clips])
    assert alone.shape == (len(clips), encoder.width)
    assert torch.isfinite(alone).all()
    features, valid_mask = pad(clips, extra=21)
    together = encoder(features, valid_mask)
    assert torch.equal(together, encoder(features, valid_mask))
    torch.testing.assert_close(together, alone, atol=atol, rtol=1e-6)
    order = torch.arange(len(clips)).flip(0)
    torch.testing.assert_close(
        encoder(features[order], valid_mask[order]), together[order], atol=atol, rtol=1e-6
    )
    # What stands in the padding is never looked at.
    filled = torch.where(
        valid_mask.view(*valid_mask.shape, *[1] * (features.ndim - 2)), features, 9
    )
    torch.testing.assert_close(encoder(filled, valid_mask), together, atol=atol, rtol=1e-6)


def check_gradient(encoder: Any, clips: list[torch.Tensor]) -> None:
    """Every parameter that trains gets a gradient, and some of it is not zero."""
    encoder.train()
    encoder(*pad(clips)).square().sum().backward()
    for name, parameter in encoder.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name


def check_groups(encoder: Any, outside: Set[str] = frozenset()) -> None:
    """Layer groups hold every parameter once, except those named."""
    members = [
        id(parameter)
        for group in encoder.layer_groups()
        for module in group
        for parameter in module.parameters()
    ]
    assert len(members) == len(set(members))
    left = {name for name, value in encoder.named_parameters() if id(value) not in members}
    assert left == outside


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    """Functions and values that several test files use."""
    return SimpleNamespace(
        cfgs={"base": RELEASED_CFG, "small": SMALL_CFG},
        published_state=published_state,
        pad=pad,
        check_encoder=check_encoder,
        check_gradient=check_gradient,
        check_groups=check_groups,
    )
