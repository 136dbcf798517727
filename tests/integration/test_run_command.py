"""``ponder run`` and ``ponder status`` from outside: what they print, what they cost, and how they end."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.run_helpers import (
    ROOT,
    Ended,
    Job,
    environment,
    outcome,
    ponder,
    questions,
    write_job,
)

pytestmark = pytest.mark.ray

KEYS = {
    "run", "items", "answered", "dead_lettered", "samples", "tokens_spent", "tokens_budget", "stop_reasons", "accuracy",
}  # fmt: skip
ROWS = 20
AMPLE = 100_000

WITHOUT_RAY = """
import sys
from pipeline.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    assert "ray" not in sys.modules
    raise
"""


def without_ray(*words: str) -> Ended:
    """Run ``ponder`` to its end; fails if it so much as loaded Ray."""
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_RAY, *words], cwd=ROOT, env=environment(), capture_output=True, text=True
    )
    assert "AssertionError" not in ended.stderr
    return Ended(ended.returncode, ended.stdout, ended.stderr)


def files(job: Job) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in Path(job.output).rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, Ended]:
    """A finished run with an ample budget, two workers, and one row without a prompt."""
    folder = tmp_path_factory.mktemp("ample")
    rows = questions(ROWS)
    rows[5]["prompt"] = None
    job = write_job(folder, rows, budget={"tokens": AMPLE}, cluster={"workers": 2})
    return job, ponder(folder, job.words())


def test_run_ends_with_one_object_that_is_true(finished: tuple[Job, Ended]) -> None:
    job, ended = finished
    assert ended.code == 0, ended.stderr
    assert len(ended.stdout.splitlines()) == 1
    found, result = outcome(job.output), ended.result
    assert result.keys() >= KEYS
    right = sum(row["correct"] for row in found.answers)
    assert {key: result[key] for key in KEYS - {"stop_reasons"}} == {
        "run": job.output,
        "items": ROWS,
        "answered": ROWS - 1,
        "dead_lettered": 1,
        "samples": len(found.samples),
        "tokens_spent": job.spent(),
        "tokens_budget": AMPLE,
        "accuracy": pytest.approx(right / (ROWS - 1)),
    }
    reasons = [row["stop_reason"] for row in found.answers]
    assert {name: count for name, count in result["stop_reasons"].items() if count} == {
        "failed": 1,
        **{name: reasons.count(name) for name in reasons},
    }
    assert 0 < job.spent() == sum(row["tokens"] for row in found.answers) <= AMPLE


def test_every_row_has_one_outcome_and_a_null_prompt_is_a_dead_letter(finished: tuple[Job, Ended]) -> None:
    job, _ = finished
    found = outcome(job.output)
    assert [(row["item_id"], row["boundary"]) for row in found.dead] == [("q005", "source")]
    assert "prompt" in found.dead[0]["error"]
    assert found.answered == [item_id for item_id in job.ids if item_id != "q005"]
    assert {row["item_id"]: row["samples"] for row in found.answers} == {
        item_id: sum(row["item_id"] == item_id for row in found.samples) for item_id in found.answered
    }
    assert found.writers == job.journal()


def test_status_agrees_with_run(finished: tuple[Job, Ended]) -> None:
    job, ended = finished
    status = without_ray("status", job.output, "--json")
    assert status.code == 0, status.stderr
    assert {**status.result, "seconds": None} == {**ended.result, "seconds": None}


def test_a_finished_run_returns_at_once_and_changes_nothing(finished: tuple[Job, Ended]) -> None:
    job, ended = finished
    before = files(job)
    again = without_ray(*job.words())
    assert again.code == 0, again.stderr
    assert {**again.result, "seconds": None} == {**ended.result, "seconds": None}
    assert files(job) == before


def test_another_job_in_the_same_output_is_refused(finished: tuple[Job, Ended]) -> None:
    job, _ = finished
    before = files(job)
    refused = without_ray(*job.words("--set", "sampling.temperature=0.25"))
    assert refused.code == 2
    assert "holds another run" in refused.result["error"]
    assert "sampling.temperature" in refused.result["error"]
    assert "0.25" in refused.result["error"]
    assert files(job) == before


@pytest.mark.parametrize("budget", ["0", "-5"])
def test_no_budget_is_refused(tmp_path: Path, budget: str) -> None:
    job = write_job(tmp_path, questions(ROWS))
    refused = without_ray(*job.words("--set", f"budget.tokens={budget}"))
    assert refused.code == 2
    assert "budget.tokens" in refused.result["error"]
    assert budget in refused.result["error"]
    assert not Path(job.output).exists()


def test_small_budgets_answer_every_row_and_a_top_up_pays_only_the_difference(tmp_path: Path) -> None:
    # A question's first sample takes at most 3 + 4 tokens: 15 tokens buy two or three, 1 token none.
    job = write_job(tmp_path, questions(ROWS), sampling={"max_tokens": 4}, budget={"tokens": 1})
    spent = 0
    paid: dict[tuple[str, int, str], str] = {}
    for budget in (1, 15, AMPLE):
        ended = ponder(tmp_path, job.words("--set", f"budget.tokens={budget}"))
        assert ended.code == 0, ended.stderr
        found = outcome(job.output)
        assert found.answered == list(job.ids)
        assert found.dead == []
        assert spent <= job.spent() <= budget
        assert ended.result["tokens_spent"] == job.spent() == sum(row["tokens"] for row in found.answers)
        assert ended.result["tokens_budget"] == budget
        writers = found.writers
        assert {key: writers.get(key) for key in paid} == paid
        assert writers == job.journal()
        if budget < ROWS:
            assert {row["stop_reason"] for row in found.answers if not row["samples"]} == {"exhausted"}
        spent, paid = job.spent(), writers
    assert {row["stop_reason"] for row in found.answers} == {"settled"}
    assert len(set(paid.values())) == 2
