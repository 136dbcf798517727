"""The ``adaptive`` section of a job file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from budgets.value import DEFAULT_ALPHA
from pipeline.strategy_kinds.arms import ArmSpec
from pipeline.strategy_kinds.base import StrategySection
from pipeline.strategy_kinds.single import SelfConsistencySpec, SingleSpec


class AdaptiveArmSpec(ArmSpec):
    """One arm: a strategy, and how its samples are asked for where it leaves that open."""

    strategy: Annotated[SingleSpec, Field(discriminator="kind")] = Field(
        SelfConsistencySpec(), description="Any kind but adaptive"
    )

    @field_validator("strategy", mode="before")
    @classmethod
    def _not_nested(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("kind") == "adaptive":
            raise ValueError("an arm is not adaptive itself: put its arms beside this one")
        return value

    @model_validator(mode="after")
    def _asked_one_way(self) -> AdaptiveArmSpec:
        own = {"template": self.template, "temperature": self.temperature, "top_p": self.top_p, "min_p": self.min_p}
        said = [name for name, value in {**own, "model": self.model or None}.items() if value is not None]
        both = [name for name in said if name in self.strategy.settles]
        if both:
            raise ValueError(
                f"arm {self.name!r} sets {both[0]}, and its strategy ({self.strategy.kind}) says that itself: leave it "
                "out of one of them"
            )
        return self

    @property
    def by_model(self) -> dict[str, tuple[int, int]] | None:
        """As a strategy's; none of its samples is guaranteed."""
        found = self.strategy.by_model
        if found is None:
            return None
        return {name or self.model: (0, most) for name, (_, most) in found.items()}


class AdaptiveSpec(StrategySection):
    """A few samples first; then, for what is not settled, the arm that pays for questions like it."""

    kind: Literal["adaptive"]
    arms: list[AdaptiveArmSpec] = Field(min_length=1, description="Ways to go on; which pays is learnt from the run")
    probe: int = Field(4, ge=1, le=256, description="Samples, as the job says, before an arm is chosen; at least one")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="The probe settles once its leader's posterior is so")
    explore: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Share of questions that ask two arms to compare them, where no verifier judges; more of the first",
    )
    evidence: Literal["auto", "votes", "sum_logprob", "mean_logprob", "group_confidence", "within_question"] = Field(
        "auto", description="What weighs a vote; auto: mean_logprob where recorded, else plain votes"
    )
    alpha: float = Field(
        DEFAULT_ALPHA, ge=0, allow_inf_nan=False, description="The probe's bid falls with samples drawn to this power"
    )
    verifier: str | None = Field(
        None,
        min_length=1,
        description="Name of the verifier that says what an arm's answer was worth, and ends a question",
    )
    pass_score: float = Field(1.0, gt=0, le=1, description="A score of verifier from which on a question is over")

    @property
    def least(self) -> int:
        return 1

    @property
    def most(self) -> int:
        return self.probe + sum(arm.strategy.most for arm in self.arms)

    @property
    def checks(self) -> tuple[str, ...]:
        own = () if self.verifier is None else (self.verifier,)
        return tuple(dict.fromkeys((*own, *(name for arm in self.arms for name in arm.strategy.checks))))

    @property
    def watches(self) -> str | None:
        return next((arm.strategy.watches for arm in self.arms if arm.strategy.watches is not None), None)

    @property
    def hands_over(self) -> bool:
        return any(arm.strategy.hands_over for arm in self.arms)

    @property
    def uses(self) -> tuple[str, ...]:
        asked = [name for arm in self.arms for name in (arm.model, *arm.strategy.uses)]
        return tuple(dict.fromkeys(name for name in asked if name))

    @property
    def by_model(self) -> dict[str, tuple[int, int]] | None:
        found = {"": (1, self.probe)}
        for arm in self.arms:
            mix = arm.by_model
            if mix is None:
                return None
            for name, (_, most) in mix.items():
                least, before = found.get(name, (0, 0))
                found[name] = (least, before + most)
        return found

    @property
    def embeds(self) -> bool:
        return any(arm.strategy.embeds for arm in self.arms)

    @property
    def begins(self) -> int:
        return max(arm.strategy.begins for arm in self.arms)

    @property
    def groups(self) -> int:
        return max(arm.strategy.groups for arm in self.arms)

    @model_validator(mode="after")
    def _apart(self) -> AdaptiveSpec:
        names: set[str] = set()
        ways: list[tuple[str, dict[str, Any]]] = []
        for arm in self.arms:
            if arm.name in names:
                raise ValueError(f"two arms are called {arm.name!r}: give one of them another name")
            names.add(arm.name)
            way = arm.model_dump(exclude={"name"})
            twin = next((name for name, other in ways if other == way), None)
            if twin is not None:
                raise ValueError(f"arms {twin!r} and {arm.name!r} are the same: change one of them, or leave it out")
            ways.append((arm.name, way))
        watched = sorted({arm.strategy.watches for arm in self.arms if arm.strategy.watches is not None})
        if len(watched) > 1:
            raise ValueError(f"arms watch two verifiers, {watched[0]!r} and {watched[1]!r}: let all name one")
        if self.verifier is None and self.pass_score != 1.0:
            raise ValueError("pass_score says when verifier ends a question: name one, or leave it out")
        return self
