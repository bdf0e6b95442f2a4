"""What rows of a test say of languages: each rule on rows that break it and rows that do not."""

from __future__ import annotations

import pytest

from modalbind.language_report import build_languages
from modalbind.languages import NO_TABLE, LanguageTable, find_table
from modalbind.report import Metric, RetrievalMetrics, RetrievalRow

CHANCE = 0.03
NAMES = tuple(f"recall_at_{k}" for k in (1, 5, 10)) + tuple(f"hit_at_{k}" for k in (1, 5, 10))


def row(
    language: str | None,
    value: float,
    target: str = "text",
    query: str = "audio",
    first: float | None = None,
    **more: object,
) -> RetrievalRow:
    def metric(score: float) -> Metric:
        return Metric(value=score, chance=CHANCE, ci95=(max(0.0, score - 0.02), score + 0.02))

    values = dict.fromkeys((*NAMES, "map_at_10"), metric(value))
    values["recall_at_1"] = metric(value if first is None else first)
    metrics = RetrievalMetrics(**values, median_rank=1.0)
    return RetrievalRow(
        query=query, target=target, language=language, split="test", n_queries=100, n_targets=100,
        metrics=metrics, **{"trained": language == "en" and target == "text", **more},
    )  # fmt: skip


def reference(language: str, value: float) -> RetrievalRow:
    return row(language, value, "image", "text", reference=True, trained=False)


def build(rows: list[RetrievalRow], table: LanguageTable = NO_TABLE, is_unmoved: bool = True):
    return build_languages(rows, [], table, {"en"}, is_unmoved=is_unmoved)


def flags(report) -> dict[str, str]:
    return {each.language: each.flag for each in report.rows if each.flag and not each.reference}


OTHERS = [row("en", 0.9), row("de", 0.8), row("fr", 0.7)]


def test_one_language_has_no_report() -> None:
    assert build([row("en", 0.9), row(None, 0.5, "image")]) is None


def test_each_language_stands_beside_english_with_its_level_and_share() -> None:
    report = build([*OTHERS, row("sw", 0.45)], find_table("cc100", []))
    told = {each.language: each for each in report.rows}
    assert told["sw"].ratio_to_english == pytest.approx(0.5) and told["sw"].level == "low"
    assert told["en"].share > told["de"].share > told["sw"].share
    assert report.groups == {"high": ("en", "de", "fr"), "low": ("sw",)}
    (correlation,) = report.correlations
    assert correlation.spearman == pytest.approx(1) and correlation.n_languages == 4
    assert report.findings == ()


def test_at_chance_as_the_anchor_itself_is_means_not_covered() -> None:
    report = build([*OTHERS, row("sw", CHANCE), reference("en", 0.9), reference("sw", CHANCE)])
    assert flags(report) == {"sw": "not covered by the text tower"}
    assert report.findings == ("sw: not covered by the text tower (audio → text, text → image)",)


def test_at_chance_where_the_anchor_does_well_means_lost() -> None:
    report = build([*OTHERS, row("sw", CHANCE), reference("en", 0.9), reference("sw", 0.8)])
    assert flags(report) == {"sw": "lost by the tower"}


@pytest.mark.parametrize(
    ("table", "flag"),
    [
        ("use-multilingual", "not covered by the text tower"),
        ("cc100", "lost by the tower"),
        ("world", "not covered by the text tower"),
    ],
)
def test_without_the_anchors_own_row_the_table_decides(table: str, flag: str) -> None:
    report = build([*OTHERS, row("hi", CHANCE)], find_table(table, []))
    if table == "world":
        report = build([*OTHERS, row("xx", CHANCE)], find_table(table, []))
    assert set(flags(report).values()) == {flag}


def test_where_english_fails_no_language_is_blamed() -> None:
    assert flags(build([row("en", CHANCE), row("de", CHANCE), row("fr", 0.5)])) == {}


def test_one_language_far_below_is_singled_out_and_all_of_them_are_not() -> None:
    assert flags(build([*OTHERS, row("sw", 0.1)])) == {"sw": "far below the others"}
    assert flags(build([row("en", 0.9), row("de", 0.2), row("fr", 0.2), row("sw", 0.1)])) == {}


def test_right_neighbours_in_a_wrong_order_are_a_weak_head() -> None:
    (finding,) = build([row("en", 0.9, first=0.2), *OTHERS[1:]]).findings
    assert "weak" in finding or "stronger head" in finding
    assert build([row("en", 0.9, first=0.4), *OTHERS[1:]]).findings == ()
    assert build([row("en", 0.4, first=0.05), *OTHERS[1:]]).findings == ()


def test_pictures_that_are_not_found_are_explained() -> None:
    lost = row(None, CHANCE, "image")
    says = build([*OTHERS, lost, reference("en", 0.9), reference("de", 0.9)]).findings
    assert "did not emerge" in says[0]
    says = build([*OTHERS, lost, reference("en", CHANCE), reference("de", CHANCE)]).findings
    assert "not joint" in says[-1]
    says = build([*OTHERS, lost, reference("en", 0.9)], is_unmoved=False).findings
    assert "the anchor moved" in says[0]
    assert build([*OTHERS, row(None, 0.5, "image"), reference("en", 0.9)]).findings == ()


def test_controls_say_nothing() -> None:
    control = row("xx", CHANCE, control="shuffled", trained=False)
    assert "xx" not in {each.language for each in build([*OTHERS, control]).rows}
