"""Submitting, against a fake of Ray's client: what is sent, what is refused, and how the log is followed."""

import asyncio
import http.server
import os
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs import submit as submitting
from jobs.submit import ENTRYPOINT, PACKAGES, SubmitResult, connect, package, submit, with_absolute_paths
from pipeline import spec
from pipeline.errors import RunFailed, UsageError

ADDRESS = "http://head:8265"


def a_job(**changes: Any) -> spec.JobSpec:
    raw: dict[str, Any] = {
        "dataset": {"path": "s3://bucket/questions.parquet"},
        "budget": {"tokens": 1000},
        "output": "s3://bucket/run",
    }
    return spec.parse(raw | changes)


class Status(str):
    @property
    def value(self) -> str:
        return str(self)

    def is_terminal(self) -> bool:
        return self in {"SUCCEEDED", "FAILED", "STOPPED"}


@dataclass
class Info:
    status: Status
    message: str = ""


@dataclass
class FakeCluster:
    """Ray's job client as far as it is used. ``streams``: one script a connection, of chunks and errors to raise.

    ``statuses`` are told one a call, the last for ever; an exception among them is raised.
    """

    streams: list[list[str | BaseException]]
    statuses: list[str | Exception] = field(default_factory=lambda: ["SUCCEEDED"])
    message: str = ""
    submissions: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)

    def submit_job(self, **submission: Any) -> str:
        self.submissions.append(submission)
        folder = Path(submission["runtime_env"]["working_dir"])
        self.files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        return "job-1"

    def get_job_info(self, job_id: str) -> Info:
        assert job_id == "job-1"
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        if isinstance(status, Exception):
            raise status
        return Info(Status(status), self.message)

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        assert job_id == "job-1"
        for step in self.streams.pop(0):
            if isinstance(step, BaseException):
                raise step
            yield step


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeCluster]:
    def make(*streams: list[str | BaseException], **more: Any) -> FakeCluster:
        fake = FakeCluster(list(streams), **more)
        monkeypatch.setattr(submitting, "connect", lambda address: fake)
        monkeypatch.setattr(submitting, "_RETRY_SECONDS", 0)
        return fake

    return make


def test_what_is_sent_is_code_and_the_job_and_nothing_else(cluster, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "sentinel-value")
    fake = cluster([])
    assert submit(a_job(), ADDRESS) == SubmitResult("job-1", "SUCCEEDED")
    [submission] = fake.submissions
    assert submission == {"entrypoint": ENTRYPOINT, "runtime_env": submission["runtime_env"]}
    assert set(submission["runtime_env"]) == {"working_dir"}
    assert {name.split("/")[0] for name in fake.files} == {*PACKAGES, "job.yaml"}
    assert {name for name in fake.files if not name.endswith(".py")} == {"job.yaml"}
    assert {"pipeline/spec.py", "actors/engines/scripted.py", "jobs/submit.py"} <= set(fake.files)
    assert not any("test" in Path(name).name for name in fake.files)
    assert not any(b"sentinel-value" in data for data in fake.files.values())
    assert not Path(submission["runtime_env"]["working_dir"]).exists(), "the temporary folder is removed"


def test_the_packaged_job_reads_back_as_it_was(tmp_path):
    job = a_job(
        dataset={"path": ["s3://b/*.parquet", "s3://b/x.csv"], "prompt": "Œuf 😀\n\t{{ q }}: 1e5", "reference": "g"},
        sampling={"stop": ["\n", "\x85", "yes", "1e5"]},
        model={"engine": "scripted", "options": {"answers": ["on", "07", "null"], "weights": [1, 2.5, 1e-9]}},
        strategy={"kind": "greedy"},
        verifiers=[{"kind": "math"}],
    )
    package(job, tmp_path)
    assert spec.load(tmp_path / "job.yaml") == job
    assert yaml.safe_load((tmp_path / "job.yaml").read_text())["strategy"] == {"kind": "greedy"}


