"""DeepConf's decisions by hand, over a scripted session; and what it promises for any traces."""

import asyncio
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.assembly import make_strategy
from budgets.votes import p_lead
from pipeline.errors import RequestRejected, SpecError
from pipeline.records import Sample, StopReason
from strategies.base import Draw, Solution
from strategies.deep_conf import DeepConf, percentile
from tests.factories import make_item, make_sample, make_spec
from tests.fake_session import FakeSession

HIGH = DeepConf(warmup=4, keep=50.0, max_samples=8, group=8)
"""The bar is the median of four."""


def trace(answer: str | None, confidence: float | None, tokens: int = 10, finish: str = "stop") -> Sample:
    return make_sample(answer=answer, min_group_confidence=confidence, completion_tokens=tokens, finish_reason=finish)


def cut(confidence: float = 0.5, tokens: int = 3) -> Sample:
    return trace(None, confidence, tokens, "cut")


def session_of(warmup, later=(), budget: int | None = None, refuse: str = "") -> FakeSession:
    """Whole traces, and those that are drawn watched."""

    def script(draw: Draw, index: int) -> Sample | None:
        if draw.cut_below is not None and refuse:
            raise RequestRejected(refuse)
        stream = warmup if draw.cut_below is None else later
        return stream[index] if index < len(stream) else None

    return FakeSession(script, budget)


def solve(strategy: DeepConf, *script, **terms) -> tuple[Solution, FakeSession]:
    session = session_of(*script, **terms)
    return asyncio.run(strategy.solve(make_item(), session)), session


CONTESTED = [trace("a", 1.0), trace("b", 4.0), trace("a", 3.0), trace("a", 2.0)]


def test_the_warm_up_sets_the_bar_and_later_traces_are_cut_under_it():
    solution, session = solve(HIGH, CONTESTED, [cut(), trace("a", 3.0), cut(tokens=5), trace("b", 5.0)])
    assert [draw.cut_below for draw in session.draws] == [None] * 4 + [2.5] * 4
    assert {draw.group for draw in session.draws} == {8}
    # At the bar of 2.5 and above: b 4 and 5, a 3 and 3; what lies below it does not vote.
    assert (solution.answer, solution.votes, solution.stop_reason) == ("b", 2, StopReason.CAPPED)
    assert solution.best == session.drawn[-1]
    assert solution.confidence == pytest.approx(p_lead(9 * 4 / 15, 6 * 4 / 15))
    assert dict(solution.facts) == {
        "bar": 2.5,
        "cut": 2.0,
        "cut tokens": 8.0,
        "consensus": pytest.approx(9 / 15),
        "mean tokens uncut": 10.0,
    }


def test_an_agreement_of_the_warm_up_settles_at_once():
    solution, session = solve(HIGH, [trace("b", 1.0), trace("b", 1.5), trace("a", 3.0), trace("a", 2.0)])
    assert (solution.answer, solution.votes, solution.stop_reason, len(session.drawn)) == (
        "a",
        2,
        StopReason.SETTLED,
        4,
    )


@pytest.mark.parametrize(("consensus", "drawn"), [(0.6, 5), (0.7, 6), (0.76, 6), (0.77, 8)])
def test_the_share_of_weight_stops_it(consensus, drawn):
    # At the bar b has 4 and a 3, then 7 and 13: shares of 7/11 and 13/17. What comes after is no vote.
    later = [trace("a", 4.0), trace("a", 6.0), trace(None, 9.0), trace("b", 1.0)]
    strategy = DeepConf(warmup=4, keep=50.0, max_samples=8, group=8, consensus=consensus)
    solution, session = solve(strategy, CONTESTED, later)
    assert (solution.answer, len(session.drawn)) == ("a", drawn)
    assert solution.stop_reason is (StopReason.SETTLED if drawn < 8 else StopReason.CAPPED)


def test_low_keeps_a_tenth_and_high_nine_tenths():
    confidences = [float(i) for i in range(16)]
    assert percentile(confidences, 90.0) == 13.5
    assert percentile(confidences, 10.0) == 1.5
    warmup = [trace(str(i % 2), c) for i, c in enumerate(confidences)]
    for keep, voters in ((10.0, 2), (90.0, 14), (100.0, 16)):
        solution, session = solve(DeepConf(keep=keep, group=8), warmup)
        assert (len(session.drawn), solution.stop_reason) == (16, StopReason.EXHAUSTED)
        assert solution.votes == voters // 2


