"""The worker's inside with everything real but the engine: market, store, journal, verifiers, strategies."""

import asyncio
import hashlib
import json
import math
from collections import Counter
from pathlib import Path

import pytest

from actors.engines.scripted import ScriptedEngine
from actors.judge import RuleJudge
from actors.recovery import restore_market
from actors.station import Station
from budgets.market import Market
from pipeline.errors import EngineError, StoreError
from pipeline.fingerprint import fingerprint_of
from pipeline.run import open_run
from pipeline.source import plan_dataset
from pipeline.spec import JobSpec
from pipeline.spending import spent_by_life
from pipeline.store import Store
from tests.factories import make_spec


def make_job(folder: Path, rows: int = 20, **sections) -> JobSpec:
    data = folder / "questions.jsonl"
    if not data.exists():
        lines = [{"id": f"q{i:03d}", "prompt": f"What is {i}?", "gold": "1"} for i in range(rows)]
        data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return make_spec(
        dataset={"path": str(data), "id": "id", "reference": "gold"},
        verifiers=sections.pop("verifiers", [{"kind": "numeric"}]),
        output=str(folder / "run"),
        cluster={"shard_size": 7},
        **sections,
    )


def begin(spec: JobSpec) -> Store:
    plan = plan_dataset(spec.dataset, spec.cluster.shard_size)
    store = Store.open(spec.output)
    if not store.begin(spec.model_dump(mode="json"), fingerprint_of(spec, plan.fingerprint)).resumed:
        store.write_plan(plan)
    return store


async def by_answer(texts) -> list[tuple[float, ...]]:
    """Embeddings: texts that give the same answer are alike."""
    angles = [int.from_bytes(hashlib.sha256(text[-3:].encode()).digest()[:2]) for text in texts]
    return [(math.cos(angle), math.sin(angle)) for angle in angles]


async def work(spec: JobSpec, lives: list[str], engine=None, embed=by_answer) -> Market:
    """Run to the end with one station a life, all against one market."""
    store = begin(spec)
    shards = {shard.shard_id: shard for shard in store.read_plan()}
    market = restore_market(store, spec.budget.tokens, list(shards.values()))

    async def sync(report):
        return market.sync(report)

    judge = RuleJudge(spec)
    made = engine or ScriptedEngine(spec)
    stations = [Station(spec, shards, made, store, judge, life, embed=embed) for life in lives]
    try:
        await asyncio.gather(*(station.run(sync) for station in stations))
    finally:
        await judge.close()
    return market


def outcome(spec: JobSpec) -> tuple[list[dict], list[dict], list[dict]]:
    run = open_run(spec.output)
    return tuple(
        sorted(table.to_table().to_pylist(), key=lambda row: row["item_id"])
        for table in (run.answers(), run.samples(), run.dead_letters())
    )


def spent(spec: JobSpec) -> int:
    return sum(spent_by_life(Store.open(spec.output)).values())


def ids(rows: list[dict]) -> list[str]:
    return [row["item_id"] for row in rows]


ALL = [f"q{i:03d}" for i in range(20)]


async def test_every_question_once_and_the_books_agree(tmp_path):
    spec = make_job(tmp_path)
    market = await work(spec, ["w-0"])
    answers, samples, dead = outcome(spec)
    assert ids(answers) == ALL
    assert dead == []
    assert Counter((s["item_id"], s["sample_index"]) for s in samples).most_common(1)[0][1] == 1
    assert {a["stop_reason"] for a in answers} == {"settled"}
    by_item = Counter(ids(samples))
    assert {a["item_id"]: a["samples"] for a in answers} == dict(by_item)
    assert market.ledger.spent == spent(spec) == sum(a["tokens"] for a in answers)
    assert all(s["verdicts"][0]["verifier"] == "numeric" for s in samples)
    assert {a["correct"] for a in answers} == {True, False}


async def test_two_workers_share_the_shards(tmp_path):
    spec = make_job(tmp_path)
    await work(spec, ["w-0", "w-1"])
    answers, samples, _ = outcome(spec)
    assert ids(answers) == ALL
    assert {s["writer"] for s in samples} <= {"w-0", "w-1"}


