"""The identity of a frozen space: one hash over everything that its embeddings depend on.

Weights, tokenizer, preprocessing, dim and normalisation go in; where the files lie, which device
computes, and versions of libraries do not. What a library version changes in the maths shows in
the golden probes (`golden.py`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch

# Settings that change the maths and leave no trace in the weights. A fixed list: a library that
# adds a setting with a neutral default must not give an old space a new identity.
_MATHS = frozenset(
    "model_type num_attention_heads num_hidden_layers hidden_act hidden_activation layer_norm_eps "
    "pad_token_id eos_token_id bos_token_id position_embedding_type patch_size image_size depths "
    "projection_hidden_act window_size spec_size num_mel_bins enable_fusion is_decoder rope_theta "
    "num_key_value_heads rms_norm_eps sliding_window".split()
)
# State of the last call, and wording: neither changes what a text becomes at the next call.
_TOKENIZER_STATE = ("truncation", "padding")


def hash_fields(fields: Mapping[str, Any]) -> str:
    """Return the SHA-256 of JSON-able fields, whatever their order."""
    words = json.dumps(fields, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(words.encode()).hexdigest()


def hash_weights(state: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 of tensors: name, dtype, shape and bytes, by sorted name.

    Args:
        state: As `Module.state_dict()` gives it, on any device; read now, not remembered.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        # `.view(uint8)` refuses scalars; the bytes are the same with one axis.
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def describe_tokenizer(tokenizer: Any) -> dict[str, Any]:
    """Describe a transformers tokenizer by what it does to a text.

    Args:
        tokenizer: Fast (its whole pipeline as JSON) or slow (its class and vocabulary).

    Returns:
        JSON-able; equal for equal behaviour, untouched by padding of earlier calls.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    special = {name: str(token) for name, token in sorted(tokenizer.special_tokens_map.items())}
    if backend is None:
        vocabulary = tokenizer.get_vocab()
        return {
            "class": type(tokenizer).__name__,
            "vocabulary": hash_fields(vocabulary),
            "special": special,
        }
    pipeline = json.loads(backend.to_str())
    for name in _TOKENIZER_STATE:
        pipeline.pop(name, None)
    return {
        "pipeline": hash_fields(pipeline),
        "special": special,
        "padding_side": tokenizer.padding_side,
        "truncation_side": tokenizer.truncation_side,
    }


def describe_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Keep the settings of a model's config that change its maths, nested ones too."""
    kept: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            inner = describe_config(value)
            if inner:
                kept[key] = inner
        elif key in _MATHS and value is not None:
            kept[key] = value
    return kept
