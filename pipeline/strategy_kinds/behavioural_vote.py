"""The ``behavioural_vote`` section of a job file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from pipeline.strategy_kinds.arms import parsed_templates
from pipeline.strategy_kinds.base import StrategySection
from pipeline.strategy_kinds.self_consistency import SelfConsistencySpec


class BehaviouralVoteSpec(StrategySection):
    """A vote of programs by what they do on inputs (Li et al. 2022) or on a model's own tests (Chen et al. 2022)."""

    kind: Literal["behavioural_vote"] = "behavioural_vote"
    vote: SelfConsistencySpec = Field(
        default_factory=SelfConsistencySpec,
        description="How it votes; takes what self_consistency takes but a verifier",
    )
    verifier: str = Field(
        "behaviour", min_length=1, description="Name of the job's verifier of kind behaviour that runs the programs"
    )
    generate: Literal["nothing", "inputs", "tests"] = Field(
        "nothing",
        description="What the model is asked for besides: nothing (inputs are in a column), inputs (the calls in the "
        "assertions it writes), tests (the assertions: CodeT)",
    )
    generations: int = Field(4, ge=1, description="Replies with assertions a question")
    per_generation: int = Field(5, ge=1, le=64, description="Assertions asked for, and kept, of a reply")
    temperature: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="Of these replies; default: sampling.temperature"
    )
    max_tokens: int | None = Field(None, ge=1, description="Of these replies; default: sampling.max_tokens")
    model: str = Field("", description="One of the job's models that writes them; default: the job's model")
    template: str | None = Field(
        None,
        description="Jinja template that asks for assertions: question, count, and columns by name; where it ends with "
        "assert, the reply goes on from there",
    )

    @property
    def least(self) -> int:
        return self.vote.least

    @property
    def most(self) -> int:
        return self.vote.most + (0 if self.generate == "nothing" else self.generations)

    @property
    def checks(self) -> tuple[str, ...]:
        return (self.verifier,)

    @property
    def uses(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*self.vote.uses, *([self.model] if self.model else [])]))

    @property
    def settles(self) -> tuple[str, ...]:
        return self.vote.settles

    @property
    def watches(self) -> str | None:
        return self.verifier

    @property
    def hands_over(self) -> bool:
        return self.generate != "nothing"

    @field_validator("template")
    @classmethod
    def _parses(cls, value: str | None) -> str | None:
        return None if value is None else parsed_templates([value])[0]

    @model_validator(mode="after")
    def _fits(self) -> BehaviouralVoteSpec:
        if self.vote.verifier is not None:
            raise ValueError("vote.verifier: leave it out; verifier names who tells what programs do")
        if self.generate == "nothing" and (self.model or self.template is not None):
            raise ValueError("model and template say how assertions are asked for: set generate to inputs or tests")
        return self
