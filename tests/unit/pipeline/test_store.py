"""The run directory on a local disk: the run, its budgets and plan, and the journal. Commits: test_commits."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from budgets.cost import CostModel, Usage
from pipeline.budget_spec import BudgetSpec
from pipeline.errors import RunMismatch, StoreError, UsageError
from pipeline.records import Decided, Judged, Sample, Segment, Shard, Verdict, from_row
from pipeline.spending import spent_by_life
from pipeline.store import Store
from tests.factories import make_sample

JOB = {"seed": 1, "sampling": {"temperature": 0.8}, "budget": {"tokens": 100}}
PRINT = {"sampling": "a", "seed": "b"}
WHEN = datetime(2026, 11, 22, tzinfo=UTC)


@dataclass(frozen=True)
class DatasetPlan:
    shards: tuple[Shard, ...]
    items: int
    has_reference: bool = False


def plan_of(*sizes: int) -> DatasetPlan:
    shards = [Shard(number, size, (Segment("q.jsonl", 0, size),)) for number, size in enumerate(sizes)]
    return DatasetPlan(tuple(shards), sum(sizes))


def sample(item_id: str, index: int = 0, **values: Any) -> Sample:
    return Sample(item_id, index, "key", **{"text": "it is 4", "completion_tokens": 5, **values})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "run"))


# --- the run ---------------------------------------------------------------------------------------------------------


def test_begin_then_resume(store: Store) -> None:
    with pytest.raises(UsageError, match="no run at"):
        store.run_info()
    first = store.begin(JOB, PRINT, WHEN)
    again = Store.open(store.url).begin({**JOB, "budget": {"tokens": 200}}, PRINT)
    assert (first.resumed, again.resumed) == (False, True)
    assert first.info == again.info == store.run_info()
    assert (first.info.job, first.info.fingerprint) == (JOB, PRINT)
    assert first.info.created_at == "2026-11-22T00:00:00+00:00"


def test_begin_refuses_another_run_with_a_diff(store: Store) -> None:
    store.begin(JOB, PRINT)
    with pytest.raises(RunMismatch, match=r"sampling.temperature: 0.8 \(run\) → 0.5 \(job\)"):
        store.begin({**JOB, "sampling": {"temperature": 0.5}}, {**PRINT, "sampling": "c"})
    with pytest.raises(RunMismatch, match="data: changed"):
        store.begin(JOB, {**PRINT, "data": "a section an older version did not know"})


def test_begin_refuses_a_directory_that_is_no_run(store: Store) -> None:
    store.files.put("thesis/chapter1.tex", b"")
    with pytest.raises(UsageError, match=r"not empty.*new directory"):
        store.begin(JOB, PRINT)
    assert store.files.list("") == ["thesis/chapter1.tex"]


@pytest.mark.parametrize(
    ("content", "error"), [(b"{", StoreError), (b"[]", StoreError), (b'{"format": 1}', StoreError), (b"{}", UsageError)]
)
def test_a_run_json_that_cannot_be_read(store: Store, content: bytes, error: type[Exception]) -> None:
    store.files.put("run.json", content)
    with pytest.raises(error, match=r"run\.json"):
        store.begin(JOB, PRINT)


def test_16_threads_begin_one_run(store: Store) -> None:
    together = threading.Barrier(16)

    def race(_: int) -> Any:
        together.wait()
        return Store.open(store.url).begin(JOB, PRINT)

    with ThreadPoolExecutor(16) as pool:
        begun = list(pool.map(race, range(16)))
    assert sum(not each.resumed for each in begun) == 1
    assert {each.info.run_id for each in begun} == {store.run_info().run_id}


def test_budgets_are_a_history(store: Store) -> None:
    store.begin(JOB, PRINT)
    assert store.budget() == 100
    for tokens in (100, 100, 300, 200):
        store.set_budget(tokens)
        assert Store.open(store.url).budget() == tokens
    history = [json.loads(store.files.read(path))["tokens"] for path in store.files.list("budget")]
    assert history == [100, 300, 200]


def test_a_budget_is_kept_as_it_was_written(store: Store) -> None:
    store.begin(JOB, PRINT)
    store.set_budget(300)
    assert store.budget_spec() == BudgetSpec(tokens=300)
    priced = BudgetSpec.model_validate({"gpu_hours": 1, "price": {"tokens_per_second": 10}})
    with pytest.raises(RunMismatch, match=r"budget\.tokens, counted in tokens; budget\.gpu_hours"):
        store.set_budget(priced)
    finer = BudgetSpec.model_validate({"tokens": 300, "price": {"verifiers": {"judge": 0.5}}})
    with pytest.raises(RunMismatch, match="micro-token"):
        store.set_budget(finer)
    assert store.budget() == 300


def test_a_budget_in_dollars_is_counted_in_its_unit(store: Store) -> None:
    budget = {"dollars": 0.25, "price": {"prompt": 1.0, "completion": 2.0}}
    store.begin({**JOB, "budget": budget}, PRINT)
    assert store.budget() == 250_000_000_000
    store.set_budget(BudgetSpec.model_validate({**budget, "dollars": 0.5}))
    assert Store.open(store.url).budget() == 500_000_000_000
    with pytest.raises(RunMismatch, match=r"budget\.dollars, counted in pico-dollars"):
        store.set_budget(10)


def test_a_budget_record_that_cannot_be_read_is_an_error(store: Store) -> None:
    store.begin(JOB, PRINT)
    store.files.put("budget/000001.json", b'{"tokens": -1, "id": "x"}')
    with pytest.raises(StoreError, match=r"budget/000001\.json is corrupt"):
        store.budget()


def test_plan_is_written_once(store: Store) -> None:
    with pytest.raises(StoreError, match=r"shards\.parquet is gone"):
        store.read_plan()
    plan = plan_of(3, 2)
    store.write_plan(plan)
    store.write_plan(plan)
    assert store.read_plan() == list(plan.shards)
    with pytest.raises(RunMismatch, match="another plan"):
        store.write_plan(plan_of(2, 3))
    assert store.read_plan() == list(plan.shards)


def test_plan_must_add_up(store: Store) -> None:
    with pytest.raises(StoreError, match="dense"):
        store.write_plan(DatasetPlan((Shard(1, 2),), 2))
    with pytest.raises(StoreError, match="3 items, yet the shards hold 2"):
        store.write_plan(DatasetPlan((Shard(0, 2),), 3))


# --- the journal -----------------------------------------------------------------------------------------------------


def test_journal_keeps_the_first_of_each_sample(store: Store) -> None:
    kept = [
        sample("a", 0, writer="w1", attempt=0, verdicts=(Verdict("math", 1.0, tokens=2),)),
        sample("a", 1, writer="w2", attempt=1),
        sample("a", 1, writer="w1", attempt=3, parent=0),
        sample("b", 0, writer="w0", attempt=0),
    ]
    store.journal(0, [replace(kept[0], writer="w2", text="late"), kept[1]], "w2", 0)
    store.journal(0, [replace(kept[0], writer="w0", attempt=1), kept[0]], "w1", 0)
    store.journal(0, [kept[2], replace(kept[1], attempt=2)], "w1", 1)
    store.journal(0, [kept[3]], "w0", 0)
    store.journal(0, [], "w0", 1)
    store.journal(7, [sample("c")], "w0", 2)
    assert store.read_journal(0) == kept
    assert store.read_journal(7) == [sample("c")]
    assert store.read_journal(1) == []


def test_journal_spent_counts_what_was_paid_twice(store: Store) -> None:
    paid = sample("a", prompt_tokens=10, cached_prompt_tokens=4, verdicts=(Verdict("m", 1.0, tokens=2), Verdict("n")))
    store.journal(0, [paid, sample("b", completion_tokens=100)], "worker-1.a", 0)
    store.journal(3, [paid], "worker-1.a", 1)
    store.journal(0, [paid], "worker-2", 0)
    store.record_attempts(0, ["a"], "worker-3", 0)
    assert paid.billed_tokens == 11
    assert spent_by_life(store) == {"worker-1.a": 122, "worker-2": 11}, "verdicts are journalled by themselves"
    assert store.journal_usage() == {"worker-1.a": Usage(12, 8, 110), "worker-2": Usage(6, 4, 5)}
    priced = CostModel(prompt=3, cached=1, completion=10)
    assert spent_by_life(store, priced) == {"worker-1.a": 36 + 8 + 1100, "worker-2": 18 + 4 + 50}


def test_journal_objects_are_never_replaced(store: Store) -> None:
    store.journal(0, [sample("a")], "w0", 0)
    store.journal(0, [sample("a")], "w0", 0)
    with pytest.raises(StoreError, match="sequence number was used twice"):
        store.journal(0, [sample("b")], "w0", 0)
    assert store.read_journal(0) == [sample("a")]


@pytest.mark.parametrize("writer", ["", "a/b", "..", "a b", "-a"])
def test_writers_must_name_files(store: Store, writer: str) -> None:
    with pytest.raises(StoreError, match="cannot name a file"):
        store.journal(0, [sample("a")], writer, 0)


def test_a_torn_journal_is_an_error(store: Store) -> None:
    store.journal(0, [sample("a")], "w0", 0)
    store.journal(0, [sample("b")], "w0", 1)
    path = Path(store.url, "journal/000000/w0-000001.parquet")
    path.write_bytes(path.read_bytes()[:-9])
    for read in (lambda: store.read_journal(0), lambda: spent_by_life(store)):
        with pytest.raises(StoreError, match=r"w0-000001\.parquet is torn"):
            read()


def test_a_value_that_fits_no_column_is_an_error(store: Store) -> None:
    for wrong in (sample("a", text=None), sample("a", text="\ud800"), sample("a", completion_tokens=2**63)):
        with pytest.raises(StoreError, match=r"cannot write journal/000000/w0-000000\.parquet: a Sample does not fit"):
            store.journal(0, [wrong], "w0", 0)
    assert store.files.list("") == []


def test_attempts_are_lives_that_ended_with_the_item_in_flight(store: Store) -> None:
    store.record_attempts(0, ["a", "b", "c"], "w1", 0)
    store.release_attempts(0, ["a"], "w1", 1)
    store.record_attempts(0, ["d"], "w1", 2)
    store.record_attempts(0, ["a"], "w2", 0)
    store.release_attempts(0, ["a"], "w2", 1)
    store.record_attempts(0, ["a", "b"], "w2", 2)
    store.record_attempts(0, ["b"], "w2", 3)
    store.record_attempts(0, ["c"], "w3", 0)
    store.release_attempts(0, ["c"], "w3", 0)
    store.record_attempts(1, ["e"], "w1", 3)
    assert store.attempts(0) == {"a": 1, "b": 2, "c": 1, "d": 1}
    assert store.attempts(0, {"w2"}) == {"a": 1, "b": 1}
    assert store.attempts(0, {"w3"}) == store.attempts(0, set()) == store.attempts(2) == {}
    assert store.attempts(1) == {"e": 1}


def test_verdicts_come_back_with_their_samples(store: Store) -> None:
    first, second = make_sample("a", 0), make_sample("a", 1)
    store.journal(0, [first, second], "w0", 1)
    store.note(0, [Judged("a", "k", 0, (Verdict("math", error="not now", tokens=3),), "w0")], "w0", 2)
    store.note(0, [Judged("a", "k", 0, (Verdict("math", 1.0, tokens=4),), "w1")], "w1", 1)
    store.note(0, [Judged("a", "k", 0, (Verdict("math", 0.0, tokens=5),), "w2")], "w2", 1)
    handed = Verdict("math", 0.25, given="other words")
    more = [Judged("a", "k", 1, (verdict,), "w2") for verdict in (Verdict("math", 0.5), Verdict("x", 1.0), handed)]
    store.note(0, more, "w2", 2)
    found = store.read_journal(0)
    assert [sample.verdicts for sample in found] == [
        (Verdict("math", 1.0, tokens=4),),
        (Verdict("math", 0.5), Verdict("x", 1.0), handed),
    ]
    # Two samples of ten tokens, and every check that was paid, whichever stands.
    assert spent_by_life(store) == {"w0": 23, "w1": 4, "w2": 5}


def test_decisions_come_back_by_question_and_the_first_stands(store: Store) -> None:
    store.note(0, [Decided("a", "arm", "large", "w1"), Decided("b", "arm", "small", "w1")], "w1", 1)
    store.note(0, [Decided("a", "arm", "small", "w2"), Decided("a", "threshold", "0.9", "w2")], "w2", 1)
    assert store.decided(0) == {"a": {"arm": "large", "threshold": "0.9"}, "b": {"arm": "small"}}
    assert store.decided(1) == {}
    assert store.read_journal(0) == []


def test_verdicts_from_before_anything_was_handed_over_are_read() -> None:
    row = {"verifier": "math", "score": 1.0, "error": None, "tokens": 0, "detail": None}
    assert from_row(Verdict, row) == Verdict("math", 1.0)
