"""Two runs, or sweeps, on the same test items: what `evaluate --against` prints."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from modalbind.report.parts import Directed, Interval, Part


class ComparisonRow(Directed):
    """One metric of one direction, or of one classification."""

    target: str = Field(description="What is retrieved, or the data set whose classes are told.")
    language: str | None = Field(
        default=None, description="`mean`: over the languages that training did not see."
    )
    split: str
    metric: str
    value: float
    other: float
    difference: float = Field(description="`value` less `other`.")
    ci95: Interval = Field(description="Of the difference, over groups of test items.")
    n_items: int

    @property
    def verdict(self) -> Literal["better", "worse", "no difference shown"]:
        """Say on which side of zero the interval lies."""
        if self.ci95[0] > 0:
            return "better"
        return "worse" if self.ci95[1] < 0 else "no difference shown"


class Comparison(Part):
    """Every row that both have."""

    format: Literal[1] = 1
    run: str
    other: str
    rows: tuple[ComparisonRow, ...]


class AblationVariant(Part):
    """One variant of a recipe, and what it changes."""

    name: str
    changes: tuple[str, ...]


class Ablation(Part):
    """Variants of a recipe, each beside the first: what `modalbind ablate` writes."""

    format: Literal[1] = 1
    name: str
    seeds: tuple[int, ...]
    variants: tuple[AblationVariant, ...]
    comparisons: tuple[Comparison, ...] = Field(
        description="Of each other variant with the first; scores are means over seeds."
    )
