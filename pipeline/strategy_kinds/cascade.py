"""The ``cascade`` section of a job file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from budgets.value import DEFAULT_ALPHA
from pipeline.section import Section
from pipeline.strategy_kinds.base import StrategySection


class StageSpec(Section):
    """One model of the cascade, voted over until it is sure or has had its samples."""

    model: str = Field("", description="One of the job's models; default: the job's model")
    min_samples: int = Field(1, ge=1)
    max_samples: int = Field(8, ge=1)
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Its answer stands once the leader's posterior is this")

    @model_validator(mode="after")
    def _ordered(self) -> StageSpec:
        if self.min_samples > self.max_samples:
            raise ValueError(f"min_samples ({self.min_samples}) must not exceed max_samples ({self.max_samples})")
        return self


class CascadeSpec(StrategySection):
    """A small model first, a larger one for what stays contested (Chen et al. 2023; Yue et al. 2023)."""

    kind: Literal["cascade"] = "cascade"
    stages: list[StageSpec] = Field(min_length=2, description="In the order they are asked, the cheapest first")
    keep_votes: float = Field(0.0, ge=0, le=1, description="What a vote of an earlier stage is worth in a later one")
    tolerance: float | None = Field(
        None, gt=0, lt=1, description="Learn the thresholds: answers a dearer model may be expected to contradict"
    )
    audit: float = Field(0.02, ge=0, le=1, description="With tolerance: accepted questions that go on to teach")
    alpha: float = Field(
        DEFAULT_ALPHA, ge=0, allow_inf_nan=False, description="A bid falls with samples drawn to this power"
    )

    @property
    def least(self) -> int:
        return self.stages[0].min_samples

    @property
    def most(self) -> int:
        return sum(stage.max_samples for stage in self.stages)

    @property
    def uses(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(stage.model for stage in self.stages if stage.model))

    @field_validator("stages")
    @classmethod
    def _apart(cls, value: list[StageSpec]) -> list[StageSpec]:
        names = [stage.model for stage in value]
        if len(set(names)) < len(names):
            raise ValueError("two stages ask one model: give each stage a model of its own, or raise its max_samples")
        return value
