"""The one augmentation of sentences: noise on what the frozen encoder made of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from modalbind_text.options import NoiseOptions


@dataclass(frozen=True, slots=True)
class Noise:
    """Adds white noise to features and normalises again.

    To least squares, noise on the inputs is what a ridge is: it keeps a map from relying on
    directions in which sentences hardly differ.

    Attributes:
        variance: Of each coordinate.

    Source:
        Zhang, Sui & Yeung 2024, C3 (arXiv 2401.08567), section 4.
    """

    variance: float

    def __call__(self, value: Tensor, generator: torch.Generator) -> Tensor:
        """Return noisy features of unit norm, float32 `(width,)`."""
        noise = torch.randn(value.shape, generator=generator, dtype=value.dtype)
        return F.normalize(value + self.variance**0.5 * noise, dim=-1)


def build_noise(options: NoiseOptions, modality: object) -> Noise:
    """Factory named by the plugin's `AugmentationSpec`."""
    return Noise(options.variance)
