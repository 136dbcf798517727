"""One whole job on the real engine, whose process is killed in the middle of it."""

import json
from pathlib import Path

import pytest

from pipeline.spec import load
from tests.integration.run_helpers import ROOT, outcome, start, write_spec

pytestmark = [
    pytest.mark.slow,
    pytest.mark.ray,
    # The engine starts twice.
    pytest.mark.timeout(900),
]

EXAMPLES = ROOT / "jobs" / "examples"
ROWS, BUDGET = 12, 8000
ENGINE = "VLLM::"
"""What vLLM calls its processes: VLLM::EngineCore, VLLM::Worker."""


def test_a_killed_engine_is_replaced_and_no_engine_is_left(tmp_path: Path) -> None:
    with open(EXAMPLES / "arithmetic.jsonl") as lines:
        ids = tuple(sorted(json.loads(next(lines))["question_id"] for _ in range(ROWS)))
    overrides = [
        f"dataset.path={EXAMPLES / 'arithmetic.jsonl'}",
        f"dataset.limit={ROWS}",
        "model.name=smollm2-135m",
        # Few slots, so that the middle of the run is long enough to be met; a low cap, so that its end comes soon.
        "model.max_num_seqs=8",
        "strategy.max_samples=10",
        "cluster.workers=1",
        "cluster.shard_size=4",
        f"budget.tokens={BUDGET}",
    ]
    spec = load(EXAMPLES / "arithmetic.yaml", overrides, str(tmp_path / "run"))
    job = write_spec(tmp_path, spec, ids)
    with start(tmp_path, job.words()) as running:
        running.until(job.journal_files, "samples", seconds=300)
        [victim, *_] = running.alive(ENGINE)
        victim.kill()
        assert job.store.finished() is None
        running.until(job.store.deaths, "a death on record")
        ended = running.wait(400)
        assert running.left() == []
    assert ended.code == 0, ended.stderr
    found = outcome(job.output)
    assert found.answered == list(ids)
    assert found.dead == []
    assert found.writers == job.journal()
    assert 0 < job.spent() <= BUDGET
    assert ended.result["tokens_spent"] == job.spent()
    [dead] = job.store.deaths()
    writers = set(found.writers.values())
    assert dead in writers
    assert len(writers) == 2
