"""``ponder run`` with a vote by behaviour: programs, and tests beside them, through real actors and real sandboxes."""

from pathlib import Path
from typing import Any

import pytest

from tests.integration.run_helpers import outcome, ponder, questions, write_job
from verifiers.sandbox import confine

PROBLEM = confine.problem()
pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(PROBLEM is not None, reason=f"no sandbox on this machine: {PROBLEM}"),
]

ROWS = 9
# Program and tests in one completion, for the scripted engine knows no prompts: two texts of one behaviour, one that
# agrees with no test but its own, and one that is no program.
ANSWERS = [
    "1\nassert f(3) == 6\nassert f(0) == 0\n```python\ndef f(x):\n    return x + x\n```\n",
    "1\nassert f(3) == 6\nassert f(5) == 10\n```python\ndef f(x):\n    return 2 * x\n```\n",
    "1\nassert f(3) == 9\n```python\ndef f(x):\n    return x * x\n```\n",
    "1\nassert f(\n```python\ndef f(x) return\n```\n",
]


def job_in(folder: Path, **strategy: Any) -> Any:
    return write_job(
        folder,
        questions(ROWS),
        model={"options": {"answers": ANSWERS, "weights": [4, 3, 3, 1]}},
        answer={"extract": "code"},
        verifiers=[{"kind": "behaviour", "style": "source", "timeout": 60.0, "servers": 2}],
        strategy={"kind": "behavioural_vote", "generations": 2, "vote": {"max_samples": 6}, **strategy},
        cluster={"workers": 1},
    )


def test_codet_through_actors_and_the_same_command_checks_nothing_again(tmp_path: Path) -> None:
    job = job_in(tmp_path, generate="tests")
    ended = ponder(tmp_path, job.words())
    assert ended.code == 0, ended.stderr
    found = outcome(job.output)
    assert {row["item_id"] for row in found.answers} == set(job.ids)
    every = [(sample["item_id"], verdict) for sample in found.samples for verdict in sample["verdicts"]]
    told = [verdict for _, verdict in every if verdict["given"] is not None]
    assert {word for verdict in told if verdict["score"] for word in verdict["detail"].split()} == {"+", "!"}
    assert any(verdict["score"] == 0.0 and "SyntaxError" in verdict["detail"] for verdict in told)
    # Where something passed, what does not even load is no answer.
    passed = {item_id for item_id, verdict in every if verdict["given"] is not None and verdict["score"]}
    assert passed
    assert not [row for row in found.answers if row["item_id"] in passed and "def f(x) return" in row["answer"]]
    files = sorted(job.journal_files())
    again = ponder(tmp_path, job.words())
    assert again.code == 0, again.stderr
    assert sorted(job.journal_files()) == files
