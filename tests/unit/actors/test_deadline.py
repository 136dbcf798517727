"""A deadline at the worker: everything is answered with what it has, nothing is lost, nothing runs on."""

import asyncio

from actors.engines.scripted import ScriptedEngine
from actors.judge import RuleJudge
from actors.recovery import restore_market
from actors.station import Station
from tests.unit.actors.test_station import ALL, begin, ids, make_job, outcome, spent


async def work_until(spec, samples: int, hurry: bool = False):
    """Run two stations; the deadline comes once so many samples were reported."""
    store = begin(spec)
    shards = {shard.shard_id: shard for shard in store.read_plan()}
    market = restore_market(store, spec.budget.tokens, list(shards.values()))
    market.pace(10**9, hurry)
    seen: dict[str, int] = {}
    sooner = asyncio.Event()

    async def sync(report):
        seen[report.worker] = report.samples
        if sum(seen.values()) >= samples:
            market.expire()
            sooner.set()
        return market.sync(report)

    judge = RuleJudge(spec)
    stations = [Station(spec, shards, ScriptedEngine(spec), store, judge, life) for life in ("w-0", "w-1")]
    try:
        await asyncio.gather(*(station.run(sync) for station in stations))
    finally:
        await judge.close()
    return market, sooner.is_set()


async def test_at_the_deadline_every_row_has_an_answer(tmp_path):
    spec = make_job(tmp_path, rows=20, model={"max_num_seqs": 2, "options": {"seconds": 0.02}})
    market, expired = await work_until(spec, 6)
    answers, samples, dead = outcome(spec)
    assert expired
    assert (ids(answers), dead) == (ALL, [])
    assert "exhausted" in {answer["stop_reason"] for answer in answers}
    assert market.ledger.spent == spent(spec)
    assert market.ledger.reserved == 0
    # What the deadline cut is paid for and kept, and was nobody's choice.
    assert {s["finish_reason"] for s in samples} <= {"stop", "interrupted"}


async def test_a_deadline_before_anything_was_drawn(tmp_path):
    spec = make_job(tmp_path)
    _, expired = await work_until(spec, 0)
    answers, samples, _ = outcome(spec)
    assert expired
    assert ids(answers) == ALL
    assert samples == []
    assert {answer["stop_reason"] for answer in answers} == {"exhausted"}


async def test_in_a_hurry_idle_slots_draw_ahead_and_the_answers_are_the_same(tmp_path):
    calm, rushed = tmp_path / "calm", tmp_path / "rushed"
    calm.mkdir(), rushed.mkdir()
    model = {"max_num_seqs": 64, "options": {"seconds": 0.01, "weights": [3, 2, 1]}}
    specs = [make_job(folder, rows=4, model=model) for folder in (calm, rushed)]
    await work_until(specs[0], 10**9)
    await work_until(specs[1], 10**9, hurry=True)
    (slow, few, _), (fast, many, _) = outcome(specs[0]), outcome(specs[1])
    assert {a["item_id"]: a["answer"] for a in slow} == {a["item_id"]: a["answer"] for a in fast}
    assert {(s["item_id"], s["sample_index"]) for s in few} < {(s["item_id"], s["sample_index"]) for s in many}
    assert spent(specs[1]) == sum(a["tokens"] for a in fast)
