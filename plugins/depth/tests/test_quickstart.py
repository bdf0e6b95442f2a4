"""What the quick start promises, at its full size; minutes, so marked slow."""

from __future__ import annotations

from pathlib import Path

import pytest

from modalbind import pipeline
from modalbind.recipe import load_recipe
from modalbind.report import RetrievalRow, RunReport

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODALBIND_CACHE", str(tmp_path / "cache"))


def find_row(report: RunReport, query: str, target: str, language: str | None) -> RetrievalRow:
    (row,) = [
        row
        for row in report.retrieval
        if (row.query, row.target, row.language) == (query, target, language)
    ]
    return row


def recall_at_10(report: RunReport, query: str, target: str, language: str | None) -> float:
    return find_row(report, query, target, language).metrics.recall_at_10.value


@pytest.mark.parametrize("draw", [0, 7])
def test_pictures_and_languages_emerge(tmp_path: Path, draw: int) -> None:
    recipe = load_recipe("depth/quickstart", (f"data.sources.0.seed={draw}",))
    report = pipeline.align(recipe, out=tmp_path / "run").report
    emergent = find_row(report, "depth", "image", None)
    assert emergent.n_targets >= 256 and not emergent.trained
    first = emergent.metrics.recall_at_10
    assert first.value >= 10 * first.chance
    english = recall_at_10(report, "depth", "text", "en")
    assert english >= 0.88
    languages = {row.language for row in report.retrieval if row.language} - {"en"}
    assert len(languages) >= 8
    for language in languages:
        assert recall_at_10(report, "depth", "text", language) >= 0.9 * english, language


def test_shuffled_captions_leave_english_at_chance(tmp_path: Path) -> None:
    recipe = load_recipe("depth/quickstart", ("data.shuffle_pairs=true",))
    report = pipeline.align(recipe, out=tmp_path / "run").report
    score = find_row(report, "depth", "text", "en").metrics.recall_at_10
    # Of 320 queries, chance 10 / 320: four deviations of their mean, doubled for the common pool.
    deviation = (2 * score.chance * (1 - score.chance) / 320) ** 0.5
    assert score.value <= score.chance + 4 * deviation
