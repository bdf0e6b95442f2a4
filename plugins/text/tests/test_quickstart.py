"""What the quick start promises, at its full size; half a minute, so marked slow."""

from __future__ import annotations

import pytest

from modalbind import pipeline
from modalbind.recipe import load_recipe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def recall_at_10(report, query, target, language):
    (row,) = [
        row
        for row in report.retrieval
        if (row.query, row.target, row.language, row.from_anchor, row.reference)
        == (query, target, language, False, False)
    ]
    return row.metrics.recall_at_10


@pytest.mark.parametrize("draw", [0, 7])
def test_languages_that_never_met_a_picture_find_pictures(tmp_path, draw):
    recipe = load_recipe("text/quickstart", (f"data.sources.0.seed={draw}",))
    report = pipeline.align(recipe, out=tmp_path / "run").report
    english = recall_at_10(report, "text", "image", "en").value
    (anchor,) = [row for row in report.retrieval if row.reference]
    assert english >= 0.9 * anchor.metrics.recall_at_10.value
    languages = {row.language for row in report.retrieval} - {"en", None}
    assert languages >= {"sw", "ko"} and len(languages) == 11
    for language in languages:
        assert recall_at_10(report, "text", "image", language).value >= 0.9 * english, language
        assert recall_at_10(report, "text", "text", language).value >= 0.95, language
    assert len(report.closed_forms) == 22 and report.linear_map is not None


def test_shuffled_sentences_leave_english_at_chance(tmp_path):
    recipe = load_recipe("text/quickstart", ("data.shuffle_pairs=true",))
    report = pipeline.align(recipe, out=tmp_path / "run").report
    score = recall_at_10(report, "text", "text", "en")
    deviation = (2 * score.chance * (1 - score.chance) / 320) ** 0.5
    assert score.value <= score.chance + 4 * deviation
