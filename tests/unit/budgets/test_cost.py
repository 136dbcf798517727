"""Costs: linear, whole, and never above what was reserved for them."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgets.cost import TOKENS, ByClass, CostModel, Usage
from pipeline.records import Verdict
from tests.factories import make_sample

NAMES = ("math", "judge")
RATES = st.integers(0, 10**9)
MODELS = ("", "large", "unpriced")
models = st.builds(
    CostModel,
    RATES,
    RATES,
    st.integers(1, 10**9),
    st.dictionaries(st.sampled_from(NAMES), RATES),
    st.just("unit"),
    st.dictionaries(st.just("large"), st.builds(ByClass, RATES, RATES, st.integers(1, 10**9))),
)


@st.composite
def samples(draw):
    prompt = draw(st.integers(0, 5000))
    verdicts = draw(st.lists(st.builds(Verdict, st.sampled_from(NAMES), tokens=st.integers(0, 5000)), max_size=3))
    return make_sample(
        prompt_tokens=prompt,
        cached_prompt_tokens=draw(st.integers(0, prompt)),
        completion_tokens=draw(st.integers(0, 5000)),
        verdicts=tuple(verdicts),
        model=draw(st.sampled_from(MODELS)),
    )


def usage_of(sample) -> Usage:
    verifying = {name: sum(v.tokens for v in sample.verdicts if v.verifier == name) for name in NAMES}
    cached = sample.cached_prompt_tokens
    tokens = ByClass(sample.prompt_tokens - cached, cached, sample.completion_tokens)
    return Usage(verifier=verifying, models={sample.model: tokens}) if sample.model else Usage(*tokens, verifying)


def test_the_plain_budget_counts_what_is_computed():
    sample = make_sample(prompt_tokens=100, cached_prompt_tokens=80, completion_tokens=30)
    assert (TOKENS.of(sample), TOKENS.worst(100, 64)) == (50, 164)
    assert TOKENS.of_verdict(Verdict("math", 1.0, tokens=7)) == 7
    assert TOKENS.uniform


def test_prices_by_class_by_hand():
    model = CostModel(prompt=3, cached=1, completion=10, verifier={"judge": 2})
    verdicts = (Verdict("judge", 1.0, tokens=5), Verdict("other", 1.0, tokens=4))
    sample = make_sample(prompt_tokens=100, cached_prompt_tokens=80, completion_tokens=30, verdicts=verdicts)
    assert model.of(sample) == 20 * 3 + 80 * 1 + 30 * 10
    assert [model.of_verdict(verdict) for verdict in verdicts] == [10, 40]
    assert model.of_all([sample, sample]) == 2 * (440 + 50)
    assert not model.uniform


def test_a_further_model_has_prices_of_its_own_and_one_without_costs_like_the_main_one():
    model = CostModel(prompt=1, cached=0, completion=2, models={"large": ByClass(10, 1, 30)})
    tokens = {"prompt_tokens": 100, "cached_prompt_tokens": 80, "completion_tokens": 30}
    cost = {name: model.of(make_sample(model=name, **tokens)) for name in MODELS}
    assert cost == {"": 20 + 60, "large": 20 * 10 + 80 * 1 + 30 * 30, "unpriced": 20 + 60}
    assert [model.worst(100, 64, name) for name in MODELS] == [228, 1000 + 1920, 228]
    assert not model.uniform
    assert not CostModel(models={"large": ByClass(8, 0, 8)}).uniform
    assert CostModel(models={"large": ByClass(1, 0, 1)}).uniform


def test_where_the_cache_is_dearer_the_worst_is_a_full_cache():
    assert CostModel(prompt=1, cached=5, completion=2).worst(100, 10) == 520


@given(models, st.lists(samples(), max_size=5))
def test_the_cost_of_a_sum_is_the_sum_of_costs(model, drawn):
    together = sum((usage_of(sample) for sample in drawn), Usage())
    assert model.of_usage(together) == model.of_all(drawn) == sum(model.of_all([sample]) for sample in drawn)
    assert TOKENS.of_usage(together) == together.billed


@given(models, samples(), st.integers(0, 100), st.integers(0, 100))
def test_no_sample_within_its_limits_costs_more_than_was_reserved(model, sample, shorter, longer):
    worst = model.worst(sample.prompt_tokens, sample.completion_tokens + longer, sample.model)
    assert 0 <= model.of(sample) <= worst
    assert model.worst(max(0, sample.prompt_tokens - shorter), sample.completion_tokens, sample.model) <= worst


@pytest.mark.parametrize("model", [TOKENS, CostModel(3, 1, 10, {"judge": 2}, "u", {"large": ByClass(9, 1, 30)})])
def test_a_model_travels_between_processes(model):
    assert pickle.loads(pickle.dumps(model)) == model
