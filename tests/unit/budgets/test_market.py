"""The market over a simulated crew: it ends, holds the ceiling, answers every question, and moves the surplus."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budgets.ledger import LedgerError, Settlement
from budgets.market import Market
from budgets.messages import Commit, Reply, ShardState, WorkerReport
from pipeline.errors import SpecError
from tests.unit.budgets.fakes import FakeItem, Faults, World, run

INF = float("inf")
EXPECTED_MEAN = 11
"""Tokens a sample of a question with worst case 20 takes on average."""


def world_of(seed: int, shards: int, items: int, worst: int = 20) -> World:
    rng = random.Random(seed)
    plan = {}
    for shard_id in range(shards):
        size = rng.randint(1, items)
        plan[shard_id] = [
            FakeItem(f"s{shard_id}i{i}", rng.choice([1.0, 0.9, 0.5, 0.3]), rng.randint(2, worst)) for i in range(size)
        ]
    return World(plan)


def assert_all_answered(world: World) -> None:
    """Every shard has a commit, and each generation of it names every question of the shard exactly once."""
    assert {shard_id for shard_id, _ in world.commits} == set(world.shards)
    for (shard_id, _), answers in world.commits.items():
        assert list(answers) == sorted(item.item_id for item in world.shards[shard_id])


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    shards=st.integers(1, 6),
    items=st.integers(1, 10),
    workers=st.integers(1, 4),
    budget=st.integers(1, 3000),
)
def test_every_run_ends_within_its_budget(seed, shards, items, workers, budget):
    world = world_of(seed, shards, items)
    market = run(world, budget, workers, seed)
    assert_all_answered(world)
    assert market.ledger.spent == world.spent <= budget


@settings(deadline=None, max_examples=100)
@given(
    seed=st.integers(0, 10**6),
    budget=st.integers(1, 2500),
    loss=st.floats(0, 0.5),
    repeat=st.floats(0, 0.5),
    late=st.floats(0, 0.5),
    deaths=st.integers(0, 4),
    restarts=st.integers(0, 2),
)
def test_faults_do_no_harm(seed, budget, loss, repeat, late, deaths, restarts):
    world = world_of(seed, shards=4, items=8)
    market = run(world, budget, 3, seed, Faults(loss, repeat, late, 0.05, deaths, restarts))
    assert_all_answered(world)
    assert market.ledger.spent == world.spent <= budget


@pytest.mark.parametrize("seed", range(5))
def test_ample_budget_denies_nothing(seed):
    world = world_of(seed, shards=5, items=8)
    market = run(world, 1_000_000, 3, seed)
    assert world.denied == set()
    assert {generation for _, generation in world.commits} == {0}
    assert market.snapshot().price == 0.0
    assert_all_answered(world)


def test_one_token_answers_every_row():
    world = world_of(1, shards=5, items=8)
    market = run(world, 1, 2, 1)
    assert market.ledger.spent <= 1
    assert_all_answered(world)
    assert set().union(*(world.commits.values())) == {item.item_id for items in world.shards.values() for item in items}


def test_every_question_gets_its_minimum_before_any_gets_more():
    """The budget pays for one sample each, little more, and the contested shards come first."""
    world = World({s: [FakeItem(f"s{s}i{i}", 0.4 if s < 3 else 1.0) for i in range(8)] for s in range(6)})
    run(world, 48 * EXPECTED_MEAN + 60, 2, 0)
    samples = {item.item_id: len(world.journal.get(item.item_id, [])) for i in world.shards.values() for item in i}
    assert {name for name, n in samples.items() if n == 0} == set()


@pytest.mark.parametrize(("workers", "generations"), [(2, {0}), (1, {0, 1})])
def test_what_easy_shards_leave_reaches_contested_questions_elsewhere(workers, generations):
    """Fair shares buy about six samples everywhere. Unanimous questions stop at four; what they leave goes to the
    contested shard: while it is still open, or, where one worker's window had to move on, in a second generation."""
    plan = {s: [FakeItem(f"s{s}i{i}", 0.35 if s == 0 else 1.0, cap=40) for i in range(6)] for s in range(6)}
    world = World(plan)
    budget = 36 * 6 * EXPECTED_MEAN
    market = run(world, budget, workers, 3)
    contested = sum(tokens for item in plan[0] for _, tokens in world.journal[item.item_id])
    assert contested > 1.5 * budget * 6 / 36, "the contested shard got no more than its fair share"
    assert {generation for _, generation in world.commits} >= generations
    settled = {item.item_id for item in plan[0]} - world.denied
    assert market.ledger.free < 20 or settled, "tokens were left though questions were denied"
    assert_all_answered(world)


