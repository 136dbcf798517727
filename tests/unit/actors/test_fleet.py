"""Two models in every worker, through everything real but the engines: slots, prices, books."""

import asyncio
from collections import Counter

import pytest

from actors.engines.devices import Devices
from actors.engines.fleet import Fleet
from actors.engines.scripted import ScriptedEngine
from actors.judge import RuleJudge
from actors.recovery import restore_market
from actors.station import Station
from pipeline.budget_spec import budget_units, cost_model
from pipeline.errors import EngineError, RequestRejected
from pipeline.spending import spent_by_life, total
from pipeline.store import Store
from tests.unit.actors.test_station import ALL, begin, ids, make_job, outcome

LARGE = {"engine": "scripted", "name": "large", "max_model_len": 256, "max_num_seqs": 2, "options": {"tokens": 4}}
STAGES = [{"max_samples": 4, "confidence": 0.9}, {"model": "large", "max_samples": 4, "confidence": 0.9}]


class Watched(ScriptedEngine):
    """Knows how many ran at once."""

    def __init__(self, spec) -> None:
        super().__init__(spec)
        self.running = self.most = self.served = 0

    async def generate(self, request):
        self.running += 1
        self.served += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0)
        try:
            return await super().generate(request)
        finally:
            self.running -= 1


def job(folder, **budget):
    section = {"tokens": 1_000_000, "price": {"models": {"large": 8}}, **budget}
    # Answers of one weight: most votes stay contested.
    model = {"options": {"weights": [1, 1, 1]}}
    strategy = {"kind": "cascade", "stages": STAGES}
    return make_job(folder, model=model, models={"large": LARGE}, strategy=strategy, budget=section)


async def work(spec, lives=("w-0",)):
    store, cost = begin(spec), cost_model(spec.budget)
    shards = {shard.shard_id: shard for shard in store.read_plan()}
    market = restore_market(store, budget_units(spec.budget), list(shards.values()), cost)

    async def sync(report):
        return market.sync(report)

    judge = RuleJudge(spec)
    models = {"": spec.model, **spec.models}
    engines = {name: Watched(spec.model_copy(update={"model": model})) for name, model in models.items()}
    stations = [Station(spec, shards, Fleet(engines), store, judge, life, cost) for life in lives]
    try:
        await asyncio.gather(*(station.run(sync) for station in stations))
    finally:
        await judge.close()
    return market, engines


def check_books(spec, market) -> None:
    store, cost = Store.open(spec.output), cost_model(spec.budget)
    usage = total(store.journal_usage())
    assert market.ledger.spent == cost.of_usage(usage) == sum(spent_by_life(store, cost).values())
    assert market.ledger.spent <= budget_units(spec.budget)
    again = restore_market(store, budget_units(spec.budget), store.read_plan(), cost)
    assert again.ledger.spent == market.ledger.spent


async def test_each_model_has_slots_and_a_price_of_its_own(tmp_path):
    spec = job(tmp_path)
    market, engines = await work(spec)
    answers, samples, dead = outcome(spec)
    assert (ids(answers), dead) == (ALL, [])
    drawn = Counter(sample["model"] for sample in samples)
    assert drawn == {name: engine.served for name, engine in engines.items()}
    assert drawn["large"] > 0
    assert engines["large"].most <= 2 < engines[""].most <= 8
    by_hand = sum(
        (s["prompt_tokens"] - s["cached_prompt_tokens"] + s["completion_tokens"]) * (8 if s["model"] else 1)
        for s in samples
    )
    assert market.ledger.spent == by_hand
    check_books(spec, market)
    before = by_hand, len(samples)
    again, engines = await work(spec, ("w-1",))
    assert (again.ledger.spent, len(outcome(spec)[1])) == before
    assert [engine.served for engine in engines.values()] == [0, 0]


@pytest.mark.parametrize("tokens", [1, 100, 500, 2000])
async def test_the_ceiling_holds_over_both(tmp_path, tokens):
    spec = job(tmp_path, tokens=tokens)
    market, _ = await work(spec, ("w-0", "w-1"))
    assert ids(outcome(spec)[0]) == ALL
    check_books(spec, market)


async def test_dollars_by_model(tmp_path):
    price = {"prompt": 0.1, "completion": 0.4, "models": {"large": {"prompt": 1.0, "cached": 0.5, "completion": 4.0}}}
    spec = job(tmp_path, tokens=None, dollars=0.001, price=price)
    market, _ = await work(spec)
    check_books(spec, market)


def test_a_model_that_is_not_there():
    with pytest.raises(RequestRejected, match="no model called 'huge'"):
        Fleet({}).of("huge")


def test_devices_are_handed_out_once(monkeypatch):
    import os

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,7")
    devices, seen = Devices.visible(), []
    for count in (1, 2):
        with devices.taken(count):
            seen.append(os.environ["CUDA_VISIBLE_DEVICES"])
    assert (seen, os.environ["CUDA_VISIBLE_DEVICES"]) == (["3", "5,7"], "3,5,7")
    with pytest.raises(EngineError, match="gpus_per_worker"), devices.taken(1):
        pass
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    with Devices.visible().taken(4):
        assert "CUDA_VISIBLE_DEVICES" not in os.environ