def test_every_trace_is_a_bid_and_the_minimum_alone_is_guaranteed():
    strategy = DeepConf(warmup=4, keep=50.0, max_samples=8, group=8, min_samples=2)
    _, session = solve(strategy, CONTESTED, [cut(), cut(), cut(), cut()])
    assert session.bids[0] == math.inf
    assert len(session.bids) == 7
    assert all(0 < bid < math.inf for bid in session.bids[1:])
    # Two at once, then one by one: weights 1 and 4 are as many votes as two.
    assert session.bids[1] == pytest.approx((1 - p_lead(4 * 2 / 5, 1 * 2 / 5)) / math.sqrt(2) / 10)


@pytest.mark.parametrize("budget", range(8))
def test_refused_by_the_market_it_answers_with_what_there_is(budget):
    solution, session = solve(HIGH, CONTESTED, [trace("a", 4.0)] * 4, budget=budget)
    assert (solution.stop_reason, len(session.drawn)) == (StopReason.EXHAUSTED, budget)
    assert solution.next_value > 0
    if budget < 4:
        assert solution.facts["bar"] is None
        assert "did not pay for the warm-up" in solution.facts["failed"]
        # Without a bar every trace votes by its confidence; of equals the one ahead stays ahead.
        assert (solution.answer, solution.votes) == {
            0: (None, 0),
            1: ("a", 1),
            2: ("b", 1),
            3: ("b", 1),
        }[budget]
    else:
        assert "failed" not in solution.facts


def test_an_engine_without_confidences_is_a_plain_vote_over_the_warm_up():
    solution, session = solve(HIGH, [trace(a, None) for a in "aabb"] + [trace("c", None)])
    assert (solution.answer, solution.votes, solution.stop_reason) == ("a", 2, StopReason.CAPPED)
    assert len(session.drawn) == 4
    assert solution.facts["failed"] == (
        "traces: 4 without a confidence; "
        "bar: no warm-up trace has a confidence that can be used: nothing was cut, votes count alike"
    )


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (trace("b", math.nan), "1 whose confidence is not finite"),
        (trace("b", math.inf), "1 whose confidence is not finite"),
        (trace("b", None), "1 without a confidence"),
        (trace(None, None, tokens=0), "1 empty"),
    ],
)
def test_a_trace_whose_confidence_is_unusable_fails_alone(bad, why):
    solution, session = solve(HIGH, [trace("a", 3.0), bad, trace("a", 2.0), trace("b", 1.0)])
    assert (solution.answer, solution.votes, solution.stop_reason) == ("a", 2, StopReason.SETTLED)
    assert solution.facts["bar"] == 2.0
    assert solution.facts["failed"] == f"traces: {why}"
    assert len(session.drawn) == 4


def test_where_no_trace_at_the_bar_has_an_answer_those_below_vote():
    warmup = [trace(None, 4.0), trace(None, 3.0), trace("a", 1.0), trace("a", 2.0)]
    solution, session = solve(HIGH, warmup, [cut()] * 4)
    assert (solution.answer, solution.votes, solution.stop_reason) == ("a", 2, StopReason.CAPPED)
    assert len(session.drawn) == 8, "an agreement below the bar settles nothing"
    assert "those below it voted" in solution.facts["failed"]


def test_nothing_that_parses_is_hopeless():
    solution, _ = solve(HIGH, [trace(None, float(i)) for i in range(4)], [cut()] * 4)
    assert (solution.answer, solution.best, solution.stop_reason) == (None, None, StopReason.HOPELESS)


def test_an_engine_that_refuses_watched_traces_leaves_the_warm_up():
    solution, session = solve(HIGH, CONTESTED, refuse="no streams here")
    assert (solution.answer, solution.stop_reason, len(session.drawn)) == ("b", StopReason.CAPPED, 4)
    assert solution.facts["failed"] == "watched traces: no streams here"


def test_what_an_audit_compares_with_draws_to_the_cap():
    agreed = [trace("a", 2.0)] * 4
    early, session = solve(HIGH, agreed, [trace("a", 3.0)] * 4)
    assert (len(session.drawn), early.stop_reason) == (4, StopReason.SETTLED)
    whole, session = solve(HIGH.unstopped(), agreed, [trace("a", 3.0)] * 4)
    assert (len(session.drawn), whole.stop_reason) == (8, StopReason.SETTLED)


CONFIDENCES = st.none() | st.floats(0, 30) | st.sampled_from([math.nan, math.inf])
TRACES = st.lists(
    st.builds(
        trace,
        st.sampled_from(["a", "b", "c", None]),
        CONFIDENCES,
        st.integers(0, 20),
        st.sampled_from(["stop", "length", "abort", "cut"]),
    ),
    max_size=10,
)


