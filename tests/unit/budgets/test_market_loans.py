"""The market with loans, a pace and a deadline, over a simulated crew: it still ends and still answers everything."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budgets.market import Market
from budgets.messages import Borrowed, Lent, ShardState, WorkerReport
from tests.unit.budgets.fake_world import FakeItem, World
from tests.unit.budgets.fakes import Faults, run
from tests.unit.budgets.test_market import assert_all_answered, world_of

WIDE = 16
"""Open questions a fake worker holds at once, over 4 slots: enough of them wait at the end to be lent."""


@settings(deadline=None, max_examples=100)
@given(
    seed=st.integers(0, 10**6),
    shards=st.integers(1, 3),
    budget=st.integers(1, 6000),
    loss=st.floats(0, 0.5),
    repeat=st.floats(0, 0.5),
    late=st.floats(0, 0.5),
    deaths=st.integers(0, 5),
    restarts=st.integers(0, 2),
)
def test_faults_do_no_harm_while_questions_move(seed, shards, budget, loss, repeat, late, deaths, restarts):
    """``run`` itself asserts that no two lives ever draw for one question at once."""
    world = world_of(seed, shards, items=16)
    market = run(world, budget, 3, seed, Faults(loss, repeat, late, 0.05, deaths, restarts), window=WIDE)
    assert_all_answered(world)
    assert market.ledger.spent == world.spent <= budget


def one_shard(items: int = 16) -> World:
    return World({0: [FakeItem(f"i{i:02d}", 0.5) for i in range(items)]})


def test_an_idle_worker_takes_over_and_it_ends_sooner():
    rounds = {}
    for workers in (1, 3):
        world = one_shard()
        seen = []
        market = run(world, 10**6, workers, 1, window=WIDE, each_round=lambda market, number: seen.append(number))  # noqa: B023
        rounds[workers] = len(seen)
        assert_all_answered(world)
        assert market.ledger.spent == world.spent
        assert bool(world.drawn_elsewhere) == (workers > 1)
        assert world.drawn_elsewhere <= world.lent
    assert rounds[3] < rounds[1]


@pytest.mark.parametrize("seed", range(8))
def test_answers_do_not_depend_on_who_draws(seed):
    answers = []
    for workers in (1, 3):
        world = one_shard()
        run(world, 10**6, workers, seed, Faults(loss=0.2, late=0.2, death=0.05, deaths=3), window=WIDE)
        answers.append(world.commits[(0, 0)])
    assert answers[0] == answers[1]


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), expires=st.integers(0, 40), loss=st.floats(0, 0.4), deaths=st.integers(0, 3))
def test_at_the_deadline_every_run_ends(seed, expires, loss, deaths):
    """Nothing is sold from then on, no generation is opened, loans come home and every question is answered."""
    world = world_of(seed, shards=4, items=12)
    reserved: list[int] = []
    generations: list[int] = []

    def expire(market: Market, number: int) -> None:
        if number >= expires:
            market.expire()
            reserved.append(market.ledger.reserved)
            generations.append(max((generation for _, generation in world.commits), default=0))

    market = run(world, 2500, 3, seed, Faults(loss, death=0.1, deaths=deaths), window=WIDE, each_round=expire)
    assert_all_answered(world)
    assert market.ledger.spent == world.spent <= 2500
    assert reserved == sorted(reserved, reverse=True)
    assert not generations or max(generation for _, generation in world.commits) <= generations[0] + 1


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), pace=st.integers(0, 400))
def test_a_paced_market_sells_no_more_than_can_be_computed(seed, pace):
    world = world_of(seed, shards=4, items=12)
    rng = random.Random(seed)
    limit = 0

    def keep_pace(market: Market, number: int) -> None:
        nonlocal limit
        sold = market.ledger.spent + market.ledger.reserved
        assert number == 0 or sold <= limit
        market.pace(rng.randint(0, pace))
        # What was sold before stays sold; nothing more comes on top of it than the new pace allows.
        limit = max(sold, market.snapshot().spent + pace)

    market = run(world, 10**6, 3, seed, window=WIDE, each_round=keep_pace)
    assert_all_answered(world)
    assert market.ledger.spent == world.spent


def test_a_pace_of_nothing_answers_everything_for_nothing():
    world = one_shard()
    market = run(world, 1000, 2, 0, each_round=lambda market, number: market.pace(0))
    assert_all_answered(world)
    assert (market.ledger.spent, world.journal) == (0, {})


def test_a_pace_is_lifted():
    market = Market(1000, 0, {0: 2})
    market.sync(WorkerReport("a", 1, capacity=4, wants_shards=1))
    states = (ShardState(0, 0, 2, 0, 0),)

    def granted(seq: int) -> int:
        asking = WorkerReport("a", seq, demand=((1.0, 200),), smallest_worst=50, worst=50, capacity=4, shards=states)
        return sum(grant.tokens for grant in market.sync(asking).grants)

    market.pace(60)
    assert granted(2) == 60
    market.pace(None)
    assert granted(3) == 200


def test_an_expired_market_hands_out_shards_though_slots_are_full():
    market = Market(1000, 0, {0: 2, 1: 2})
    full = WorkerReport("a", 1, inflight=4, capacity=0, wants_shards=2)
    assert market.sync(full).open_shards == ()
    market.expire()
    reply = market.sync(WorkerReport("a", 2, inflight=4, capacity=0, wants_shards=2))
    assert [lease.shard_id for lease in reply.open_shards] == [0, 1]
    assert reply.expired


def test_an_expired_market_refuses_what_waits_and_reopens_nothing():
    market = Market(1000, 0, {0: 2})
    market.sync(WorkerReport("a", 1, capacity=4, wants_shards=1))
    market.expire()
    states = (ShardState(0, 0, 2, 0, 0),)
    reply = market.sync(
        WorkerReport("a", 2, demand=((1.0, 20),), smallest_worst=10, worst=10, capacity=4, shards=states)
    )
    assert (reply.dry, reply.grants) == (True, ())
    done = ShardState(0, 0, 0, 2, 0, committed=True, parked=((1.0, 20),))
    reply = market.sync(WorkerReport("a", 3, capacity=4, shards=(done,)))
    assert (reply.acked_commits, reply.done) == ((0,), True)
    assert market.snapshot().expired


def test_what_is_lent_keeps_its_shard_from_the_next_worker_until_its_borrower_lets_go():
    market = Market(10_000, 0, {0: 9})
    market.sync(WorkerReport("w", 1, capacity=4, wants_shards=1))
    states = (ShardState(0, 0, 9, 0, 0),)
    market.sync(WorkerReport("w", 2, inflight=4, lendable=5, shards=states))
    market.sync(WorkerReport("v", 1, capacity=4, borrows=4))
    (request,) = market.sync(WorkerReport("w", 3, inflight=4, lendable=5, shards=states)).lend
    assert request.count == 5
    lent = (Lent(request.loan_id, 0, ("a", "b")),)
    assert market.sync(WorkerReport("w", 4, inflight=4, shards=states, lent=lent)).lend == ()
    (loan,) = market.sync(WorkerReport("v", 2, capacity=4, borrows=4)).borrow
    assert (loan.shard_id, loan.items, loan.dropped) == (0, ("a", "b"), False)
    market.worker_lost("w", 0)
    assert market.sync(WorkerReport("x", 1, capacity=4, wants_shards=1)).open_shards == ()
    working = (Borrowed(loan.loan_id, returned=False),)
    (loan,) = market.sync(WorkerReport("v", 3, capacity=2, inflight=2, borrowed=working)).borrow
    assert loan.dropped
    assert market.sync(WorkerReport("x", 2, capacity=4, wants_shards=1)).open_shards == ()
    returned = (Borrowed(loan.loan_id, returned=True),)
    assert market.sync(WorkerReport("v", 4, capacity=4, borrowed=returned)).borrow == ()
    assert [lease.shard_id for lease in market.sync(WorkerReport("x", 3, capacity=4, wants_shards=1)).open_shards] == [
        0
    ]
