"""The ``best_of_n`` section of a job file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from budgets.pandora import PRIOR_MEAN, PRIOR_SAMPLES, PRIOR_SPREAD
from budgets.selection import PESSIMISM, SOFTNESS
from pipeline.strategy_kinds.base import StrategySection


class BestOfNSpec(StrategySection):
    """The best of scored samples: of a fixed number, up to Pandora's stop (Kalayci et al. 2025), or up to a pass."""

    kind: Literal["best_of_n"] = "best_of_n"
    score: str = Field(
        "confidence",
        min_length=1,
        description="A verifier of the job by its name, combinations included; confidence: the model's own, "
        "exp(mean log-probability)",
    )
    selection: Literal["argmax", "weighted", "soft", "pessimistic", "majority_of_the_bests"] = Field(
        "argmax",
        description="argmax: the highest score; weighted: votes weighted by score; majority_of_the_bests: what the "
        "best of bootstrapped subsets says most often; soft, pessimistic: a sample drawn by its score",
    )
    stop: Literal["fixed", "pandora", "pass"] = Field(
        "pandora",
        description="fixed: at max_samples; pandora: once another sample is not expected to gain its cost; pass: at "
        "the first sample that passes. pandora stops at a pass too",
    )
    min_samples: int = Field(1, ge=1, description="Every question gets these before any gets more")
    max_samples: int = Field(16, ge=1, description="No question gets more than these")
    cost_per_sample: float = Field(
        0.02, ge=0, le=1, description="pandora: what a sample must be expected to add to the best score; 0: the market"
    )
    pass_score: float = Field(1.0, gt=0, le=1, description="pass, pandora: the score that ends a question")
    softness: float = Field(SOFTNESS, gt=0, allow_inf_nan=False, description="soft: λ, in units of score")
    pessimism: float = Field(PESSIMISM, gt=0, allow_inf_nan=False, description="pessimistic: β, in units of score")
    prior_mean: float = Field(PRIOR_MEAN, ge=0, le=1, description="Mean score before a question's first sample")
    prior_spread: float = Field(PRIOR_SPREAD, ge=0, le=1, description="Standard deviation of scores before the first")
    prior_samples: float = Field(
        PRIOR_SAMPLES, gt=0, allow_inf_nan=False, description="How many scores those two count as"
    )
    prior_passes: float = Field(1.0, gt=0, allow_inf_nan=False, description="pass: Beta prior of the pass rate")
    prior_failures: float = Field(1.0, gt=0, allow_inf_nan=False, description="pass: Beta prior of the pass rate")

    @property
    def least(self) -> int:
        return self.min_samples

    @property
    def most(self) -> int:
        return self.max_samples

    @property
    def checks(self) -> tuple[str, ...]:
        return () if self.score == "confidence" else (self.score,)

    @model_validator(mode="after")
    def _works(self) -> BestOfNSpec:
        if self.min_samples > self.max_samples:
            raise ValueError(f"min_samples ({self.min_samples}) must not exceed max_samples ({self.max_samples})")
        if self.stop == "pass" and self.score == "confidence" and self.pass_score == 1.0:
            raise ValueError(
                "stop: pass never comes with score: confidence and pass_score 1.0, for no model is quite certain; "
                "set pass_score below 1, or score to a verifier"
            )
        return self
