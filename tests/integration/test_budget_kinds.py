"""A budget in dollars on real actors: the ceiling, the books and the refusals are in its unit."""

from pathlib import Path

import pytest

from pipeline.budget_spec import cost_model
from pipeline.spending import spent_by_life
from tests.integration.run_helpers import outcome, ponder, questions, write_job

pytestmark = pytest.mark.ray

ROWS = 20
PRICE = {"prompt": 0.10, "cached": 0.01, "completion": 0.40}


def test_a_run_in_dollars_ends_under_its_budget_and_keeps_its_unit(tmp_path: Path) -> None:
    # A sample of three prompt and four completion tokens costs at most $0.0000019: this pays for about thirty.
    budget = {"tokens": None, "dollars": 0.00005, "price": PRICE}
    job = write_job(tmp_path, questions(ROWS), sampling={"max_tokens": 4}, budget=budget)
    ended = ponder(tmp_path, job.words())
    assert ended.code == 0, ended.stderr
    found, use = outcome(job.output), ended.result["budget"]
    assert found.answered == list(job.ids)
    assert (use["unit"], use["total"]) == ("dollars", 0.00005)
    units = sum(spent_by_life(job.store, cost_model(job.spec.budget)).values())
    assert use["spent"] == pytest.approx(units / 10**12, rel=1e-12)
    assert 0.000025 < use["spent"] <= use["total"]
    assert ended.result["tokens_budget"] is None
    assert ended.result["tokens_spent"] == sum(row["tokens"] for row in found.answers) == job.spent()
    assert "$" in ended.stderr

    words = job.words("--set", "budget.dollars=null", "--set", "budget.price={}", "--set", "budget.tokens=1000")
    for command in (words, ["plan", *words[1:]]):
        refused = ponder(tmp_path, command)
        assert refused.code == 2
        assert "budget.dollars" in refused.result["error"]
        assert "budget.tokens" in refused.result["error"]
    assert outcome(job.output) == found
