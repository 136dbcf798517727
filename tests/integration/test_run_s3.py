"""One whole job whose dataset and run directory are on S3, and what happens where the credentials are refused."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pyarrow.parquet as pq
import pytest

from pipeline.run import open_run
from tests.integration.run_helpers import Job, environment, jsonl, outcome, ponder, questions, write_job
from tests.integration.s3_servers import BUCKET, SERVERS, S3Server

pytestmark = [pytest.mark.ray, pytest.mark.s3]

ROWS = 20
DATA, RUN = "data/questions.jsonl", "runs/first"


@contextmanager
def bucket(kind: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[S3Server, Any]]:
    """A running server with the dataset in its bucket, this process pointed at it, and the bucket."""
    with SERVERS[kind]() as server:
        server.use(monkeypatch)
        held = boto3.resource("s3", endpoint_url=server.endpoint).Bucket(BUCKET)
        held.put_object(Key=DATA, Body=jsonl(questions(ROWS)).encode())
        yield server, held


def s3_job(folder: Path, **sections: Any) -> Job:
    dataset = {"path": f"s3://{BUCKET}/{DATA}"}
    return write_job(folder, questions(ROWS), **{"dataset": dataset, "output": f"s3://{BUCKET}/{RUN}", **sections})


def contents(held: Any) -> dict[str, bytes]:
    """Every object of the bucket."""
    return {each.key: each.get()["Body"].read() for each in held.objects.all()}


def as_text(key: str, body: bytes) -> str:
    """An object as a person would read it: Parquet is compressed, so its bytes alone would hide what is in it."""
    text = body.decode(errors="replace")
    return text + str(pq.read_table(io.BytesIO(body)).to_pylist()) if key.endswith(".parquet") else text


@pytest.mark.parametrize("kind", sorted(SERVERS))
def test_a_whole_job_on_s3(kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with bucket(kind, monkeypatch) as (server, held):
        job = s3_job(tmp_path)
        ended = ponder(tmp_path, job.words(), environment(**server.environment))
        assert ended.code == 0, ended.stderr
        found = outcome(job.output)
        assert found.answered == list(job.ids)
        assert found.dead == []
        assert found.writers == job.journal()
        result = ended.result
        assert (result["run"], result["answered"], result["dead_lettered"]) == (job.output, ROWS, 0)
        words = ["verify", job.output, "--with", "{kind: exact, name: later}", "--json"]
        (tally,) = ponder(tmp_path, words, environment(**server.environment)).result["verifiers"]
        assert (tally["checked"], tally["fresh"]) == (len(found.samples),) * 2
        said = open_run(job.output).verdicts().to_table().to_pylist()
        assert {(row["item_id"], row["sample_index"], row["prompt_key"]) for row in said} == found.writers.keys()
        assert ponder(tmp_path, words, environment(**server.environment)).result["verifiers"][0]["fresh"] == 0
        assert result["tokens_spent"] == job.spent() == sum(row["tokens"] for row in found.answers)
        written = {key: body for key, body in contents(held).items() if key != DATA}
        assert {key.partition(f"{RUN}/")[0] for key in written} == {""}
        assert f"{RUN}/_SUCCESS.json" in written
        said = {"stdout": ended.stdout, "stderr": ended.stderr, "job.yaml": job.path.read_text()}
        texts = said | {key: as_text(key, body) for key, body in written.items()}
        assert [name for name, text in texts.items() if server.secret_key in text] == []
        assert [name for name, text in texts.items() if server.access_key in text] == []
        assert not os.path.exists(tmp_path / "run")
        # Once more: it is finished, and nothing is written.
        again = ponder(tmp_path, job.words(), environment(**server.environment))
        assert again.code == 0, again.stderr
        assert contents(held) == {DATA: contents(held)[DATA], **written}


@pytest.mark.parametrize("wrong", ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"])
def test_refused_credentials_end_the_run_before_it_writes(
    wrong: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with bucket("seaweedfs", monkeypatch) as (server, held):
        before = contents(held)
        env = environment(**server.environment | {wrong: "not-the-right-one"})
        # Refused at the dataset; and, where the dataset is local, at the run directory.
        (tmp_path / "local").mkdir()
        on_s3 = s3_job(tmp_path)
        local = write_job(tmp_path / "local", questions(ROWS), output=on_s3.output)
        for job, codes, said in ((on_s3, {2}, [on_s3.spec.dataset.path, "AWS_"]), (local, {1, 2}, [RUN, "AWS_"])):
            ended = ponder(tmp_path, job.words(), env)
            assert ended.code in codes, ended.stderr
            assert [word for word in said if word not in ended.result["error"]] == [], ended.result
            assert "Traceback" not in ended.stderr
            assert server.secret_key not in ended.stdout + ended.stderr
            assert "not-the-right-one" not in ended.stdout + ended.stderr
        assert contents(held) == before
