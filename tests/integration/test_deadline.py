"""A deadline, on real actors: every row answered, nothing lost, and the next command goes on."""

from pathlib import Path

import pytest

from tests.integration.run_helpers import outcome, ponder, questions, write_job

pytestmark = pytest.mark.ray

ROWS = 40
AMPLE = 1_000_000


def test_a_deadline_ends_the_run_with_an_answer_for_every_row_and_the_next_command_goes_on(tmp_path: Path) -> None:
    # One sample at a time, each a quarter of a second: a single sample everywhere takes longer than there is.
    slow = {"max_num_seqs": 1, "options": {"seconds": 0.25}}
    job = write_job(tmp_path, questions(ROWS), model=slow, budget={"tokens": AMPLE})
    first = ponder(tmp_path, job.words("--set", "budget.deadline=6s"))
    assert first.code == 0, first.stderr
    found = outcome(job.output)
    assert found.answered == list(job.ids)
    assert found.dead == []
    reasons = {row["item_id"]: row["stop_reason"] for row in found.answers}
    exhausted = {item_id for item_id, reason in reasons.items() if reason == "exhausted"}
    assert exhausted
    assert job.spent() < AMPLE
    assert found.writers == job.journal()
    paid, spent = found.writers, job.spent()

    fast = ponder(tmp_path, job.words("--set", "budget.deadline=10m", "--set", "model.max_num_seqs=64"))
    assert fast.code == 0, fast.stderr
    found = outcome(job.output)
    assert found.answered == list(job.ids)
    assert {row["stop_reason"] for row in found.answers} == {"settled"}
    assert {key: found.writers.get(key) for key in paid} == paid
    assert spent < job.spent()


def test_a_deadline_that_has_passed_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    job = write_job(tmp_path, questions(3))
    refused = ponder(tmp_path, job.words("--set", "budget.deadline='2001-01-01T00:00:00+00:00'"))
    assert refused.code == 2
    assert "budget.deadline" in refused.result["error"]
    assert "2001-01-01" in refused.result["error"]
    assert not Path(job.output).exists()