@pytest.mark.parametrize("budget", [1, 60, 200, 700])
async def test_a_small_budget_is_a_ceiling_and_every_row_is_answered(tmp_path, budget):
    spec = make_job(tmp_path, budget={"tokens": budget})
    market = await work(spec, ["w-0", "w-1"])
    answers, _, dead = outcome(spec)
    assert ids(answers) == ALL
    assert dead == []
    assert spent(spec) <= budget
    assert market.ledger.spent == spent(spec)
    assert "exhausted" in {a["stop_reason"] for a in answers}


async def test_the_minimum_comes_before_anything_more(tmp_path):
    # 20 questions at ≤ 16 + 3 tokens each: enough for one sample everywhere, not for two.
    spec = make_job(tmp_path, budget={"tokens": 420}, model={"options": {"tokens": 12}})
    await work(spec, ["w-0"])
    answers, _, _ = outcome(spec)
    assert min(a["samples"] for a in answers) >= 1


async def test_a_second_run_draws_nothing(tmp_path):
    spec = make_job(tmp_path)
    await work(spec, ["w-0"])
    before = spent(spec), outcome(spec)
    await work(spec, ["w-1"])
    assert (spent(spec), outcome(spec)) == before


async def test_a_top_up_spends_only_the_difference(tmp_path):
    spec = make_job(tmp_path, budget={"tokens": 300})
    await work(spec, ["w-0"])
    _, first_samples, _ = outcome(spec)
    larger = make_job(tmp_path, budget={"tokens": 100_000})
    await work(larger, ["w-1"])
    answers, samples, _ = outcome(larger)
    assert ids(answers) == ALL
    assert {a["stop_reason"] for a in answers} == {"settled"}
    key = lambda s: (s["item_id"], s["sample_index"])  # noqa: E731
    assert {key(s) for s in first_samples} <= {key(s) for s in samples}
    kept = {key(s): s["writer"] for s in samples}
    assert all(kept[key(s)] == "w-0" for s in first_samples)
    assert spent(larger) == sum(a["tokens"] for a in answers)


class DyingEngine(ScriptedEngine):
    """Dies after some completions, as an engine core does: every request in flight fails."""

    def __init__(self, spec: JobSpec, after: int) -> None:
        super().__init__(spec)
        self.left = after

    async def generate(self, request):
        self.left -= 1
        if self.left < 0:
            raise EngineError("the engine core died")
        return await super().generate(request)


@pytest.mark.parametrize("after", [0, 5, 33])
async def test_a_dead_engine_loses_nothing_that_was_paid(tmp_path, after):
    spec = make_job(tmp_path)
    with pytest.raises(EngineError):
        await work(spec, ["w-0"], DyingEngine(spec, after))
    Store.open(spec.output).record_death("w-0")
    paid = {
        (s.item_id, s.sample_index)
        for shard in Store.open(spec.output).read_plan()
        for s in Store.open(spec.output).read_journal(shard.shard_id)
    }
    assert len(paid) == after
    await work(spec, ["w-1"])
    answers, samples, _ = outcome(spec)
    assert ids(answers) == ALL
    assert {(s["item_id"], s["sample_index"]) for s in samples if s["writer"] == "w-0"} == paid
    assert spent(spec) == sum(a["tokens"] for a in answers)


class PoisonEngine(ScriptedEngine):
    """Dies whenever it meets one question."""

    async def generate(self, request):
        if request.item_id == "q011":
            raise EngineError("the engine core died")
        return await super().generate(request)


async def test_a_question_that_kills_workers_is_set_aside_and_no_other(tmp_path):
    spec = make_job(tmp_path)
    lives = 0
    while lives < 10:
        try:
            await work(spec, [f"w-{lives}"], PoisonEngine(spec))
            break
        except EngineError:
            Store.open(spec.output).record_death(f"w-{lives}")
            lives += 1
    answers, _, dead = outcome(spec)
    assert lives == spec.cluster.max_attempts
    assert ids(dead) == ["q011"]
    assert (dead[0]["boundary"], dead[0]["attempts"]) == ("engine", 3)
    assert ids(answers) == [i for i in ALL if i != "q011"]


