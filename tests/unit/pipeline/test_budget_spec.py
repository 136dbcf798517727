"""What a budget is: conversions by hand, and every way to write one wrong."""

import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from budgets.cost import TOKENS, ByClass, CostModel
from pipeline.budget_spec import (
    BudgetSpec,
    BudgetUse,
    budget_units,
    budget_use,
    computable,
    cost_model,
    tokens_in,
    tokens_of,
)
from pipeline.errors import SpecError
from pipeline.spec import parse
from tests.factories import make_spec

HOSTED = {"prompt": 0.10, "cached": 0.01, "completion": 0.40}
EVEN = {"prompt": 2, "completion": 2}
RENTED = {"gpu_hour": 2.5, "tokens_per_second": 3000}


def budget_of(**fields) -> BudgetSpec:
    return BudgetSpec.model_validate(fields)


def test_the_five_line_job_is_what_it_was():
    budget = make_spec(budget={"tokens": 5_000_000}).budget
    assert (cost_model(budget), budget_units(budget), tokens_in(budget)) == (TOKENS, 5_000_000, 5_000_000)
    assert budget_use(budget, 1_234) == BudgetUse("tokens", 5_000_000, 1_234)


@pytest.mark.parametrize(
    ("fields", "model", "units", "tokens"),
    [
        # $0.10 a million tokens is 10^-7 $ a token, which is 100,000 pico-dollars.
        ({"dollars": 5, "price": HOSTED}, (100_000, 10_000, 400_000, "pico-dollar"), 5 * 10**12, None),
        ({"dollars": 1, "price": EVEN}, (2_000_000, 0, 2_000_000, "pico-dollar"), 10**12, 500_000),
        # $5 at $2.50 an hour are two hours of 10.8 million tokens each.
        ({"dollars": 5, "price": RENTED}, (1, 0, 1, "token"), 21_600_000, 21_600_000),
        ({"gpu_hours": 1.5, "price": {"tokens_per_second": 3000}}, (1, 0, 1, "token"), 16_200_000, 16_200_000),
        # 2 × 8 billion FLOPs a token.
        ({"flops": 1e18, "price": {"parameters": 8}}, (1, 0, 1, "token"), 62_500_000, 62_500_000),
        ({"flops": 3.3e10, "price": {"parameters": 8}}, (1, 0, 1, "token"), 2, 2),
    ],
)  # fmt: skip
def test_conversions_by_hand(fields, model, units, tokens):
    budget = budget_of(**fields)
    prompt, cached, completion, unit = model
    assert cost_model(budget) == CostModel(prompt, cached, completion, {}, unit)
    assert (budget_units(budget), tokens_in(budget)) == (units, tokens)


def test_a_verifier_has_a_rate_of_its_own():
    hosted = budget_of(dollars=1, price={**HOSTED, "verifiers": {"judge": 0.05}})
    assert cost_model(hosted).verifier == {"judge": 50_000}
    # Elsewhere the rate is relative; a fraction makes the unit a millionth of a token.
    whole = budget_of(tokens=100, price={"verifiers": {"judge": 3}})
    assert (cost_model(whole), budget_units(whole)) == (CostModel(verifier={"judge": 3}), 100)
    part = budget_of(gpu_hours=1, price={"tokens_per_second": 1, "verifiers": {"judge": 0.25}})
    assert cost_model(part) == CostModel(10**6, 0, 10**6, {"judge": 250_000}, "micro-token")
    assert (budget_units(part), tokens_in(part)) == (3600 * 10**6, 3600)
    assert budget_use(part, 1800 * 10**6) == BudgetUse("gpu_hours", 1.0, 0.5)


RATED = {"tokens_per_second": 1000}


def sized(billions: float) -> dict:
    return {"models": {"large": {"parameters": billions}}}


