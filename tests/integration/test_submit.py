"""``ponder submit`` against a real Ray cluster of two nodes on this machine, with token authentication on."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from actors.guardian import descendants, parents
from pipeline.run import open_run

pytestmark = pytest.mark.ray

SENTINEL = "sentinel-" + secrets.token_hex(8)
START_SECONDS = 90
JOB_SECONDS = 180

SUBMIT = [sys.executable, "-m", "pipeline.cli", "submit", "--json"]


@dataclass(frozen=True)
class Cluster:
    """A running cluster: its dashboard, how to authenticate, and where its nodes keep their files."""

    address: str
    token: str
    folders: tuple[Path, ...]

    def get(self, path: str, method: str = "GET") -> Any:
        headers = {"Authorization": f"Bearer {self.token}"}
        request = urllib.request.Request(self.address + path, headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def rows(self, kind: str) -> list[dict[str, Any]]:
        """The state API's table of ``kind``: nodes or actors."""
        found: list[dict[str, Any]] = self.get(f"/api/v0/{kind}?detail=1")["data"]["result"]["result"]
        return found


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    token = secrets.token_hex(16)
    port, dashboard, client, agent_1, agent_2 = free_ports(5)
    with ExitStack() as stack:
        # Not tmp_path: below these folders are Unix sockets, whose paths must stay under 107 characters.
        head_folder, worker_folder = (
            Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"pr-{name}-", ignore_cleanup_errors=True)))
            for name in ("h", "w")
        )
        head = ["--head", f"--port={port}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"]
        stack.enter_context(node(head_folder, token, *head, f"--dashboard-agent-listen-port={agent_1}"))
        running = Cluster(f"http://127.0.0.1:{dashboard}", token, (head_folder, worker_folder))
        wait_for(lambda: len(running.rows("nodes")) == 1, START_SECONDS)
        join = [f"--address=127.0.0.1:{port}", f"--dashboard-agent-listen-port={agent_2}"]
        stack.enter_context(node(worker_folder, token, *join))
        wait_for(lambda: [row["state"] for row in running.rows("nodes")] == ["ALIVE"] * 2, START_SECONDS)
        yield running


class node:  # noqa: N801 - used as a function, like contextlib.suppress
    """``ray start`` in the foreground as one process tree, of which nothing is left afterwards."""

    def __init__(self, folder: Path, token: str, *arguments: str) -> None:
        self._folder = folder
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1"]
        self._command = [*command, f"--temp-dir={folder}", "--disable-usage-stats", *arguments]
        self._environment = environment(token, folder)

    def __enter__(self) -> None:
        with open(self._folder / "start.log", "wb") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )

    def __exit__(self, *_: object) -> None:
        family = descendants(self._process.pid)
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for process in family & set(parents()):
            os.kill(process[0], signal.SIGKILL)
        wait_for(lambda: not family & set(parents()), 20)


def environment(token: str, home: Path) -> dict[str, str]:
    """Nothing of this process's environment but what starting Python needs; ``python`` is this one."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {"PATH": path, "HOME": str(home), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}


def free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        found = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [each.getsockname()[1] for each in found]


def wait_for(met: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if met():
                return
        except OSError as error:
            problem: object = error
        else:
            problem = "not yet"
        assert time.monotonic() < deadline, f"waited {seconds} s in vain: {problem}"
        time.sleep(0.2)


@pytest.fixture
def submitting(cluster: Cluster, tmp_path: Path) -> Any:
    """Start a process that submits a job and waits. It holds a secret, and would reach another cluster by default."""

    def start(job: dict[str, Any]) -> subprocess.Popen[str]:
        (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
        secret = {"AWS_SECRET_ACCESS_KEY": SENTINEL, "RAY_ADDRESS": "http://127.0.0.1:1"}
        return subprocess.Popen(
            [*SUBMIT, "--address", cluster.address, str(tmp_path / "job.yaml")],
            env=environment(cluster.token, tmp_path) | secret,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def a_job(tmp_path: Path, items: int, **options: Any) -> dict[str, Any]:
    rows = [{"name": f"q{i:03d}", "prompt": f"What is {i}?", "gold": "1"} for i in range(items)]
    data = tmp_path / "questions.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "dataset": {"path": str(data), "id": "name", "reference": "gold"},
        "model": {"engine": "scripted", "options": options, "max_num_seqs": 4},
        "sampling": {"max_tokens": 16},
        "strategy": {"kind": "self_consistency", "max_samples": 8},
        "budget": {"tokens": 100_000},
        "cluster": {"workers": 2, "cpus_per_worker": 1, "shard_size": 5},
        "output": str(tmp_path / "run"),
    }


def test_a_job_runs_on_both_nodes_and_carries_no_secret(cluster, submitting, tmp_path):
    process = submitting(a_job(tmp_path, 40, seconds=0.05))
    output, log = process.communicate(timeout=JOB_SECONDS)
    assert process.returncode == 0, log
    result = json.loads(output)
    assert result == {"job_id": result["job_id"], "status": "SUCCEEDED"}

    run = open_run(str(tmp_path / "run"))
    answered = run.answers().to_table(columns=["item_id"])["item_id"].to_pylist()
    assert sorted(answered) == [f"q{i:03d}" for i in range(40)]
    assert json.loads(log.splitlines()[-1])["answered"] == 40, "the job's own last line is its summary"
    assert "Uploading" not in log, "Ray's own chatter is kept from the user"

    nodes = {row["node_id"] for row in cluster.rows("nodes")}
    workers = [row for row in cluster.rows("actors") if row["class_name"] == "WorkerActor"]
    assert len(nodes) == 2
    assert {row["node_id"] for row in workers} == nodes

    info = cluster.get(f"/api/jobs/{result['job_id']}")
    assert set(info["runtime_env"]) <= {"working_dir", "_ray_commit"}
    places = [*cluster.folders, tmp_path / "run"]
    leaked = [path for place in places for path in place.rglob("*") if path.is_file() and holds(path, SENTINEL)]
    assert leaked == []
    assert SENTINEL not in output + log + json.dumps(info)


def test_interrupting_the_wait_leaves_the_job(cluster, submitting, tmp_path):
    process = submitting(a_job(tmp_path, 40, seconds=30.0))
    told = ""
    while "submitted" not in told:
        told = process.stderr.readline()
        assert told, "ended before it submitted"
    job_id = told.split()[1]
    wait_for(lambda: cluster.get(f"/api/jobs/{job_id}")["status"] == "RUNNING", START_SECONDS)
    process.send_signal(signal.SIGINT)
    _, log = process.communicate(timeout=60)
    assert f"ray job stop --address {cluster.address} {job_id}" in log
    assert process.returncode == 130
    assert cluster.get(f"/api/jobs/{job_id}")["status"] == "RUNNING"
    cluster.get(f"/api/jobs/{job_id}/stop", method="POST")
    wait_for(lambda: cluster.get(f"/api/jobs/{job_id}")["status"] in ("STOPPED", "FAILED"), 60)


def test_a_wrong_token_is_a_usage_error(cluster, tmp_path):
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(a_job(tmp_path, 1)))
    done = subprocess.run(
        [*SUBMIT, "--address", cluster.address, str(tmp_path / "job.yaml")],
        env=environment("0" * 32, tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: --address")
    assert "RAY_AUTH_TOKEN" in done.stderr


def holds(path: Path, text: str) -> bool:
    return text.encode() in path.read_bytes()