def test_a_larger_budget_goes_on_from_what_was_paid():
    world = world_of(5, shards=4, items=8)
    first = run(world, 400, 2, 5)
    before = {name: list(samples) for name, samples in world.journal.items()}
    second = run(world, 1200, 2, 6)
    assert first.ledger.spent <= 400 < second.ledger.spent == world.spent <= 1200
    for name, samples in before.items():
        assert world.journal[name][: len(samples)] == samples
    assert_all_answered(world)


def test_raise_budget_in_a_living_market():
    world = world_of(5, shards=4, items=8)
    market = run(world, 400, 2, 5)
    assert market.done
    market.raise_budget(1200)
    assert not market.done
    run(world, 1200, 2, 6, market=market)
    assert 400 < market.ledger.spent == world.spent <= 1200


def test_a_finished_run_is_done_at_once():
    assert Market(100, 90, {0: 3}, {0: Commit(0, 90)}).done
    assert Market(100, 200, {0: 3}, {0: Commit(0, 200, ((0.5, 10),))}).done
    assert not Market(100, 20, {0: 3}, {0: Commit(0, 20, ((0.5, 10),))}).done


def test_shards_go_out_in_order_and_to_one_worker_each():
    market = Market(1000, 0, {2: 5, 0: 5, 1: 5})
    first = market.sync(WorkerReport("a", 1, capacity=4, wants_shards=1))
    second = market.sync(WorkerReport("b", 1, capacity=4, wants_shards=2))
    assert [lease.shard_id for lease in first.open_shards] == [0]
    assert [lease.shard_id for lease in second.open_shards] == [1]
    repeat = market.sync(WorkerReport("a", 2, capacity=4, wants_shards=1))
    assert repeat.open_shards == first.open_shards, "a lease whose reply was lost counts as granted"


def test_grants_repeat_until_acknowledged_and_old_reports_are_ignored():
    market = Market(1000, 0, {0: 1})
    market.sync(WorkerReport("a", 1, capacity=2, wants_shards=1))
    asking = WorkerReport(
        "a", 2, demand=((INF, 10),), smallest_worst=10, worst=10, capacity=2, shards=(ShardState(0, 0, 1, 0, 0),)
    )
    granted = market.sync(asking)
    assert sum(grant.tokens for grant in granted.grants) == 10
    assert market.sync(asking) == granted
    assert market.sync(WorkerReport("a", 1, capacity=2, wants_shards=9)) == granted
    ids = tuple(grant.grant_id for grant in granted.grants)
    shards = asking.shards
    assert market.sync(WorkerReport("a", 3, inflight=1, capacity=1, shards=shards)).grants == granted.grants
    assert market.sync(WorkerReport("a", 4, acked_grants=ids, inflight=1, capacity=1, shards=shards)).grants == ()
    back = tuple(Settlement(grant_id, 1) for grant_id in ids)
    assert market.sync(WorkerReport("a", 5, settlements=back, shards=shards)).acked_settlements == ids
    assert (market.ledger.spent, market.ledger.reserved) == (len(ids), 0)


def test_unknown_lives_with_a_past_begin_anew():
    market = Market(1000, 0, {0: 1})
    assert market.sync(WorkerReport("old", 7, acked_grants=("old#1",))) == Reply(seq=7, reset=True)
    market.worker_lost("lost", 0)
    assert market.sync(WorkerReport("lost", 1)).reset


def test_a_lost_worker_returns_shards_and_unproven_tokens():
    market = Market(1000, 0, {0: 2, 1: 2})
    market.sync(WorkerReport("a", 1, capacity=2, wants_shards=1))
    states = (ShardState(0, 0, 2, 0, 0),)
    market.sync(WorkerReport("a", 2, demand=((INF, 40),), smallest_worst=20, worst=20, capacity=2, shards=states))
    assert market.ledger.reserved == 40
    market.worker_lost("a", proven_spent=7)
    market.worker_lost("a", proven_spent=7)
    assert (market.ledger.spent, market.ledger.reserved) == (7, 0)
    reply = market.sync(WorkerReport("b", 1, capacity=2, wants_shards=1))
    assert [(lease.shard_id, lease.generation) for lease in reply.open_shards] == [(0, 0)]


