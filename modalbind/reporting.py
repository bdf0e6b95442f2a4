"""From what was measured to the report model; takes no decision of its own."""

from __future__ import annotations

import math
import platform
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from modalbind.cost import CostMeter
from modalbind.data.samples import Sample
from modalbind.evaluation import protocol
from modalbind.evaluation.comparison import ComparedRow
from modalbind.evaluation.languages import mean_over_languages
from modalbind.evaluation.retrieval import RetrievalScore
from modalbind.inputs import RunInputs
from modalbind.language_report import build_languages
from modalbind.languages import LanguageTable
from modalbind.recipe import Recipe
from modalbind.report import (
    AnchorReport,
    BoundRun,
    Comparison,
    ComparisonRow,
    CostReport,
    DataReport,
    EnvironmentReport,
    GapRow,
    LossPoint,
    Metric,
    RetrievalMetrics,
    RetrievalRow,
    RunReport,
    SumRow,
    ZeroShotMetrics,
    ZeroShotRow,
)
from modalbind.report.languages import (
    ClosedFormRow,
    LanguageMean,
    LanguagesReport,
    LinearMapReport,
)
from modalbind.rundir import RunDirectory

PACKAGES = (
    "modalbind", "torch", "torchaudio", "open_clip_torch", "transformers", "timm", "peft",
    "accelerate", "numpy",
)  # fmt: skip
LOSS_POINTS = 400
"""Points of the loss curve; more steps are thinned out evenly."""


@dataclass(slots=True)
class Measured:
    """Rows of a report, gathered."""

    retrieval: list[protocol.RetrievalRow] = field(default_factory=list)
    bound: list[protocol.RetrievalRow] = field(default_factory=list)
    reference: list[protocol.RetrievalRow] = field(default_factory=list)
    zero_shot: list[protocol.ZeroShotRow] = field(default_factory=list)
    gap: list[protocol.GapRow] = field(default_factory=list)
    sums: list[protocol.SumRow] = field(default_factory=list)
    closed_forms: list[ClosedFormRow] = field(default_factory=list)
    linear_map: LinearMapReport | None = None
    trained_languages: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)


def build_report(
    recipe: Recipe,
    inputs: RunInputs,
    directory: RunDirectory,
    measured: Measured,
    meter: CostMeter,
    device: str,
) -> RunReport:
    """Write down what was measured; asks the anchor for its fingerprint once more."""
    anchor, rows = _anchor(inputs), _retrieval_rows(measured)
    return RunReport(
        name=recipe.name,
        command=_command(),
        anchor=anchor,
        data=_data(inputs, recipe),
        retrieval=rows,
        languages=_languages(measured, rows, inputs.languages, recipe, anchor.is_unmoved),
        zero_shot=tuple(map(_zero_shot, measured.zero_shot)),
        closed_forms=tuple(measured.closed_forms),
        linear_map=measured.linear_map,
        gap=tuple(map(_gap, measured.gap)),
        cost=CostReport.model_validate(
            {
                **meter.read(),
                "anchor_embeddings_computed": inputs.anchor.computed,
                "anchor_embeddings_reused": inputs.anchor.reused,
            }
        ),
        environment=EnvironmentReport(
            versions=read_versions(), seed=recipe.seed, commit=read_commit(), device=device
        ),
        loss=_loss_curve(directory),
        recipe=recipe.model_dump(mode="json"),
        notes=tuple(measured.notes),
    )


