"""Options of the objectives that the core brings; imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from modalbind.interfaces import Options


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
    learn: bool = Field(default=True, description="Whether the temperature is learned.")
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
        _check_scale(self.temperature, self.max_scale)
        if self.schedule is None:
            return self
        _check_scale(self.schedule.final, self.max_scale)
        if self.learn:
            raise ValueError("schedule asked; learn is true as well; set learn: false")
        return self


class SigmoidOptions(Options):
    """Options of `sigmoid`."""

    temperature: float = Field(
        default=0.1, gt=0, description="At the start; divides the cosine similarity."
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
        _check_scale(self.temperature, self.max_scale)
        return self


class RegressionOptions(Options):
    """Options of `regression`."""

    distance: Literal["mse", "cosine", "l1"] = Field(
        default="cosine",
        description="Mean squared difference, 1 - cosine, or mean absolute difference.",
    )


def _check_scale(temperature: float, max_scale: float) -> None:
    if 1 / temperature > max_scale * (1 + 1e-6):
        raise ValueError(
            f"temperature {temperature:g} asked; its scale {1 / temperature:g} is above max_scale "
            f"{max_scale:g}; raise one of them"
        )
