"""Reads published BEATs checkpoints: iter3 and iter3+, pretrained and fine-tuned.

A file is `{"cfg": ..., "model": ...[, "label_dict": ...]}`; it is read as data, never run.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from modalbind.api import InputError
from modalbind_audio.beats import Beats, BeatsConfig

# What torch.load raises on files that are no checkpoint, or want to run code.
_UNREADABLE = (
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    UnpicklingError,
    struct.error,
)


def load_beats(path: Path, *, reference_mask: bool = False, **overrides: Any) -> Beats:
    """Load a published checkpoint.

    Args:
        path: A file `{"cfg": ..., "model": ...}`.
        reference_mask: Mimic the reference's inexact padding mask.
        **overrides: Fields of `BeatsConfig` that do not change shapes, e.g. `dropout`.

    Returns:
        The model in eval mode; with its predictor if the file was fine-tuned.

    Raises:
        InputError: If the file is absent, is something else, or its tensors do not fit its cfg.
    """
    if not path.is_file():
        raise InputError(f"BEATs weights {path}; no such file; give a checkpoint or `hf://...`")
    try:
        # weights_only: a checkpoint is data, and must not be able to run code.
        stored = torch.load(path, map_location="cpu", weights_only=True)
        cfg, state = dict(stored["cfg"]), dict(stored["model"])
    except _UNREADABLE as error:
        raise InputError(
            f"BEATs weights {path}; {type(error).__name__}: {str(error).splitlines()[0]}; "
            "give a published file with `cfg` and `model`"
        ) from error
    with torch.device("meta"):  # no time is spent on random weights that the file replaces
        model = Beats(BeatsConfig.from_published(cfg, **overrides), reference_mask=reference_mask)
    try:
        model.load_state_dict(from_published(state), assign=True)
    except RuntimeError as error:
        summary = " ".join(str(error).split())
        raise InputError(
            f"BEATs weights {path}; {summary}; the file contradicts its cfg"
        ) from error
    return model.float().requires_grad_(True).eval()


_RENAMED = {
    "encoder.pos_conv.0.weight_g": "pos_conv.conv.parametrizations.weight.original0",
    "encoder.pos_conv.0.weight_v": "pos_conv.conv.parametrizations.weight.original1",
    "encoder.pos_conv.0.parametrizations.weight.original0": (
        "pos_conv.conv.parametrizations.weight.original0"
    ),
    "encoder.pos_conv.0.parametrizations.weight.original1": (
        "pos_conv.conv.parametrizations.weight.original1"
    ),
    "encoder.pos_conv.0.bias": "pos_conv.conv.bias",
}
_SHARED = "self_attn.relative_attention_bias.weight"


def from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename published tensors to ours.

    The table of relative positions stands there once per layer; it is one tensor and is kept
    once. Both spellings of weight norm are read.

    Raises:
        InputError: If the layers' tables of relative positions differ.
    """
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.endswith(_SHARED):
            first = renamed.setdefault("relative_positions.weight", value)
            if not torch.equal(first, value):
                raise InputError(
                    f"BEATs weights; {name} differs from another layer's; one table is shared"
                )
        elif name in _RENAMED:
            renamed[_RENAMED[name]] = value
        elif name.startswith("encoder.layer_norm."):
            renamed[name.replace("encoder.layer_norm", "encoder_layer_norm")] = value
        else:
            renamed[name.removeprefix("encoder.")] = value
    return renamed
