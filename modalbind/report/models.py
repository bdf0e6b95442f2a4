"""What a report says: one frozen pydantic model for each part of `report.json`.

Scores are fractions in 0..1. Only what is written here can be written to the file, and NaN cannot.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from modalbind.report.languages import ClosedFormRow, LanguagesReport, LinearMapReport
from modalbind.report.parts import Directed, Interval, Metric, Part

Control = Literal["none", "shuffled", "trivial"]
Group = Literal["trained", "bound", "emergent", "anchor", "control"]

GROUPS: dict[Group, str] = {
    "trained": "Trained",
    "bound": "Emergent between towers: each was trained without the other",
    "emergent": "Emergent: never paired in training",
    "anchor": "The anchor alone: what is there to reach",
    "control": "Controls: what is left without the content",
}
"""Groups of rows in the order of the report, with their headings."""


class AnchorReport(Part):
    """The frozen space, and the proof that it did not move."""

    space: str
    fingerprint: str
    fingerprint_after: str
    verified: Literal["weights", "cache", "table"] = Field(
        description="What the fingerprints were taken from."
    )
    dim: int
    modalities: tuple[str, ...]

    @property
    def is_unmoved(self) -> bool:
        """Whether the fingerprint after the run is that before it."""
        return self.fingerprint == self.fingerprint_after


class DataReport(Part):
    """What was trained and tested on."""

    name: str
    licence: str
    train_pairs: int
    test_pairs: int
    overlap: int | None = Field(
        description="Samples in training and in the test; ought to be 0; null: not checked."
    )
    skipped: dict[str, int] = Field(
        default_factory=dict, description="Rows left out, counted by reason."
    )
    train_languages: tuple[str, ...] = ()
    fold: str | None = Field(default=None, description="The fold that was tested, if any.")


class RetrievalMetrics(Part):
    """Metrics of one row of retrieval."""

    recall_at_1: Metric
    recall_at_5: Metric
    recall_at_10: Metric
    hit_at_1: Metric
    hit_at_5: Metric
    hit_at_10: Metric
    map_at_10: Metric
    median_rank: float = Field(description="Of the first relevant target; 1 is best.")


class RetrievalRow(Directed):
    """One direction, in one language, on one split."""

    language: str | None = Field(
        default=None, description="Of the samples if they have one, else of the anchor's text."
    )
    split: str
    trained: bool = Field(description="Whether training paired the two sides in this language.")
    control: Control = "none"
    reference: bool = Field(
        default=False, description="Both sides are the anchor's own: what is there to reach."
    )
    via_pictures: float | None = Field(
        default=None,
        description="Of two towers: the product of their own recall@10 of pictures, which is what "
        "to expect if their errors are independent.",
    )
    n_queries: int
    n_targets: int
    n_skipped: int = Field(default=0, description="Queries to which no target is relevant.")
    metrics: RetrievalMetrics
    median_rank_chance: float | None = None
    median_rank_ci95: Interval | None = None

    @property
    def group(self) -> Group:
        """Where the row stands in the report."""
        if self.control != "none":
            return "control"
        if self.reference:
            return "anchor"
        if self.bound:
            return "bound"
        return "trained" if self.trained else "emergent"


class ZeroShotMetrics(Part):
    """Metrics of one classification."""

    top1: Metric


class ZeroShotRow(Part):
    """One zero-shot classification, in one language."""

    modality: str
    dataset: str
    language: str | None = None
    control: Control = "none"
    n_items: int
    n_classes: int
    metrics: ZeroShotMetrics


class SumRow(Part):
    """The normalised sum of two parts, asked for the whole: recall@10, and each part alone."""

    first: str = Field(description="Modality of one part.")
    second: str = Field(description="Modality of the other.")
    target: str = Field(description="Modality of the whole.")
    split: str
    n_queries: int
    n_targets: int
    both: Metric
    first_alone: Metric
    second_alone: Metric


class BoundRun(Part):
    """One of the runs that were bound together."""

    modality: str
    name: str
    path: str
    anchor: str = Field(description="Fingerprint of the space that it is bound to.")


class GapRow(Part):
    """How far apart two modalities lie."""

    modality_a: str
    modality_b: str
    centroid_distance: float
    alignment: float
    uniformity: float


class CostReport(Part):
    """What the run took."""

    seconds: float
    cpu_seconds: float
    kwh: float | None = None
    pairs_seen: int
    anchor_embeddings_computed: int
    anchor_embeddings_reused: int
    peak_rss_mib: float
    stages: dict[str, float] = Field(default_factory=dict)


class EnvironmentReport(Part):
    """Where the run was made."""

    versions: dict[str, str]
    seed: int
    commit: str | None = None
    device: str


class LossPoint(Part):
    """The loss at one step, beside that of embeddings that know nothing."""

    step: int
    loss: float
    chance_loss: float | None = Field(
        default=None, description="Absent where the objective cannot tell it."
    )


class RunReport(Part):
    """Everything that one run, or one evaluation of it, has to say."""

    format: Literal[1] = Field(default=1, description="Version of this layout.")
    name: str = ""
    command: str = ""
    anchor: AnchorReport
    data: DataReport
    retrieval: tuple[RetrievalRow, ...] = ()
    zero_shot: tuple[ZeroShotRow, ...] = ()
    languages: LanguagesReport | None = Field(
        default=None, description="Of a test in several languages."
    )
    closed_forms: tuple[ClosedFormRow, ...] = Field(
        default=(), description="Maps in closed form beside a head on frozen features."
    )
    linear_map: LinearMapReport | None = Field(
        default=None, description="What kind of map a linear head is."
    )
    gap: tuple[GapRow, ...] = ()
    sums: tuple[SumRow, ...] = ()
    runs: tuple[BoundRun, ...] = Field(
        default=(), description="The runs, where several are bound together."
    )
    cost: CostReport
    environment: EnvironmentReport
    loss: tuple[LossPoint, ...] = ()
    recipe: dict[str, Any] = Field(default_factory=dict, description="As resolved.")
    notes: tuple[str, ...] = Field(default=(), description="What a reader ought to know.")
