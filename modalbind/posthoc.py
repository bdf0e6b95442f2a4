"""Calibration of a test: every embedding, the samples' and the anchor's, after training.

The run stays as it is; what is taken away was fitted on named data, never on the test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modalbind.anchors.calibration import Calibration, fit_calibration
from modalbind.data.links import is_sentences, read_links
from modalbind.data.manifest import build, read_rows
from modalbind.data.options import ManifestOptions
from modalbind.errors import DataError
from modalbind.evaluation.pools import UNIMODAL_LANGUAGE, Pool
from modalbind.evaluation.protocol import ClassSet
from modalbind.inputs import RunInputs
from modalbind.recipe import Resolved
from modalbind.together import prepare_samples
from modalbind.types import TextSample

SAMPLES = "samples"
"""Name of the samples' side; a modality of texts would be taken for the anchor's."""

Embed = Callable[[Iterable[Any]], Tensor]
"""What a tower makes of samples, unit norm `(n, dim)`."""


@dataclass(frozen=True, slots=True)
class TestCalibration:
    """Both sides of a test, calibrated alike.

    Attributes:
        anchor: Of the anchor's items.
        samples: Of the samples.
        note: What was done, for the report.
    """

    anchor: Calibration
    samples: Calibration
    note: str

    def apply_to_samples(self, pool: Pool, languages: Sequence[str]) -> Pool:
        """Calibrate samples; `languages` is that of each, or empty."""
        return replace(pool, embeddings=self.samples.apply(SAMPLES, languages, pool.embeddings))

    def apply_to_pools(self, pools: Sequence[Pool]) -> list[Pool]:
        """Calibrate the anchor's items."""
        return [
            replace(
                pool,
                embeddings=self.anchor.apply(
                    pool.modality, [pool.language] * len(pool.keys), pool.embeddings
                ),
            )
            for pool in pools
        ]

    def apply_to_classes(self, sets: Sequence[ClassSet]) -> tuple[ClassSet, ...]:
        """Calibrate class vectors as the texts that they are means of."""
        return tuple(
            replace(
                found,
                prompts=self.anchor.apply(
                    "text", [found.language] * len(found.prompts), found.prompts
                ),
            )
            for found in sets
        )


def calibrate_test(resolved: Resolved, inputs: RunInputs, embed: Embed) -> TestCalibration | None:
    """Fit what the recipe's `evaluation.calibration` asks for; None if it asks for nothing.

    Args:
        resolved: The run.
        inputs: Its data, and the anchor.
        embed: Its tower.

    Raises:
        DataError: If there is no sample to fit on.
    """
    section = resolved.recipe.evaluation.calibration
    if section is None:
        return None
    anchor = inputs.fit_anchor_calibration(section)
    found, whence = _gather_samples(resolved, inputs, embed)
    samples = fit_calibration(
        found, section.kind, by_language=section.by_language, shrinkage=section.shrinkage
    )
    files = ", ".join(section.data)
    note = f"calibrated after training ({section.kind}): texts and pictures by {files}, {whence}"
    if told := sorted({*anchor.languages, *samples.languages}):
        note += f"; with unlabelled text of {', '.join(told)}"
    return TestCalibration(anchor, samples, note)


def _gather_samples(
    resolved: Resolved, inputs: RunInputs, embed: Embed
) -> tuple[dict[tuple[str, str], Tensor], str]:
    """Embed samples by language: those that the named data has, else those of training."""
    named = [
        item for path in inputs.calibration_files for item in _read_samples(path, resolved, inputs)
    ]
    whence = "samples by them too"
    if not named:
        load = inputs.data.store.load
        named = [(sample.language, partial(load, sample)) for sample in inputs.data.train]
        whence = "samples by those of training"
    if not named:
        raise DataError(
            "samples to calibrate on asked for; calibration.data has none and nothing is trained; "
            f"add a column {resolved.modality.name} to it"
        )
    # Each is read when it is needed, so that no more than a batch of them is held.
    prepare_samples(inputs.modality, (load() for _, load in named))
    vectors = embed(load() for _, load in named)
    groups: dict[tuple[str, str], list[int]] = {}
    for row, (language, _) in enumerate(named):
        groups.setdefault((SAMPLES, language or UNIMODAL_LANGUAGE), []).append(row)
    return {group: vectors[torch.tensor(rows)] for group, rows in groups.items()}, whence


def _read_samples(
    path: Path, resolved: Resolved, inputs: RunInputs
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield, for each sample that a file names, its language and what reads it."""
    spec = resolved.modality
    if is_sentences(path):
        if spec.is_text:
            sentences = (link.key for link in read_links(path))
            yield from (("en", partial(TextSample, text, "en")) for text in sentences)
        return
    if path.suffix == ".json" or spec.name not in read_rows(path)[0]:
        return
    root = resolved.recipe.data.root
    options = ManifestOptions(path=str(path), skip_empty=True)
    dataset = build(options, None if root is None else Path(root).expanduser(), spec)
    languages = {pair.sample: pair.sample_language for pair in dataset.pairs()}
    for key, language in languages.items():
        yield language, partial(dataset.load_sample, key, inputs.modality)
