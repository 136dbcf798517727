"""``ponder run`` of a finished run with another strategy: selected again from what is paid, through Ray."""

from pathlib import Path

import pytest

from tests.integration.run_helpers import outcome, ponder, questions, write_job

pytestmark = pytest.mark.ray

ROWS = 20
AMPLE = 100_000


def test_another_rule_selects_again_from_what_is_paid(tmp_path: Path) -> None:
    vote = {"kind": "self_consistency", "max_samples": 12}
    budget = {"tokens": AMPLE, "audit": 0.5}
    job = write_job(tmp_path, questions(ROWS), budget=budget, strategy=vote, cluster={"workers": 2})
    first = ponder(tmp_path, job.words())
    assert first.code == 0, first.stderr
    audit = first.result["audit"]
    assert audit["rate"] == audit["flipped"] / audit["audited"]
    low, high = audit["interval"]
    assert 0 <= low <= audit["rate"] <= high <= 1
    before, paid = outcome(job.output), job.journal()
    assert audit["audited"] == sum(row["flipped"] is not None for row in before.answers) > 0

    planned = ponder(tmp_path, ["plan", *job.words("--set", "strategy.confidence=0.6")[1:]])
    assert planned.code == 0, planned.stderr
    assert (planned.result["resumes"], planned.result["reselects"]) == (True, True)
    again = ponder(tmp_path, job.words("--set", "strategy.confidence=0.6"))
    assert again.code == 0, again.stderr
    found = outcome(job.output)
    assert (found.answered, found.dead) == (list(job.ids), [])
    assert {key: found.writers.get(key) for key in paid} == paid
    assert job.spent() == sum(row["tokens"] for row in found.answers) == again.result["tokens_spent"] <= AMPLE
    assert {commit.rule for commit in job.store.commits().values()} == {1}
    assert sum(row["votes"] for row in found.answers) < sum(row["votes"] for row in before.answers)

    refused = ponder(tmp_path, job.words("--set", "strategy.confidence=0.6", "--set", "sampling.temperature=0.25"))
    assert refused.code == 2
    assert "sampling.temperature" in refused.result["error"]
