"""Forecasts: what a job could cost, and everything ``plan`` refuses or warns of."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.budget_spec import BudgetSpec, BudgetUse
from pipeline.errors import RunMismatch, SourceError, UsageError
from pipeline.fingerprint import fingerprint_of
from pipeline.forecast import (
    CHARACTERS_PER_TOKEN,
    EXPECTED_FRACTION,
    Prompts,
    cost_of,
    forecast,
    measure,
    samples_range,
)
from pipeline.records import Item, Message
from pipeline.source import plan_dataset
from pipeline.spec import JobSpec
from pipeline.store import Store
from tests.factories import make_sample, make_spec


def write_rows(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def make_job(folder: Path, rows: list[dict[str, Any]] | None = None, **sections: Any) -> JobSpec:
    """Ten questions of 30 characters; 16 completion tokens; 1 to 40 samples."""
    default = [{"id": f"q{i}", "prompt": f"{i}" * 30, "gold": str(i)} for i in range(10)]
    path = write_rows(folder, default if rows is None else rows)
    dataset = {"path": str(path), "id": "id", "reference": "gold", **sections.pop("dataset", {})}
    return make_spec(dataset=dataset, output=str(folder / "run"), **sections)


def test_costs_by_hand() -> None:
    prompts = Prompts(mean=30.0, longest=40, shared=20)
    cost = cost_of(10, 4, prompts, 16, BudgetSpec(tokens=1))
    assert cost.worst == 10 * 4 * (30 + 16)
    assert cost.expected == 10 * (30 - 20) + 20 + EXPECTED_FRACTION * 10 * 4 * 16


@given(
    items=st.integers(1, 10**6),
    samples=st.integers(1, 64),
    mean=st.floats(0, 5000),
    share=st.floats(0, 1),
    max_tokens=st.integers(1, 4096),
)
def test_expected_never_exceeds_worst_and_more_samples_never_cost_less(
    items: int, samples: int, mean: float, share: float, max_tokens: int
) -> None:
    prompts = Prompts(mean, longest=round(mean), shared=int(mean * share))
    cost, more = (cost_of(items, n, prompts, max_tokens, BudgetSpec(tokens=1)) for n in (samples, samples + 1))
    assert 0 < cost.expected <= cost.worst
    assert more.worst > cost.worst
    assert more.expected >= cost.expected


def test_prompts_are_measured_with_what_they_share() -> None:
    texts = ["x" * 30 + "a" * 30, "x" * 30 + "b" * 60, "x" * 30]
    prompts = measure([Item(str(at), prompt=text) for at, text in enumerate(texts)])
    assert prompts.mean == pytest.approx((60 + 90 + 30) / 3 / CHARACTERS_PER_TOKEN)
    assert (prompts.longest, prompts.shared) == (30, 10)
    assert measure([Item("1", prompt="x" * 30)]).shared == 0, "one prompt shares nothing with itself"
    assert measure([Item("1", messages=(Message("user", "x" * 24),))]).longest == 10
    assert measure([]) == Prompts(0.0, 0, 0)


@given(st.lists(st.text(alphabet="ab", max_size=6), min_size=2, max_size=6))
def test_the_shared_beginning_is_that_of_all(texts: list[str]) -> None:
    items = [Item(str(at), prompt=text * 3) for at, text in enumerate(texts)]
    shared = 0
    while all(len(item.prompt or "") > shared for item in items) and (
        len({(item.prompt or "")[shared] for item in items}) == 1
    ):
        shared += 1
    assert measure(items).shared == int(shared / CHARACTERS_PER_TOKEN)


def test_samples_range() -> None:
    assert samples_range(make_spec(strategy={"kind": "greedy"})) == (1, 1)
    spec = make_spec(strategy={"kind": "self_consistency", "min_samples": 3, "max_samples": 9})
    assert samples_range(spec) == (3, 9)


def test_a_fresh_job(tmp_path: Path) -> None:
    found = forecast(make_job(tmp_path, cluster={"shard_size": 4}, budget={"tokens": 5_000}))
    assert (found.items, found.shards, found.has_reference, found.resumes) == (10, 3, True, False)
    assert (found.prompt_tokens_mean, found.rows_looked_at) == (10.0, 10)
    assert (found.minimum.worst, found.maximum.worst) == (10 * 26, 400 * 26)
    assert found.budget_covers_minimum
    assert found.budget_likely_covers_minimum
    assert found.warnings == []
    assert not (tmp_path / "run").exists(), "a forecast writes nothing"
    raw = found.as_json()
    assert raw == json.loads(json.dumps(raw, allow_nan=False))


@pytest.mark.parametrize(
    ("tokens", "surely", "likely", "warning"),
    [
        (25, False, False, "may not pay for a single sample"),
        (100, False, False, "some questions would end as exhausted"),
        (200, False, True, "not in the worst case"),
        (1_000_000, True, True, "more than the strategy can use"),
    ],
)
def test_the_budget_is_judged(tmp_path: Path, tokens: int, surely: bool, likely: bool, warning: str) -> None:
    found = forecast(make_job(tmp_path, budget={"tokens": tokens}))
    assert (found.budget_covers_minimum, found.budget_likely_covers_minimum) == (surely, likely)
    [line] = found.warnings
    assert line.startswith("budget.tokens: ")
    assert warning in line


def test_costs_in_dollars_by_hand() -> None:
    price = {"prompt": 2.0, "cached": 0.5, "completion": 10.0}
    cost = cost_of(10, 4, Prompts(mean=30.0, longest=40, shared=20), 16, BudgetSpec(dollars=1, price=price))
    # 1,200 prompt tokens, 120 of them computed; 640 completion tokens, 320 of them expected.
    assert (cost.expected, cost.worst) == (440, 1_840)
    assert cost.expected_in_budget == pytest.approx((120 * 2.0 + 1_080 * 0.5 + 320 * 10.0) / 1e6)
    assert cost.worst_in_budget == pytest.approx((1_200 * 2.0 + 640 * 10.0) / 1e6)


def test_a_budget_in_dollars_is_judged_in_dollars(tmp_path: Path) -> None:
    # Ten questions of 10 prompt and 16 completion tokens: 100 × $2 + 160 × $10 a million at worst, for one sample each.
    price = {"prompt": 2.0, "completion": 10.0}
    found = forecast(make_job(tmp_path, budget={"tokens": None, "dollars": 0.0015, "price": price}))
    assert (found.budget, found.tokens_budget) == (BudgetUse("dollars", 0.0015, 0.0), None)
    assert found.minimum.worst_in_budget == pytest.approx(0.0018)
    assert (found.budget_covers_minimum, found.budget_likely_covers_minimum) == (False, True)
    [line] = found.warnings
    assert line.startswith("budget.dollars: 0.0015 covers the minimum as expected")
    raw = found.as_json()
    assert raw == json.loads(json.dumps(raw, allow_nan=False))


@pytest.mark.parametrize(
    ("seconds", "warning"),
    [(1, "fewer than strategy.min_samples"), (100, "time ends the run before the budget does"), (1_000, None)],
)
def test_a_deadline_is_held_against_the_measured_rate(tmp_path: Path, seconds: int, warning: str | None) -> None:
    # Two workers of one GPU each at 15 tokens a second: 30, 3,000 and 30,000 tokens; the budget is 5,000.
    budget = {"tokens": 5_000, "deadline": f"{seconds}s", "price": {"tokens_per_second": 15}}
    job = make_job(tmp_path, budget=budget, cluster={"workers": 2, "shard_size": 5})
    found = forecast(job, datetime(2030, 1, 31, 22, 30, tzinfo=UTC))
    assert found.deadline_tokens == 30 * seconds
    assert found.deadline is not None
    assert found.deadline.startswith("2030-01-31T22:")
    assert [line.split(":")[0] for line in found.warnings] == (["budget.deadline"] if warning else [])
    assert warning is None or warning in found.warnings[0]


def test_what_is_likely_not_meant_is_said(tmp_path: Path) -> None:
    rows = [{"id": "a", "prompt": "x" * 900}, {"id": "b", "prompt": None}]
    job = make_job(tmp_path, rows, dataset={"reference": None}, cluster={"workers": 3}, budget={"tokens": 5_000})
    found = forecast(job)
    assert [line.split(":")[0] for line in found.warnings] == [
        "dataset",
        "dataset.reference",
        "model.max_model_len",
        "cluster.workers",
    ]
    assert "1 of 2 rows looked at cannot be asked" in found.warnings[0]


def test_rows_of_every_part_are_looked_at_and_no_more(tmp_path: Path) -> None:
    rows = [{"id": f"q{i}", "prompt": "x" * (30 if i < 500 else 90), "gold": ""} for i in range(1000)]
    found = forecast(make_job(tmp_path, rows, cluster={"shard_size": 10}))
    assert found.rows_looked_at == 80
    assert found.prompt_tokens_mean == 20.0


def test_bad_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"dataset\.reference"):
        forecast(make_job(tmp_path, dataset={"reference": "nope"}))


def begin(job: JobSpec) -> Store:
    plan = plan_dataset(job.dataset, job.cluster.shard_size)
    store = Store.open(job.output)
    store.begin(job.model_dump(mode="json"), fingerprint_of(job, plan.fingerprint))
    return store


def test_a_run_that_is_there_resumes(tmp_path: Path) -> None:
    job = make_job(tmp_path, budget={"tokens": 5_000})
    begin(job).journal(0, [make_sample("q1", 0)], "w0", 1)
    found = forecast(job)
    assert (found.resumes, found.spent_before, found.warnings) == (True, 10, [])
    dry = forecast(job.model_copy(update={"budget": job.budget.model_copy(update={"tokens": 10})}))
    assert "raise it to draw more" in dry.warnings[-1]


def test_a_run_with_a_budget_in_another_unit_is_refused(tmp_path: Path) -> None:
    job = make_job(tmp_path, budget={"tokens": 5_000})
    begin(job)
    budget = BudgetSpec.model_validate({"gpu_hours": 1, "price": {"tokens_per_second": 10}})
    with pytest.raises(RunMismatch, match=r"budget\.tokens.*budget\.gpu_hours"):
        forecast(job.model_copy(update={"budget": budget}))


def test_the_run_of_another_job_is_refused(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    begin(job)
    hotter = job.model_copy(update={"sampling": job.sampling.model_copy(update={"temperature": 0.5})})
    with pytest.raises(RunMismatch, match=r"sampling\.temperature: 1\.0 \(run\) → 0\.5 \(job\)"):
        forecast(hotter)


def test_a_directory_that_is_no_run_is_refused(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("precious", encoding="utf-8")
    with pytest.raises(UsageError, match="not empty, yet holds no"):
        forecast(job)
