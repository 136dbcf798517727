"""Strategies on a scripted session: every decision worked out by hand."""

import math

from hypothesis import given
from hypothesis import strategies as st

from pipeline.records import StopReason
from strategies.base import Solution, Strategy
from strategies.greedy import Greedy
from strategies.self_consistency import SelfConsistency
from tests.factories import make_item
from tests.fake_session import FakeSession


async def solve(strategy: Strategy, session: FakeSession) -> Solution:
    return await strategy.solve(make_item(), session)


async def test_greedy_takes_one_sample_at_temperature_zero():
    session = FakeSession(["7", "8"])
    solution = await solve(Greedy(), session)
    assert (solution.answer, solution.stop_reason, len(session.drawn)) == ("7", StopReason.CAPPED, 1)
    assert [draw.temperature for draw in session.draws] == [0.0]
    assert session.bids == [math.inf]


async def test_greedy_without_money_or_without_an_answer():
    assert (await solve(Greedy(), FakeSession([]))).stop_reason is StopReason.EXHAUSTED
    assert (await solve(Greedy(), FakeSession([None]))).stop_reason is StopReason.HOPELESS


async def test_unanimous_votes_settle_at_four():
    session = FakeSession(["7"] * 10)
    solution = await solve(SelfConsistency(), session)
    assert (solution.answer, solution.stop_reason, solution.votes, len(session.drawn)) == (
        "7",
        StopReason.SETTLED,
        4,
        4,
    )
    assert solution.confidence >= 0.95
    assert solution.best == session.drawn[0]


async def test_one_dissenter_costs_three_more():
    # 4:1 gives .891, 5:1 .9375, 6:1 .9648.
    session = FakeSession(["7", "8"] + ["7"] * 10)
    solution = await solve(SelfConsistency(), session)
    assert (solution.votes, len(session.drawn)) == (6, 7)


async def test_the_minimum_is_bid_at_infinity_and_drawn_together():
    session = FakeSession(["7"] * 10)
    await solve(SelfConsistency(min_samples=3), session)
    assert session.bids[0] == math.inf
    assert all(math.isfinite(bid) for bid in session.bids[1:])


async def test_the_cap():
    solution = await solve(SelfConsistency(max_samples=4), FakeSession(["7", "8", "7", "8"]))
    assert (solution.answer, solution.stop_reason) == ("7", StopReason.CAPPED)


async def test_samples_that_never_parse_are_hopeless_at_the_cap_and_counted():
    session = FakeSession([None] * 40)
    solution = await solve(SelfConsistency(), session)
    assert (solution.answer, solution.stop_reason, len(session.drawn)) == (None, StopReason.HOPELESS, 40)


async def test_outbid_answers_with_what_there_is_and_says_what_more_was_worth():
    solution = await solve(SelfConsistency(), FakeSession(["7", "8", "7"], budget=3))
    assert (solution.answer, solution.votes, solution.stop_reason) == ("7", 2, StopReason.EXHAUSTED)
    # (1 − P(Binomial(4, ½) ≤ 1)) … the leader's lead is 2:1, P_lead = 11/16; value = (5/16)/√3/10.
    assert math.isclose(solution.next_value, (5 / 16) / math.sqrt(3) / 10)


async def test_outbid_with_a_flat_vote_is_hopeless():
    flat = await solve(SelfConsistency(), FakeSession(["7", "8"] * 4, budget=8))
    assert (flat.answer, flat.stop_reason) == ("7", StopReason.HOPELESS)
    assert flat.next_value > 0
    # 5:3 of 8 forecasts 25:15 of 40, P_lead .94 < .95; 6:2 forecasts 30:10, P_lead > .99.
    near = await solve(SelfConsistency(), FakeSession(["7", "8", "7", "8", "7", "7", "7", "7"][:8], budget=7))
    assert near.stop_reason is StopReason.EXHAUSTED


async def test_no_money_at_all_is_exhausted_without_an_answer():
    solution = await solve(SelfConsistency(), FakeSession([]))
    assert (solution.answer, solution.stop_reason, solution.next_value) == (None, StopReason.EXHAUSTED, math.inf)


@given(st.lists(st.sampled_from(["1", "2", None]), min_size=0, max_size=45), st.integers(1, 5))
def test_the_same_journal_gives_the_same_solution_and_never_more_than_the_cap(answers, minimum):
    import asyncio

    strategy = SelfConsistency(min_samples=minimum)
    first, second = FakeSession(answers), FakeSession(answers)
    one, two = asyncio.run(solve(strategy, first)), asyncio.run(solve(strategy, second))
    assert one == two
    assert first.drawn == second.drawn
    assert len(first.drawn) <= 40
