"""A finished run answered again by another rule: what is paid is used, and only what is missing is bought."""

from collections import Counter
from pathlib import Path

import pytest

from pipeline.driver import Prepared, close, prepare
from pipeline.errors import EngineError, RunMismatch, StoreError
from pipeline.run import open_run
from pipeline.spec import JobSpec
from pipeline.status import status_of
from pipeline.store import Store
from tests.unit.actors.test_station import ALL, DyingEngine, ids, make_job, outcome, spent, work

AMPLE = 10**6
STRICT = {"kind": "self_consistency", "max_samples": 12, "confidence": 0.95}
LOOSE = {"kind": "self_consistency", "max_samples": 12, "confidence": 0.6}
DECIDED = ("item_id", "answer", "votes", "confidence", "stop_reason")


def job(folder: Path, strategy: dict, budget: int = AMPLE) -> JobSpec:
    return make_job(folder, strategy=strategy, budget={"tokens": budget})


async def run(spec: JobSpec, life: str, engine=None) -> Prepared:
    """What the driver does, with a station instead of its actors."""
    prepared = prepare(spec)
    if not prepared.complete:
        await work(spec, [life], engine)
    close(spec, prepared.store)
    return prepared


def journal(spec: JobSpec) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path(spec.output).glob("journal/*/*.parquet")}


def decided(spec: JobSpec) -> list[list]:
    return [[row[column] for column in DECIDED] for row in outcome(spec)[0]]


def keys(rows: list[dict]) -> dict[tuple, str]:
    """Samples with who paid for each; fails where one is there twice."""
    found = {(row["prompt_key"], row["item_id"], row["sample_index"]): row["writer"] for row in rows}
    assert len(found) == len(rows)
    return found


def rules(spec: JobSpec) -> set[int]:
    return {commit.rule for commit in Store.open(spec.output).commits().values()}


async def test_a_rule_that_wants_less_draws_nothing_and_answers_every_question(tmp_path):
    strict, loose = job(tmp_path, STRICT), job(tmp_path, LOOSE)
    await run(strict, "w-0")
    paid, before, (_, samples, _) = journal(strict), decided(strict), outcome(strict)
    await run(loose, "w-1")
    assert journal(loose) == paid
    answers, kept, dead = outcome(loose)
    assert (ids(answers), dead) == (ALL, [])
    assert keys(kept) == keys(samples)
    assert rules(loose) == {1}
    (fresh := tmp_path / "fresh").mkdir()
    alone = job(fresh, LOOSE)
    await run(alone, "w-0")
    assert decided(loose) == decided(alone) != before
    assert {a["item_id"]: a["samples"] for a in answers} == dict(Counter(ids(samples)))
    status = status_of(loose.output)
    assert (status.state, status.shards_committed, status.tokens_spent) == ("finished", 3, spent(strict))
    assert open_run(loose.output).info.job["strategy"]["confidence"] == 0.6


async def test_a_rule_that_wants_more_buys_only_the_difference(tmp_path):
    loose, strict = job(tmp_path, LOOSE), job(tmp_path, STRICT)
    await run(loose, "w-0")
    first, before = keys(outcome(loose)[1]), spent(loose)
    await run(strict, "w-1")
    answers, samples, _ = outcome(strict)
    assert ids(answers) == ALL
    assert {key: writer for key, writer in keys(samples).items() if key in first} == first
    assert spent(strict) == sum(a["tokens"] for a in answers) > before
    (fresh := tmp_path / "fresh").mkdir()
    alone = job(fresh, STRICT)
    await run(alone, "w-0")
    assert decided(strict) == decided(alone)
    assert keys(samples).keys() == keys(outcome(alone)[1]).keys()


