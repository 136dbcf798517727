"""The ``self_consistency`` section of a job file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from budgets.stopping import make_rule
from budgets.value import DEFAULT_ALPHA
from pipeline.errors import SpecError
from pipeline.strategy_kinds.base import StrategySection


class SelfConsistencySpec(StrategySection):
    """Majority vote with adaptive-consistency stopping (Aggarwal et al. 2023), or another stopping rule."""

    kind: Literal["self_consistency"] = "self_consistency"
    min_samples: int = Field(1, ge=1, description="Every question gets these before any gets more")
    max_samples: int = Field(40, ge=1, description="No question gets more than these")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Stop once the leader's posterior reaches this")
    rule: str | None = Field(
        None,
        description="Stopping rule: fixed:N, adaptive_consistency[:form][:threshold], esc[:window] or ppr[:delta]; "
        "default: adaptive_consistency at confidence",
    )
    evidence: Literal["auto", "votes", "sum_logprob", "mean_logprob", "group_confidence", "within_question"] = Field(
        "auto", description="What weighs a vote; auto: mean_logprob where recorded, else plain votes"
    )
    evidence_strength: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="How strongly, per nat; default: measured for the kind"
    )
    evidence_fade: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="Votes at which plain votes weigh as much; default: measured"
    )
    alpha: float = Field(
        DEFAULT_ALPHA, ge=0, allow_inf_nan=False, description="A bid falls with samples drawn to this power"
    )
    prune: Literal["price", "forecast"] = Field(
        "price", description="A flat vote ends when others offer more (price), or also by its own forecast"
    )

    @property
    def least(self) -> int:
        return self.min_samples

    @property
    def most(self) -> int:
        return self.max_samples

    @field_validator("rule")
    @classmethod
    def _known_rule(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                make_rule(value)
            except SpecError as error:
                raise ValueError(str(error)) from None
        return value

    @model_validator(mode="after")
    def _ordered(self) -> SelfConsistencySpec:
        if self.min_samples > self.max_samples:
            raise ValueError(f"min_samples ({self.min_samples}) must not exceed max_samples ({self.max_samples})")
        return self
