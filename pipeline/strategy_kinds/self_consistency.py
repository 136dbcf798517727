"""The ``self_consistency`` section of a job file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from budgets.value import DEFAULT_ALPHA
from pipeline.strategy_kinds.arms import WAYS, ArmSpec, distinct_names, parsed_templates
from pipeline.strategy_kinds.base import StrategySection, known_rule


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
    arms: list[ArmSpec] = Field(
        default_factory=list, description="Ways to ask, in turn: sample i comes from arm i mod k"
    )
    templates: list[str] = Field(
        default_factory=list, description="Arms by template alone, each at every one of temperatures; {{ prompt }}"
    )
    temperatures: list[Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(
        default_factory=list, description="Arms by temperature alone: a ladder"
    )
    min_p: float | None = Field(None, ge=0, le=1, description="For arms that say nothing of it; default: the job's")
    verifier: str | None = Field(
        None,
        min_length=1,
        description="Name of the verifier that steers: a pass settles, a failure does not vote",
    )
    verify: Literal["pass", "weigh"] = Field(
        "pass", description="pass: what did not fail votes in full; weigh: a vote is multiplied by its score"
    )
    pass_score: float = Field(1.0, gt=0, le=1, description="A score from which on a sample has passed")

    @property
    def least(self) -> int:
        return self.min_samples

    @property
    def most(self) -> int:
        return self.max_samples

    @property
    def checks(self) -> tuple[str, ...]:
        return () if self.verifier is None else (self.verifier,)

    @property
    def uses(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(arm.model for arm in self.arms if arm.model))

    @property
    def settles(self) -> tuple[str, ...]:
        return WAYS if self.all_arms() else ()

    def all_arms(self) -> list[ArmSpec]:
        """The arms, those in short form written out: every template at every temperature."""
        if self.arms or not (self.templates or self.temperatures or self.min_p is not None):
            return [arm.model_copy(update={"min_p": self.min_p}) if arm.min_p is None else arm for arm in self.arms]
        templates: list[str | None] = [*self.templates] or [None]
        heats: list[float | None] = [*self.temperatures] or [None]
        return [
            ArmSpec(name=_name(at, template, heat), template=template, temperature=heat, min_p=self.min_p)
            for heat in heats
            for at, template in enumerate(templates)
        ]

    @field_validator("arms")
    @classmethod
    def _arms_apart(cls, value: list[ArmSpec]) -> list[ArmSpec]:
        return distinct_names(value)

    @field_validator("templates")
    @classmethod
    def _templates_parse(cls, value: list[str]) -> list[str]:
        return parsed_templates(value)

    @field_validator("rule")
    @classmethod
    def _known_rule(cls, value: str | None) -> str | None:
        return known_rule(value)

    @model_validator(mode="after")
    def _ordered(self) -> SelfConsistencySpec:
        if self.min_samples > self.max_samples:
            raise ValueError(f"min_samples ({self.min_samples}) must not exceed max_samples ({self.max_samples})")
        if self.arms and (self.templates or self.temperatures):
            raise ValueError("give either arms, or templates and temperatures: the latter are arms in short form")
        for name, values in (("templates", self.templates), ("temperatures", self.temperatures)):
            if len(set(values)) < len(values):
                raise ValueError(f"{name} holds one twice: its samples would be drawn and counted under one name")
        if self.verifier is None and (self.verify != "pass" or self.pass_score != 1.0):
            raise ValueError("verify and pass_score say how verifier steers: name one, or leave them out")
        return self


def _name(at: int, template: str | None, heat: float | None) -> str:
    parts = [*([f"template {at + 1}"] if template is not None else []), *([f"t={heat:g}"] if heat is not None else [])]
    return " ".join(parts) or "min_p"
