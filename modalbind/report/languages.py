"""What a report says of languages: each with its resources, beside English, and what that means."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from modalbind.report.parts import Directed, Metric, Part

Flag = Literal["", "not covered by the text tower", "lost by the tower", "far below the others"]


class LanguageRow(Directed):
    """One direction in one language."""

    reference: bool = Field(default=False, description="Both sides are the anchor's own.")
    language: str
    level: str = Field(description="Resource level, or the group declared for the language.")
    share: float | None = Field(
        default=None, description="Of the text that the encoder learnt from, where it is known."
    )
    recall_at_1: Metric
    recall_at_10: Metric
    ratio_to_english: float | None = Field(
        default=None, description="Of recall@10, in the same direction."
    )
    flag: Flag = ""


class LanguageMean(Directed):
    """One direction, averaged over the languages that training did not see."""

    reference: bool = False
    languages: tuple[str, ...]
    recall_at_1: Metric
    recall_at_10: Metric


class LanguageCorrelation(Directed):
    """Whether languages with more text in pre-training score higher, in one direction."""

    reference: bool = False
    spearman: float
    p: float = Field(description="Two-sided, by permutation.")
    n_languages: int


class LanguagesReport(Part):
    """Everything about languages."""

    source: str = Field(description="Where levels and shares come from.")
    trained: tuple[str, ...] = Field(description="Languages that training saw.")
    groups: dict[str, tuple[str, ...]] = Field(description="Languages by level.")
    rows: tuple[LanguageRow, ...]
    means: tuple[LanguageMean, ...] = ()
    correlations: tuple[LanguageCorrelation, ...] = ()
    findings: tuple[str, ...] = Field(default=(), description="What stands out, in words.")

    def find_mean(self, row: Directed, reference: bool) -> LanguageMean | None:
        """Return the mean over languages of a row's direction, if there is one."""
        for mean in self.means:
            if (mean.direction, mean.anchor_language, mean.from_anchor, mean.reference) == (
                row.direction,
                row.anchor_language,
                row.from_anchor,
                reference,
            ):
                return mean
        return None


class ClosedFormRow(Directed):
    """One map onto the frozen features, in one direction."""

    solver: str
    centre: bool = Field(description="Whether both sides were centred before the fit.")
    components: int | None = Field(default=None, description="Canonical pairs kept by `cca`.")
    is_run: bool = Field(default=False, description="The run's own tower.")
    score: Metric = Field(description="Recall@10 in the language of training, or without any.")
    others: Metric | None = Field(
        default=None, description="Mean recall@10 over the languages that training did not see."
    )

    @property
    def name(self) -> str:
        """`procrustes, centred`; the run's own is marked."""
        kept = "" if self.components is None else f" {self.components}"
        if self.is_run:
            return f"{self.solver} (this run)"
        return f"{self.solver}{kept}, {'centred' if self.centre else 'uncentred'}"


class LinearMapReport(Part):
    """What kind of map a linear head is."""

    singular_values: tuple[float, ...]
    effective_rank: float = Field(description="Exponential of the entropy of singular values.")
    rotation: float = Field(description="Cosine to the nearest rotation; 1 is one.")