@pytest.mark.parametrize(
    ("fields", "model", "unit", "tokens"),
    [
        ({"tokens": 100, "price": {"models": {"large": 8}}}, ByClass(8, 0, 8), "token", None),
        ({"tokens": 100, "price": {"models": {"large": 1}}}, ByClass(1, 0, 1), "token", 100),
        (
            {"tokens": 100, "price": {"models": {"large": 2.5}}},
            ByClass(2_500_000, 0, 2_500_000),
            "micro-token",
            None,
        ),
        ({"gpu_hours": 1, "price": {**RATED, "models": {"large": {"weight": 8}}}}, ByClass(8, 0, 8), "token", None),
        ({"dollars": 1, "price": {**RENTED, "models": {"large": 8}}}, ByClass(8, 0, 8), "token", None),
        ({"flops": 1e18, "price": {"parameters": 8, **sized(72)}}, ByClass(9, 0, 9), "token", None),
        # 70 / 8 is 8.75; 1 / 3 is rounded up to a millionth, so that no ceiling is passed.
        (
            {"flops": 1e18, "price": {"parameters": 8, **sized(70)}},
            ByClass(8_750_000, 0, 8_750_000),
            "micro-token",
            None,
        ),
        (
            {"flops": 1e18, "price": {"parameters": 3, **sized(1)}},
            ByClass(333_334, 0, 333_334),
            "micro-token",
            None,
        ),
        (
            {"dollars": 5, "price": {**HOSTED, "models": {"large": {"prompt": 1.25, "completion": 10}}}},
            ByClass(1_250_000, 0, 10_000_000),
            "pico-dollar",
            None,
        ),
    ],
)  # fmt: skip
def test_a_further_model_has_a_price_of_its_own(fields, model, unit, tokens):
    budget = budget_of(**fields)
    cost = cost_model(budget)
    assert (cost.models, cost.unit, tokens_in(budget)) == ({"large": model}, unit, tokens)
    assert BudgetSpec.model_validate(budget.model_dump(mode="json")) == budget


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ({"tokens": 5, "price": {"models": {"big": 8}}}, "no further model is called 'big'; models has: large"),
        ({"tokens": 5, "price": {"models": {"large": 0}}}, "budget.price.models.large.weight"),
        ({"tokens": 5, "price": {"models": {"large": -1}}}, "budget.price.models.large.weight"),
        ({"tokens": 5, "price": {"models": {"large": True}}}, "must be a number, not a truth value"),
        ({"tokens": 5, "price": {"models": {"large": math.nan}}}, "budget.price.models.large.weight"),
        ({"tokens": 5, "price": {"models": {"large": "much"}}}, "budget.price.models.large"),
        ({"tokens": 5, "price": {"models": {"large": {}}}}, "say how many of the main model's tokens"),
        ({"tokens": 5, "price": {"models": {"large": 1e-7}}}, "six decimals"),
        ({"tokens": 5, "price": {"models": {"large": {"prompt": 1, "completion": 2}}}}, "say how many"),
        ({"tokens": 5, "price": {"models": {"large": {"weight": 8, "prompt": 1}}}}, "large.prompt prices nothing here"),
        ({"tokens": 5, "price": {"models": {"large": {"parameters": 8}}}}, "say how many"),
        ({"dollars": 5, "price": {**HOSTED, "models": {"large": 8}}}, "price.models.large needs prompt"),
        (
            {"dollars": 5, "price": {**HOSTED, "models": {"large": {"prompt": 1, "completion": 0}}}},
            "budget.price.models.large.completion",
        ),
        (
            {"flops": 1e18, "price": {"parameters": 8, "models": {"large": {"parameters": 8, "weight": 2}}}},
            "or {parameters: billions}",
        ),
        ({"tokens": 5, "price": {"models": {"large": {"tokens": 8}}}}, "budget.price.models.large.tokens: unknown"),
    ],
)
def test_prices_of_further_models_that_make_no_sense_are_refused(budget, said):
    raw = make_spec(models={"large": {"engine": "scripted"}}).model_dump(mode="json")
    with pytest.raises(SpecError) as caught:
        parse(raw | {"budget": budget})
    assert said in str(caught.value)


def test_what_is_spent_reads_in_the_unit_of_the_budget():
    hosted = budget_of(dollars=5, price=HOSTED)
    assert budget_use(hosted, 10**12) == BudgetUse("dollars", 5.0, 1)
    assert tokens_of(hosted, 10**12) is None
    rented = budget_of(dollars=5, price=RENTED)
    assert budget_use(rented, 10_800_000) == BudgetUse("dollars", 5.0, pytest.approx(2.5))
    assert tokens_of(rented, 10_800_000) == 10_800_000
    flops = budget_of(flops=1e18, price={"parameters": 8})
    assert budget_use(flops, 10) == BudgetUse("flops", 1e18, 1.6e11)


def test_what_time_allows():
    assert computable(budget_of(tokens=1, price={"tokens_per_second": 20}), gpus=4, seconds=10) == 800
    assert computable(budget_of(tokens=1), gpus=4, seconds=10) is None
    assert computable(budget_of(tokens=1, price={"tokens_per_second": 20}), gpus=4, seconds=-1) == 0


