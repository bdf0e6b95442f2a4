"""A run that maps texts, and the anchor it was trained against, as one new anchor space.

What the base anchor holds stays as it is, but for text: all texts, English ones too, go through
the run's sentence encoder and its map. A modality that is aligned to the new space inherits the
languages of the sentence encoder (CACARA on top of METAL).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modalbind.anchors.fingerprint import hash_fields, hash_weights
from modalbind.anchors.frozen import check_modality
from modalbind.anchors.opened import VerifiedBy
from modalbind.anchors.options import MetalOptions
from modalbind.errors import AnchorError, CorruptFileError, InputError
from modalbind.run import AlignedSpace, find_run
from modalbind.types import AnchorItem, TextSample

CERTAINTY: tuple[VerifiedBy, ...] = ("cache", "table", "weights")
"""What a fingerprint can be read from, the least certain first."""


def build(source: str, tag: str | None, options: MetalOptions) -> MetalSpace:
    """Open a finished run on texts, and the anchor that it is bound to.

    Args:
        source: Run directory or hub id.
        tag: None; a run has no tag.
        options: See `MetalOptions`.

    Raises:
        AnchorError: If it is no such run, or one of its parts cannot be opened.
    """
    if tag is not None:
        raise AnchorError(f"asked for metal:{source}@{tag}; a run has no tag; remove '@{tag}'")
    try:
        run = find_run(source)
        return MetalSpace(AlignedSpace([run], device=options.device or "cpu"), run)
    except AnchorError:
        raise
    except (InputError, CorruptFileError) as error:
        raise AnchorError(f"asked for metal:{source}; {error}") from error


class MetalSpace:
    """An anchor space whose texts are embedded by a run.

    Its parts have caches of their own, so nothing is kept twice.

    Args:
        aligned: The opened run.
        run: Its folder.

    Raises:
        AnchorError: If the run brings another modality than text, or its anchor holds no text.

    Source:
        METAL (arXiv 2601.10096) for the map; CACARA (arXiv 2512.00496) for what is aligned to it.
    """

    is_composed = True

    def __init__(self, aligned: AlignedSpace, run: Path) -> None:
        self._aligned = aligned
        self._base = aligned.anchor
        self._tower, self._modality = self._open_texts(run)
        self.is_table = self._base.is_table
        self.name = f"{self._base.name} + {self._encoder.name}"
        self.dim = self._base.dim
        self.modalities = self._base.modalities
        self.content_hashes = dict([*self._base.tables, *self._encoder.tables])

    def _open_texts(self, run: Path) -> tuple[torch.nn.Module, Any]:
        if "text" not in self._base.modalities:
            raise AnchorError(
                f"asked for metal:{run}; its anchor {self._base.name} holds "
                f"{', '.join(self._base.modalities)}; take a run on an anchor that holds text"
            )
        found = self._aligned.text_tower()
        if found is None:
            raise AnchorError(
                f"asked for metal:{run}; that run brings no texts; name one of `modalbind align "
                "--modality text`"
            )
        return found

    @property
    def _encoder(self) -> Any:
        """The frozen space of sentences."""
        return self._modality.space

    @property
    def computed(self) -> int:
        """Distinct embeddings computed, over both parts."""
        return int(self._base.computed + self._encoder.computed)

    @property
    def reused(self) -> int:
        """Distinct embeddings found in a cache or a table, over both parts."""
        return int(self._base.reused + self._encoder.reused)

    def compute_fingerprint(self) -> str:
        """Hash the base anchor's fingerprint, the sentence encoder's, and the map as it is now."""
        return self.verify()[0]

    def verify(self) -> tuple[str, VerifiedBy]:
        """Return the fingerprint as it is now, and what the least certain part was read from."""
        base, base_by = self._base.verify()
        encoder, encoder_by = self._encoder.verify()
        fields = {
            "kind": "metal",
            "base": base,
            "encoder": encoder,
            "map": hash_weights(self._tower.state_dict()),
        }
        return hash_fields(fields), min(base_by, encoder_by, key=CERTAINTY.index)

    def encode(self, modality: str, items: Sequence[AnchorItem]) -> Tensor:
        """Return unit-norm float32 `(len(items), dim)` on the CPU.

        Raises:
            AnchorError: If the space does not hold the modality, or a table lacks a key.
        """
        check_modality(self.name, modality, self.modalities)
        if modality != "text":
            return self._base.embed(modality, items)
        texts = [TextSample(item.load(), item.language) for item in items]
        return self._aligned.embed("text", texts)
