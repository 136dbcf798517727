"""A run's status, computed from real run directories in every state."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.budget_spec import BudgetUse
from pipeline.errors import StoreError, UsageError
from pipeline.records import Answer, DeadLetter, Judged, Sample, Shard, StopReason, Verdict
from pipeline.status import RunStatus, status_of, wilson_interval
from pipeline.store import Store
from tests.factories import make_sample, make_spec


@dataclass(frozen=True)
class TwoShards:
    """A plan of four items in two shards."""

    shards: tuple[Shard, ...] = (Shard(0, 2), Shard(1, 2))
    items: int = 4


def answer(item_id: str, reason: StopReason, correct: bool | None, samples: int = 1) -> Answer:
    return Answer(item_id, "1", "1", reason, 0.9, votes=1, samples=samples, tokens=10 * samples, correct=correct)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.open(str(tmp_path / "run"))
    job = make_spec(strategy={"kind": "self_consistency", "max_samples": 12}).model_dump(mode="json")
    store.begin(job, {"seed": "s"})
    store.write_plan(TwoShards())
    return store


def commit_first(store: Store) -> list[Sample]:
    samples = [make_sample("a", 0), make_sample("a", 1), make_sample("b", 0)]
    store.journal(0, samples, "w0", 1)
    answers = [answer("a", StopReason.SETTLED, True, 2), answer("b", StopReason.CAPPED, False)]
    store.commit(0, 0, answers, samples, [], [], "w0")
    return samples


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run at"):
        status_of(str(tmp_path / "nothing"))


def test_planned(store: Store) -> None:
    status = status_of(store.url)
    assert (status.state, status.items, status.shards) == ("planned", 4, 2)
    assert status.accuracy is None
    assert status.accuracy_interval is None
    assert status.mean_tokens_per_sample is None
    assert status.stop_reasons == {reason.value: 0 for reason in StopReason}
    assert (status.run, status.run_id) == (store.url, store.run_info().run_id)
    assert (status.tokens_budget, status.max_samples) == (1_000_000, 12)


def test_begun_but_not_planned(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "run"))
    store.begin(make_spec(strategy={"kind": "greedy"}).model_dump(mode="json"), {})
    status = status_of(store.url)
    assert (status.items, status.shards, status.max_samples) == (0, 0, 1)


def test_interrupted_counts_what_is_only_in_the_journal(store: Store) -> None:
    commit_first(store)
    store.journal(1, [make_sample("c", 0)], "w0", 2)
    # Paid for twice: both are spent, one is a sample.
    store.journal(1, [make_sample("c", 0), make_sample("c", 1)], "w1", 1)
    status = status_of(store.url)
    assert status.state == "running or interrupted"
    assert (status.answered, status.dead_lettered, status.shards_committed) == (2, 0, 1)
    assert (status.samples, status.tokens_spent) == (5, 60)
    assert (status.correct, status.judged, status.accuracy) == (1, 2, 0.5)


def test_finished(store: Store) -> None:
    commit_first(store)
    store.journal(1, [make_sample("c", 0)], "w0", 2)
    store.set_budget(500)
    kept = [make_sample("c", 0)]
    store.commit(1, 0, [answer("c", StopReason.SETTLED, None)], kept, [], [DeadLetter("d", "source", "null")], "w0")
    store.finish(status_of(store.url).as_json())
    status = status_of(store.url)
    assert (status.state, status.tokens_spent, status.tokens_budget) == ("finished", 40, 500)
    reasons = {name: count for name, count in status.stop_reasons.items() if count}
    assert reasons == {"settled": 2, "capped": 1, "failed": 1}
    assert sum(status.stop_reasons.values()) == status.items == 4
    assert (status.answered, status.dead_lettered, status.samples) == (3, 1, 4)
    assert status.mean_tokens_per_sample == 10.0
    assert (status.correct, status.judged) == (1, 2), "an answer without a verdict is not judged"
    assert status.accuracy_interval == wilson_interval(1, 2)


def test_verification_counts_as_spent(store: Store) -> None:
    plain = make_sample("a", 0)
    store.journal(0, [plain], "w0", 1)
    assert status_of(store.url).tokens_spent == 10
    judged = replace(plain, verdicts=(Verdict("math", 1.0, tokens=7), Verdict("units", 1.0, tokens=2)))
    store.note(0, [Judged("a", plain.prompt_key, 0, judged.verdicts, "w0")], "w0", 2)
    store.commit(0, 0, [answer("a", StopReason.SETTLED, True)], [judged], [], [], "w0")
    assert status_of(store.url).tokens_spent == 19
    # A later generation holds the same sample again: it counts once.
    store.commit(0, 1, [answer("a", StopReason.SETTLED, True)], [judged], [], [], "w1")
    status = status_of(store.url)
    assert (status.tokens_spent, status.budget) == (19, BudgetUse("tokens", 1_000_000, 19))


def test_a_budget_in_dollars_is_shown_in_dollars(tmp_path: Path) -> None:
    price = {"prompt": 1.0, "cached": 0.25, "completion": 4.0, "verifiers": {"numeric": 2.0}}
    budget = {"tokens": None, "dollars": 0.5, "price": price}
    spec = make_spec(budget=budget, verifiers=[{"kind": "numeric"}], dataset={"reference": "gold"})
    store = Store.open(str(tmp_path / "run"))
    store.begin(spec.model_dump(mode="json"), {})
    store.write_plan(TwoShards())
    sample = make_sample("a", 0, prompt_tokens=100, cached_prompt_tokens=80, completion_tokens=30)
    store.journal(0, [sample], "w0", 1)
    judged = replace(sample, verdicts=(Verdict("numeric", 1.0, tokens=5),))
    store.note(0, [Judged("a", sample.prompt_key, 0, judged.verdicts, "w0")], "w0", 2)
    store.commit(0, 0, [answer("a", StopReason.SETTLED, True)], [judged], [], [], "w0")
    status = status_of(store.url)
    assert (status.tokens_spent, status.tokens_budget) == (20 + 30 + 5, None)
    assert status.budget is not None
    # 20 × $1 + 80 × $0.25 + 30 × $4 + 5 × $2 a million.
    assert (status.budget.unit, status.budget.total) == ("dollars", 0.5)
    assert status.budget.spent == pytest.approx(170e-6, rel=1e-12)
    assert status.as_json()["budget"] == {"unit": "dollars", "total": 0.5, "spent": status.budget.spent}


def test_answers_that_are_gone_are_a_store_error(store: Store) -> None:
    commit_first(store)
    store.files.delete(store.commits()[0].files["answers"])
    with pytest.raises(StoreError, match="cannot read the answers"):
        status_of(store.url)


def test_json_has_exactly_the_fields(store: Store) -> None:
    commit_first(store)
    raw = status_of(store.url).as_json()
    assert raw == json.loads(json.dumps(raw, allow_nan=False))
    assert list(raw) == list(RunStatus.__dataclass_fields__)
    needed = {"run", "items", "answered", "dead_lettered", "samples", "tokens_spent", "tokens_budget", "stop_reasons"}
    assert needed | {"accuracy"} <= raw.keys()


def test_wilson_against_published_values() -> None:
    # Newcombe 1998, Statistics in Medicine 17, table I, method 3.
    for successes, trials, low, high in [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)]:
        assert wilson_interval(successes, trials) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@given(st.integers(1, 10**9).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share_and_mirrors(counts: tuple[int, int]) -> None:
    successes, trials = counts
    low, high = wilson_interval(successes, trials)
    assert 0.0 <= low <= successes / trials <= high <= 1.0
    assert low < high
    mirrored = wilson_interval(trials - successes, trials)
    assert math.isclose(mirrored[0], 1 - high, abs_tol=1e-9)
    assert math.isclose(mirrored[1], 1 - low, abs_tol=1e-9)


@given(st.integers(0, 1000), st.integers(1, 1000))
def test_wilson_narrows_with_more_of_the_same(successes: int, extra: int) -> None:
    trials = successes + extra
    low, high = wilson_interval(successes, trials)
    closer_low, closer_high = wilson_interval(4 * successes, 4 * trials)
    assert closer_high - closer_low < high - low


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_what_is_no_proportion(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match="no proportion"):
        wilson_interval(successes, trials)
