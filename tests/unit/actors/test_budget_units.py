"""Budgets that are not tokens, through everything real but the engine: the books agree in their unit, to the unit."""

import asyncio
from dataclasses import replace

import pytest

from actors.allocator import AllocatorActor
from actors.engines.scripted import ScriptedEngine
from actors.judge import RuleJudge
from actors.recovery import restore_market
from actors.station import Station
from budgets.market import Market
from budgets.messages import WorkerReport
from budgets.wallet import Wallet
from pipeline.budget_spec import budget_units, cost_model
from pipeline.driver import prepare
from pipeline.records import Answer, Judged, StopReason, Verdict
from pipeline.spending import spent_by_life, total
from pipeline.status import status_of
from pipeline.store import Store
from tests.factories import make_sample
from tests.unit.actors.test_station import ALL, ids, make_job, outcome

PRICE = {"prompt": 0.10, "cached": 0.01, "completion": 0.40}
RENTED = {"gpu_hour": 2.5, "tokens_per_second": 3000}


def budget_in(kind: str, amount: float, **price) -> dict:
    return {"tokens": None, kind: amount, "price": price}


async def work(spec) -> Market:
    """Start or resume, to the end, with two stations."""
    prepared = prepare(spec)
    cost = cost_model(spec.budget)
    market = restore_market(prepared.store, budget_units(spec.budget), prepared.shards, cost)
    shards = {shard.shard_id: shard for shard in prepared.shards}

    async def sync(report):
        return market.sync(report)

    judge = RuleJudge(spec)
    engine = ScriptedEngine(spec)
    lives = [f"{id(market):x}-{number}" for number in range(2)]
    stations = [Station(spec, shards, engine, prepared.store, judge, life, cost) for life in lives]
    try:
        await asyncio.gather(*(station.run(sync) for station in stations))
    finally:
        await judge.close()
    return market


def check_books(spec, market: Market) -> None:
    """Live ledger, a ledger restored from the directory, and what ``status`` tells are one."""
    store, cost = Store.open(spec.output), cost_model(spec.budget)
    assert market.ledger.reserved == 0
    assert market.ledger.spent <= budget_units(spec.budget)
    assert market.ledger.spent == sum(spent_by_life(store, cost).values())
    again = restore_market(store, budget_units(spec.budget), store.read_plan(), cost)
    assert again.ledger.spent == market.ledger.spent
    use = status_of(spec.output).budget
    assert use is not None
    assert use.spent <= use.total
    usage = total(store.journal_usage())
    assert cost.of_usage(usage) == market.ledger.spent
    assert usage.billed == sum(answer["tokens"] for answer in outcome(spec)[0])


async def test_an_ample_budget_of_any_kind_gives_the_answers_of_a_token_budget(tmp_path):
    budgets = {
        "tokens": {"tokens": 100_000},
        "by class": budget_in("dollars", 1, **PRICE),
        "rented": budget_in("dollars", 1, **RENTED),
        "micro": budget_in("flops", 1e18, parameters=0.135, verifiers={"numeric": 0.5}),
    }
    for name in budgets:
        (tmp_path / name).mkdir()
    specs = [make_job(tmp_path / name, budget=budget) for name, budget in budgets.items()]
    markets = await asyncio.gather(*map(work, specs))
    found = []
    for spec, market in zip(specs, markets, strict=True):
        check_books(spec, market)
        answers, samples, dead = outcome(spec)
        assert (ids(answers), dead) == (ALL, [])
        found.append(({a["item_id"]: a["answer"] for a in answers}, len(samples)))
    assert found == [found[0]] * len(budgets)


@pytest.mark.parametrize("dollars", [0.000_007, 0.000_03])
async def test_a_few_cents_are_a_ceiling_and_a_top_up_pays_the_difference(tmp_path, dollars):
    # A sample reserves 3 × $0.10 + 16 × $0.40 a million tokens: $0.0000067; all that is wanted costs more.
    small, ample = (make_job(tmp_path, budget=budget_in("dollars", amount, **PRICE)) for amount in (dollars, 1.0))
    check_books(small, await work(small))
    answers, samples, _ = outcome(small)
    assert ids(answers) == ALL
    assert samples
    assert "exhausted" in {answer["stop_reason"] for answer in answers}
    paid = {(sample["item_id"], sample["sample_index"]) for sample in samples}
    check_books(ample, await work(ample))
    answers, samples, _ = outcome(ample)
    assert {answer["stop_reason"] for answer in answers} == {"settled"}
    assert paid < {(sample["item_id"], sample["sample_index"]) for sample in samples}
    assert len({(sample["item_id"], sample["sample_index"]) for sample in samples}) == len(samples)


def begin_verified(tmp_path, price):
    """A run whose first shard is committed by w-0 with verdicts that cost tokens; w-1 has journalled one sample."""
    spec = make_job(tmp_path, rows=2, budget=budget_in("dollars", 1, **price))
    prepared = prepare(spec)
    store, shards = prepared.store, prepared.shards
    first = make_sample("q000", 0, prompt_tokens=10, cached_prompt_tokens=4, completion_tokens=20, writer="w-0")
    second = make_sample("q001", 0, prompt_tokens=10, completion_tokens=5, writer="w-1")
    store.journal(0, [first], "w-0", 1)
    store.journal(0, [second], "w-1", 1)
    said = (Verdict("numeric", 1.0, tokens=7),)
    judged = [replace(one, verdicts=said) for one in (first, second)]
    return spec, store, shards, judged