def test_starving_questions_are_parked_lowest_first():
    """Shares of a shard nobody opened are held back; the idle worker's cheapest bids give way, one step at a time."""
    market = Market(1000, 500, {0: 5, 1: 5})
    market.sync(WorkerReport("a", 1, capacity=4, wants_shards=1))
    market.sync(WorkerReport("a", 2, capacity=4, shards=(ShardState(0, 0, 5, 0, 0),)))

    def ask(seq, *bids):
        demand = tuple((bid, 100) for bid in bids)
        return market.sync(
            WorkerReport("a", seq, demand=demand, smallest_worst=100, worst=100, capacity=4, shards=states)
        )

    states = (ShardState(0, 0, 5, 0, 0),)
    edges = (4.0, 2.0, 1.0, 0.5)
    reply = ask(3, *edges)
    assert (reply.grants, reply.deny_below, reply.dry) == ((), 1.0, False)
    assert ask(4, *edges).deny_below == 1.0, "not obeyed yet: no further step"
    assert ask(5, *edges[:3]).deny_below > 2.0
    assert not ask(6, 4.0).dry


def test_dry_only_when_nothing_can_be_paid_any_more():
    market = Market(100, 95, {0: 2})
    market.sync(WorkerReport("a", 1, capacity=4, wants_shards=1))
    report = WorkerReport("a", 2, demand=((INF, 20),), smallest_worst=10, worst=10, capacity=4)
    reply = market.sync(report)
    assert not reply.dry, "the lease is not known to be received"
    states = (ShardState(0, 0, 2, 0, 0),)
    reply = market.sync(
        WorkerReport("a", 3, demand=((INF, 20),), smallest_worst=10, worst=10, capacity=4, shards=states)
    )
    assert reply.dry
    assert reply.deny_below == INF


def test_the_rest_pays_for_what_fits_when_the_best_does_not():
    market = Market(100, 85, {0: 2})
    market.sync(WorkerReport("a", 1, capacity=4, wants_shards=1))
    states = (ShardState(0, 0, 2, 0, 0),)
    demand = ((1.0, 50), (0.5, 10))
    reply = market.sync(WorkerReport("a", 2, demand=demand, smallest_worst=10, worst=50, capacity=4, shards=states))
    assert (reply.dry, reply.price) == (False, 0.0)
    assert sum(grant.tokens for grant in reply.grants) == 15


def test_a_generation_that_buys_nothing_is_not_repeated():
    market = Market(100, 20, {0: 3}, {0: Commit(0, 20, ((0.5, 10),))})
    lease = market.sync(WorkerReport("a", 1, capacity=4, wants_shards=1)).open_shards[0]
    assert (lease.shard_id, lease.generation) == (0, 1)
    assert 0 < lease.min_value <= 0.5
    state = ShardState(0, 1, 0, 3, 20, committed=True, parked=((0.5, 10),))
    reply = market.sync(WorkerReport("a", 2, capacity=4, shards=(state,)))
    assert reply.acked_commits == (0,)
    assert reply.done


def test_only_the_best_parked_shards_reopen():
    parked = {0: ((0.5, 60),), 1: ((0.25, 60),), 2: ((0.125, 60),)}
    commits = {shard_id: Commit(0, 30, pairs) for shard_id, pairs in parked.items()}
    market = Market(200, 90, dict.fromkeys(parked, 3), commits)
    reply = market.sync(WorkerReport("a", 1, capacity=4, wants_shards=9))
    assert [(lease.shard_id, lease.min_value) for lease in reply.open_shards] == [(0, 0.25), (1, 0.25)]


def test_snapshot():
    market = Market(1000, 100, {0: 4, 1: 6}, {1: Commit(0, 100)})
    market.sync(WorkerReport("a", 1, capacity=2, wants_shards=1))
    status = market.snapshot()
    assert (status.budget, status.spent, status.reserved) == (1000, 100, 0)
    assert (status.shards_open, status.shards_committed, status.shards_total) == (1, 1, 2)
    assert (status.finished_items, status.items, status.done) == (6, 10, False)


def test_malformed_input():
    with pytest.raises(LedgerError):
        Market(0, 0, {0: 1})
    with pytest.raises(LedgerError, match="commits name shards"):
        Market(10, 0, {0: 1}, {1: Commit(0, 0)})
    with pytest.raises(LedgerError, match="at least one"):
        Market(10, 0, {0: 0})
    market = Market(10, 0, {0: 1})
    with pytest.raises(SpecError, match="bid is"):
        market.sync(WorkerReport("a", 1, demand=((float("nan"), 1),)))
    with pytest.raises(LedgerError, match="does not have"):
        market.sync(WorkerReport("a", 2, shards=(ShardState(5, 0, 0, 0, 0),)))
