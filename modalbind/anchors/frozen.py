"""What the anchor spaces made of a neural network share: frozen modules, contents, unit norm."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modalbind.errors import AnchorError, BrokenSampleError, NonFiniteError
from modalbind.types import AnchorItem

_LONGEST_CAUSE = 240


def freeze(model: nn.Module, device: str | None) -> nn.Module:
    """Put a model in eval mode, without gradients, in float32, on its device."""
    return model.eval().requires_grad_(False).to(device=pick_device(device), dtype=torch.float32)


@contextmanager
def exact() -> Iterator[None]:
    """Compute without gradients and, on a GPU, with whole float32 convolutions.

    cuDNN rounds their inputs to TF32 by default, and the patches of a picture are one: embeddings
    would then differ from those of a CPU by more than golden probes allow.
    """
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def pick_device(device: str | None) -> torch.device:
    """Return the device of that name; `auto` takes an accelerator if there is one."""
    if device == "auto":
        # A build for an accelerator names it even where there is none.
        found = torch.accelerator.current_accelerator(check_available=True)
        return found or torch.device("cpu")
    return torch.device(device or "cpu")


def load_contents(items: Sequence[AnchorItem]) -> list[Any]:
    """Load the contents of a batch.

    Raises:
        BrokenSampleError: If one cannot be read; names its key.
    """
    return [_load(item) for item in items]


def _load(item: AnchorItem) -> Any:
    try:
        return item.load()
    except BrokenSampleError as error:
        if item.key in error.detail:
            raise
        raise BrokenSampleError(error.reason, f"{item.key}: {error.detail}") from error


def unit_norm(raw: Tensor) -> Tensor:
    """Return rows of unit norm, float32 on the CPU.

    Raises:
        NonFiniteError: If a number is not finite, or a row is all zeros and has no direction.
    """
    vectors = raw.detach().to(device="cpu", dtype=torch.float32)
    norms = vectors.norm(dim=-1)
    if not bool(torch.isfinite(norms).all()) or bool((norms == 0).any()):
        raise NonFiniteError(
            "asked for anchor embeddings; some are not finite, or zero; "
            "check the anchor's weights and the contents"
        )
    return F.normalize(vectors, dim=-1)


def check_modality(name: str, modality: str, held: Sequence[str]) -> None:
    """Raise an AnchorError if a space does not hold a modality."""
    if modality not in held:
        raise AnchorError(
            f"asked anchor {name} to embed {modality!r}; it holds {', '.join(held)}; "
            "take one of these, or another anchor"
        )


@contextmanager
def opening(spec: str, advice: str) -> Iterator[None]:
    """Turn whatever a model library raises while it opens a model into one line.

    Args:
        spec: What was asked for.
        advice: What to do if it cannot be opened.

    Raises:
        AnchorError: From the cause.
    """
    try:
        with warnings.catch_warnings():
            # Libraries warn of their own future while they load; what matters raises.
            warnings.simplefilter("ignore")
            yield
    except AnchorError:
        raise
    except Exception as error:  # hub clients raise the types of several HTTP libraries
        raise AnchorError(f"asked to open anchor {spec}; {_one_line(error)}; {advice}") from error


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST_CAUSE else text[: _LONGEST_CAUSE - 3] + "..."