def test_the_packaged_code_runs_alone(tmp_path):
    package(a_job(), tmp_path)
    code = (
        "import pipeline.cli, pipeline.spec, jobs.submit; print(pipeline.cli.__file__); pipeline.spec.load('job.yaml')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()) == tmp_path / "pipeline" / "cli.py"


@pytest.mark.parametrize(
    ("changes", "name", "secret"),
    [
        ({"output": "s3://AKIAEXAMPLE:hunter2@bucket/run"}, "output", "hunter2"),
        ({"output": "s3://AKIAEXAMPLE:hunt/er2+x@bucket/run"}, "output", "hunt/er2"),
        ({"output": "s3://hunter2@bucket/run"}, "output", "hunter2"),
        ({"dataset": {"path": "s3://bucket/q.csv?secret_key=hunter2"}}, "dataset.path", "hunter2"),
        ({"dataset": {"path": ["s3://a/q.csv", "s3://b/q.csv?X-Amz-Signature=hunter2"]}}, "dataset.path.1", "hunter2"),
        ({"dataset": {"path": "s3://bucket/q.csv?x=1&key=hunter2"}}, "dataset.path", "hunter2"),
        ({"model": {"name": "https://me:hunter2@models/x"}}, "model.name", "hunter2"),
        ({"model": {"options": {"hf_token": "hunter2"}}}, "model.options.hf_token", "hunter2"),
        ({"model": {"options": {"a": [{"url": "http://u:hunter2@h"}]}}}, "model.options.a.url", "hunter2"),
    ],
)
def test_credentials_in_a_job_are_refused_unseen(cluster, changes, name, secret):
    fake = cluster([])
    lines: list[str] = []
    with pytest.raises(UsageError, match=r"credential") as refused:
        submit(a_job(**changes), ADDRESS, on_line=lines.append)
    assert str(refused.value).startswith(f"{name}:")
    assert secret not in str(refused.value) + "".join(lines)
    assert fake.submissions == []


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset": {"path": "s3://bucket/day=3/key=7/part-?.parquet"}},
        {"dataset": {"path": "s3://bucket/q.csv", "prompt": "Is http://a:b@c a URL? token={{ t }}"}},
        {"output": "s3://bucket/runs/me@home"},
        {"model": {"engine": "scripted", "options": {"tokens": 5, "max_num_batched_tokens": 64}}},
    ],
)
def test_ordinary_jobs_pass(cluster, changes):
    fake = cluster([])
    submit(a_job(**changes), ADDRESS)
    assert len(fake.submissions) == 1


