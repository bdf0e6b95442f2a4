"""Fixtures of the audio plugin's tests: sound files, and checkpoints in the published layout."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
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
