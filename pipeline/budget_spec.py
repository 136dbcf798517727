"""The ``budget`` part of a job file, and what it means to the ledger: one cost model, one whole number of units.

Pure pydantic and exact fractions. Promises: a budget is converted once, rounded down, so that the ceiling in units is
never above the ceiling the user wrote; more of a budget is never fewer units. Nothing else in Ponder knows a price.

Units of the ledger. Where a token costs the same whatever its class, the unit is the token, and dollars, GPU-hours or
FLOPs only say how many of them there are; a verifier's fractional rate divides the token by a million. Prices by class
of token make it the pico-dollar: a price of up to six decimals per million tokens is a whole number of these a token.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from budgets.cost import CostModel
from pipeline.deadline import check_form
from pipeline.section import Section

KINDS = ("tokens", "dollars", "gpu_hours", "flops")
"""What a budget may be written in; exactly one of them."""

TOKEN, MICRO_TOKEN, PICO_DOLLAR = "token", "micro-token", "pico-dollar"
_PARTS = 1_000_000
"""Micro-tokens in a token; also pico-dollars a token for each dollar per million tokens."""
_PICO = 10**12
_FLOPS_PER_PARAMETER = 2
"""A multiply and an add for each parameter and token (Kaplan et al. 2020, §2.1). Attention over the context is left
out: a few percent of it until the context is many times the model's width."""

_Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class PriceSpec(Section):
    """What turns a budget into tokens. Which fields are needed depends on what the budget is written in."""

    prompt: float | None = Field(None, ge=0, allow_inf_nan=False, description="Dollars per million computed tokens")
    cached: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="Dollars per million prompt tokens from the cache; default: 0"
    )
    completion: float | None = Field(None, gt=0, allow_inf_nan=False, description="Dollars per million tokens")
    gpu_hour: float | None = Field(None, gt=0, allow_inf_nan=False, description="Dollars per GPU-hour")
    tokens_per_second: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="Computed tokens a second of one GPU, as measured"
    )
    parameters: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="Billions of (active) parameters: 2 FLOPs each a token"
    )
    verifiers: dict[str, _Rate] = Field(
        default_factory=dict,
        description="By a verifier's name: dollars per million of its tokens where tokens are priced in dollars; "
        "elsewhere how many of the model's tokens one of its tokens counts as. Default: as a completion token",
    )

    @field_validator("*", mode="before")
    @classmethod
    def _a_number(cls, value: Any) -> Any:
        if any(isinstance(one, bool) for one in (value.values() if isinstance(value, dict) else [value])):
            raise ValueError("must be a number, not a truth value")
        return value

    @field_validator("prompt", "cached", "completion", "verifiers", mode="after")
    @classmethod
    def _whole_in_parts(cls, value: Any) -> Any:
        for rate in value.values() if isinstance(value, dict) else [value]:
            if rate is not None and (_exact(rate) * _PARTS).denominator != 1:
                raise ValueError(f"{rate!r} has more than six decimals: round it, so that costs add up exactly")
        return value


class BudgetSpec(Section):
    """One budget for the whole dataset, a hard ceiling: exactly one of tokens, dollars, gpu_hours and flops."""

    tokens: int | None = Field(
        None, gt=0, description="Completion tokens + uncached prompt tokens, aborted samples included"
    )
    dollars: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="Needs price: prompt and completion, or gpu_hour"
    )
    gpu_hours: float | None = Field(None, gt=0, allow_inf_nan=False, description="Needs price.tokens_per_second")
    flops: float | None = Field(None, gt=0, allow_inf_nan=False, description="Needs price.parameters")
    price: PriceSpec = Field(default_factory=PriceSpec, description="What tokens cost")
    deadline: str | None = Field(
        None, description='Every row has an answer by then: "06:00", "2030-01-31T06:00+01:00", or a span like "2h30m"'
    )
    audit: float = Field(
        0.0, ge=0, lt=1, description="Share of settled questions that run on to the cap, to measure early stopping"
    )

    @property
    def kind(self) -> str:
        """Which of ``KINDS`` it is written in."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def amount(self) -> float:
        """As written, in units of ``kind``."""
        amount: float = getattr(self, self.kind)
        return amount

    @field_validator("deadline", mode="before")
    @classmethod
    def _moment(cls, value: Any) -> Any:
        if isinstance(value, datetime):
            value = value.isoformat()
        elif isinstance(value, int) and not isinstance(value, bool):
            # YAML 1.1 reads an unquoted 16:30 as a number in base 60.
            raise ValueError('put it in quotes, like "16:30": YAML reads it as a number otherwise')
        return check_form(value) if isinstance(value, str) else value

    @field_validator(*KINDS, "audit", mode="before")
    @classmethod
    def _a_number(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError("must be a number, not a truth value")
        if isinstance(value, str):
            # YAML 1.1 reads 5e7 as text.
            try:
                return float(value.replace("_", ""))
            except ValueError:
                return value
        return value

    @field_validator("tokens", mode="before")
    @classmethod
    def _whole(cls, value: Any) -> Any:
        if isinstance(value, float):
            if not math.isfinite(value) or value != int(value):
                raise ValueError("must be a whole number of tokens, like 50_000_000 or 5e7")
            return int(value)
        return value

    @model_validator(mode="after")
    def _priced(self) -> BudgetSpec:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            said = f"{' and '.join(given)} are" if given else "none is"
            raise ValueError(f"give exactly one of {', '.join(KINDS)}; {said} given")
        needed = _needed(self)
        missing = [name for name in needed if getattr(self.price, name) is None]
        if missing:
            raise ValueError(f"{self.kind} needs price.{missing[0]}: {_MENDS[missing[0]]}")
        idle = [name for name in _unused(self, needed) if getattr(self.price, name) is not None]
        if idle:
            raise ValueError(f"price.{idle[0]} prices nothing here: leave it out of a budget in {self.kind}")
        if budget_units(self) < cost_model(self).completion:
            raise ValueError(
                f"{self.kind}: {self.amount!r} pays for less than one completion token; raise it, or mend price"
            )
        return self


_MENDS = {
    "prompt": "dollars per million computed prompt tokens, with price.completion; or price.gpu_hour",
    "completion": "dollars per million completion tokens, with price.prompt",
    "tokens_per_second": "what one GPU computes, measured on this model",
    "parameters": "the model's size in billions of parameters",
}


@dataclass(frozen=True, slots=True)
class BudgetUse:
    """A budget in the unit its user wrote (one of ``KINDS``): ``total`` as written, ``spent`` so far."""

    unit: str
    total: float
    spent: float


def cost_model(budget: BudgetSpec) -> CostModel:
    """What a token costs in the ledger's units."""
    rates = {name: _exact(rate) for name, rate in budget.price.verifiers.items()}
    if _by_class(budget):
        price = budget.price
        each = {name: int(rate * _PARTS) for name, rate in rates.items()}
        prompt, cached, completion = (
            int(_exact(rate or 0.0) * _PARTS) for rate in (price.prompt, price.cached, price.completion)
        )
        return CostModel(prompt, cached, completion, each, PICO_DOLLAR)
    if all(rate.denominator == 1 for rate in rates.values()):
        return CostModel(verifier={name: int(rate) for name, rate in rates.items()}, unit=TOKEN)
    parts = {name: int(rate * _PARTS) for name, rate in rates.items()}
    return CostModel(_PARTS, 0, _PARTS, parts, MICRO_TOKEN)


