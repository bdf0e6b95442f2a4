"""Post-hoc calibration: means taken away, or whitening, the same for every item after the fit.

Embeddings of one modality share a direction that says which modality it is and nothing about the
item; taking it away brings modalities together. Letters: `n` items, `dim` of the space.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from modalbind.errors import AnchorError, CorruptFileError

logger = logging.getLogger(__name__)

Group = tuple[str, str]
"""Modality and language; the language is empty where there is none, or for all of them."""
Kind = Literal["mean", "whiten"]

_SMALLEST_NORM = 1e-6
_SUM = "sha256"


@dataclass(frozen=True)
class Calibration:
    """What was fitted; see `fit_calibration`.

    Attributes:
        kind: `mean` or `whiten`.
        means: Float32 `(dim,)` by group.
        whitening: Float32 `(dim, dim)` by modality; empty for `mean`.
        languages: Whose unlabelled text was used for means of their own.
    """

    kind: Kind
    means: Mapping[Group, Tensor]
    whitening: Mapping[str, Tensor]

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities that it was fitted on."""
        return tuple(sorted({modality for modality, _ in self.means}))

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages that have a mean of their own."""
        return tuple(sorted({language for _, language in self.means if language}))

    def apply(self, modality: str, languages: Sequence[str | None], vectors: Tensor) -> Tensor:
        """Calibrate embeddings.

        Args:
            modality: Of all of them.
            languages: Of each; one that has no mean of its own takes that of all.
            vectors: Unit norm, float32 `(n, dim)`.

        Returns:
            Unit norm, float32 `(n, dim)`.

        Raises:
            AnchorError: If it was not fitted on that modality, or an embedding is the mean itself.
        """
        if (modality, "") not in self.means:
            raise AnchorError(
                f"asked to calibrate {modality}; the data it was fitted on has "
                f"{', '.join(self.modalities)}; add {modality} to calibration.data"
            )
        if not len(vectors):
            return vectors
        overall = self.means[modality, ""]
        means = [self.means.get((modality, language or ""), overall) for language in languages]
        moved = vectors - torch.stack(means)
        if modality in self.whitening:
            moved = moved @ self.whitening[modality]
        if float(moved.norm(dim=1).min()) < _SMALLEST_NORM:
            raise AnchorError(
                f"asked to calibrate {modality}; an embedding is the mean itself and has no "
                "direction; fit on more items"
            )
        return F.normalize(moved, dim=1)

    def hash_content(self) -> str:
        """Return the SHA-256 of everything that was fitted."""
        digest = hashlib.sha256(self.kind.encode())
        for name, tensor in sorted(self._tensors().items()):
            digest.update(f"|{name}|{tuple(tensor.shape)}|".encode())
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def to_bytes(self) -> bytes:
        """Return it as a safetensors file with a checksum."""
        metadata = {"kind": self.kind, _SUM: self.hash_content()}
        written: bytes = save({k: v.contiguous() for k, v in self._tensors().items()}, metadata)
        return written

    def _tensors(self) -> dict[str, Tensor]:
        means = {json.dumps(["mean", *group]): mean for group, mean in self.means.items()}
        maps = {json.dumps(["whiten", name, ""]): map_ for name, map_ in self.whitening.items()}
        return means | maps

    @classmethod
    def read(cls, path: Path) -> Calibration:
        """Read what `to_bytes` wrote.

        Raises:
            CorruptFileError: If it cannot be read, or is not as it was written.
        """
        try:
            with safe_open(path, framework="pt") as file:
                said = file.metadata() or {}
                found = {name: file.get_tensor(name) for name in file.keys()}
            named = {tuple(json.loads(name)): tensor for name, tensor in found.items()}
            read = cls(
                "whiten" if said.get("kind") == "whiten" else "mean",
                {name[1:]: t for name, t in named.items() if name[0] == "mean"},
                {name[1]: t for name, t in named.items() if name[0] == "whiten"},
            )
        except Exception as error:  # safetensors raises types of its own
            raise CorruptFileError(f"{path} asked for; {error}; restore it") from error
        if read.hash_content() != said.get(_SUM):
            raise CorruptFileError(f"{path} asked for; it is not as it was written; restore it")
        return read


def fit_calibration(
    vectors: Mapping[Group, Tensor], kind: Kind, *, by_language: bool, shrinkage: float
) -> Calibration:
    """Fit a calibration.

    Args:
        vectors: Embeddings by modality and language, unit norm `(n, dim)`, no group empty.
        kind: `mean` subtracts the modality's mean; `whiten` also multiplies by the inverse root
            of its covariance (ZCA: of all whitenings the one that moves vectors least).
        by_language: Whether each language gets a mean of its own.
        shrinkage: Of `whiten`: share of a round covariance of the same trace that is mixed in.

    Source:
        Mean removal: GR-CLIP (Li et al. 2025, arXiv 2507.19054). ZCA: Kessy, Lewin & Strimmer
        2018, "Optimal whitening and decorrelation".
    """
    by_modality: dict[str, list[Tensor]] = {}
    for (modality, _), found in vectors.items():
        by_modality.setdefault(modality, []).append(found.double())
    stacked = {modality: torch.cat(parts) for modality, parts in by_modality.items()}
    means = {(modality, ""): rows.mean(dim=0) for modality, rows in stacked.items()}
    if by_language:
        means |= {group: rows.double().mean(dim=0) for group, rows in vectors.items() if group[1]}
    whitening = {}
    if kind == "whiten":
        for modality, rows in stacked.items():
            whitening[modality] = _whiten(rows - rows.mean(dim=0), shrinkage).float()
    return Calibration(kind, {group: mean.float() for group, mean in means.items()}, whitening)


def _whiten(centred: Tensor, shrinkage: float) -> Tensor:
    """Return the inverse root of the shrunk covariance, scaled to keep the mean variance."""
    covariance = centred.T @ centred / len(centred)
    variance = covariance.diagonal().mean()
    round_one = variance * torch.eye(len(covariance), dtype=covariance.dtype)
    values, axes = torch.linalg.eigh((1 - shrinkage) * covariance + shrinkage * round_one)
    smallest = values.max() * 1e-9
    whitening: Tensor = (axes * (variance / values.clamp_min(float(smallest))).sqrt()) @ axes.T
    return whitening
