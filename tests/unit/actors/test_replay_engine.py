"""Recorded samples as an engine, alone and under a live worker's inside."""

import asyncio
import json
import math
from pathlib import Path

import pytest

from actors.engines import start_engine
from actors.engines.base import Request
from actors.engines.replay import ReplayEngine
from actors.judge import RuleJudge
from actors.recovery import restore_market
from actors.station import Station
from budgets.market import Market
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


async def work(spec: JobSpec) -> Market:
    """The job to its end, by one station."""
    prepared = prepare(spec)
    market = restore_market(prepared.store, spec.budget.tokens, prepared.shards)

    async def sync(report):
        return market.sync(report)

    engine, judge = await start_engine(spec), RuleJudge(spec)
    shards = {shard.shard_id: shard for shard in prepared.shards}
    await Station(spec, shards, engine, prepared.store, judge, "life").run(sync)
    await judge.close()
    await engine.close()
    return market


async def test_a_live_run_draws_exactly_what_was_recorded(tmp_path: Path) -> None:
    spec = make_job(tmp_path, budget={"tokens": 900})
    market = await work(spec)
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


def with_confidences(rows, confidences):
    return [row | {"token_confidence": confidences(row), "completion_tokens": 6} for row in rows]


def asked(engine: ReplayEngine, index: int, **terms) -> Request:
    return Request(f"{index}/{terms}", engine.prepare(make_item("q000")), 1.0, index, "q000", **terms)


async def test_recorded_tokens_are_cut_where_their_confidence_falls(tmp_path: Path) -> None:
    rows = with_confidences(make_rows(1, 3), lambda row: [5.0, 5.0, 1.0 + row["sample_index"], 4.0, 4.0, 4.0])
    engine = await start_engine(make_job(tmp_path, rows, questions=1))
    # Pairs of tokens: the lowest is the third with its neighbours.
    whole = [await engine.generate(asked(engine, i, group=2)) for i in range(3)]
    assert [one.min_group_confidence for one in whole] == [2.5, 3.0, 3.5]
    assert [one.min_group_confidence for one in [await engine.generate(asked(engine, 0))]] == [23.0 / 6]
    # Watched ones are counted from the last: others than the whole ones.
    watched = [await engine.generate(asked(engine, i, group=2, cut_below=3.1)) for i in range(3)]
    assert [(one.finish_reason, one.completion_tokens) for one in watched] == [("stop", 6), ("cut", 4), ("cut", 3)]
    assert [one.min_group_confidence for one in watched] == [3.5, 3.0, 3.0]
    assert [one.text for one in watched[1:]] == ["", ""]
    with pytest.raises(RequestRejected, match="no sample 3"):
        await engine.generate(asked(engine, 3, group=2, cut_below=3.1))
    await engine.close()


@pytest.mark.parametrize("hole", [None, float("nan")])
async def test_a_recorded_confidence_that_is_missing_spoils_its_sample_alone(tmp_path: Path, hole) -> None:
    rows = with_confidences(make_rows(1, 2), lambda row: [hole if row["sample_index"] else 2.0, 2.0, 2.0])
    engine = await start_engine(make_job(tmp_path, rows, questions=1))
    sound, spoilt = [await engine.generate(asked(engine, i, group=2)) for i in range(2)]
    assert sound.min_group_confidence == 2.0
    assert math.isnan(spoilt.min_group_confidence)
    watched = await engine.generate(asked(engine, 0, group=2, cut_below=9.0))
    assert (watched.finish_reason, watched.completion_tokens) == ("stop", 6)
    await engine.close()


async def test_a_lowest_group_of_unknown_size_is_none_of_the_size_asked_for(tmp_path: Path) -> None:
    engine = await start_engine(make_job(tmp_path, make_rows(1, 2, min_group_confidence=7.0), questions=1))
    known, other = await engine.generate(asked(engine, 0)), await engine.generate(asked(engine, 0, group=4))
    assert (known.min_group_confidence, other.min_group_confidence) == (7.0, None)
    await engine.close()


async def test_deep_conf_over_a_recording_draws_no_sample_twice(tmp_path: Path) -> None:
    rows = with_confidences(make_rows(6, 12), lambda row: [2.0 + row["sample_index"] % 5] * 6)
    strategy = {"kind": "deep_conf", "warmup": 4, "keep": 50, "group": 2, "max_samples": 12, "consensus": 1.0}
    spec = make_job(tmp_path, rows, 6, strategy=strategy, sampling={"logprobs": 20})
    await work(spec)
    run = open_run(spec.output)
    samples = run.samples().to_table().to_pylist()
    assert {s["finish_reason"] for s in samples} == {"stop", "cut"}
    # Every recorded sample has a log-probability of its own.
    whole = [s["mean_logprob"] for s in samples if s["finish_reason"] == "stop"]
    assert len(set(whole)) == len(whole)
    assert all(s["completion_tokens"] == (2 if s["finish_reason"] == "cut" else 6) for s in samples)
    facts = {d["item_id"]: json.loads(d["facts"]) for d in run.decisions().to_table().to_pylist()}
    assert all(fact["bar"] is not None and "failed" not in fact for fact in facts.values())