amounts = st.floats(1, 1e12)
rates = st.integers(10**4, 10**8).map(lambda parts: parts / 10**4)


@given(amounts, amounts, rates, rates)
def test_more_budget_is_never_fewer_units_and_units_never_exceed_the_budget(one, other, prompt, rate):
    less, more = sorted((one, other))
    price = {"prompt": prompt, "completion": rate}
    kinds = [("dollars", price), ("gpu_hours", {"tokens_per_second": rate}), ("flops", {"parameters": rate / 1e15})]
    for kind, terms in kinds:
        pair = [budget_of(**{kind: amount, "price": terms}) for amount in (less, more)]
        assert budget_units(pair[0]) <= budget_units(pair[1])
        for budget in pair:
            use = budget_use(budget, budget_units(budget))
            assert use.spent <= use.total * (1 + 1e-12)


@pytest.mark.parametrize("kind", ["tokens", "dollars", "gpu_hours", "flops"])
@pytest.mark.parametrize("value", [0, -1, True, False, math.nan, math.inf, -math.inf, "much", None, [1]])
def test_amounts_that_are_none(kind, value):
    price = {"dollars": RENTED, "gpu_hours": {"tokens_per_second": 1}, "flops": {"parameters": 1}}.get(kind, {})
    with pytest.raises(SpecError) as caught:
        make_spec(budget={"tokens": None, kind: value, "price": price})
    assert "budget" in str(caught.value)
    if value is not None:
        assert f"budget.{kind}" in str(caught.value)
        assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ({}, "exactly one of tokens, dollars, gpu_hours, flops; none is given"),
        ({"tokens": 5, "dollars": 5, "price": RENTED}, "tokens and dollars are given"),
        ({"dollars": 5}, "dollars needs price.prompt"),
        ({"dollars": 5, "price": {"prompt": 1}}, "dollars needs price.completion"),
        ({"dollars": 5, "price": {"gpu_hour": 2}}, "dollars needs price.tokens_per_second"),
        ({"dollars": 5, "price": {**RENTED, "completion": 1}}, "price.completion prices nothing here"),
        ({"gpu_hours": 5}, "gpu_hours needs price.tokens_per_second"),
        ({"gpu_hours": 5, "price": RENTED}, "price.gpu_hour prices nothing here"),
        ({"flops": 5e20}, "flops needs price.parameters"),
        ({"flops": 5, "price": {"parameters": 8}}, "less than one completion token"),
        ({"tokens": 5, "price": {"completion": 1}}, "price.completion prices nothing here"),
        ({"dollars": 5, "price": {"prompt": 1, "completion": 0}}, "budget.price.completion"),
        ({"dollars": 5, "price": {"prompt": math.nan, "completion": 1}}, "budget.price.prompt"),
        ({"dollars": 5, "price": {"prompt": True, "completion": 1}}, "budget.price.prompt"),
        ({"dollars": 5, "price": {"prompt": 1e-7, "completion": 1}}, "six decimals"),
        ({"tokens": 5, "price": {"verifiers": {"numeric": -1}}}, "budget.price.verifiers.numeric"),
        ({"tokens": 5, "price": {"verifiers": {"numeric": True}}}, "budget.price.verifiers"),
        ({"tokens": 5, "price": {"verifiers": {"judge": 1}}}, "no verifier is called 'judge'; the job has: numeric"),
        ({"tokens": 5, "audit": 1}, "budget.audit"),
        ({"tokens": 5.5}, "budget.tokens"),
        ({"tokens": 5, "pounds": 1}, "budget.pounds: unknown field"),
    ],
)
def test_budgets_that_make_no_sense_are_refused(budget, said):
    raw = make_spec().model_dump(mode="json")
    raw |= {"budget": budget, "verifiers": [{"kind": "numeric"}]}
    raw["dataset"]["reference"] = "gold"
    with pytest.raises(SpecError) as caught:
        parse(raw)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "units"),
    [("{tokens: 5e7}", 50_000_000), ("{tokens: 50_000_000}", 50_000_000), ("{tokens: '5_000'}", 5_000)],
)
def test_numbers_as_yaml_reads_them(text, units):
    assert budget_units(BudgetSpec.model_validate(yaml.safe_load(text))) == units


def test_a_budget_survives_the_job_file():
    spec = make_spec(budget={"tokens": None, "dollars": 5, "price": HOSTED, "deadline": "90m", "audit": 0.01})
    assert parse(yaml.safe_load(yaml.safe_dump(spec.model_dump(mode="json")))) == spec
