"""What the frozen part of a tower makes of each training sample, computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from modalbind.data.collate import pad_features
from modalbind.data.loader import Known
from modalbind.encoders.tower import Tower, split_frozen
from modalbind.evaluation.embed import in_batches
from modalbind.inputs import RunInputs
from modalbind.interfaces import Modality
from modalbind.recipe import Resolved


def keep_frozen_outputs(
    tower: Tower, resolved: Resolved, inputs: RunInputs, say: Callable[[str], None]
) -> tuple[Known | None, Tower]:
    """Compute the frozen part of the tower once, if samples are the same in every epoch.

    Args:
        tower: On its device.
        resolved: The recipe.
        inputs: Training samples.
        say: Told what was done.

    Returns:
        Its outputs, or None; and the tower that is left to train on them.
    """
    recipe = resolved.recipe
    cut = split_frozen(tower, recipe.tower.freeze)
    if cut is None or resolved.augmentations or recipe.train.lengths is not None:
        return None, tower
    frozen, moving = cut
    known = compute_known(
        frozen,
        inputs.modality,
        inputs.load_all(inputs.data.train),
        next(tower.parameters()).device,
        batch_size=recipe.train.batch_size,
        memory_mib=recipe.data.memory_mib,
    )
    if known is None:
        say("outputs of the frozen layers take more than data.memory_mib; computed every epoch")
        return None, tower
    say(f"outputs of the frozen layers computed once for {len(known.features)} samples")
    return known, moving


@torch.inference_mode()
def compute_known(
    frozen: nn.Module,
    modality: Modality,
    samples: Iterable[Any],
    device: torch.device,
    *,
    batch_size: int,
    memory_mib: int,
) -> Known | None:
    """Compute the outputs of a frozen part for all samples.

    Args:
        frozen: Features and valid mask to one vector a sample, or to hidden states
            `(n, time, width)` and their valid mask. In eval mode afterwards.
        modality: Makes the features.
        samples: What `Modality.load` returns.
        device: Where the frozen part is.
        batch_size: Samples at once.
        memory_mib: What the outputs may take.

    Returns:
        One output a sample, in order; None if they would take more than that.
    """
    frozen.eval()
    outputs: list[Tensor] = []
    left = memory_mib * 2**20
    is_padded = False
    for features in in_batches(map(modality.features, samples), batch_size):
        padded, mask = pad_features(features, modality.is_padded)
        made = frozen(padded.to(device), None if mask is None else mask.to(device))
        is_padded = isinstance(made, tuple)
        parts = _cut_padding(*made) if is_padded else [row.cpu().clone() for row in made]
        left -= sum(part.nbytes for part in parts)
        if left < 0:
            return None
        outputs += parts
    return Known(outputs, is_padded)


def _cut_padding(hidden: Tensor, mask: Tensor | None) -> list[Tensor]:
    if mask is None:
        return [row.cpu().clone() for row in hidden]
    lengths = mask.sum(dim=1).tolist()
    return [row[:length].cpu().clone() for row, length in zip(hidden, lengths, strict=True)]
