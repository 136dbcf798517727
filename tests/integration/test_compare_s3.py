"""A comparison whose data, runs and result are on S3."""

import json
from pathlib import Path

import pytest

from tests.integration.run_helpers import environment, outcome, ponder
from tests.integration.s3_servers import BUCKET
from tests.integration.test_compare_command import FIXED, MORE, spent, write
from tests.integration.test_run_s3 import ROWS, bucket, contents, s3_job

pytestmark = [pytest.mark.ray, pytest.mark.s3]

OUT = "compared"


def test_a_comparison_on_s3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with bucket("moto", monkeypatch) as (server, held):
        job = s3_job(tmp_path)
        strategies = ",".join([write(tmp_path, "three.yaml", FIXED), write(tmp_path, "five.yaml", MORE)])
        words = ["compare", str(job.path), "--strategies", strategies, "--budgets", "5000", "--no-greedy", "--json"]
        words += ["--output", f"s3://{BUCKET}/{OUT}"]
        ended = ponder(tmp_path, words, environment(**server.environment))
        assert ended.code == 0, ended.stderr
        three, five = (f"s3://{BUCKET}/{OUT}/{name}-5000" for name in ("three", "five"))
        shared = {(row["item_id"], row["sample_index"]) for row in outcome(five).samples if row["origin"]}
        assert shared == {(item_id, index) for item_id in job.ids for index in range(3)}
        assert ended.result["tokens_charged"] - ended.result["tokens_generated"] == spent(three)
        written = contents(held)
        assert json.loads(written[f"{OUT}/compare.json"]) == ended.result
        assert written[f"{OUT}/compare.png"].startswith(b"\x89PNG")
        # Over one of its runs, the result on S3 too.
        words = ["compare", three, "--strategies", strategies, "--budgets", "3", "--json"]
        again = ponder(tmp_path, [*words, "--output", f"s3://{BUCKET}/again"], environment(**server.environment))
        assert again.code == 0, again.stderr
        assert [row["samples"] for row in again.result["rows"]] == [3, 3]
        assert again.result["questions"] == ROWS
