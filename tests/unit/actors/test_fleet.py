"""Several engines in one worker: each with slots, devices and prompts of its own, and one set of exact books."""

import asyncio
import math
import os
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.desk import Desk
from actors.dispatch import Dispatch
from actors.engines.devices import VISIBLE, environment, visible_to
from actors.engines.fleet import Fleet
from actors.engines.scripted import ScriptedEngine
from actors.judge import RuleJudge
from actors.life import Life
from actors.logbook import Logbook
from actors.recovery import restore_market
from actors.siblings import Siblings
from actors.station import Station
from actors.tasks import Tasks
from budgets.cost import ByClass, CostModel, Usage
from budgets.market import Market
from pipeline.budget_spec import budget_units, cost_model
from pipeline.driver import prepare
from pipeline.errors import EngineError, RequestRejected, SpecError
from pipeline.records import Sample, columns_of, to_row
from pipeline.spec import JobSpec
from pipeline.spending import spent_by_life
from pipeline.store import Store
from strategies.base import Draw
from tests.factories import make_item, make_sample, make_spec
from tests.unit.actors.test_budget_units import PRICE, RENTED, budget_in, check_books
from tests.unit.actors.test_desk import make_ask
from tests.unit.actors.test_station import ALL, ids, make_job, outcome

LARGE = {"engine": "scripted", "max_model_len": 256, "max_num_seqs": 2, "options": {"answers": ["1"], "weights": [1]}}
STAGES = [{"max_samples": 4}, {"model": "large", "max_samples": 3}]
WIDE = {"options": {"weights": [4, 3, 3]}}
"""A small model that is of three minds: most questions go on."""


def cascade_job(folder, **sections) -> JobSpec:
    stages = sections.pop("stages", STAGES)
    further = {"models": {"large": LARGE}, "strategy": {"kind": "cascade", "evidence": "votes", "stages": stages}}
    return make_job(folder, **{"model": WIDE, **further, **sections})


async def run(spec: JobSpec, lives: list[str], fleet: Fleet | None = None) -> Market:
    """Start or resume, to the end, with a station a life."""
    prepared = prepare(spec)
    cost = cost_model(spec.budget)
    market = restore_market(prepared.store, budget_units(spec.budget), prepared.shards, cost)
    shards = {shard.shard_id: shard for shard in prepared.shards}

    async def sync(report):
        return market.sync(report)

    judge = RuleJudge(spec)
    fleets = [fleet or await Fleet.start(spec) for _ in lives]
    stations = [
        Station(spec, shards, each, prepared.store, judge, life, cost) for life, each in zip(lives, fleets, strict=True)
    ]
    try:
        await asyncio.wait_for(asyncio.gather(*(station.run(sync) for station in stations)), 120)
    finally:
        await judge.close()
    return market


class Counting(ScriptedEngine):
    """Remembers how many samples ran at once. ``gate``: what each waits for; ``then``: called after each."""

    def __init__(
        self, spec: JobSpec, gate: asyncio.Event | None = None, then: Callable[[int], None] = lambda done: None
    ) -> None:
        super().__init__(spec)
        self.most = self.running = self.done = 0
        self._gate, self._then = gate, then

    async def generate(self, request):
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if self._gate is not None:
                await self._gate.wait()
            for _ in range(3):
                await asyncio.sleep(0)
            found = await super().generate(request)
        finally:
            self.running -= 1
        self.done += 1
        self._then(self.done)
        return found


async def test_prompts_and_samples_go_to_the_engine_of_their_model(tmp_path):
    spec = cascade_job(tmp_path)
    await run(spec, ["w-0"])
    answers, samples, dead = outcome(spec)
    assert (ids(answers), dead) == (ALL, [])
    assert {sample["model"] for sample in samples} == {"", "large"}
    assert {sample["answer"] for sample in samples if sample["model"] == "large"} == {"1"}
    went_on = {sample["item_id"] for sample in samples if sample["model"] == "large"}
    assert {a["item_id"] for a in answers if a["item_id"] in went_on and a["answer"] != "1"} == set()
    keys = {(sample["item_id"], sample["model"], sample["prompt_key"]) for sample in samples}
    assert len({key for _, _, key in keys}) == len(keys), "no key is shared by two models or two questions"


