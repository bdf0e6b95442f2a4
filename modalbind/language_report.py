"""From rows of a test to what they say of languages. Pure rules, each with its threshold.

A language at chance is a failure of training only if the anchor's own text tower knows it; what a
text tower never learnt cannot emerge.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from statistics import median

from modalbind.evaluation.languages import correlate_ranks
from modalbind.languages import UNKNOWN, LanguageTable, order_levels
from modalbind.report.languages import (
    Flag,
    LanguageCorrelation,
    LanguageMean,
    LanguageRow,
    LanguagesReport,
)
from modalbind.report.models import RetrievalRow

ENGLISH = "en"
FAR_BELOW = 0.25
"""Share of English under which a language is singled out, if half of the others keep ..."""
OTHERS_FINE = 0.5
"""... this share: then it is the language, not the direction."""
WEAK_HEAD_RATIO = 1 / 3
"""Recall@1 over recall@10 under which near misses are told from a good order ..."""
WEAK_HEAD_FROM = 0.5
"""... where recall@10 is at least this much."""
SMALLEST_POOL = 50
"""Targets from which on recall@1 over recall@10 says something."""

_Key = tuple[str, str, str | None, bool, bool, bool]


def build_languages(
    rows: Sequence[RetrievalRow],
    means: Sequence[LanguageMean],
    table: LanguageTable,
    trained: Collection[str],
    *,
    is_unmoved: bool,
) -> LanguagesReport | None:
    """Say what a test found in each language; None if it had no two of them.

    Args:
        rows: Of retrieval; controls are left out.
        means: Over the languages that training did not see.
        table: What is known of the text encoder's languages.
        trained: Languages that training saw.
        is_unmoved: Whether the anchor's fingerprint is what it was.
    """
    kept = [row for row in rows if row.control == "none" and row.language]
    languages = list(dict.fromkeys(row.language or "" for row in kept))
    if len(languages) < 2:
        return None
    flagger = _Flagger(kept, table)
    told = tuple(_tell(row, table, flagger) for row in kept)
    levels = {language: table.level(language) for language in languages}
    return LanguagesReport(
        source=table.source,
        trained=tuple(sorted(trained)),
        groups={
            level: tuple(name for name in languages if levels[name] == level)
            for level in order_levels(list(levels.values()))
        },
        rows=told,
        means=tuple(means),
        correlations=tuple(_correlate(told)),
        findings=tuple(_find(rows, told, is_unmoved)),
    )


def _key(row: RetrievalRow | LanguageRow) -> _Key:
    side = (row.query, row.target, row.anchor_language)
    return (*side, row.from_anchor, row.reference, row.bound)


class _Flagger:
    """Knows every row of the test, to tell a language's failure from a direction's."""

    def __init__(self, rows: Sequence[RetrievalRow], table: LanguageTable) -> None:
        self._table = table
        self._rows: dict[_Key, dict[str, RetrievalRow]] = {}
        self._references: dict[str, RetrievalRow] = {}
        for row in rows:
            self._rows.setdefault(_key(row), {})[row.language or ""] = row
            if row.reference:
                self._references[row.language or ""] = row

    def english(self, row: RetrievalRow) -> RetrievalRow | None:
        return self._rows[_key(row)].get(ENGLISH)

    def flag(self, row: RetrievalRow) -> Flag:
        english = self.english(row)
        if english is None or english is row or _is_at_chance(english):
            return ""  # nothing tells the language from the direction
        if _is_at_chance(row):
            return self._explain_chance(row)
        ratios = [
            _recall(other) / _recall(english)
            for language, other in self._rows[_key(row)].items()
            if language not in (ENGLISH, row.language)
        ]
        stands_out = _recall(row) / _recall(english) < FAR_BELOW
        return "far below the others" if stands_out and _are_fine(ratios) else ""

    def _explain_chance(self, row: RetrievalRow) -> Flag:
        language = row.language or ""
        reference = self._references.get(language)
        if reference is not None and not row.reference:
            return (
                "not covered by the text tower"
                if _is_at_chance(reference)
                else ("lost by the tower")
            )
        is_learnt = self._table.level(language) not in ("not covered", UNKNOWN)
        return (
            "lost by the tower"
            if is_learnt and not row.reference
            else ("not covered by the text tower")
        )


def _recall(row: RetrievalRow) -> float:
    return row.metrics.recall_at_10.value


def _are_fine(ratios: Sequence[float]) -> bool:
    return bool(ratios) and median(ratios) >= OTHERS_FINE


def _is_at_chance(row: RetrievalRow) -> bool:
    return row.metrics.recall_at_10.verdict in ("at chance", "below chance")


def _tell(row: RetrievalRow, table: LanguageTable, flagger: _Flagger) -> LanguageRow:
    english = flagger.english(row)
    language = row.language or ""
    return LanguageRow(
        query=row.query,
        target=row.target,
        anchor_language=row.anchor_language,
        from_anchor=row.from_anchor,
        reference=row.reference,
        bound=row.bound,
        language=language,
        level=table.level(language),
        share=table.share(language),
        recall_at_1=row.metrics.recall_at_1,
        recall_at_10=row.metrics.recall_at_10,
        ratio_to_english=_recall(row) / _recall(english) if english and _recall(english) else None,
        flag=flagger.flag(row),
    )


def _correlate(rows: Sequence[LanguageRow]) -> Iterator[LanguageCorrelation]:
    """Hold share against score in every direction, where shares are known."""
    by_direction: dict[_Key, list[LanguageRow]] = {}
    for row in rows:
        if row.share is not None:
            by_direction.setdefault(_key(row), []).append(row)
    for key, found in by_direction.items():
        query, target, anchor_language, from_anchor, reference, bound = key
        correlation = correlate_ranks(
            [row.share or 0.0 for row in found], [row.recall_at_10.value for row in found]
        )
        if correlation is not None:
            yield LanguageCorrelation(
                query=query,
                target=target,
                anchor_language=anchor_language,
                from_anchor=from_anchor,
                reference=reference,
                bound=bound,
                spearman=correlation.value,
                p=correlation.p,
                n_languages=correlation.n,
            )


def _find(
    rows: Sequence[RetrievalRow], told: Sequence[LanguageRow], is_unmoved: bool
) -> Iterator[str]:
    for flag in ("not covered by the text tower", "lost by the tower", "far below the others"):
        found = [row for row in told if row.flag == flag]
        for language in dict.fromkeys(row.language for row in found):
            where = dict.fromkeys(row.direction for row in found if row.language == language)
            yield f"{language}: {flag} ({', '.join(where)})"
    yield from _find_weak_heads(rows)
    yield from _find_missing_pictures(rows, is_unmoved)


def _find_weak_heads(rows: Sequence[RetrievalRow]) -> Iterator[str]:
    for row in rows:
        if not row.trained or row.from_anchor or row.n_targets < SMALLEST_POOL:
            continue
        first, tenth = row.metrics.recall_at_1.value, _recall(row)
        if tenth >= WEAK_HEAD_FROM and first < WEAK_HEAD_RATIO * tenth:
            yield (
                f"{row.direction}: recall@1 {first:.2f} beside recall@10 {tenth:.2f}: the "
                "neighbourhood is right, its order is not; a stronger head or longer training "
                "may help"
            )


def _find_missing_pictures(rows: Sequence[RetrievalRow], is_unmoved: bool) -> Iterator[str]:
    """Tell why text is found and pictures are not, where that is so."""
    plain = [row for row in rows if row.control == "none"]
    texts = [row for row in plain if row.trained and not row.from_anchor and not row.bound]
    pictures = [row for row in plain if row.target == "image" and not row.reference]
    pictures = [row for row in pictures if row.language in (None, ENGLISH) and not row.trained]
    reference = [row for row in plain if row.reference and row.language == ENGLISH]
    if not texts or not pictures or any(map(_is_at_chance, texts)):
        return
    if not all(map(_is_at_chance, pictures)):
        return
    if not is_unmoved:
        yield "text is found, pictures are not: the anchor moved, and its pictures with it"
    elif reference and all(map(_is_at_chance, reference)):
        yield (
            "text is found, pictures are not: the space is not joint, as the anchor's own text "
            "does not find its pictures either"
        )
    else:
        yield "text is found, pictures are not: they did not emerge from what was trained"
