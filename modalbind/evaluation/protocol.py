"""One way to measure a run: every direction, every language, every class list.

Pure: pools in, rows out. Whether a direction was trained is told by what was paired, never
guessed from a score.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor

from modalbind.errors import DataError
from modalbind.evaluation.gap import GapScore, compute_gap
from modalbind.evaluation.pools import Pool
from modalbind.evaluation.retrieval import RetrievalScore, compute_retrieval
from modalbind.evaluation.sums import SumScore, score_sum
from modalbind.evaluation.zero_shot import ZeroShotScore, compute_zero_shot
from modalbind.recipe.schema import EvaluationSection

Control = Literal["none", "shuffled", "trivial"]
Paired = Collection[tuple[str, str, str]]
"""`(modality, its language, the sample's language)` of what training paired; "" is none."""


@dataclass(frozen=True, slots=True)
class ScoredItems:
    """What a row was scored on, in the order of its score's per-item values.

    Attributes:
        keys: What each item is, the same in every run that tests on it.
        groups: Items of a group are resampled together.
    """

    keys: tuple[Any, ...]
    groups: tuple[str, ...]

    @classmethod
    def pick(cls, pool: Pool, rows: Sequence[int]) -> ScoredItems:
        """Return those of some items of a pool."""
        return cls(tuple(pool.keys[i] for i in rows), tuple(pool.groups[i] for i in rows))


@dataclass(frozen=True, slots=True)
class RetrievalRow:
    """One direction.

    Attributes:
        query: Modality that asks.
        target: Modality that is retrieved.
        language: Of the samples if they have one, else of the anchor's text, else empty.
        anchor_language: Of the anchor's text where the samples have a language too, else empty.
        from_anchor: Whether the anchor's items ask and the samples are retrieved.
        split: Of the test.
        trained: Whether training paired the two sides in these languages.
        control: Whose embeddings the samples have.
        score: What was found.
        items: The queries it was scored on.
    """

    query: str
    target: str
    language: str
    anchor_language: str
    from_anchor: bool
    split: str
    trained: bool
    control: Control
    score: RetrievalScore
    items: ScoredItems


@dataclass(frozen=True, slots=True)
class ZeroShotRow:
    """One classification in one language."""

    modality: str
    dataset: str
    language: str
    control: Control
    score: ZeroShotScore
    items: ScoredItems


@dataclass(frozen=True, slots=True)
class SumRow:
    """The sum of two modalities' parts, asked for the whole in a third."""

    first: str
    second: str
    target: str
    split: str
    score: SumScore


@dataclass(frozen=True, slots=True)
class GapRow:
    """How far apart two modalities lie."""

    modality_a: str
    modality_b: str
    score: GapScore


@dataclass(frozen=True, slots=True)
class ClassSet:
    """Classes in one language, and the label of each sample that has one.

    Attributes:
        dataset: Name in the report.
        language: Of the prompts.
        prompts: Class vectors `(c, dim)`.
        rows: Int64, which samples have a label.
        labels: Int64, their classes.
    """

    dataset: str
    language: str
    prompts: Tensor
    rows: Tensor
    labels: Tensor


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a row says beside its two sides; see `RetrievalRow`."""

    language: str
    anchor_language: str
    trained: bool
    control: Control = "none"
    from_anchor: bool = False


@dataclass(frozen=True, slots=True)
class Protocol:
    """What all rows of a test share."""

    section: EvaluationSection
    split: str
    seed: int
    paired: Paired

    @property
    def trained_languages(self) -> set[str]:
        """Languages that training saw on either side; English if it saw none."""
        seen = {language for _, *both in self.paired for language in both if language}
        return seen or {"en"}

    def score_samples(
        self, samples: Pool, pools: Sequence[Pool], control: Control = "none"
    ) -> list[RetrievalRow]:
        """Score samples against every pool, in both directions."""
        rows: list[RetrievalRow] = []
        for pool in pools:
            rows += self._score_both(samples, pool, control)
        return rows

    def score_anchor(self, pools: Sequence[Pool]) -> list[RetrievalRow]:
        """Score the anchor space's own text to image retrieval: the most that can emerge."""
        images = [pool for pool in pools if pool.modality == "image"]
        texts = [pool for pool in pools if pool.modality == "text"]
        rows: list[RetrievalRow] = []
        for image in images:
            for text in texts:
                rows += self._score_one(text, image, _Kind(text.language, "", False))
        return rows

    def _score_both(self, samples: Pool, pool: Pool, control: Control) -> list[RetrievalRow]:
        pair = (pool.modality, pool.language, samples.language)
        kind = _Kind(
            samples.language or pool.language,
            pool.language if samples.language else "",
            control == "none" and pair in self.paired,
            control,
        )
        return [
            *self._score_one(samples, pool, kind),
            *self._score_one(pool, samples, replace(kind, from_anchor=True)),
        ]

    def _score_one(self, query: Pool, target: Pool, kind: _Kind) -> list[RetrievalRow]:
        try:
            score = compute_retrieval(
                query.embeddings,
                target.embeddings,
                query.labels,
                target.labels,
                query_groups=query.groups,
                bootstrap=self.section.bootstrap,
                seed=self.seed,
                tile=self.section.tile,
            )
        except DataError:
            # Nothing in this pool belongs to any query: there is no score to tell.
            return []
        items = ScoredItems.pick(query, score.query_index.tolist())
        row = RetrievalRow(
            query.modality,
            target.modality,
            kind.language,
            kind.anchor_language,
            kind.from_anchor,
            self.split,
            kind.trained,
            kind.control,
            score,
            items,
        )
        return [row]

    def score_classes(
        self, samples: Pool, sets: Sequence[ClassSet], control: Control = "none"
    ) -> list[ZeroShotRow]:
        """Classify samples by class names, in every language there is."""
        rows = []
        for found in sets:
            items = ScoredItems.pick(samples, found.rows.tolist())
            score = compute_zero_shot(
                samples.embeddings[found.rows],
                found.prompts,
                found.labels,
                groups=items.groups,
                bootstrap=self.section.bootstrap,
                seed=self.seed,
            )
            row = ZeroShotRow(
                samples.modality, found.dataset, found.language, control, score, items
            )
            rows.append(row)
        return rows

    def score_sum(
        self,
        names: tuple[str, str],
        parts: tuple[Tensor, Tensor],
        target: tuple[str, Tensor],
        labels: tuple[Tensor, Tensor],
    ) -> SumRow:
        """Score the sum of two parts against one target modality.

        Args:
            names: Modalities of the parts.
            parts: Their embeddings, each `(n, dim)`.
            target: Modality and embeddings `(m, dim)`.
            labels: Of queries and targets; queries of one label are resampled together.
        """
        score = score_sum(
            parts,
            target[1],
            labels,
            groups=[str(label) for label in labels[0].tolist()],
            bootstrap=self.section.bootstrap,
            seed=self.seed,
        )
        return SumRow(*names, target[0], self.split, score)

    def score_gaps(self, samples: Pool, pools: Sequence[Pool]) -> list[GapRow]:
        """Measure the gap to every anchor modality, in English where it has languages."""
        rows = []
        for pool in pools:
            if pool.language not in ("", "en") or min(len(samples.labels), len(pool.labels)) < 2:
                continue
            score = compute_gap(
                samples.embeddings, pool.embeddings, samples.labels, pool.labels, seed=self.seed
            )
            rows.append(GapRow(samples.modality, pool.modality, score))
        return rows
