"""Heads in closed form: one linear map instead of steps; the encoder stays as it is.

The rows that trained towers have to beat, and towers like any other: same files, same report.
Letters: `n` training windows, `width` the encoder's output, `dim` the anchor space.
"""

from __future__ import annotations

from functools import partial
from typing import cast

import torch
from torch import Tensor

from modalbind.encoders import Tower
from modalbind.encoders.head import LinearHead
from modalbind.evaluation.affine import AffineFit, fit_affine, scale_inputs
from modalbind.evaluation.embed import embed_each
from modalbind.inputs import RunInputs
from modalbind.recipe import Recipe
from modalbind.recipe.schema import ClosedFormSection, Solver


def fit_head(tower: Tower, inputs: RunInputs, recipe: Recipe, solver: Solver) -> float:
    """Fit the tower's linear head to the anchor embeddings of the training samples, in place.

    Each window of a sample is one row; its target is the mean of the sample's anchor embeddings
    in the training languages. Unless `train.closed_form` says otherwise both sides are centred,
    and the mean of the targets is then left out: it is the same for every sample, and where the
    fit is shrunk all embeddings would point to it (on ESC-10 that cost 8 points, see
    docs/log.md). Nothing is random.

    Args:
        tower: With a linear head; its encoder is used in eval mode and does not change.
        inputs: Training samples and anchor embeddings.
        recipe: Sides of the anchor, batch size, windows, options of the solver.
        solver: One in closed form.

    Returns:
        The strength of the ridge, chosen by generalised cross-validation; 0 for other solvers.

    Source:
        `modalbind.evaluation.affine`.
    """
    features, targets = gather_rows(tower, inputs, recipe)
    fit = fit_solver(solver, features, targets, recipe.train.closed_form)
    set_head(tower, fit)
    return fit.alpha


def fit_solver(
    solver: Solver, features: Tensor, targets: Tensor, section: ClosedFormSection
) -> AffineFit:
    """Fit one solver as a run would.

    Inputs of the ridge are scaled to unit deviation, as they may differ in unit; the other solvers
    either do not mind the scale or live by it.

    Args:
        solver: One in closed form.
        features: Float64 `(n, width)`.
        targets: Float64 `(n, dim)`.
        section: Options of the solver.
    """
    fit = partial(fit_affine, solver, y=targets, section=section)
    if solver == "ridge":
        return scale_inputs(features, lambda scaled: fit(x=scaled))
    return fit(x=features)


def set_head(tower: Tower, fit: AffineFit) -> None:
    """Write a map into the tower's linear head."""
    projection = cast("LinearHead", tower.head).projection
    with torch.no_grad():
        projection.weight.copy_(fit.weights.T)
        projection.bias.copy_(fit.bias)


def gather_rows(tower: Tower, inputs: RunInputs, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Return the encoder's output for every training window, and its target, both float64.

    Returns:
        `(n, width)` and `(n, dim)`.
    """
    samples = inputs.data.train
    targets = inputs.mean_anchors(samples, tuple(recipe.anchor.sides))
    parts = list(
        embed_each(
            tower.encoder,
            inputs.modality,
            inputs.load_all(samples),
            next(tower.parameters()).device,
            recipe.train.batch_size,
            recipe.evaluation.window,
        )
    )
    owners = torch.arange(len(parts)).repeat_interleave(torch.tensor([len(p) for p in parts]))
    return torch.cat(parts).double(), targets[owners].double()
