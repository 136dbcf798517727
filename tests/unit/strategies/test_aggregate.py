"""Aggregation on a scripted session: when it is called, what it may say, and what of it is ignored."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgets.evidence import Evidence
from pipeline.errors import RequestRejected
from pipeline.records import Sample, StopReason
from strategies.aggregate import Aggregate
from strategies.base import Draw
from strategies.self_consistency import SelfConsistency
from tests.factories import make_item, make_sample
from tests.fake_session import FakeSession


def rule(method: str = "set", votes: int = 4, **more) -> Aggregate:
    return Aggregate(SelfConsistency(max_samples=votes, evidence=Evidence("votes")), method=method, **more)


def script(votes: str, reply: Sample | None):
    """The vote's answers, and what every aggregation says."""

    def drawn(draw: Draw, index: int) -> Sample | None:
        if draw.prompt is None:
            return make_sample(answer=votes[index]) if index < len(votes) else None
        return reply

    return drawn


def solve(strategy, session):
    return asyncio.run(strategy.solve(make_item(), session))


def test_a_settled_vote_stands_and_nothing_more_is_spent():
    session = FakeSession(script("aaaa", make_sample(answer="z")))
    solution = solve(rule(), session)
    assert (solution.answer, solution.stop_reason, solution.facts["contested"]) == ("a", StopReason.SETTLED, 0.0)
    assert len(session.drawn) == 4


def test_a_contested_vote_is_aggregated_and_both_are_told():
    session = FakeSession(script("abab", make_sample(answer="c", text="The answer is c.")))
    solution = solve(rule(), session)
    assert (solution.answer, solution.facts["vote_answer"], solution.facts["changed"]) == ("c", "a", 1.0)
    assert (len(session.drawn), solution.facts["aggregations"]) == (5, 1.0)
    assert solution.best == session.drawn[-1]


@pytest.mark.parametrize("method", ["usc", "genselect", "set", "rsa"])
@pytest.mark.parametrize(
    "reply",
    [
        None,
        make_sample(answer=None, text="nonsense"),
        make_sample(answer=None, text=""),
        make_sample(answer="c", text="c", finish_reason="abort"),
    ],
)
def test_what_cannot_be_used_leaves_the_vote(method, reply):
    solution = solve(rule(method, steps=2), FakeSession(script("abab", reply)))
    assert (solution.answer, solution.facts["changed"]) == ("a", 0.0)


def test_a_prompt_that_is_too_long_leaves_the_vote_and_is_told():
    def drawn(draw: Draw, index: int) -> Sample:
        if draw.prompt is not None:
            raise RequestRejected("too long")
        return make_sample(answer="ab"[index % 2])

    solution = solve(rule("usc"), FakeSession(drawn))
    assert (solution.answer, solution.facts["failed"]) == ("a", "usc: too long")


@given(st.text("abc", max_size=6), st.sampled_from(["usc", "genselect", "set", "rsa"]), st.integers(0, 20))
def test_re_executed_it_gives_the_same_and_draws_nothing(votes, method, budget):
    strategy = rule(method, votes=6, steps=3, selections=3)
    first = FakeSession(script(votes, make_sample(answer="b", text="2")), budget=budget)
    one = solve(strategy, first)
    again = first.again()
    assert solve(strategy, again) == one
    assert again.drawn == first.drawn
    assert len(first.drawn) <= strategy.maximum
