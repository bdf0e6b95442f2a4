"""The trivial-feature control: what duration, level and declared columns alone can retrieve."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from modalbind.data.samples import Sample
from modalbind.evaluation import fit_trivial_control
from modalbind.inputs import RunInputs
from modalbind.recipe import Recipe


def predict_trivial(inputs: RunInputs, recipe: Recipe) -> tuple[Tensor, tuple[str, ...]]:
    """Fit trivial features of the training samples to their anchor embeddings.

    Returns:
        Embeddings of the test samples `(n, dim)`, and the names of the features used.
    """
    columns = recipe.evaluation.control_columns
    train, test = inputs.data.train, inputs.data.test
    features = [dict(inputs.modality.describe(s)) for s in inputs.load_all(train)]
    embeddings = fit_trivial_control(
        features,
        _columns(train, columns),
        inputs.mean_anchors(train, tuple(recipe.anchor.sides)),
        [dict(inputs.modality.describe(s)) for s in inputs.load_all(test)],
        _columns(test, columns),
    )
    names = dict.fromkeys(name for row in features for name in row)
    return embeddings, (*names, *columns)


def _columns(samples: Sequence[Sample], columns: Sequence[str]) -> list[dict[str, str]]:
    return [{name: sample.columns.get(name, "") for name in columns} for sample in samples]