def check(store: Store, judged) -> None:
    """w-0 checks both samples."""
    store.note(
        0, [Judged(one.item_id, one.prompt_key, one.sample_index, one.verdicts, "w-0") for one in judged], "w-0", 2
    )


def commit(store: Store, judged, writer: str) -> None:
    answers = [
        Answer(one.item_id, "1", "1", StopReason.SETTLED, 0.9, 1, 1, one.billed_tokens, one.verifier_tokens)
        for one in judged
    ]
    store.commit(0, 0, answers, judged, [], [], writer)


def test_verification_is_spent_once_and_a_restored_ledger_agrees_with_a_live_one(tmp_path):
    price = {**PRICE, "verifiers": {"numeric": 0.20}}
    spec, store, shards, judged = begin_verified(tmp_path, price)
    cost = cost_model(spec.budget)
    market = Market(budget_units(spec.budget), 0, {0: 2})
    wallets = {"w-0": Wallet(), "w-1": Wallet()}
    worst = cost.worst(10, 20) + 7 * 200_000
    for sample, (life, wallet) in zip(judged, wallets.items(), strict=True):
        demand = ((float("inf"), worst),)
        reply = market.sync(WorkerReport(life, 1, demand=demand, smallest_worst=worst, worst=worst, capacity=1))
        for grant in reply.grants:
            wallet.add(grant)
        assert wallet.reserve(worst)
        wallet.settle(worst, cost.of_all([sample]))
        wallet.take_settlements(0)
        market.sync(WorkerReport(life, 2, settlements=wallet.settlements, spent=wallet.spent, capacity=1))
    check(store, judged)
    commit(store, judged, "w-0")
    # 6 + 10 prompt tokens at 100,000, 4 cached at 10,000, 25 at 400,000, and 14 of the verifier at 200,000.
    by_hand = 16 * 100_000 + 4 * 10_000 + 25 * 400_000 + 14 * 200_000
    again = restore_market(store, budget_units(spec.budget), shards, cost)
    assert market.ledger.spent == again.ledger.spent == by_hand
    assert again.snapshot().finished_items == 2
    status = status_of(spec.output)
    assert status.tokens_spent == 16 + 25 + 14
    assert status.budget is not None
    assert status.budget.spent == pytest.approx(by_hand / 10**12, rel=1e-12)


def test_what_a_dead_worker_is_proven_to_have_spent_includes_its_checks(tmp_path):
    price = {**PRICE, "verifiers": {"numeric": 0.20}}
    spec, store, _, judged = begin_verified(tmp_path, price)
    cost = cost_model(spec.budget)
    before = spent_by_life(store, cost)
    check(store, judged)
    commit(store, judged, "w-0")
    after = spent_by_life(Store.open(spec.output), cost)
    assert before == {"w-0": 600_000 + 40_000 + 8_000_000, "w-1": 1_000_000 + 2_000_000}
    assert after == {"w-0": before["w-0"] + 14 * 200_000, "w-1": before["w-1"]}


def test_parked_demand_comes_back_in_units(tmp_path):
    spec, store, shards, judged = begin_verified(tmp_path, PRICE)
    answers = [
        Answer(one.item_id, "1", "1", StopReason.EXHAUSTED, 0.9, 1, 1, one.billed_tokens, next_value=1e-9)
        for one in judged
    ]
    store.commit(0, 0, answers, judged, [], [], "w-0")
    cost = cost_model(spec.budget)
    dry = restore_market(store, 1, shards, cost)
    # All 41 computed tokens of the shard cost 11.64 million; the two questions want as much again, rounded up.
    assert dry._leases.parked.total() == pytest.approx(11_640_000, abs=2)


def test_the_allocator_counts_in_the_unit_of_the_budget(tmp_path):
    spec, _, shards, _ = begin_verified(tmp_path, PRICE)
    actor = AllocatorActor(spec.output, budget_units(spec.budget), shards, cost_model(spec.budget), None)
    status, samples = actor.status()
    assert (status.budget, samples) == (10**12, 0)
    assert status.spent == 8_640_000 + 3_000_000
    actor.worker_lost("w-1")
    assert actor.status()[0].spent == status.spent
    assert not actor.status()[0].expired


def test_the_allocator_sells_nothing_once_the_time_is_over(tmp_path):
    spec, _, shards, _ = begin_verified(tmp_path, PRICE)
    actor = AllocatorActor(spec.output, budget_units(spec.budget), shards, cost_model(spec.budget), -1.0)
    actor._paced_at -= 1.0
    demand = ((float("inf"), 100),)
    reply = actor.sync(WorkerReport("w-9", 1, demand=demand, smallest_worst=100, worst=100, capacity=1))
    assert reply.expired
    assert reply.grants == ()
