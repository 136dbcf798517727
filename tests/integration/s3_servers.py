"""S3 servers that a test starts and stops on its own: moto (in memory) and SeaweedFS (on disk, checks credentials).

Each is a context manager that yields an ``S3Server`` with one empty bucket, listening on a free port of the loopback.
SeaweedFS comes from ``../shared/s3`` beside this checkout; a test that needs it is skipped where that is absent.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest

SHARED = Path(__file__).resolve().parents[3] / "shared" / "s3"
BUCKET = "runs"
READY_SECONDS = 90
"""How long a server may take to answer on a busy machine."""


@dataclass(frozen=True)
class S3Server:
    """A running server: its ``kind``, and the environment that reaches it."""

    kind: str
    endpoint: str
    access_key: str = "test-access"
    secret_key: str = "test-secret"

    @property
    def environment(self) -> dict[str, str]:
        """Variables that any S3 client reads, ours included."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Point this process at the server until the test ends."""
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_ENDPOINT_URL_S3"):
            monkeypatch.delenv(name, raising=False)
        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)

    def make_bucket(self) -> None:
        """Create the bucket that tests write to."""
        boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
        ).create_bucket(Bucket=BUCKET)


@contextmanager
def moto() -> Iterator[S3Server]:
    """moto's server. It accepts any credentials and keeps nothing."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        server = S3Server("moto", f"http://127.0.0.1:{port}")
        _wait_for(server.endpoint, process)
        server.make_bucket()
        yield server
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def seaweedfs() -> Iterator[S3Server]:
    """SeaweedFS, which refuses wrong credentials. Skips the test where ``../shared/s3`` is absent."""
    if not (SHARED / "start").exists():
        pytest.skip("needs ../shared/s3 (start and stop of a SeaweedFS server) beside this checkout")
    port = str(free_port())
    # Not pytest's tmp_path: the server puts unix sockets there, whose paths must stay short.
    state = tempfile.mkdtemp(prefix="s3-")
    server = S3Server("seaweedfs", f"http://127.0.0.1:{port}")
    try:
        start = [str(SHARED / "start"), port, server.access_key, server.secret_key, state]
        begun = subprocess.run(
            start,
            capture_output=True,
            text=True,
            timeout=3 * READY_SECONDS,
            env={**os.environ, "PYTHON": sys.executable},
        )
        assert "ready" in begun.stdout, begun.stdout + begun.stderr
        server.make_bucket()
        yield server
    finally:
        subprocess.run([str(SHARED / "stop"), port, state], capture_output=True, timeout=READY_SECONDS)
        shutil.rmtree(state, ignore_errors=True)


SERVERS: dict[str, Callable[[], AbstractContextManager[S3Server]]] = {"moto": moto, "seaweedfs": seaweedfs}


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(endpoint: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not _answers(endpoint):
        assert process.poll() is None, f"the server ended with {process.returncode}"
        assert time.monotonic() < deadline, f"no answer from {endpoint}"
        time.sleep(0.05)


def _answers(endpoint: str) -> bool:
    try:
        urllib.request.urlopen(endpoint, timeout=5).close()
    except OSError:
        return False
    return True
