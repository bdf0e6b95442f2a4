"""An encoder without weights: statistics of the features over time.

With `train.solver: ridge` it is the closed form that a trained encoder has to beat. Padding never
changes a result.

Letters: `n` clips, `time` frames, `inputs` values of a frame, `s` stretches.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modalbind.api import Modality
from modalbind_audio.fitting import frame_width
from modalbind_audio.options import StatisticsOptions
from modalbind_audio.pooling import full_mask, segment_weights


class StatisticsEncoder(nn.Module):
    """Mean, deviation, maximum and minimum of each value, in equal stretches of the clip.

    Attributes:
        width: Width of the result: `inputs * statistics * segments`.
        lora_targets: Empty: there is nothing to adapt.
    """

    lora_targets: tuple[str, ...] = ()

    def __init__(self, options: StatisticsOptions, inputs: int) -> None:
        """Keep the options; there are no weights to make."""
        super().__init__()
        self.options = options
        self.inputs = inputs
        self.width = inputs * len(options.statistics) * options.segments

    def forward(self, features: Tensor, valid_mask: Tensor | None = None) -> Tensor:
        """Map `(n, time, inputs)` with `(n, time)` True for real frames to `(n, width)`.

        Raises:
            ShapeError: If the frames have another width.
        """
        valid_mask = full_mask(features, valid_mask, self.inputs)
        features = features.masked_fill(~valid_mask.unsqueeze(-1), 0.0)
        weights = segment_weights(valid_mask, self.options.segments)  # (n, s, time)
        parts = [_COMPUTE[name](features, weights) for name in self.options.statistics]
        return torch.cat([part.flatten(1) for part in parts], dim=1)

    def portable_options(self) -> StatisticsOptions:
        """Options that build the same encoder, the width of the frames written out."""
        return self.options.model_copy(update={"inputs": self.inputs})

    def layer_groups(self) -> list[list[nn.Module]]:
        """None: nothing trains."""
        return []


def _mean(features: Tensor, weights: Tensor) -> Tensor:
    return weights @ features


def _deviation(features: Tensor, weights: Tensor) -> Tensor:
    centred = features.unsqueeze(1) - (weights @ features).unsqueeze(2)  # (n, s, time, inputs)
    return torch.einsum("n s t, n s t c -> n s c", weights, centred.square()).sqrt()


def _maximum(features: Tensor, weights: Tensor) -> Tensor:
    outside = (weights == 0).unsqueeze(-1)
    return features.unsqueeze(1).masked_fill(outside, float("-inf")).amax(dim=2)


def _minimum(features: Tensor, weights: Tensor) -> Tensor:
    return -_maximum(-features, weights)


_COMPUTE = {"mean": _mean, "std": _deviation, "max": _maximum, "min": _minimum}


def build(options: StatisticsOptions, modality: Modality) -> StatisticsEncoder:
    """Factory named by the plugin's `EncoderSpec`.

    Raises:
        InputError: If the modality makes waveforms.
    """
    return StatisticsEncoder(options, frame_width("statistics", options.inputs, modality))
