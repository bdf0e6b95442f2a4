"""Options of the objectives that the core brings; imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from modalbind.interfaces import Options

SideTemperatures = dict[str, Annotated[float, Field(gt=0)]]
"""Temperature at the start by anchor side."""


class TemperatureSchedule(Options):
    """A temperature that follows the progress of training instead of being learned."""

    kind: Literal["linear", "cosine"] = Field(
        default="cosine", description="How the temperature goes from its first to `final`."
    )
    final: float = Field(gt=0, description="Temperature at the end, or at the far end of a swing.")
    swings: float = Field(
        default=0.5,
        gt=0,
        description="Periods of `cosine` in a run: 0.5 goes there once, whole numbers come back.",
    )


class InfoNceOptions(Options):
    """Options of `infonce`."""

    temperature: float = Field(
        default=0.07, gt=0, description="At the start; divides the cosine similarity."
    )
    side_temperatures: SideTemperatures = Field(
        default_factory=dict,
        description="The same for single anchor sides (`image: 0.2`); the others take "
        "`temperature`. Each side has a temperature of its own, learned or not.",
    )
    learn: bool = Field(default=True, description="Whether temperatures are learned.")
    schedule: TemperatureSchedule | None = Field(
        default=None, description="Temperature over the run; needs `learn: false`."
    )
    max_scale: float = Field(
        default=100.0, gt=0, description="Largest 1 / temperature that learning may reach."
    )
    direction: Literal["both", "modality_to_anchor", "anchor_to_modality"] = Field(
        default="both", description="Which side asks; `both` averages the two."
    )
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=1, description="Share of the target spread over all candidates."
    )

    @model_validator(mode="after")
    def _check_temperature(self) -> InfoNceOptions:
        _check_scale(self.max_scale, self.temperature, *self.side_temperatures.values())
        if self.schedule is None:
            return self
        if self.side_temperatures:
            raise ValueError("schedule asked; side_temperatures stay what they are; drop one")
        _check_scale(self.max_scale, self.schedule.final)
        if self.learn:
            raise ValueError("schedule asked; learn is true as well; set learn: false")
        return self


class SigmoidOptions(Options):
    """Options of `sigmoid`."""

    temperature: float = Field(
        default=0.1, gt=0, description="At the start; divides the cosine similarity."
    )
    side_temperatures: SideTemperatures = Field(
        default_factory=dict,
        description="The same for single anchor sides (`image: 0.2`); the others take "
        "`temperature`. Each side has a temperature and a bias of its own.",
    )
    bias: float = Field(
        default=-10.0,
        description="Logit bias at the start; far below zero, as most pairs do not match.",
    )
    learn: bool = Field(default=True, description="Whether temperature and bias are learned.")
    max_scale: float = Field(
        default=100.0, gt=0, description="Largest 1 / temperature that learning may reach."
    )

    @model_validator(mode="after")
    def _check_temperature(self) -> SigmoidOptions:
        _check_scale(self.max_scale, self.temperature, *self.side_temperatures.values())
        return self


class RegressionOptions(Options):
    """Options of `regression`."""

    distance: Literal["mse", "cosine", "l1"] = Field(
        default="cosine",
        description="Mean squared difference, 1 - cosine, or mean absolute difference.",
    )
    weight: float = Field(default=1.0, ge=0, description="Of the distance; METAL takes 44 or 48.")
    structure: Literal["none", "full", "upper"] = Field(
        default="none",
        description="Also match the cosines within the batch: all of them (`full`), or each pair "
        "of different rows once (`upper`).",
    )
    structure_weight: float = Field(default=1.0, gt=0, description="Of that term.")


def _check_scale(max_scale: float, *temperatures: float) -> None:
    for temperature in temperatures:
        if 1 / temperature > max_scale * (1 + 1e-6):
            raise ValueError(
                f"temperature {temperature:g} asked; its scale {1 / temperature:g} is above "
                f"max_scale {max_scale:g}; raise one of them"
            )
