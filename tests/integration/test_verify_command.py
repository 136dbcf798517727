"""``ponder verify`` from outside, over verifier actors of a real cluster: killed midway, and a check that dies."""

import json
import os
import time
from pathlib import Path

import pytest

from pipeline.records import Item, Sample
from pipeline.run import open_run
from tests.integration.run_helpers import outcome, ponder, questions, start, write_job

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

ROWS = 14
FATAL = "q009"


def judged(item: Item, sample: Sample) -> float:
    """What the actors run: waits where the row names a gate, and takes its process with it on one question."""
    gate = json.loads(item.payload).get("gate")
    while gate and not Path(gate).exists():
        time.sleep(0.01)
    if item.item_id == FATAL:
        os._exit(9)
    return float(sample.answer == item.reference)


def test_killed_and_resumed_with_a_check_that_dies(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    rows = questions(ROWS)
    for row in rows[7:]:
        row["gate"] = str(gate)
    job = write_job(tmp_path, rows, verifiers=[], strategy={"kind": "self_consistency", "max_samples": 3})
    assert ponder(tmp_path, job.words()).code == 0
    samples = {(row["item_id"], row["prompt_key"], row["sample_index"]): row for row in outcome(job.output).samples}
    section = f"{{kind: function, function: '{__name__}:judged', timeout: 60, name: later}}"
    words = ["verify", job.output, "--with", section, "--actors", "2", "--json"]

    def parts() -> list[Path]:
        return sorted(Path(job.output).glob("verdicts/later/*.parquet"))

    with start(tmp_path, words) as running:
        running.until(parts, "verdicts of the first shard")
        running.kill()
        assert running.left() == []
    kept = {path: path.read_bytes() for path in parts()}
    assert [path.name[:6] for path in kept] == ["000000"]
    gate.touch()
    ended = ponder(tmp_path, words)
    assert ended.code == 0, ended.stderr
    assert {path: path.read_bytes() for path in kept} == kept, "what was written is not asked again"
    found = open_run(job.output).verdicts().to_table().to_pylist()
    named = {(row["item_id"], row["prompt_key"], row["sample_index"]): row for row in found}
    assert len(named) == len(found)
    assert named.keys() == samples.keys()
    for name, row in named.items():
        if row["item_id"] == FATAL:
            assert row["score"] is None
            assert row["error"]
        else:
            assert row["score"] == float(samples[name]["answer"] == "1")
    (tally,) = ended.result["verifiers"]
    assert (tally["checked"], tally["samples"]) == (len(samples), len(samples))
    assert tally["errors"] == sum(row["item_id"] == FATAL for row in found)
