"""BEATs in two parts, for runs that compute frozen lower layers once. They share its weights.

Letters: `n` clips, `time` frames, `mels` filters, `t` tokens.
"""

from __future__ import annotations

from torch import Tensor, nn

from modalbind_audio.beats import Beats


class BeatsBottom(nn.Module):
    """What comes before a layer group, on whole clips: nothing is dropped or skipped there.

    Args:
        beats: The encoder.
        groups: Layer groups that it has, at least 1; the first is all that stands before the
            layers.
    """

    def __init__(self, beats: Beats, groups: int) -> None:
        """Share the encoder's modules."""
        super().__init__()
        self.beats = beats
        self.layers = groups - 1

    def forward(self, features: Tensor, valid_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Map `(n, time, mels)` to hidden states `(n, t, width)` and their mask."""
        x, mask = self.beats.embed_patches(features, valid_mask)
        return self.beats.run_layers(x, mask, stop=self.layers)


class BeatsTop(nn.Module):
    """The layers that are left, as an encoder of hidden states.

    Args:
        beats: The encoder.
        groups: Layer groups that come before.
    """

    def __init__(self, beats: Beats, groups: int) -> None:
        """Share the encoder's modules."""
        super().__init__()
        self.beats = beats
        self.first = groups - 1
        self.width = beats.width
        self.lora_targets = beats.lora_targets

    def forward(self, hidden: Tensor, valid_mask: Tensor | None) -> Tensor:
        """Map `(n, t, width)` and which tokens are real, `(n, t)`, to `(n, self.width)`."""
        mask = None if valid_mask is None or bool(valid_mask.all()) else valid_mask
        return self.beats.pool(*self.beats.run_layers(hidden, mask, start=self.first))

    def layer_groups(self) -> list[list[nn.Module]]:
        """Those of the whole encoder, so that rates by depth stay what they are."""
        return self.beats.layer_groups()

    def set_progress(self, progress: float) -> None:
        """Follow the schedule of token dropping."""
        self.beats.set_progress(progress)
