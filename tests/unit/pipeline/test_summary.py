"""The closing table says what was measured, and marks estimates."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from pipeline.budget_spec import BudgetUse
from pipeline.forecast import Cost, Forecast
from pipeline.records import StopReason
from pipeline.status import AuditStatus, RunStatus
from pipeline.summary import (
    as_table,
    as_text,
    fixed_samples_for_same_tokens,
    forecast_text,
    rows,
    tokens_for_fixed_samples,
)

FINISHED = RunStatus(
    run="s3://bucket/runs/[today]",
    run_id="id",
    state="finished",
    items=300,
    answered=298,
    dead_lettered=2,
    samples=2000,
    tokens_spent=60_000,
    tokens_budget=60_000,
    stop_reasons={"settled": 150, "verified": 0, "capped": 3, "hopeless": 20, "exhausted": 125, "failed": 2},
    accuracy=0.5,
    accuracy_interval=(0.4436, 0.5564),
    correct=149,
    judged=298,
    mean_tokens_per_sample=25.0,
    max_samples=40,
    seconds=185.0,
)

FORECAST = Forecast(
    output="runs/x",
    resumes=False,
    items=300,
    shards=2,
    has_reference=True,
    tokens_budget=60_000,
    spent_before=0,
    min_samples=1,
    max_samples=40,
    max_tokens=48,
    prompt_tokens_mean=145.0,
    prompt_tokens_longest=150,
    rows_looked_at=64,
    expected_fraction=0.5,
    minimum=Cost(8_912, 57_972, 8_912, 57_972),
    maximum=Cost(289_712, 2_318_875, 289_712, 2_318_875),
    budget_covers_minimum=True,
    budget_likely_covers_minimum=True,
    budget=BudgetUse("tokens", 60_000, 0),
)


def table(status: RunStatus) -> dict[str, str]:
    return {row.name: row.value for row in rows(status)}


def test_fixed_n_for_the_same_tokens() -> None:
    # 60,000 tokens / (300 questions × 25 tokens a sample) = 8 samples each; 40 samples each cost 300,000.
    assert fixed_samples_for_same_tokens(FINISHED) == pytest.approx(8.0)
    assert tokens_for_fixed_samples(FINISHED, 40) == pytest.approx(300_000)


def test_the_table_of_a_finished_run() -> None:
    shown = table(FINISHED)
    assert shown["state"] == "finished in 3 min 05 s"
    assert shown["accuracy"] == "50.0% (95% interval 44.4% to 55.6%; 149 of 298 right)"
    assert shown["tokens"] == "60,000 of 60,000 (100.0%)"
    assert shown["same tokens, fixed N"] == "about 8.0 samples for every question (estimate)"
    assert shown["fixed 40 samples"] == "about 300,000 tokens, 5.0× what was spent (estimate)"
    assert {reason: shown[reason].split("  ")[0] for reason in StopReason} == {
        "settled": "150",
        "verified": "0",
        "capped": "3",
        "hopeless": "20",
        "exhausted": "125",
        "failed": "2",
    }
    assert shown["answers"] == "s3://bucket/runs/[today]/answers"
    assert shown["all samples"] == "s3://bucket/runs/[today]/samples"
    assert shown["dead letters"] == "s3://bucket/runs/[today]/dead_letter"


def test_nothing_is_claimed_that_is_not_known() -> None:
    bare = replace(FINISHED, accuracy=None, accuracy_interval=None, mean_tokens_per_sample=None, dead_lettered=0)
    shown = table(bare)
    assert shown["accuracy"].startswith("not known")
    assert shown["dead letters"] == "none"
    assert not {"same tokens, fixed N", "fixed 40 samples"} & shown.keys()


def test_a_run_under_way_has_no_comparison() -> None:
    shown = table(replace(FINISHED, state="running or interrupted", answered=100, dead_lettered=0, seconds=None))
    assert shown["state"] == "running or interrupted"
    assert shown["questions"] == "300, 100 answered, 0 without an answer, 200 not committed yet"
    assert not {"same tokens, fixed N", "fixed 40 samples"} & shown.keys()


def test_greedy_is_compared_with_no_maximum() -> None:
    assert not [row for row in rows(replace(FINISHED, max_samples=1)) if row.name.startswith("fixed")]


def test_an_empty_run_reads_without_division() -> None:
    empty = replace(FINISHED, items=0, answered=0, dead_lettered=0, samples=0, tokens_spent=0, tokens_budget=0)
    assert "questions" in as_text(replace(empty, stop_reasons={}))


def test_text_is_aligned_and_whole() -> None:
    lines = as_text(FINISHED).splitlines()
    assert len(lines) == len(rows(FINISHED))
    column = lines[0].index("finished in")
    assert {line[column - 1] for line in lines} == {" "}
    assert all(line[column] != " " for line in lines)


def test_the_terminal_table_keeps_brackets_and_folds_paths() -> None:
    stream = io.StringIO()
    Console(file=stream, width=60, force_terminal=False).print(as_table(FINISHED))
    assert "[today]" in stream.getvalue()
    assert "dead_letter" in stream.getvalue()


def test_forecast_states_its_assumptions_and_warnings() -> None:
    text = forecast_text(replace(FORECAST, warnings=["cluster.workers: 8, but …"]))
    assert "1 sample for every question: about 8,912 tokens expected, 57,972 at worst" in text
    assert "completions take 50% of sampling.max_tokens (48)" in text
    assert text.endswith("\nwarning: cluster.workers: 8, but …")


@pytest.mark.parametrize(
    ("surely", "likely", "said"),
    [
        (True, True, "the budget covers the minimum"),
        (False, True, "but not in the worst case"),
        (False, False, "the budget is not expected to cover"),
    ],
)
def test_forecast_says_whether_the_minimum_is_covered(surely: bool, likely: bool, said: str) -> None:
    found = replace(FORECAST, budget_covers_minimum=surely, budget_likely_covers_minimum=likely)
    assert said in forecast_text(found)


def test_a_budget_that_is_not_in_tokens_is_shown_in_its_unit() -> None:
    priced = replace(FINISHED, tokens_budget=None, budget=BudgetUse("dollars", 5.0, 1.25))
    shown = table(priced)
    assert (shown["tokens"], shown["budget"]) == ("60,000", "$1.25 of $5.00 (25%)")
    assert "budget" not in table(replace(FINISHED, budget=BudgetUse("tokens", 60_000, 60_000)))
    hours = replace(
        FORECAST,
        tokens_budget=10_800_000,
        budget=BudgetUse("gpu_hours", 1.0, 0.0),
        minimum=Cost(8_912, 57_972, 0.000825, 0.00537),
        deadline="2030-01-31T06:00:00+00:00",
        deadline_tokens=5_400_000.0,
    )
    text = forecast_text(hours)
    assert "1 GPU-hours, which is 10,800,000 tokens" in text
    assert "2030-01-31T06:00:00+00:00, about 5,400,000 tokens from now" in text
    assert "57,972 at worst; 0.000825 GPU-hours expected, 0.00537 GPU-hours at worst" in text


def test_an_audit_says_what_early_stopping_changed() -> None:
    audit = AuditStatus(40, 2, 0.05, (0.0138, 0.165), judged=30, accuracy_early=0.6, accuracy_full=0.7)
    line = "5.0% (95% interval 1.4% to 16.5%) of answers change at the cap: 2 of 40 settled ones"
    assert f"{line}; accuracy among 30 of them 60.0% at the stop, 70.0% at the cap" in as_text(
        replace(FINISHED, audit=audit)
    )
    unknown = replace(audit, judged=0, accuracy_early=None, accuracy_full=None)
    assert as_text(replace(FINISHED, audit=unknown)).count(line) == 1
    assert "accuracy among" not in as_text(replace(FINISHED, audit=unknown))
    assert "settled ones" not in as_text(FINISHED)
