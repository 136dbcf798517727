"""The ``aggregate`` section of a job file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from pipeline.errors import SourceError
from pipeline.prompts import compile_template
from pipeline.strategy_kinds.base import StrategySection
from pipeline.strategy_kinds.self_consistency import SelfConsistencySpec


class AggregateSpec(StrategySection):
    """A vote, and where it is contested a model that reads the candidates and chooses or writes the answer."""

    kind: Literal["aggregate"] = "aggregate"
    vote: SelfConsistencySpec = Field(
        SelfConsistencySpec(max_samples=16), description="The vote before it; takes what self_consistency takes"
    )
    method: Literal["usc", "genselect", "rsa", "set"] = Field(
        "genselect",
        description="usc: the most consistent by index; genselect: the best by index, voted over several selections; "
        "rsa: a population rewritten from its own subsets; set: one new answer from all",
    )
    contested_below: float = Field(
        0.95, gt=0, le=1, description="A vote whose leader's posterior is below this is contested"
    )
    candidates: int = Field(16, ge=2, description="usc, genselect, set: most candidates in one prompt")
    candidate_chars: int = Field(3000, ge=16, description="Characters shown of a candidate: its beginning and its end")
    selections: int = Field(8, ge=1, description="genselect: selections that are voted")
    population: int = Field(16, ge=2, description="rsa: N, candidates at a time")
    subset: int = Field(4, ge=1, description="rsa: K, candidates read to write a new one")
    steps: int = Field(10, ge=2, description="rsa: T, steps; the first is the vote's sampling")
    temperature: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="Of aggregations; default: 0 for usc, else sampling.temperature"
    )
    max_tokens: int | None = Field(None, ge=1, description="Of aggregations; default: sampling.max_tokens")
    model: str = Field("", description="One of the job's models that aggregates; default: the job's model")
    template: str | None = Field(
        None,
        description="Jinja template in place of the method's: question, candidates (texts), fence, and columns by name",
    )

    @property
    def least(self) -> int:
        return self.vote.least

    @property
    def most(self) -> int:
        calls = {"genselect": self.selections, "rsa": self.population * (self.steps - 1)}
        return self.vote.most + calls.get(self.method, 1)

    @property
    def uses(self) -> tuple[str, ...]:
        return (self.model,) if self.model else ()

    @property
    def settles(self) -> tuple[str, ...]:
        return self.vote.settles

    @field_validator("template")
    @classmethod
    def _parses(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            template = compile_template(value)
        except SourceError as error:
            raise ValueError(str(error)) from None
        if "candidates" not in template.columns:
            raise ValueError("the template never shows candidates: loop over them")
        return value

    @model_validator(mode="after")
    def _fits(self) -> AggregateSpec:
        if self.vote.max_samples < 2:
            raise ValueError("vote.max_samples is 1: one candidate cannot be contested; allow 2 or more")
        if self.method == "rsa" and self.population > self.vote.max_samples:
            raise ValueError(
                f"population ({self.population}) must not exceed vote.max_samples ({self.vote.max_samples}), "
                "whose samples it is made of"
            )
        if self.method == "rsa" and self.subset > self.population:
            raise ValueError(f"subset ({self.subset}) must not exceed population ({self.population})")
        return self
