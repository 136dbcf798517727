"""The ``deep_conf`` section of a job file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from budgets.value import DEFAULT_ALPHA
from pipeline.strategy_kinds.base import StrategySection


class DeepConfSpec(StrategySection):
    """Traces the model is unsure of are cut in mid-generation, the sure ones vote (Fu et al. 2025)."""

    kind: Literal["deep_conf"] = "deep_conf"
    warmup: int = Field(16, ge=1, description="N_init: traces generated whole, whose confidences set the bar")
    keep: float = Field(
        90.0,
        gt=0,
        le=100,
        description="η: percent of the warm-up that reaches the bar; 90 is the paper's DeepConf-high, 10 its "
        "DeepConf-low, which cuts most and of a small warm-up leaves one voter, who agrees with himself",
    )
    consensus: float = Field(0.95, gt=0.5, le=1, description="τ: settled once the leader has this share of all weight")
    group: int = Field(
        2048,
        ge=1,
        description="Tokens of a group, below whose bar a trace is cut; a fraction of the length of a trace, and less "
        "than sampling.max_tokens",
    )
    min_samples: int = Field(1, ge=1, description="Every question gets these before any gets more")
    max_samples: int = Field(512, ge=1, description="B: no question gets more traces than these, cut ones included")
    alpha: float = Field(
        DEFAULT_ALPHA, ge=0, allow_inf_nan=False, description="A bid falls with traces drawn to this power"
    )

    @property
    def least(self) -> int:
        return self.min_samples

    @property
    def most(self) -> int:
        return self.max_samples

    @property
    def groups(self) -> int:
        return self.group

    @model_validator(mode="after")
    def _ordered(self) -> DeepConfSpec:
        if self.min_samples > self.warmup:
            raise ValueError(f"min_samples ({self.min_samples}) must not exceed warmup ({self.warmup})")
        if self.warmup > self.max_samples:
            raise ValueError(f"warmup ({self.warmup}) must not exceed max_samples ({self.max_samples})")
        return self
