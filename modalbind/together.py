"""What frozen networks compute before a run, shared out to its processes through the cache.

Each process computes its share first; then all read everything. Where the processes have no cache
in common, each computes what it still lacks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor

from modalbind.anchors.opened import OpenAnchor
from modalbind.interfaces import Modality
from modalbind.processes import join, share_of
from modalbind.types import AnchorItem


def prepare_samples(modality: Modality, samples: Iterable[Any]) -> None:
    """Let a modality that computes features of many samples at once do so now."""
    prepare = getattr(modality, "prepare", None)
    if prepare is not None:
        prepare(list(samples))


def prepare_together(modality: Modality, samples: Iterable[Any]) -> None:
    """Do so in all processes at once."""
    processes = join()
    if processes.count > 1 and hasattr(modality, "prepare"):
        samples = list(samples)
        own = share_of(len(samples), processes.rank, processes.count)
        prepare_samples(modality, samples[own.start : own.stop])
        processes.meet()
    prepare_samples(modality, samples)


def embed_together(
    anchor: OpenAnchor,
    modality: str,
    items: Sequence[AnchorItem],
    on_progress: Callable[[int, int], None],
) -> Tensor:
    """Embed items in all processes at once, as `OpenAnchor.embed` does in one.

    A share goes by content, so it does not matter who finds what in the cache already.
    """
    processes = join()
    if processes.count == 1 or anchor.is_table:
        return anchor.embed(modality, items, on_progress)
    own = [
        item
        for item in items
        if int.from_bytes(item.content_hash[:8], "big") % processes.count == processes.rank
    ]
    computed, reused = anchor.computed, anchor.reused
    anchor.embed(modality, own, on_progress)
    total = sum(processes.gather(anchor.computed - computed))
    anchor.reused = reused
    vectors = anchor.embed(modality, items)
    # What others have computed for this run is not reused by it.
    anchor.computed, anchor.reused = computed + total, anchor.reused - total
    return vectors
