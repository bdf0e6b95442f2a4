"""The encoder of a tower of texts: the frozen features as they are. What trains is the head.

Letters: `n` sentences, `width` of the sentence encoder.
"""

from __future__ import annotations

from torch import Tensor, nn

from modalbind.api import AnchorError, Modality
from modalbind_text.modality import TextModality, measure_width
from modalbind_text.options import FrozenOptions


class FrozenFeatures(nn.Module):
    """The identity, and the fingerprint of the space whose vectors it hands on.

    Attributes:
        width: Of features and output.
        lora_targets: None: nothing in it can be adapted.
    """

    lora_targets: tuple[str, ...] = ()

    def __init__(self, width: int, space: str) -> None:
        """Keep what the run is bound to."""
        super().__init__()
        self.width = width
        self.space = space

    def forward(self, features: Tensor, valid_mask: Tensor | None = None) -> Tensor:
        """Return float `(n, width)` as it came."""
        return features

    def portable_options(self) -> FrozenOptions:
        """Options that bind a finished run to the same frozen space."""
        return FrozenOptions(width=self.width, space=self.space)

    def layer_groups(self) -> list[list[nn.Module]]:
        """No layers: whoever freezes some asks too much."""
        return []


def build(options: FrozenOptions, modality: Modality) -> FrozenFeatures:
    """Factory named by the plugin's `EncoderSpec`.

    Raises:
        AnchorError: If a finished run was trained on the vectors of another space.
        InputError: If the modality makes other features.
    """
    width = measure_width(modality)
    assert isinstance(modality, TextModality)
    found = modality.space.fingerprint
    if options.space and options.space != found:
        raise AnchorError(
            f"a map from sentence encoder {options.space[:16]} asked for; "
            f"{modality.options.encoder} is {found[:16]} now; restore the encoder that it was "
            "trained on"
        )
    return FrozenFeatures(width, found)
