"""What the quick start promises, at its full size; minutes, so marked slow."""

from __future__ import annotations

from pathlib import Path
from statistics import NormalDist

import pytest

from modalbind import pipeline
from modalbind.recipe import load_recipe
from modalbind.report import RetrievalRow, RunReport

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SEED = 0


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


def test_pictures_and_languages_emerge(tmp_path: Path) -> None:
    recipe = load_recipe("audio/quickstart", (f"seed={SEED}",))
    report = pipeline.align(recipe, out=tmp_path / "run").report
    emergent = find_row(report, "audio", "image", None)
    assert emergent.n_targets >= 256 and not emergent.trained
    reachable = recall_at_10(report, "text", "image", "en")
    assert emergent.metrics.recall_at_10.value >= 0.7 * reachable
    first = emergent.metrics.recall_at_1
    assert first.value >= 10 * first.chance
    english = recall_at_10(report, "audio", "text", "en") / reachable
    languages = {row.language for row in report.retrieval if row.language} - {"en"}
    assert len(languages) >= 8
    for language in languages:
        own = recall_at_10(report, "text", "image", language)
        assert recall_at_10(report, "audio", "text", language) / own >= 0.8 * english, language


def test_shuffled_captions_leave_every_row_at_chance(tmp_path: Path) -> None:
    """No row is above the bound that chance passes in one of twenty whole tables.

    One relevant target a query: recall@10 over n queries is a mean of n draws with probability
    p. The bound is p + z * sqrt(p (1 - p) / n), z for 0.05 over the number of rows (Bonferroni).
    Queries share one pool, so their draws are not independent; the doubled variance allows for it.
    """
    recipe = load_recipe("audio/quickstart", (f"seed={SEED}", "data.shuffle_pairs=true"))
    report = pipeline.align(recipe, out=tmp_path / "run").report
    rows = [row for row in report.retrieval if not row.reference]
    z = NormalDist().inv_cdf(1 - 0.05 / len(rows))
    for row in rows:
        score = row.metrics.recall_at_10
        bound = score.chance + z * (2 * score.chance * (1 - score.chance) / row.n_queries) ** 0.5
        assert score.value <= bound, (row.direction, row.language)