def budget_units(budget: BudgetSpec) -> int:
    """The ceiling in the ledger's units, rounded down."""
    return math.floor(_exact(budget.amount) / _unit_value(budget))


def tokens_in(budget: BudgetSpec) -> int | None:
    """The budget as a number of computed tokens; None where classes of tokens differ in price."""
    return _whole_tokens(budget, budget_units(budget))


def tokens_of(budget: BudgetSpec, units: int) -> int | None:
    """Units as a number of the model's tokens, rounded up; None where classes of tokens differ in price."""
    found = _whole_tokens(budget, -units)
    return None if found is None else -found


def budget_use(budget: BudgetSpec, units: int) -> BudgetUse:
    """``units`` spent of a budget, as its user counts."""
    return BudgetUse(budget.kind, budget.amount, in_kind(budget, units))


def in_kind(budget: BudgetSpec, units: int) -> float:
    """Ledger units in the unit the budget is written in; a whole number stays one."""
    value = units * _unit_value(budget)
    return value.numerator if value.denominator == 1 else float(value)


def computable(budget: BudgetSpec, gpus: float, seconds: float) -> float | None:
    """Tokens that ``gpus`` compute in ``seconds`` at ``price.tokens_per_second``; None where none is given."""
    rate = budget.price.tokens_per_second
    return None if rate is None else max(0.0, seconds) * gpus * rate


def _needed(budget: BudgetSpec) -> tuple[str, ...]:
    if budget.kind == "dollars":
        return ("prompt", "completion") if _by_class(budget) else ("gpu_hour", "tokens_per_second")
    return {"gpu_hours": ("tokens_per_second",), "flops": ("parameters",)}.get(budget.kind, ())


def _unused(budget: BudgetSpec, needed: tuple[str, ...]) -> list[str]:
    # A rate serves every forecast; a price for cached tokens goes with those of the others.
    welcome = {*needed, "tokens_per_second", "verifiers", *(["cached"] if "completion" in needed else [])}
    return [name for name in PriceSpec.model_fields if name not in welcome]


def _by_class(budget: BudgetSpec) -> bool:
    return budget.kind == "dollars" and budget.price.gpu_hour is None


def _unit_value(budget: BudgetSpec) -> Fraction:
    """What one unit of the ledger is worth in the unit the budget is written in."""
    price = budget.price
    if _by_class(budget):
        return Fraction(1, _PICO)
    parts = _PARTS if cost_model(budget).unit == MICRO_TOKEN else 1
    if budget.kind == "flops":
        return _FLOPS_PER_PARAMETER * _exact(price.parameters or 0.0) * 10**9 / parts
    if budget.kind == "tokens":
        return Fraction(1, parts)
    hours = 1 / (3600 * _exact(price.tokens_per_second or 1.0))
    return hours * (_exact(price.gpu_hour or 0.0) if budget.kind == "dollars" else 1) / parts


def _whole_tokens(budget: BudgetSpec, units: int) -> int | None:
    model = cost_model(budget)
    return units // model.completion if model.uniform else None


def _exact(value: float) -> Fraction:
    """The number as it was written: 0.1 is a tenth, not the float next to it."""
    return Fraction(str(value))
