"""What every part of a report is made of: frozen models, a score beside chance, a direction."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Interval = tuple[float, float]
TEXT = "text"
"""The one modality that both an anchor and a tower may bring."""


class Part(BaseModel):
    """Base of all parts; built from keywords, or from an object with the same attributes."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, from_attributes=True
    )


class Metric(Part):
    """A score beside what knowing nothing would give."""

    value: float
    chance: float
    ci95: Interval = Field(description="Interval of 95 % over groups of test items.")

    @property
    def verdict(self) -> Literal["", "at chance", "below chance", "chance is 1"]:
        """Say so if the interval does not lie above chance, or cannot: the pool is that small."""
        if self.chance >= 1:
            return "chance is 1"
        if self.ci95[0] > self.chance:
            return ""
        return "below chance" if self.ci95[1] < self.chance else "at chance"


class Directed(Part):
    """Something that is asked of something else."""

    query: str
    target: str
    anchor_language: str | None = Field(
        default=None, description="Of the anchor's text, where the samples have a language too."
    )
    from_anchor: bool = Field(
        default=False, description="Whether the anchor's items ask and samples are retrieved."
    )
    bound: bool = Field(default=False, description="Both sides are towers, of different runs.")

    @property
    def direction(self) -> str:
        """`audio → text`; where text may be the anchor's or a tower's, whose it is is said."""
        if self.bound:
            named = [f"{s} tower" if s == TEXT else s for s in (self.query, self.target)]
            return " → ".join(named)
        if self.query != self.target:
            return f"{self.query} → {self.target}"
        sides = ("anchor ", "") if self.from_anchor else ("", "anchor ")
        return f"{sides[0]}{self.query} → {sides[1]}{self.target}"