@given(TRACES, TRACES, st.floats(1, 100), st.none() | st.integers(0, 12))
def test_whatever_comes_it_answers_and_re_executed_it_draws_nothing(warmup, later, keep, budget):
    strategy = DeepConf(warmup=5, keep=keep, max_samples=10, group=8)
    solution, session = solve(strategy, warmup, later, budget=budget)
    assert len(session.drawn) <= 10
    assert sum(draw.cut_below is None for draw in session.draws) <= 5
    complete = [s for s in session.drawn if not s.aborted and s.answer is not None]
    assert (solution.answer is None) == (not complete)
    if solution.answer is not None:
        assert solution.best in complete
        assert solution.best.answer == solution.answer
        assert 1 <= solution.votes <= sum(s.answer == solution.answer for s in complete)
    assert 0.0 <= solution.confidence <= 1.0
    assert not math.isnan(solution.next_value)
    again = session.again()
    if solution.stop_reason is not StopReason.EXHAUSTED:
        assert asyncio.run(strategy.solve(make_item(), again)) == solution
        assert again.drawn == session.drawn


@given(TRACES, st.floats(1, 100))
def test_no_trace_below_the_bar_votes_where_one_at_it_does(warmup, keep):
    strategy = DeepConf(warmup=5, keep=keep, max_samples=5, group=8)
    solution, session = solve(strategy, warmup)
    bar = solution.facts["bar"]
    usable = [s for s in session.drawn if not s.aborted and _finite(s)]
    at_the_bar = [s for s in usable if bar is not None and s.min_group_confidence >= bar]
    assert bar is None or at_the_bar, "the bar is reached by a trace it is made of"
    if any(s.answer is not None for s in at_the_bar):
        assert solution.best in at_the_bar


def _finite(sample: Sample) -> bool:
    return sample.min_group_confidence is not None and math.isfinite(sample.min_group_confidence)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=40), st.floats(0, 100))
def test_the_percentile_is_numpys(values, percent):
    assert percentile(values, percent) == pytest.approx(np.percentile(values, percent), rel=1e-9, abs=1e-9)
    assert min(values) <= percentile(values, percent) <= max(values)


SAMPLING = {"max_tokens": 16, "logprobs": 20}


def test_a_job_names_every_setting():
    section = {
        "kind": "deep_conf",
        "warmup": 8,
        "keep": 10,
        "consensus": 0.9,
        "max_samples": 32,
        "group": 4,
        "min_samples": 2,
        "alpha": 1.0,
    }
    spec = make_spec(strategy=section, sampling=SAMPLING).strategy
    assert make_strategy(spec) == DeepConf(8, 10.0, 0.9, 32, 4, 2, 1.0)
    assert (spec.least, spec.most) == (2, 32)
    default = make_spec(
        strategy={"kind": "deep_conf"}, sampling={"max_tokens": 4096, "logprobs": 2}, model={"max_model_len": 8192}
    )
    assert make_strategy(default.strategy) == DeepConf()


@pytest.mark.parametrize(
    ("section", "sampling", "message"),
    [
        ({}, {"logprobs": 0}, "set sampling.logprobs to 20"),
        ({}, {"logprobs": 1}, "set sampling.logprobs to 20"),
        ({"group": 16}, {}, "set strategy.group to a fraction"),
        ({"warmup": 0}, {}, "strategy.deep_conf.warmup"),
        ({"min_samples": 3, "warmup": 2}, {}, "must not exceed warmup"),
        ({"warmup": 9, "max_samples": 8}, {}, "must not exceed max_samples"),
        ({"keep": 0}, {}, "keep"),
        ({"keep": 101}, {}, "keep"),
        ({"keep": math.nan}, {}, "keep"),
        ({"consensus": 0.5}, {}, "consensus"),
        ({"consensus": math.nan}, {}, "consensus"),
        ({"group": 0}, {}, "group"),
        ({"alpha": -1}, {}, "alpha"),
        ({"eta": 10}, {}, "unknown field"),
    ],
)
def test_a_malformed_job_is_refused_before_anything_is_spent(section, sampling, message):
    with pytest.raises(SpecError, match=message):
        make_spec(strategy={"kind": "deep_conf", "group": 4, **section}, sampling=SAMPLING | sampling)


@pytest.mark.parametrize("settings", [{"min_samples": 17}, {"warmup": 600}, {"keep": 0.0}, {"keep": math.nan}])
def test_a_malformed_strategy(settings):
    with pytest.raises(SpecError):
        DeepConf(**settings)
