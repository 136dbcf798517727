"""Recorded samples as an engine, alone and under a live worker's inside."""

import asyncio
import json
from pathlib import Path

import pytest

from actors.engines import start_engine
from actors.engines.base import Request
from actors.engines.replay import ReplayEngine
from actors.judge import RuleJudge
from actors.recovery import restore_market
from actors.station import Station
from pipeline.driver import prepare
from pipeline.errors import RequestRejected, SpecError
from pipeline.run import open_run
from pipeline.spec import JobSpec
from tests.factories import make_item, make_spec
from tests.unit.pipeline.recordings import make_rows, write_rows

TEXT = {"answer": {"extract": "text"}}


def make_job(folder: Path, rows=None, questions: int = 12, **sections) -> JobSpec:
    """A job over the questions of a small recording."""
    samples = write_rows(folder / "samples.parquet", rows or make_rows(questions=questions, pool=10))
    data = folder / "questions.jsonl"
    lines = [{"id": f"q{number:03d}", "prompt": f"What is {number}?", "gold": "right"} for number in range(questions)]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    model = {"engine": "replay", "name": samples, **sections.pop("model", {})}
    return make_spec(
        dataset={"path": str(data), "id": "id", "reference": "gold"},
        model=model,
        sampling={"max_tokens": 30, **sections.pop("sampling", {})},
        strategy={"kind": "self_consistency", "max_samples": 10, **sections.pop("strategy", {})},
        output=str(folder / "run"),
        **{**TEXT, **sections},
    )


def make_request(engine: ReplayEngine, item_id: str, index: int) -> Request:
    return Request(f"{item_id}/{index}", engine.prepare(make_item(item_id)), 1.0, index, item_id)


async def test_the_recorded_sample_comes_back(tmp_path: Path) -> None:
    engine = await start_engine(make_job(tmp_path))
    assert isinstance(engine, ReplayEngine)
    assert engine.capacity == 8
    rows = make_rows(questions=12, pool=10)
    for row in (rows[0], rows[57], rows[119], rows[3]):
        got = await engine.generate(make_request(engine, row["item_id"], row["sample_index"]))
        assert got.text == (row["answer"] or "")
        assert (got.prompt_tokens, got.completion_tokens, got.finish_reason) == (0, row["completion_tokens"], "stop")
        assert got.mean_logprob == row["mean_logprob"]
    await engine.close()


async def test_recorded_text_and_how_it_finished(tmp_path: Path) -> None:
    rows = make_rows(questions=1, pool=2)
    rows[0] |= {"text": "The answer is right.", "finish_reason": "length"}
    rows[1] |= {"text": None, "finish_reason": None}
    engine = ReplayEngine(make_job(tmp_path, rows))
    got = [await engine.generate(make_request(engine, "q000", index)) for index in (0, 1)]
    assert [(one.text, one.finish_reason) for one in got] == [
        ("The answer is right.", "length"),
        (rows[1]["answer"] or "", "stop"),
    ]


async def test_what_was_not_recorded_is_refused(tmp_path: Path) -> None:
    engine = ReplayEngine(make_job(tmp_path))
    with pytest.raises(RequestRejected, match="no sample 10 of item 'q003'"):
        await engine.generate(make_request(engine, "q003", 10))
    with pytest.raises(RequestRejected, match="no samples of item 'unknown'"):
        engine.prepare(make_item("unknown"))


async def test_a_running_sample_can_be_cut(tmp_path: Path) -> None:
    engine = ReplayEngine(make_job(tmp_path, model={"options": {"seconds": 60}}))
    running = asyncio.ensure_future(engine.generate(make_request(engine, "q000", 0)))
    await asyncio.sleep(0)
    engine.cancel("q000/0")
    engine.cancel("never started")
    assert (await running).finish_reason == "abort"


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"model": {"options": {"speed": 1}}}, "has no 'speed'"),
        ({"model": {"options": {"seconds": -1}}}, "options.seconds: -1"),
        ({"model": {"options": {"columns": 3}}}, "options.columns: 3"),
        ({"model": {"options": {"columns": {"answer": "nowhere"}}}}, "model.name: .*no column 'nowhere'"),
        ({"model": {"name": "nowhere.parquet"}}, "model.name: .*matches no file"),
        ({"sampling": {"max_tokens": 16}}, "sampling.max_tokens is 16, .* a sample of (2[0-9]|30) tokens"),
    ],
)
def test_a_job_that_cannot_be_replayed(tmp_path: Path, sections, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        ReplayEngine(make_job(tmp_path, **sections))


@pytest.mark.parametrize("columns", [{"answer": "said"}, "answer=said"])
def test_columns_by_other_names(tmp_path: Path, columns) -> None:
    rows = [{("said" if key == "answer" else key): value for key, value in row.items()} for row in make_rows()]
    assert ReplayEngine(make_job(tmp_path, rows, model={"options": {"columns": columns}})).prepare(make_item("q001"))


async def test_a_live_run_draws_exactly_what_was_recorded(tmp_path: Path) -> None:
    spec = make_job(tmp_path, budget={"tokens": 900})
    prepared = prepare(spec)
    market = restore_market(prepared.store, spec.budget.tokens, prepared.shards)

    async def sync(report):
        return market.sync(report)

    engine, judge = await start_engine(spec), RuleJudge(spec)
    shards = {shard.shard_id: shard for shard in prepared.shards}
    await Station(spec, shards, engine, prepared.store, judge, "life").run(sync)
    await judge.close()
    await engine.close()
    run = open_run(spec.output)
    recorded = {(row["item_id"], row["sample_index"]): row for row in make_rows(questions=12, pool=10)}
    samples = run.samples().to_table().to_pylist()
    for sample in samples:
        row = recorded[(sample["item_id"], sample["sample_index"])]
        assert (sample["answer"], sample["completion_tokens"]) == (row["answer"], row["completion_tokens"])
    assert sorted(run.answers().to_table(columns=["item_id"])["item_id"].to_pylist()) == [
        f"q{number:03d}" for number in range(12)
    ]
    assert 0 < sum(sample["completion_tokens"] for sample in samples) == market.ledger.spent <= 900