@pytest.mark.parametrize("more", [0, 40, 200])
async def test_what_is_left_of_the_budget_is_a_ceiling(tmp_path, more):
    await run(job(tmp_path, LOOSE), "w-0")
    paid = keys(outcome(job(tmp_path, LOOSE))[1])
    budget = spent(job(tmp_path, LOOSE)) + more
    strict = job(tmp_path, STRICT, budget)
    await run(strict, "w-1")
    answers, samples, dead = outcome(strict)
    assert (ids(answers), dead) == (ALL, [])
    assert paid.items() <= keys(samples).items()
    assert spent(strict) <= budget
    assert "exhausted" in {a["stop_reason"] for a in answers}
    assert rules(strict) == {1}


async def test_back_to_the_first_rule_is_one_more_rule(tmp_path):
    strict = job(tmp_path, STRICT)
    await run(strict, "w-0")
    first, paid = decided(strict), journal(strict)
    await run(job(tmp_path, LOOSE), "w-1")
    await run(strict, "w-2")
    assert (decided(strict), journal(strict), rules(strict)) == (first, paid, {2})
    assert (await run(strict, "w-3")).complete


async def test_one_sample_at_another_temperature_is_drawn_anew(tmp_path):
    vote, greedy = job(tmp_path, STRICT), job(tmp_path, {"kind": "greedy"})
    await run(vote, "w-0")
    paid = keys(outcome(vote)[1])
    await run(greedy, "w-1")
    answers, samples, _ = outcome(greedy)
    assert ids(answers) == ALL
    new = {key: writer for key, writer in keys(samples).items() if key not in paid}
    assert paid.items() <= keys(samples).items()
    assert sorted(item_id for _, item_id, _ in new) == ALL
    assert set(new.values()) == {"w-1"}


@pytest.mark.parametrize("after", [0, 9])
async def test_a_crash_in_the_middle_goes_on_with_the_new_rule(tmp_path, after):
    loose, strict = job(tmp_path, LOOSE), job(tmp_path, STRICT)
    await run(loose, "w-0")
    with pytest.raises(EngineError):
        await run(strict, "w-1", DyingEngine(strict, after))
    store = Store.open(strict.output)
    store.record_death("w-1")
    assert store.finished() is None
    assert "_SUCCESS.json" not in store.files.list("")
    assert status_of(strict.output).state == "running or interrupted"
    with pytest.raises(RunMismatch, match=r"strategy\.confidence: 0\.95 \(run\) → 0\.6 \(job\)"):
        prepare(loose)
    await run(strict, "w-2")
    answers, samples, _ = outcome(strict)
    assert ids(answers) == ALL
    keys(samples)
    assert {a["stop_reason"] for a in answers} <= {"settled", "capped", "hopeless"}
    assert rules(strict) == {1}
    assert spent(strict) == sum(a["tokens"] for a in answers)


async def test_a_crash_before_anything_was_redone_is_no_finished_run(tmp_path):
    loose, strict = job(tmp_path, LOOSE), job(tmp_path, STRICT)
    await run(strict, "w-0")
    assert not prepare(loose).complete
    # The old answers are all there and complete, but they are the older rule's.
    with pytest.raises(StoreError, match="not answered by rule 1 yet: 0, 1, 2"):
        close(loose, Store.open(loose.output))
    assert status_of(loose.output).shards_committed == 0
    await run(loose, "w-1")
    assert rules(loose) == {1}


async def test_a_worker_of_an_older_rule_commits_nothing(tmp_path):
    strict = job(tmp_path, STRICT)
    await run(strict, "w-0")
    prepare(job(tmp_path, LOOSE))
    store = Store.open(strict.output)
    with pytest.raises(StoreError, match="rule 1 now"):
        store.rule_of(strict.strategy.model_dump(mode="json"))
    assert rules(strict) == {0}


async def test_a_budget_that_is_refused_leaves_a_finished_run_finished(tmp_path):
    strict = job(tmp_path, STRICT)
    await run(strict, "w-0")
    finer = {"tokens": AMPLE, "price": {"verifiers": {"numeric": 0.5}}}
    with pytest.raises(RunMismatch, match="budget"):
        prepare(make_job(tmp_path, strategy=LOOSE, budget=finer))
    assert Store.open(strict.output).finished() is not None
    assert (await run(strict, "w-1")).complete