def build_bound_report(
    paths: Sequence[Path],
    inputs: Sequence[RunInputs],
    measured: Measured,
    meter: CostMeter,
) -> RunReport:
    """Write down what several runs, bound to one anchor space, were measured at.

    Args:
        paths: The runs.
        inputs: What each was tested on, in the same order.
        measured: Of all of them.
        meter: Of the measurement; what training cost stands in each run's own report.
    """
    recipes = [RunDirectory(path).read_recipe() for path in paths]
    anchor, rows = _anchor(inputs[0]), _retrieval_rows(measured)
    return RunReport(
        name=" + ".join(recipe.modality.name for recipe in recipes),
        command=_command(),
        anchor=anchor,
        data=DataReport(
            name=" | ".join(dict.fromkeys(each.data.name for each in inputs)),
            licence="; ".join(dict.fromkeys(each.data.licence for each in inputs)),
            train_pairs=0,
            test_pairs=sum(_count_pairs(each.data.test) for each in inputs),
            overlap=None,
            skipped=dict(sum((Counter(each.data.skipped) for each in inputs), Counter())),
        ),
        retrieval=rows,
        languages=_languages(measured, rows, inputs[0].languages, recipes[0], anchor.is_unmoved),
        zero_shot=tuple(map(_zero_shot, measured.zero_shot)),
        gap=tuple(map(_gap, measured.gap)),
        sums=tuple(map(_sum, measured.sums)),
        runs=tuple(
            BoundRun(
                modality=recipe.modality.name,
                name=recipe.name,
                path=str(path),
                anchor=anchor.fingerprint,
            )
            for recipe, path in zip(recipes, paths, strict=True)
        ),
        cost=CostReport.model_validate(
            {
                **meter.read(),
                "anchor_embeddings_computed": sum(each.anchor.computed for each in inputs),
                "anchor_embeddings_reused": sum(each.anchor.reused for each in inputs),
            }
        ),
        environment=EnvironmentReport(
            versions=read_versions(),
            seed=recipes[0].seed,
            commit=read_commit(),
            device=recipes[0].device,
        ),
        notes=tuple(measured.notes),
    )


def build_comparison(run: str, other: str, rows: Sequence[ComparedRow]) -> Comparison:
    """Write down what was compared; `run` and `other` name the two."""
    return Comparison(
        run=run,
        other=other,
        rows=tuple(
            ComparisonRow(
                query=row.key.query,
                target=row.key.target,
                language=row.key.language or None,
                anchor_language=row.key.anchor_language or None,
                from_anchor=row.key.from_anchor,
                split=row.key.split,
                metric=row.key.metric,
                value=row.value,
                other=row.other,
                difference=row.difference.difference,
                ci95=(row.difference.low, row.difference.high),
                n_items=row.n_items,
            )
            for row in rows
        ),
    )


def _anchor(inputs: RunInputs) -> AnchorReport:
    after, verified = inputs.anchor.verify()
    return AnchorReport(
        space=inputs.anchor.name,
        fingerprint=inputs.anchor.fingerprint,
        fingerprint_after=after,
        verified=verified,
        dim=inputs.anchor.dim,
        modalities=inputs.anchor.modalities,
    )


def _data(inputs: RunInputs, recipe: Recipe) -> DataReport:
    return DataReport(
        name=inputs.data.name,
        licence=inputs.data.licence,
        train_pairs=_count_pairs(inputs.data.train),
        test_pairs=_count_pairs(inputs.data.test),
        overlap=inputs.data.overlap,
        skipped=inputs.data.skipped,
        train_languages=recipe.data.train_languages,
        fold=recipe.data.test_fold,
    )


def _count_pairs(samples: Sequence[Sample]) -> int:
    return sum(max(1, len(sample.captions)) for sample in samples)


def _retrieval_rows(measured: Measured) -> tuple[RetrievalRow, ...]:
    """Return all rows; those between two of several towers say what was to be expected."""
    of_pictures = {
        (row.query, row.language): row.score.metrics["recall_at_10"].value
        for row in measured.retrieval
        if row.target == "image" and row.control == "none"
    }
    bound = []
    for row in measured.bound:
        sides = [
            of_pictures.get((side, row.language), of_pictures.get((side, "")))
            for side in (row.query, row.target)
        ]
        via = None if None in sides else math.prod(side or 0.0 for side in sides)
        update = {"bound": True, "via_pictures": via}
        bound.append(_retrieval(row, False).model_copy(update=update))
    return (
        *(_retrieval(row, False) for row in measured.retrieval),
        *bound,
        *(_retrieval(row, True) for row in measured.reference),
    )