async def test_each_engine_keeps_its_own_capacity(tmp_path):
    spec = cascade_job(tmp_path)
    small, large = Counting(spec), Counting(spec.with_model("large"))
    await run(spec, ["w-0"], Fleet({"": small, "large": large}))
    assert (small.most, large.most) == (8, 2)


async def test_a_full_engine_keeps_nothing_of_another_waiting(tmp_path):
    spec = cascade_job(tmp_path, stages=[{"max_samples": 2, "rule": "fixed:2"}, STAGES[1]])
    gate = asyncio.Event()
    large = Counting(spec.with_model("large"), gate)

    def open_late(done: int) -> None:
        # Every first-stage sample of every question lands while the large engine is full and lets nothing go.
        if done == 2 * len(ALL):
            assert (large.running, large.done) == (1, 0), "until one has landed only one runs"
            gate.set()

    await run(spec, ["w-0"], Fleet({"": Counting(spec, then=open_late), "large": large}))
    assert ids(outcome(spec)[0]) == ALL
    assert large.most == 2


BUDGETS = {
    "tokens": {"tokens": 100_000, "price": {"models": {"large": 8}}},
    "unpriced": {"tokens": 100_000},
    "micro": {"tokens": 100_000, "price": {"models": {"large": 2.5}}},
    "by class": budget_in("dollars", 1, **PRICE, models={"large": {"prompt": 1.2, "cached": 0.2, "completion": 4}}),
    "rented": budget_in("dollars", 1, **RENTED, models={"large": 8}),
    "flops": budget_in("flops", 1e18, parameters=0.135, models={"large": {"parameters": 1.7}}),
}


async def test_the_books_of_several_models_are_exact_in_every_unit(tmp_path):
    found = []
    for name, budget in BUDGETS.items():
        (tmp_path / name).mkdir()
        spec = cascade_job(tmp_path / name, budget=budget)
        market = await run(spec, ["w-0", "w-1"])
        check_books(spec, market)
        cost = cost_model(spec.budget)
        journal = [s for shard in range(3) for s in Store.open(spec.output).read_journal(shard)]
        assert {sample.model for sample in journal} == {"", "large"}
        assert market.ledger.spent == sum(map(cost.of, journal))
        found.append({a["item_id"]: (a["answer"], a["samples"]) for a in outcome(spec)[0]})
    assert found == [found[0]] * len(BUDGETS), "an ample budget of any kind gives the same answers"


@pytest.mark.parametrize("tokens", [1, 60, 400, 2000])
async def test_a_weighed_budget_is_a_ceiling_and_a_top_up_pays_the_difference(tmp_path, tokens):
    small = cascade_job(tmp_path, budget={"tokens": tokens, "price": {"models": {"large": 8}}})
    check_books(small, await run(small, ["w-0", "w-1"]))
    answers, samples, dead = outcome(small)
    assert (ids(answers), dead) == (ALL, [])
    assert "exhausted" in {answer["stop_reason"] for answer in answers}
    paid = {(s["item_id"], s["prompt_key"], s["sample_index"]) for s in samples}
    ample = cascade_job(tmp_path, budget={"tokens": 100_000, "price": {"models": {"large": 8}}})
    check_books(ample, await run(ample, ["w-2"]))
    answers, samples, _ = outcome(ample)
    assert "exhausted" not in {answer["stop_reason"] for answer in answers}
    everything = [(s["item_id"], s["prompt_key"], s["sample_index"]) for s in samples]
    assert len(set(everything)) == len(everything)
    assert paid <= set(everything)


class Dying(ScriptedEngine):
    """Dies at its third sample."""

    left = 2

    async def generate(self, request):
        self.left -= 1
        if self.left < 0:
            raise EngineError("models.large: the engine core died")
        return await super().generate(request)