async def test_a_rejected_request_and_a_bad_row_are_dead_letters(tmp_path):
    data = tmp_path / "questions.jsonl"
    lines = [{"id": f"q{i:03d}", "prompt": f"What is {i}?", "gold": "1"} for i in range(20)]
    lines[3]["prompt"] = "forbidden"
    lines[4]["prompt"] = "word " * 300
    lines[5]["prompt"] = None
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    spec = make_job(tmp_path, model={"options": {"reject": "forbidden"}})
    await work(spec, ["w-0"])
    answers, _, dead = outcome(spec)
    assert {row["item_id"]: row["boundary"] for row in dead} == {"q003": "engine", "q004": "engine", "q005": "source"}
    assert "max_model_len" in dead[1]["error"]
    assert ids(answers) == [i for i in ALL if i not in {"q003", "q004", "q005"}]


class FailingStore(Store):
    def journal(self, *args, **kwargs):
        raise StoreError("disk full")


async def test_a_failed_journal_write_ends_the_station(tmp_path):
    spec = make_job(tmp_path)
    begin(spec)
    shards = {shard.shard_id: shard for shard in Store.open(spec.output).read_plan()}
    market = restore_market(Store.open(spec.output), 10**6, list(shards.values()))

    async def sync(report):
        return market.sync(report)

    store = FailingStore(Store.open(spec.output).files)
    with pytest.raises(StoreError, match="disk full"):
        await Station(spec, shards, ScriptedEngine(spec), store, RuleJudge(spec), "w-0").run(sync)
    assert open_run(spec.output).answers().count_rows() == 0


async def test_stop_aborts_and_keeps_what_was_paid(tmp_path):
    spec = make_job(tmp_path)
    slow = ScriptedEngine(make_job(tmp_path, model={"options": {"seconds": 30.0}}))
    store = begin(spec)
    shards = {shard.shard_id: shard for shard in store.read_plan()}
    market = restore_market(store, 10**6, list(shards.values()))
    station = Station(spec, shards, slow, store, RuleJudge(spec), "w-0")
    seen = asyncio.Event()

    async def sync(report):
        if report.inflight:
            seen.set()
        return market.sync(report)

    running = asyncio.create_task(station.run(sync))
    await asyncio.wait_for(seen.wait(), 30)
    station.stop()
    await asyncio.wait_for(running, 30)
    kept = [s for shard in shards for s in store.read_journal(shard)]
    assert {s.finish_reason for s in kept} == {"interrupted"}
    # The very first sample runs alone, to fill the prefix cache.
    assert len(kept) == 1
    assert spent(spec) == sum(s.billed_tokens for s in kept)
    await work(spec, ["w-1"])
    answers, samples, _ = outcome(spec)
    assert ids(answers) == ALL
    cut = {s["item_id"] for s in samples if s["finish_reason"] == "interrupted"}
    assert cut == {s.item_id for s in kept}
    # What was cut is paid for and kept, and does not count as the question's first sample.
    assert all(a["votes"] >= 4 for a in answers)


async def test_what_a_dying_engine_cuts_was_nobodys_choice(tmp_path):
    class HalfDead(ScriptedEngine):
        """Fails one request while others of it still run."""

        async def generate(self, request):
            while request.item_id == "q003" and self._pretence.running < 2:
                await asyncio.sleep(0)
            if request.item_id == "q003":
                raise EngineError("the engine core died")
            return await super().generate(request)

    spec = make_job(tmp_path, model={"options": {"seconds": 0.5}})
    with pytest.raises(EngineError):
        await work(spec, ["w-0"], HalfDead(spec))
    store = Store.open(spec.output)
    kept = [s for shard in store.read_plan() for s in store.read_journal(shard.shard_id)]
    assert {s.finish_reason for s in kept} == {"stop", "interrupted"}