def _languages(
    measured: Measured,
    rows: Sequence[RetrievalRow],
    table: LanguageTable,
    recipe: Recipe,
    is_unmoved: bool,
) -> LanguagesReport | None:
    own = [row for row in measured.retrieval if row.control == "none"]
    means = [
        LanguageMean(
            query=mean.direction.query,
            target=mean.direction.target,
            anchor_language=mean.direction.anchor_language or None,
            from_anchor=mean.direction.from_anchor,
            reference=kind == "reference",
            bound=kind == "bound",
            languages=mean.languages,
            **{
                name: Metric.model_validate(metric, from_attributes=True)
                for name, metric in mean.metrics.items()
            },
        )
        for kind, found in (
            ("own", own),
            ("bound", measured.bound),
            ("reference", measured.reference),
        )
        for mean in mean_over_languages(
            found,
            measured.trained_languages,
            resamples=recipe.evaluation.bootstrap,
            seed=recipe.seed,
        )
    ]
    return build_languages(rows, means, table, measured.trained_languages, is_unmoved=is_unmoved)


def _retrieval(row: protocol.RetrievalRow, reference: bool) -> RetrievalRow:
    score = row.score
    metrics = {
        name: Metric.model_validate(metric, from_attributes=True)
        for name, metric in score.metrics.items()
    }
    return RetrievalRow(
        query=row.query,
        target=row.target,
        language=row.language or None,
        anchor_language=row.anchor_language or None,
        from_anchor=row.from_anchor,
        split=row.split,
        trained=row.trained,
        control=row.control,
        reference=reference,
        n_queries=score.n_queries,
        n_targets=score.n_targets,
        n_skipped=score.n_skipped,
        metrics=RetrievalMetrics.model_validate({**metrics, "median_rank": score.median_rank}),
        median_rank_chance=score.median_rank_chance,
        median_rank_ci95=score.median_rank_ci95,
    )


def _zero_shot(row: protocol.ZeroShotRow) -> ZeroShotRow:
    return ZeroShotRow(
        modality=row.modality,
        dataset=row.dataset,
        language=row.language,
        control=row.control,
        n_items=row.score.n_items,
        n_classes=row.score.n_classes,
        metrics=ZeroShotMetrics(top1=Metric.model_validate(row.score.top1, from_attributes=True)),
    )


def _gap(row: protocol.GapRow) -> GapRow:
    return GapRow(
        modality_a=row.modality_a,
        modality_b=row.modality_b,
        centroid_distance=row.score.centroid_distance,
        alignment=row.score.alignment,
        uniformity=row.score.uniformity,
    )


def _sum(row: protocol.SumRow) -> SumRow:
    def metric(score: RetrievalScore) -> Metric:
        return Metric.model_validate(score.metrics["recall_at_10"], from_attributes=True)

    return SumRow(
        first=row.first,
        second=row.second,
        target=row.target,
        split=row.split,
        n_queries=row.score.both.n_queries,
        n_targets=row.score.both.n_targets,
        both=metric(row.score.both),
        first_alone=metric(row.score.first_alone),
        second_alone=metric(row.score.second_alone),
    )


def _loss_curve(directory: RunDirectory) -> tuple[LossPoint, ...]:
    steps = directory.read_metrics("step")
    stride = max(1, math.ceil(len(steps) / LOSS_POINTS))
    return tuple(
        LossPoint(step=s["step"], loss=s["loss"], chance_loss=s["chance_loss"])
        for s in (*steps[:-1:stride], *steps[-1:])
    )


def read_versions() -> dict[str, str]:
    """Return the versions that results may depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def read_commit() -> str | None:
    """Return the commit of the checkout that modalbind runs from, or None outside of one."""
    folder = Path(__file__).resolve().parent
    try:
        # An installed copy may lie in the checkout of another project, which does not track it.
        _ask_git(folder, "ls-files", "--error-unmatch", Path(__file__).name)
        return _ask_git(folder, "rev-parse", "HEAD")
    except (OSError, subprocess.SubprocessError):
        return None


def _ask_git(folder: Path, *words: str) -> str:
    asked = ["git", "-C", str(folder), *words]
    return subprocess.run(
        asked, capture_output=True, text=True, timeout=5, check=True
    ).stdout.strip()


def _command() -> str:
    return shlex.join(["modalbind", *sys.argv[1:]]) if "modalbind" in sys.argv[0] else ""