async def test_either_engine_ends_the_life_and_the_next_one_goes_on_from_the_journal(tmp_path):
    spec = cascade_job(tmp_path, budget={"tokens": 100_000, "price": {"models": {"large": 8}}})
    fleet = Fleet({"": ScriptedEngine(spec), "large": Dying(spec.with_model("large"))})
    with pytest.raises(EngineError, match=r"models\.large"):
        await run(spec, ["w-0"], fleet)
    store = Store.open(spec.output)
    store.record_death("w-0")
    paid = {
        (s.item_id, s.prompt_key, s.sample_index): s.writer
        for shard in store.read_plan()
        for s in store.read_journal(shard.shard_id)
    }
    assert set(paid.values()) == {"w-0"}
    check_books(spec, await run(spec, ["w-1"]))
    answers, samples, _ = outcome(spec)
    assert ids(answers) == ALL
    again = {(s["item_id"], s["prompt_key"], s["sample_index"]): s["writer"] for s in samples}
    assert {key: again[key] for key in paid} == paid
    (tmp_path / "whole").mkdir()
    whole = cascade_job(tmp_path / "whole", budget={"tokens": 100_000, "price": {"models": {"large": 8}}})
    await run(whole, ["w-0"])
    assert {a["item_id"]: a["answer"] for a in outcome(whole)[0]} == {a["item_id"]: a["answer"] for a in answers}


async def test_a_model_that_does_not_take_a_question_leaves_it_to_the_other(tmp_path):
    picky = {**LARGE, "options": {**LARGE["options"], "reject": "What is 1"}}
    spec = cascade_job(tmp_path, models={"large": picky}, stages=[{"max_samples": 2, "rule": "fixed:2"}, STAGES[1]])
    await run(spec, ["w-0"])
    answers, samples, dead = outcome(spec)
    assert (ids(answers), dead) == (ALL, [])
    teens = {"q001", *(f"q{n:03d}" for n in range(10, 20))}
    assert {s["item_id"] for s in samples if s["model"] == "large"} == set(ALL) - teens


async def test_lessons_and_decisions_of_a_learning_cascade_survive_the_run(tmp_path):
    learning = {"kind": "cascade", "evidence": "votes", "stages": STAGES, "learn_threshold": True, "audit_fraction": 1}
    spec = cascade_job(tmp_path, strategy=learning)
    await run(spec, ["w-0"])
    store = Store.open(spec.output)
    decided = {item: names for shard in store.read_plan() for item, names in store.decided(shard.shard_id).items()}
    assert {frozenset(names) for names in decided.values()} == {frozenset({"cascade/1"})}
    assert set(decided) == set(ALL)
    assert {s["item_id"] for s in outcome(spec)[1] if s["model"] == "large"} == set(ALL), "all go on, to teach"


def test_a_worker_prepares_nothing_for_a_model_it_does_not_have():
    fleet = Fleet.of(ScriptedEngine(make_spec()))
    assert Fleet.of(fleet) is fleet
    assert fleet.prepare(make_item(), Draw()).text == "What is the answer, q1?"
    with pytest.raises(RequestRejected, match="no model called 'large'"):
        fleet.prepare(make_item(), Draw(model="large"))


async def test_a_model_that_cannot_be_loaded_is_named_and_what_was_started_is_closed(tmp_path, monkeypatch):
    spec = cascade_job(tmp_path, models={"large": {**LARGE, "options": {"anwsers": ["1"]}}})
    closed = []

    async def close(self):
        closed.append(self)

    monkeypatch.setattr(ScriptedEngine, "close", close)
    with pytest.raises(SpecError, match=r"^models\.large\.options: the scripted engine has no 'anwsers'"):
        await Fleet.start(spec)
    assert len(closed) == 1
    replayed = cascade_job(tmp_path, models={"large": {"engine": "replay", "name": "nowhere.parquet"}})
    with pytest.raises(SpecError, match=r"^models\.large\.name: "):
        await Fleet.start(replayed)


@pytest.mark.parametrize(
    ("wanted", "visible", "shown"),
    [
        ({"": 1, "large": 2}, "0,1,2", {"": "0", "large": "1,2"}),
        ({"": 1, "large": 2}, "4, 5, 6, 7", {"": "4", "large": "5,6"}),
        ({"": 1, "large": 1}, "GPU-aa,GPU-bb", {"": "GPU-aa", "large": "GPU-bb"}),
        ({"": 1, "large": 2}, "0,1", {"": None, "large": None}),
        ({"": 2}, "0,1", {"": None}),
        ({"": 1, "large": 1}, "", {"": None, "large": None}),
    ],
)
def test_devices_are_dealt_out_in_order_and_shared_where_they_do_not_suffice(wanted, visible, shown):
    assert visible_to(wanted, visible) == shown