def test_local_paths_become_absolute_and_are_announced(cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    (tmp_path / "smollm2-135m").mkdir()
    fake = cluster([])
    lines: list[str] = []
    job = a_job(
        dataset={"path": ["data/*.csv", "s3://b/x.csv"]},
        output="runs/a",
        model={"name": "weights", "tokenizer": "org/t"},
    )
    submit(job, ADDRESS, on_line=lines.append)
    sent = spec.parse(yaml.safe_load(fake.files["job.yaml"]))
    assert sent.dataset.path == [f"{tmp_path}/data/*.csv", "s3://b/x.csv"]
    assert (sent.output, sent.model.name, sent.model.tokenizer) == (
        f"{tmp_path}/runs/a",
        f"{tmp_path}/weights",
        "org/t",
    )
    told = {line.split()[1] for line in lines if line.startswith("note:")}
    assert told == {"dataset.path.0", "output", "model.name"}
    reused = a_job(reuse=["runs/first", "s3://bucket/other"])
    assert with_absolute_paths(reused).reuse == [os.path.abspath("runs/first"), "s3://bucket/other"]
    assert with_absolute_paths(a_job()) == a_job(), "URLs and the bundled model's name stay as they are"
    gym = a_job(dataset={"path": "reasoning_gym:chain_sum"})
    assert with_absolute_paths(gym) == gym


def test_lines_are_told_whole_and_once(cluster):
    cluster(["one\ntw", "o\n", "\nlast without end"])
    lines: list[str] = []
    submit(a_job(), ADDRESS, on_line=lines.append)
    assert lines == ["submitted job-1 to http://head:8265", "one", "two", "", "last without end"]


def test_a_lost_connection_is_taken_up_again(cluster):
    whole = ["one\n", "two\nthr", "ee\n", "four\n"]
    cluster(
        [whole[0], whole[1], RuntimeError("closed")],
        [OSError("refused")],
        [whole[0] + whole[1] + whole[2], OSError("gone")],
        whole,
        statuses=["RUNNING", ConnectionError("no"), "RUNNING", "SUCCEEDED"],
    )
    lines: list[str] = []
    assert submit(a_job(), ADDRESS, on_line=lines.append).status == "SUCCEEDED"
    assert lines[1:] == ["one", "two", "three", "four"]


def test_a_stream_that_ends_early_is_opened_again(cluster):
    cluster(["one\n"], ["one\n", "two\n"], statuses=["RUNNING", "FAILED"], message="exit code 1")
    lines: list[str] = []
    assert submit(a_job(), ADDRESS, on_line=lines.append).status == "FAILED"
    assert lines[1:] == ["one", "two"]


def test_a_silent_dead_stream_is_noticed(cluster, monkeypatch):
    """The connection is dead without a word, the job has ended: the log is read again."""
    monkeypatch.setattr(submitting, "_SILENCE_SECONDS", 0.01)

    class Stalling(FakeCluster):
        async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
            async for chunk in super().tail_job_logs(job_id):
                yield chunk
            if self.streams:
                await asyncio.Event().wait()

    fake = Stalling([["one\n"], ["one\n", "two\n"]])
    monkeypatch.setattr(submitting, "connect", lambda address: fake)
    monkeypatch.setattr(submitting, "_RETRY_SECONDS", 0)
    lines: list[str] = []
    assert submit(a_job(), ADDRESS, on_line=lines.append).status == "SUCCEEDED"
    assert lines[1:] == ["one", "two"]


def test_a_job_that_never_started_says_why(cluster):
    cluster([], statuses=["FAILED"], message="runtime_env setup failed")
    lines: list[str] = []
    assert submit(a_job(), ADDRESS, on_line=lines.append).status == "FAILED"
    assert lines[1:] == ["runtime_env setup failed"]


def test_a_stopped_job(cluster):
    cluster([], statuses=["STOPPED"])
    assert submit(a_job(), ADDRESS).status == "STOPPED"


def test_a_lost_cluster_is_given_up_on_in_the_end(cluster, monkeypatch):
    monkeypatch.setattr(submitting, "_TRIES", 3)
    cluster(*[[OSError("gone")]] * 3, statuses=[ConnectionError("gone")])
    with pytest.raises(RunFailed, match="ray job logs --follow --address http://head:8265 job-1"):
        submit(a_job(), ADDRESS)


def test_a_log_that_cannot_be_read_does_not_hide_the_end(cluster, monkeypatch):
    monkeypatch.setattr(submitting, "_TRIES", 3)
    cluster(*[["one\n", OSError("gone")]] * 3)
    lines: list[str] = []
    assert submit(a_job(), ADDRESS, on_line=lines.append).status == "SUCCEEDED"
    assert lines[1:] == ["one", "note: the end of the job's log could not be read"]


def test_interrupting_leaves_the_job_and_says_how_to_reach_it(cluster):
    cluster(["one\n", KeyboardInterrupt()])
    lines: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        submit(a_job(), ADDRESS, on_line=lines.append)
    assert "ray job stop --address http://head:8265 job-1" in lines[-1]
    assert "ray job logs --follow --address http://head:8265 job-1" in lines[-1]


def test_without_waiting_nothing_is_followed(cluster):
    cluster()
    lines: list[str] = []
    assert submit(a_job(), ADDRESS, wait=False, on_line=lines.append) == SubmitResult("job-1", "PENDING")
    assert "ray job logs" in lines[-1]


def test_a_refused_submission_is_a_failed_run(monkeypatch):
    class Refusing(FakeCluster):
        def submit_job(self, **submission: Any) -> str:
            raise RuntimeError("Request failed with status code 500")

    monkeypatch.setattr(submitting, "connect", lambda address: Refusing([]))
    with pytest.raises(RunFailed, match="did not take the job"):
        submit(a_job(), ADDRESS)


@pytest.mark.parametrize("address", ["", "auto", "head:8265", "ray://head:10001", "http://", "ftp://head"])
def test_an_address_that_is_no_url(address):
    with pytest.raises(UsageError, match=r"--address .*http://HEAD:8265"):
        connect(address)


def test_an_address_with_credentials_is_refused_unseen():
    with pytest.raises(UsageError, match="--address") as refused:
        connect("http://me:hunter2@head:8265")
    assert "hunter2" not in str(refused.value)


def test_nothing_listens_at_the_address():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(UsageError, match=r"--address .*no answer .*http://HEAD:8265"):
            connect(f"http://127.0.0.1:{taken.getsockname()[1]}")


def test_a_server_that_never_answers():
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(UsageError, match="no answer"):
        connect(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.2)


@contextmanager
def served(status: int, body: bytes) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (404, b"", "not as a Ray dashboard"),
        (500, b"", "not as a Ray dashboard"),
        (200, b"<html>", "not as a Ray dashboard"),
        (200, b"{}", "not as a Ray dashboard"),
        (401, b"", "RAY_AUTH_TOKEN"),
        (403, b"", "RAY_AUTH_TOKEN"),
    ],
)
def test_something_else_listens_at_the_address(status, body, message):
    with served(status, body) as address, pytest.raises(UsageError, match=message):
        connect(address)


def test_the_given_address_wins_over_the_environment(monkeypatch):
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with served(200, b'{"ray_version": "2.60.0"}') as address:
        connect(address + "/")
    assert os.environ["RAY_ADDRESS"] == "http://127.0.0.1:1"
