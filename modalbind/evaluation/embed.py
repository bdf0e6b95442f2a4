"""Embeds samples with a tower: no gradient, nothing random, long samples by windows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from modalbind.data.collate import pad_features
from modalbind.errors import NonFiniteError
from modalbind.interfaces import Modality

Window = tuple[float, float, Any]


@torch.inference_mode()
def embed_samples(
    tower: nn.Module,
    modality: Modality,
    samples: Iterable[Any],
    *,
    device: torch.device,
    batch_size: int,
    use_windows: bool = True,
    on_progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Embed samples, one vector each: the mean over the windows of a long one, normalised.

    Args:
        tower: In eval mode afterwards.
        modality: Makes windows and features.
        samples: What `Modality.load` returns; read lazily.
        device: Where the tower is.
        batch_size: Samples at once; does not change the result.
        use_windows: Cut long samples; else each is embedded whole.
        on_progress: Told how many samples are done.

    Returns:
        Unit-norm float32 `(n, dim)` on the CPU.

    Raises:
        NonFiniteError: If an embedding is not finite.
    """
    means = []
    for windows in embed_each(tower, modality, samples, device, batch_size, use_windows):
        means.append(torch.nn.functional.normalize(windows.mean(dim=0), dim=0))
        if on_progress is not None:
            on_progress(len(means))
    return torch.stack(means) if means else torch.zeros(0, 0)


def embed_each(
    module: nn.Module,
    modality: Modality,
    samples: Iterable[Any],
    device: torch.device,
    batch_size: int,
    use_windows: bool = True,
) -> Iterator[Tensor]:
    """Yield for each sample what a tower or an encoder makes of its windows, `(windows, width)`.

    Samples are read until they make a batch of windows, so no two long ones are held at once.
    """
    held: list[Sequence[Window]] = []
    for sample in samples:
        held.append(modality.windows(sample) if use_windows else [(0.0, 0.0, sample)])
        if sum(len(windows) for windows in held) >= batch_size:
            yield from embed_windows(module, modality, held, device, batch_size)
            held = []
    if held:
        yield from embed_windows(module, modality, held, device, batch_size)


@torch.inference_mode()
def embed_windows(
    module: nn.Module,
    modality: Modality,
    cut: Sequence[Sequence[Window]],
    device: torch.device,
    batch_size: int,
) -> list[Tensor]:
    """Embed the windows of each sample with a tower or an encoder, `(windows, width)` each."""
    module.eval()
    features = (modality.features(window) for windows in cut for _, _, window in windows)
    vectors = []
    for group in in_batches(features, batch_size):
        padded, mask = pad_features(group, modality.is_padded)
        vectors.append(module(padded.to(device), None if mask is None else mask.to(device)).cpu())
    stacked = torch.cat(vectors).float()
    if not bool(torch.isfinite(stacked).all()):
        raise NonFiniteError(
            "finite embeddings asked of the tower; some are not; train with a lower train.lr"
        )
    return list(torch.split(stacked, [len(windows) for windows in cut]))


def in_batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Yield items in lists of `size`, the last of which may be shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