def test_the_environment_of_an_engine_is_its_own(monkeypatch):
    monkeypatch.setenv(VISIBLE, "0,1")
    monkeypatch.delenv("PONDER_TEST", raising=False)
    with environment({VISIBLE: "1", "PONDER_TEST": "x", "PATH": None}):
        assert (os.environ[VISIBLE], os.environ["PONDER_TEST"], "PATH" in os.environ) == ("1", "x", True)
    assert (os.environ[VISIBLE], "PONDER_TEST" in os.environ) == ("0,1", False)


def test_journals_of_before_there_were_several_models_are_the_main_models(tmp_path):
    spec = cascade_job(tmp_path, rows=1)
    prepared = prepare(spec)
    old = make_sample("q000", 0, prompt_tokens=10, cached_prompt_tokens=4, completion_tokens=20, writer="w-0")
    new = make_sample("q000", 1, prompt_tokens=10, completion_tokens=5, writer="w-1", model="large")
    table = pa.Table.from_pylist([to_row(old)], schema=columns_of(Sample)).drop_columns(["model"])
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    prepared.store.files.create("journal/000000/w-0-000001.parquet", bytes(sink.getvalue()))
    prepared.store.journal(0, [new], "w-1", 1)
    assert prepared.store.journal_usage() == {
        "w-0": Usage(6, 4, 20),
        "w-1": Usage(models={"large": ByClass(10, 0, 5)}),
    }
    assert [sample.model for sample in prepared.store.read_journal(0)] == ["", "large"]
    cost = CostModel(models={"large": ByClass(8, 0, 8)})
    assert spent_by_life(prepared.store, cost) == {"w-0": 26, "w-1": 15 * 8}


async def test_a_model_that_has_no_sample_yet_is_expected_to_answer_at_the_main_ones_length(tmp_path):
    spec = cascade_job(tmp_path, budget=BUDGETS["tokens"])
    fleet, cost, store = await Fleet.start(spec), cost_model(spec.budget), Store.open(spec.output)
    life = Life("w-0", spec, cost, {}, fleet, store, Logbook(store, "w-0"), Tasks(), Siblings([]))
    dispatch = Dispatch(life, lambda shard_id, sample: None)
    assert (dispatch.prior(""), dispatch.prior("large")) == (16.0, 8 * 16.0)
    for tokens in (4, 4):
        dispatch._costs[""].add(tokens)
    # (2 × 16 + 4 + 4) / 4 = 10 units; at eight times the price 80, until it has samples of its own.
    assert (dispatch.prior(""), dispatch.prior("large")) == (10.0, 80.0)
    dispatch._costs["large"].add(40)
    assert dispatch.prior("large") == pytest.approx((2 * 80 + 40) / 3)


async def test_lanes_of_the_desk():
    desk = Desk()
    for name, bid, lane in [("s1", 0.1, ""), ("l1", 0.9, "large"), ("l2", math.inf, "large"), ("s2", 0.9, "")]:
        desk.add(make_ask(name, bid), lane)
    assert (desk.waiting, len(desk), desk.minimums) == ({"": 2, "large": 2}, 4, 1)
    assert desk.take(100, 0.0, [""]).item.item_id == "s2"
    assert desk.take(100, 0.0, []) is None
    assert desk.take(100, 0.5, [""]) is None
    assert [desk.take(100, 0.0).item.item_id for _ in range(3)] == ["l2", "l1", "s1"]
    assert (desk.waiting, desk.smallest_worst, desk.demand()) == ({}, 0, ())


async def test_what_is_refused_is_refused_in_every_lane():
    desk = Desk()
    asks = [make_ask(str(bid), bid) for bid in (0.1, 0.2, 0.3, 0.4)]
    for at, ask in enumerate(asks):
        desk.add(ask, "large" if at % 2 else "")
    assert desk.deny_below(0.25) == 2
    assert [ask.paid.done() for ask in asks] == [True, True, False, False]
    assert desk.deny_all() == 2
    assert (len(desk), desk.waiting) == (0, {})
