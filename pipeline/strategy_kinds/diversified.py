"""The ``diversified`` section of a job file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from budgets.value import DEFAULT_ALPHA
from pipeline.strategy_kinds.arms import WAYS, ArmSpec, distinct_names
from pipeline.strategy_kinds.base import StrategySection


class DiversifiedSpec(StrategySection):
    """Short probes over several ways to ask; only those that differ are paid to the end."""

    kind: Literal["diversified"] = "diversified"
    arms: list[ArmSpec] = Field(
        default_factory=list,
        description="Ways to ask, probed equally often; default: the prompt, and with two instructions in front of it",
    )
    probes: int = Field(8, ge=1, le=256, description="Beginnings drawn of a question, all arms together")
    probe_tokens: int = Field(32, ge=1, description="Tokens of a beginning; fewer than sampling.max_tokens")
    similarity: float = Field(
        0.95, gt=0, le=1, description="Cosine of two beginnings' embeddings from which they count as near-duplicates"
    )
    keep: int = Field(1, ge=1, description="Completed candidates a cluster may have before the rest of it is cut")
    weight: Literal["cluster", "one"] = Field(
        "cluster", description="A candidate's vote: as many as the beginnings it stands for, or one"
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Stop once the leader's posterior reaches this")
    alpha: float = Field(
        DEFAULT_ALPHA, ge=0, allow_inf_nan=False, description="A bid falls with candidates there to this power"
    )

    @property
    def least(self) -> int:
        return 2

    @property
    def most(self) -> int:
        return 2 * self.probes

    @property
    def uses(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(arm.model for arm in self.arms if arm.model))

    @property
    def settles(self) -> tuple[str, ...]:
        return WAYS if self.arms else ("template",)

    @property
    def embeds(self) -> bool:
        return self.probes > 1

    @property
    def begins(self) -> int:
        return self.probe_tokens

    @field_validator("arms")
    @classmethod
    def _distinct(cls, arms: list[ArmSpec]) -> list[ArmSpec]:
        return distinct_names(arms)

    @model_validator(mode="after")
    def _a_probe_each(self) -> DiversifiedSpec:
        if len(self.arms) > self.probes:
            raise ValueError(f"probes ({self.probes}) must not be fewer than arms ({len(self.arms)}): raise probes")
        return self
