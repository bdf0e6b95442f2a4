"""Scores a tower on the test split of its run, and its controls beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from modalbind.alternatives import (
    describe_map,
    is_encoder_fixed,
    score_closed_forms,
    summarise_solver,
)
from modalbind.data.samples import Sample
from modalbind.encoders import Tower
from modalbind.evaluation.embed import embed_samples
from modalbind.evaluation.pools import Pool, name_group, split_by_language
from modalbind.evaluation.protocol import Control, Protocol, RetrievalRow
from modalbind.inputs import RunInputs
from modalbind.posthoc import TestCalibration, calibrate_test
from modalbind.recipe import Recipe, Resolved
from modalbind.reporting import Measured
from modalbind.rundir import RunDirectory
from modalbind.trivial import predict_trivial


def build_protocol(directory: RunDirectory, recipe: Recipe) -> Protocol:
    """Return the rules of the run's tests; what was paired is what the run wrote down."""
    # Runs from before samples had languages name two of the three.
    paired = frozenset((*entry, "")[:3] for entry in directory.read_identity()["paired"])
    split = recipe.data.test_split if recipe.data.test_fold is None else "test"
    return Protocol(recipe.evaluation, split, recipe.seed, paired)


def measure(resolved: Resolved, inputs: RunInputs, tower: Tower, rules: Protocol) -> Measured:
    """Score every direction, language and class list on the test split."""
    samples = _embed_test(resolved, inputs, tower)
    pools, classes = inputs.embed_pools(inputs.test), inputs.class_sets
    measured = Measured(trained_languages=rules.trained_languages)
    if calibration := _calibrate(resolved, inputs, tower):
        languages = [sample.language for sample in inputs.data.test]
        samples = calibration.apply_to_samples(samples, languages)
        pools = calibration.apply_to_pools(pools)
        classes = calibration.apply_to_classes(classes)
        measured.notes.append(calibration.note)
    measured.retrieval = score_by_language(rules, samples, inputs.data.test, pools)
    if resolved.recipe.evaluation.link_text_image:
        measured.reference = rules.score_anchor(pools)
    measured.zero_shot = rules.score_classes(samples, classes)
    measured.gap = rules.score_gaps(samples, pools)
    measured.linear_map = describe_map(tower)
    if resolved.recipe.evaluation.closed_forms and calibration is None and inputs.data.train:
        _add_closed_forms(measured, resolved, inputs, tower, rules)
    return measured


def _calibrate(resolved: Resolved, inputs: RunInputs, tower: Tower) -> TestCalibration | None:
    return calibrate_test(
        resolved, inputs, lambda samples: embed_as_tested(resolved, inputs, tower, samples)
    )


def _add_closed_forms(
    measured: Measured, resolved: Resolved, inputs: RunInputs, tower: Tower, rules: Protocol
) -> None:
    """Score closed forms on the run's test, beside the run itself."""
    recipe = resolved.recipe
    if not is_encoder_fixed(tower, recipe):
        measured.notes.append(
            "closed forms were asked for; the encoder was trained, so there is nothing that they "
            "could be fitted on alike"
        )
        return
    pools = inputs.embed_pools(inputs.test)
    # Intervals are taken over languages, once for each direction; those of rows are not shown.
    quick = replace(rules, section=rules.section.model_copy(update={"bootstrap": 0}))

    def score(embeddings: Tensor) -> list[RetrievalRow]:
        samples = sample_pool(resolved, inputs, embeddings)
        return score_by_language(quick, samples, inputs.data.test, pools)

    own = summarise_solver(recipe.train.solver, recipe.train.closed_form, measured.retrieval, rules)
    measured.closed_forms = [
        *(row.model_copy(update={"is_run": True}) for row in own),
        *score_closed_forms(tower, inputs, recipe, rules, score),
    ]


def add_controls(
    measured: Measured, resolved: Resolved, inputs: RunInputs, shuffled: Tower, rules: Protocol
) -> None:
    """Add the rows of a tower trained on shuffled pairs, and those of trivial features.

    Controls are scored as trained, without a calibration of the test.
    """
    pools = inputs.embed_pools(inputs.test)
    trivial, used = predict_trivial(inputs, resolved.recipe)
    embedded: dict[Control, Pool] = {
        "shuffled": _embed_test(resolved, inputs, shuffled),
        "trivial": sample_pool(resolved, inputs, trivial),
    }
    for control, samples in embedded.items():
        measured.retrieval += score_by_language(rules, samples, inputs.data.test, pools, control)
        measured.zero_shot += rules.score_classes(samples, inputs.class_sets, control)
    measured.notes.append(f"the trivial-feature control sees {', '.join(used)}")


def score_by_language(
    rules: Protocol,
    pool: Pool,
    samples: Sequence[Sample],
    pools: Sequence[Pool],
    control: Control = "none",
) -> list[RetrievalRow]:
    """Score samples against every pool; those that have a language, language by language.

    Args:
        rules: Of the test.
        pool: The embedded samples.
        samples: The same samples, in the same order.
        pools: What they are scored against.
        control: Whose embeddings they have.
    """
    return [
        row
        for part in split_by_language(pool, [sample.language for sample in samples])
        for row in rules.score_samples(part, pools, control)
    ]


def embed_as_tested(
    resolved: Resolved, inputs: RunInputs, tower: Tower, samples: Iterable[Any]
) -> Tensor:
    """Embed samples as a run's test does, `(n, dim)`; they are read as they are needed."""
    return embed_samples(
        tower,
        inputs.modality,
        samples,
        device=next(tower.parameters()).device,
        batch_size=resolved.recipe.train.batch_size,
        use_windows=resolved.recipe.evaluation.window,
    )


def _embed_test(resolved: Resolved, inputs: RunInputs, tower: Tower) -> Pool:
    samples = inputs.load_all(inputs.data.test)
    return sample_pool(resolved, inputs, embed_as_tested(resolved, inputs, tower, samples))


def sample_pool(resolved: Resolved, inputs: RunInputs, embeddings: Tensor) -> Pool:
    """Return the test samples as a pool.

    Args:
        resolved: The recipe.
        inputs: Test samples and their labels.
        embeddings: Of these samples, `(n, dim)`.
    """
    samples = inputs.data.test
    return Pool(
        resolved.modality.name,
        "",
        embeddings,
        torch.tensor(inputs.test.sample_labels, dtype=torch.int64),
        tuple(name_group(sample) for sample in samples),
        tuple((sample.source, sample.key) for sample in samples),
    )
