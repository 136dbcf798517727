"""Two real engines in one worker: both start, both serve, both end with it."""

import json
from collections import Counter
from pathlib import Path

import pytest

from pipeline.budget_spec import cost_model
from pipeline.spec import load
from tests.integration.run_helpers import ROOT, outcome, start, write_spec
from tests.integration.test_vllm_run import ENGINE, EXAMPLES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.ray,
    # Two engines start, one after the other.
    pytest.mark.timeout(900),
]

ROWS, BUDGET = 12, 40_000


def test_two_engines_serve_one_cascade_and_end_with_the_worker(tmp_path: Path) -> None:
    with open(EXAMPLES / "arithmetic.jsonl") as lines:
        ids = tuple(sorted(json.loads(next(lines))["question_id"] for _ in range(ROWS)))
    # The bundled model is both: at another temperature, with other slots and another cache, at three times the price.
    large = {"name": "smollm2-135m", "max_model_len": 512, "max_num_seqs": 4, "kv_cache_gib": 2.0}
    stages = [{"max_samples": 3}, {"model": "large", "max_samples": 2, "temperature": 0.5}]
    overrides = [
        f"dataset.path={EXAMPLES / 'arithmetic.jsonl'}",
        f"dataset.limit={ROWS}",
        "model.max_num_seqs=8",
        f"models={json.dumps({'large': large})}",
        f"strategy={json.dumps({'kind': 'cascade', 'stages': stages})}",
        "cluster.workers=1",
        f"budget={json.dumps({'tokens': BUDGET, 'price': {'models': {'large': 3}}})}",
    ]
    spec = load(ROOT / EXAMPLES / "arithmetic.yaml", overrides, str(tmp_path / "run"))
    job = write_spec(tmp_path, spec, ids)
    most = 0
    with start(tmp_path, job.words()) as running:

        def engines() -> int:
            nonlocal most
            most = max(most, len(running.alive(ENGINE)))
            return most

        running.until(lambda: engines() >= 2, "second engine", seconds=400)
        ended = running.wait(400)
        assert running.left() == []
    assert ended.code == 0, ended.stderr
    found = outcome(job.output)
    assert found.answered == list(ids)
    assert found.dead == []
    by_model = Counter(sample["model"] for sample in found.samples)
    assert set(by_model) == {"", "large"}
    went_on = {sample["item_id"] for sample in found.samples if sample["model"] == "large"}
    assert went_on <= set(ids)
    journal = [s for shard in job.store.read_plan() for s in job.store.read_journal(shard.shard_id)]
    spent = sum(map(cost_model(spec.budget).of, journal))
    assert 0 < spent <= BUDGET
    assert ended.result["budget"]["spent"] == spent
    print(f"samples by model: {dict(by_model)}; spent {spent} of {BUDGET}")
