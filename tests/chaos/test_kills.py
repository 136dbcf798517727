"""Real processes, real signals: what a killed driver, worker or question may cost, and what it may not."""

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.integration.run_helpers import Job, Running, outcome, ponder, questions, start, write_job

pytestmark = pytest.mark.ray

ROWS = 60
SLOW = {"options": {"seconds": 0.15}}
"""About 60 × 5 samples in 8 slots: some six seconds of sampling, time enough to die in the middle."""
BUDGET = 2400
"""Less than the questions could use, so that what a crash loses or repeats would show against the ceiling."""


def slow_job(folder: Path, **sections: Any) -> Job:
    return write_job(folder, questions(ROWS), model=SLOW, budget={"tokens": BUDGET}, **sections)


def until_midway(running: Running, job: Job) -> None:
    """Samples are durable, and more are to come."""
    running.until(lambda: len(job.journal_files()) >= 3, "journal files")
    assert job.store.finished() is None
    assert len(job.store.commits()) < len(job.store.read_plan())


def assert_whole(job: Job) -> None:
    """Every id once, nothing lost on the way from journal to samples, and the ceiling held."""
    found = outcome(job.output)
    assert found.answered == list(job.ids)
    assert found.dead_ids == []
    assert found.writers == job.journal()
    assert job.spent() <= BUDGET
    assert job.store.finished() is not None


def assert_kept(job: Job, before: dict[tuple[str, int, str], str]) -> None:
    """What was paid for is in the samples, by whoever paid: it was not drawn again."""
    after = outcome(job.output).writers
    assert {key: after.get(key) for key in before} == before


def test_a_killed_driver_resumes_and_draws_nothing_twice(tmp_path: Path) -> None:
    job = slow_job(tmp_path)
    with start(tmp_path, job.words()) as running:
        until_midway(running, job)
        assert running.alive("raylet")
        assert running.alive("gcs_server")
        assert running.alive("WorkerActor")
        running.kill()
        assert running.left() == []
    before, spent = job.journal(), job.spent()
    assert before
    assert job.store.finished() is None
    ended = ponder(tmp_path, job.words())
    assert ended.code == 0, ended.stderr
    assert_whole(job)
    assert_kept(job, before)
    assert ended.result["tokens_spent"] == job.spent() >= spent
    # Nobody saw those workers die, and they did not: no question is to blame.
    assert job.store.deaths() == set()


def test_a_killed_worker_is_replaced(tmp_path: Path) -> None:
    job = slow_job(tmp_path)
    with start(tmp_path, job.words()) as running:
        until_midway(running, job)
        [worker] = running.alive("WorkerActor")
        worker.kill()
        ended = running.wait()
        assert running.left() == []
    assert ended.code == 0, ended.stderr
    assert_whole(job)
    [dead] = job.store.deaths()
    writers = set(outcome(job.output).writers.values())
    assert dead in writers
    assert len(writers) == 2
    assert ended.result["tokens_spent"] == job.spent()


def test_an_interrupted_run_keeps_what_it_paid_and_goes_on(tmp_path: Path) -> None:
    job = slow_job(tmp_path)
    with start(tmp_path, job.words()) as running:
        until_midway(running, job)
        running.process.send_signal(signal.SIGINT)
        ended = running.wait()
        assert running.left() == []
    assert ended.code == 130, ended.stderr
    assert f"ponder run {job.path}" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.result["kind"] == "KeyboardInterrupt"
    before = job.journal()
    assert before
    assert job.store.finished() is None
    again = ponder(tmp_path, job.words())
    assert again.code == 0, again.stderr
    assert_whole(job)
    assert_kept(job, before)
    assert job.store.deaths() == set()


def test_a_question_that_kills_its_worker_is_set_aside_and_no_other(tmp_path: Path) -> None:
    rows = questions(20)
    rows[11]["prompt"] = "a cup of hemlock"
    job = write_job(tmp_path, rows, model={"options": {"seconds": 0.02, "poison": "hemlock"}})
    ended = ponder(tmp_path, job.words())
    assert ended.code == 0, ended.stderr
    found = outcome(job.output)
    assert [(row["item_id"], row["boundary"], row["attempts"]) for row in found.dead] == [("q011", "engine", 3)]
    assert found.answered == [item_id for item_id in job.ids if item_id != "q011"]
    assert len(job.store.deaths()) == 3
    assert (ended.result["answered"], ended.result["dead_lettered"]) == (19, 1)
