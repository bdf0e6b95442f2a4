"""A head in closed form: one ridge regression instead of steps; the encoder stays as it is.

The row that trained towers have to beat, and a tower like any other: same files, same report.
Letters: `n` training windows, `width` the encoder's output, `dim` the anchor space.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from modalbind.encoders import Tower
from modalbind.encoders.head import LinearHead
from modalbind.evaluation import ridge_gcv
from modalbind.evaluation.embed import embed_each
from modalbind.inputs import RunInputs
from modalbind.recipe import Recipe


def fit_head(tower: Tower, inputs: RunInputs, recipe: Recipe) -> float:
    """Fit the tower's linear head to the anchor embeddings of the training samples, in place.

    Each window of a sample is one row; its target is the mean of the sample's anchor embeddings
    in the training languages. Inputs are centred and scaled to unit deviation before the fit, and
    that is folded into the head. The mean of the targets is fitted and then left out: it is the
    same for every sample, and where the fit is shrunk all embeddings would point to it (on ESC-10
    that cost 8 points, see docs/log.md). Nothing is random.

    Args:
        tower: With a linear head; its encoder is used in eval mode and does not change.
        inputs: Training samples and anchor embeddings.
        recipe: Sides of the anchor, batch size, windows.

    Returns:
        The ridge's strength, chosen by generalised cross-validation.

    Source:
        `modalbind.evaluation.ridge_gcv`.
    """
    samples = inputs.data.train
    targets = inputs.mean_anchors(samples, tuple(recipe.anchor.sides))
    features, owners = _encode(tower, inputs, recipe)
    deviation = features.std(dim=0, correction=0)
    scale = deviation.where(deviation > 0, 1.0)  # what never varies says nothing
    fit = ridge_gcv(features / scale, targets[owners].double())
    weights = fit.weights / scale[:, None]
    projection = cast("LinearHead", tower.head).projection
    with torch.no_grad():
        projection.weight.copy_(weights.T)
        projection.bias.copy_(-features.mean(dim=0) @ weights)
    return fit.alpha


def _encode(tower: Tower, inputs: RunInputs, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Return the encoder's output for every training window, float64, and whose window it is."""
    parts = list(
        embed_each(
            tower.encoder,
            inputs.modality,
            inputs.load_all(inputs.data.train),
            next(tower.parameters()).device,
            recipe.train.batch_size,
            recipe.evaluation.window,
        )
    )
    owners = torch.arange(len(parts)).repeat_interleave(torch.tensor([len(p) for p in parts]))
    return torch.cat(parts).double(), owners
