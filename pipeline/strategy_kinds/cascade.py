"""The ``cascade`` section of a job file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from budgets.value import DEFAULT_ALPHA
from pipeline.section import Section
from pipeline.strategy_kinds.arms import parsed_templates
from pipeline.strategy_kinds.base import StrategySection, known_rule


class StageSpec(Section):
    """One model of a cascade, and when its vote is good enough."""

    model: str = Field("", description="One of the job's models; default: the job's model")
    min_samples: int = Field(
        1, ge=1, description="Samples a question that comes here gets before its vote is looked at"
    )
    max_samples: int = Field(20, ge=1, description="Samples of this model a question gets at most")
    confidence: float = Field(
        0.95, gt=0.5, lt=1, description="The question stays here once the leader's posterior is so"
    )
    rule: str | None = Field(
        None,
        description="Another rule for staying, like fixed:N or adaptive_consistency:majority:0.6; "
        "default: adaptive_consistency at confidence",
    )
    temperature: float | None = Field(None, ge=0, allow_inf_nan=False, description="Default: sampling.temperature")
    templates: list[str] = Field(
        default_factory=list,
        description="Jinja templates asked in turn in place of the prompt: a mixture of thoughts; {{ prompt }}",
    )
    carry: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="What a vote of this stage still counts for, against one of the stage that answers; 0: nothing",
    )

    @field_validator("rule")
    @classmethod
    def _known_rule(cls, value: str | None) -> str | None:
        return known_rule(value)

    @field_validator("templates")
    @classmethod
    def _templates_parse(cls, value: list[str]) -> list[str]:
        parsed_templates(value)
        if len(set(value)) < len(value):
            raise ValueError("one stands there twice: its samples would be drawn and counted under one name")
        return value

    @model_validator(mode="after")
    def _ordered(self) -> StageSpec:
        if self.min_samples > self.max_samples:
            raise ValueError(f"min_samples ({self.min_samples}) must not exceed max_samples ({self.max_samples})")
        return self


class CascadeSpec(StrategySection):
    """A small model first, larger ones for what stays contested (Chen et al. 2023, Yue et al. 2023)."""

    kind: Literal["cascade"]
    stages: list[StageSpec] = Field(min_length=2, description="The cheapest model first")
    evidence: Literal["auto", "votes", "sum_logprob", "mean_logprob", "group_confidence", "within_question"] = Field(
        "auto", description="What weighs a vote; auto: mean_logprob where recorded, else plain votes"
    )
    alpha: float = Field(
        DEFAULT_ALPHA, ge=0, allow_inf_nan=False, description="A bid falls with a stage's samples to this power"
    )
    learn_threshold: bool = Field(
        False, description="Learn from questions that were asked further on at which confidence a stage may be believed"
    )
    audit_fraction: float = Field(
        0.05, ge=0, le=1, description="learn_threshold: share of settled questions that ask the next stage all the same"
    )
    tolerance: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="learn_threshold: share of a stage's questions it may answer otherwise than the next stage would",
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

    @property
    def settles(self) -> tuple[str, ...]:
        return ("template", "temperature", "model")

    @property
    def by_model(self) -> dict[str, tuple[int, int]] | None:
        found: dict[str, tuple[int, int]] = {}
        for at, stage in enumerate(self.stages):
            least, most = found.get(stage.model, (0, 0))
            found[stage.model] = (least + (0 if at else stage.min_samples), most + stage.max_samples)
        return found

    @model_validator(mode="after")
    def _different(self) -> CascadeSpec:
        asked = [(stage.model, stage.temperature, stage.templates) for stage in self.stages]
        for at, one in enumerate(asked):
            if one in asked[:at]:
                model = one[0] or "the job's model"
                raise ValueError(
                    f"stages {asked.index(one)} and {at} ask {model} alike: give one another model, temperature or "
                    "templates, or raise max_samples of the first"
                )
        ruled = [at for at, stage in enumerate(self.stages[:-1]) if stage.rule is not None]
        if self.learn_threshold and ruled:
            raise ValueError(
                f"stages[{ruled[0]}].rule stands in the way of learn_threshold, which moves the stage's confidence: "
                "leave one of them out"
            )
        return self
