"""All closed forms beside a head on frozen features: what the same features are good for.

A head that does not beat them has not been trained well. Letters: `n` samples, `width` of the
features, `dim` of the anchor space.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from modalbind.closed_form import fit_solver, gather_rows
from modalbind.encoders import Tower
from modalbind.encoders.head import LinearHead
from modalbind.evaluation.affine import AffineFit, compute_spectrum
from modalbind.evaluation.embed import embed_each
from modalbind.evaluation.languages import LanguageMean, mean_over_languages, name_direction
from modalbind.evaluation.protocol import Protocol, RetrievalRow
from modalbind.inputs import RunInputs
from modalbind.recipe import Recipe
from modalbind.recipe.schema import ClosedFormSection, Solver
from modalbind.report.languages import ClosedFormRow, LinearMapReport
from modalbind.report.parts import Metric

METRIC = "recall_at_10"
SOLVERS: tuple[Solver, ...] = ("least_squares", "ridge", "procrustes", "cca")

Score = Callable[[Tensor], list[RetrievalRow]]
"""From embeddings of the test samples, unit norm `(n, dim)`, to rows."""


def describe_map(tower: Tower) -> LinearMapReport | None:
    """Describe the tower's head, if it is a linear map that is not zero."""
    if not isinstance(tower.head, LinearHead) or not bool(tower.head.projection.weight.any()):
        return None
    found = compute_spectrum(tower.head.projection.weight)
    return LinearMapReport(
        singular_values=found.values,
        effective_rank=found.effective_rank,
        rotation=found.rotation,
    )


def score_closed_forms(
    tower: Tower, inputs: RunInputs, recipe: Recipe, rules: Protocol, score: Score
) -> list[ClosedFormRow]:
    """Fit every solver, centred and not, on the run's training samples, and score it on its test.

    Args:
        tower: Its encoder makes the features; it did not train.
        inputs: Training and test samples, anchor embeddings.
        recipe: Sides, batch size, windows.
        rules: Resamples, seed, what was paired.
        score: Scores embeddings of the test samples.

    Returns:
        Of `list_fits`: `cca` stands twice, with all canonical pairs and with the first half.
    """
    features, targets = gather_rows(tower, inputs, recipe)
    windows = list(
        embed_each(
            tower.encoder,
            inputs.modality,
            inputs.load_all(inputs.data.test),
            next(tower.parameters()).device,
            recipe.train.batch_size,
            recipe.evaluation.window,
        )
    )
    rows = []
    for solver, section in list_fits(features.shape[1], targets.shape[1]):
        fit = fit_solver(solver, features, targets, section)
        rows += summarise_solver(solver, section, score(_embed(fit, windows)), rules)
    return rows


def is_encoder_fixed(tower: Tower, recipe: Recipe) -> bool:
    """Say whether a run leaves its encoder as it is, so that closed forms see what it saw."""
    return recipe.tower.freeze == "encoder" or not any(True for _ in tower.encoder.parameters())


def list_fits(width: int, dim: int) -> list[tuple[Solver, ClosedFormSection]]:
    """Return every solver with the options that it is tried with."""
    half = max(1, min(width, dim) // 2)
    return [
        (solver, ClosedFormSection(centre=centre, components=components))
        for solver in SOLVERS
        for components in ((None, half) if solver == "cca" else (None,))
        for centre in (True, False)
    ]


def _embed(fit: AffineFit, windows: Sequence[Tensor]) -> Tensor:
    """Map each sample's windows, and take their mean as a tower does, float32 `(n, dim)`."""
    mapped = [F.normalize(fit.predict(part).float(), dim=1).mean(dim=0) for part in windows]
    return F.normalize(torch.stack(mapped), dim=1)


def summarise_solver(
    solver: Solver, section: ClosedFormSection, rows: Sequence[RetrievalRow], rules: Protocol
) -> list[ClosedFormRow]:
    """Say in one row for each direction what a solver scores.

    Args:
        solver: Its name.
        section: Its options.
        rows: Of its test, in every language.
        rules: Resamples, seed, what was paired.
    """
    asked = [row for row in rows if row.control == "none" and not row.from_anchor]
    means = mean_over_languages(
        asked, rules.trained_languages, resamples=rules.section.bootstrap, seed=rules.seed
    )
    return [
        ClosedFormRow(
            solver=solver,
            centre=section.centre,
            components=section.components,
            query=row.query,
            target=row.target,
            anchor_language=row.anchor_language or None,
            score=Metric.model_validate(row.score.metrics[METRIC], from_attributes=True),
            others=next(_find_mean(means, row), None),
        )
        for row in asked
        if not row.language or row.language in rules.trained_languages
    ]


def _find_mean(means: Sequence[LanguageMean], row: RetrievalRow) -> Iterator[Metric]:
    for mean in means:
        if row.language and mean.direction == name_direction(row):
            yield Metric.model_validate(mean.metrics[METRIC], from_attributes=True)
