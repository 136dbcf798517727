"""The same job on a cluster, through Ray's Job Submission API.

Promises: what is sent is Ponder's own code and the resolved job, nothing else: no environment, no data, and no
credentials, since a cluster's dashboard shows and logs what it is sent. Pods and nodes bring their own credentials. A
wrong address is reported within seconds. Once submitted, a job does not depend on this process: losing the connection
or pressing Ctrl-C only ends the watching. May not spend tokens, nor touch the run directory.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml

from pipeline.errors import RunFailed, UsageError
from pipeline.spec import JobSpec, ModelSpec, field_of

PACKAGES = ("pipeline", "actors", "strategies", "verifiers", "budgets", "jobs")
"""The rooms a run needs. Their Python files are sent, so that the cluster runs the submitter's code."""

ENTRYPOINT = "python -m pipeline.cli run job.yaml --json"

_ROOT = Path(__file__).resolve().parents[1]
_BUNDLED = ModelSpec().name
# Ray's client itself waits for ever on a server that accepts and says nothing, so the address is tried first.
_PROBE_SECONDS = 10.0
# A silent log is normal while an engine loads; after this long we ask whether the cluster is still there.
_SILENCE_SECONDS = 15.0
_RETRY_SECONDS = 2.0
# A head node that restarts, or an ingress that is rolled, is back within this many tries.
_TRIES = 15
# Either of these, where set, silently replaces the address that Ray's client is given.
_OVERRIDES = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
# Ray's client logs each upload and each closed connection; our caller is told what matters.
_CHATTER = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)

# `s3://key:secret@bucket`; a secret may itself hold slashes.
_USERINFO = re.compile(r"://(?:[^/\s]*|[^/\s:]*:\S*)@")
_QUERY = re.compile(r"[?&;#][^=&?/]*(?:key|secret|token|passw|sig|credential)[^=&?/]*=", re.IGNORECASE)
# Engine options such as hf_token. `tokens` and `max_num_batched_tokens` are numbers of tokens, not secrets.
_SECRET_OPTION = re.compile(r"(?:^|_)(?:token|secret|passw(?:or)?d|api_?key|access_?key|credentials?)$", re.IGNORECASE)


@dataclass(frozen=True)
class SubmitResult:
    """``job_id``: Ray's name of the submission. ``status``: SUCCEEDED, FAILED or STOPPED; PENDING if not awaited."""

    job_id: str
    status: str


class JobClient(Protocol):
    """What is used of ``ray.job_submission.JobSubmissionClient``."""

    def submit_job(self, *, entrypoint: str, runtime_env: dict[str, Any]) -> str: ...

    def get_job_info(self, job_id: str) -> Any: ...

    def tail_job_logs(self, job_id: str) -> AsyncIterator[str]: ...


def submit(job: JobSpec, address: str, wait: bool = True, on_line: Callable[[str], None] | None = None) -> SubmitResult:
    """Run ``job`` on the cluster whose dashboard is at ``address`` (``http://HEAD:8265``).

    With ``wait``, the job's output goes to ``on_line`` line by line until it ends. Local paths are made absolute and
    announced, since the cluster reads them. Must not be called from within a running event loop.

    Raises:
        UsageError: the job carries credentials, or no Ray cluster answers at ``address``; nothing was submitted.
        RunFailed: the cluster refused the job, or was lost while waiting.
        KeyboardInterrupt: interrupted while waiting; the job goes on, and ``on_line`` was told how to reach it.
    """
    tell = on_line or (lambda line: None)
    refuse_credentials(job)
    job = with_absolute_paths(job)
    for name, path in _local_paths(job).items():
        tell(f"note: {name} is the local path {path}; every node of the cluster must see it under this name")
    client = connect(address)
    with tempfile.TemporaryDirectory(prefix="ponder-submit-") as folder:
        package(job, Path(folder))
        try:
            job_id = client.submit_job(entrypoint=ENTRYPOINT, runtime_env={"working_dir": folder})
        except _failures() as error:
            raise RunFailed(f"the cluster at {address} did not take the job: {error}") from error
    tell(f"submitted {job_id} to {address}")
    if not wait:
        tell(_how_to_reach(address, job_id))
        return SubmitResult(job_id, "PENDING")
    try:
        return SubmitResult(job_id, asyncio.run(_follow(client, job_id, address, tell)))
    except KeyboardInterrupt:
        tell(f"no longer waiting; {job_id} goes on. {_how_to_reach(address, job_id)}")
        raise


def refuse_credentials(job: JobSpec) -> None:
    """Raises UsageError where a URL or an engine option of the job carries credentials. Their value is not shown."""
    mend = "credentials belong in the environment of the cluster's nodes (a Secret, or workload identity)"
    for name, text in _locations(job).items():
        if _USERINFO.search(text) or _QUERY.search(text):
            raise UsageError(f"{name}: the URL carries credentials (not shown), which a submission must not; {mend}")
    for model, section in _models(job).items():
        for name, value in _leaves(f"{field_of(model)}.options", section.options):
            carried = isinstance(value, str) and (_USERINFO.search(value) or _QUERY.search(value))
            if carried or _SECRET_OPTION.search(name.rpartition(".")[2]):
                raise UsageError(f"{name}: looks like a credential (not shown); remove it, {mend}")


def with_absolute_paths(job: JobSpec) -> JobSpec:
    """The job with every local path absolute: on the cluster, a relative one would name another place."""
    path = job.dataset.path
    paths: str | list[str] = _absolute(path) if isinstance(path, str) else [_absolute(each) for each in path]
    return job.model_copy(
        update={
            "dataset": job.dataset.model_copy(update={"path": paths}),
            "model": _absolute_model(job.model),
            "models": {name: _absolute_model(model) for name, model in job.models.items()},
            "output": _absolute(job.output),
            "reuse": [_absolute(url) for url in job.reuse],
        }
    )


def _absolute_model(model: ModelSpec) -> ModelSpec:
    """A model's name is a path only where there is such a folder; so it is for vLLM."""
    paths = {
        name: os.path.abspath(value)
        for name in ("name", "tokenizer")
        if (value := getattr(model, name)) not in (None, _BUNDLED) and Path(value).is_dir()
    }
    return model.model_copy(update=paths)


def _models(job: JobSpec) -> dict[str, ModelSpec]:
    """All models of the job by name; the main one's is empty."""
    return {"": job.model, **job.models}


def package(job: JobSpec, folder: Path) -> None:
    """Fill ``folder`` with what is sent: the rooms' Python files, and the job as ``job.yaml``.

    Nothing else of the rooms' folders is sent: people keep job files and data there.
    """
    for room in PACKAGES:
        for source in sorted((_ROOT / room).rglob("*.py")):
            target = folder / source.relative_to(_ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    text = yaml.safe_dump(job.model_dump(mode="json"), sort_keys=False)
    (folder / "job.yaml").write_text(text, encoding="utf-8")


def connect(address: str, timeout: float = _PROBE_SECONDS) -> JobClient:
    """A client for the Ray dashboard at ``address``. ``timeout`` in seconds.

    Raises:
        UsageError: the address is malformed, nothing answers there, or what answers is no Ray cluster we may use.
    """
    mend = "give the URL of the cluster's dashboard, such as --address http://HEAD:8265"
    parts = urllib.parse.urlsplit(address)
    if "@" in parts.netloc:
        raise UsageError(
            "--address: the URL carries credentials (not shown); remove them, and set RAY_AUTH_MODE=token and "
            "RAY_AUTH_TOKEN where the cluster asks for a token"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"--address {address!r} is no http:// or https:// URL; {mend}")
    address = address.rstrip("/")
    try:
        with urllib.request.urlopen(f"{address}/api/version", timeout=timeout):  # noqa: S310 - http(s), see above
            pass
    except urllib.error.HTTPError:
        pass  # Something answers; what it says is for Ray's client to judge.
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise UsageError(f"--address {address}: no answer ({reason}); start the cluster, or {mend}") from None

    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    for name in _CHATTER:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        with _without_overrides():
            client: JobClient = JobSubmissionClient(address)
    except AuthenticationError:
        raise UsageError(
            f"--address {address}: the cluster refused us; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN to its token"
        ) from None
    except (RuntimeError, OSError, ValueError, LookupError, TypeError) as error:
        raise UsageError(f"--address {address} answers, but not as a Ray dashboard ({error}); {mend}") from None
    return client


async def _follow(client: JobClient, job_id: str, address: str, tell: Callable[[str], None]) -> str:
    """Pass the log on until the job ends, through lost connections. Returns the last status."""
    log = _Log(tell)
    failures = 0
    while True:
        whole = await _tail(client, job_id, log)
        info = _info(client, job_id)
        ended = info is not None and info.status.is_terminal()
        failures = 0 if info is not None and (whole or not ended) else failures + 1
        if ended and (whole or failures >= _TRIES):
            log.finish()
            if not whole:
                tell("note: the end of the job's log could not be read")
            if info.status.value != "SUCCEEDED" and log.empty and info.message:
                tell(info.message)
            return str(info.status.value)
        if failures >= _TRIES:
            raise RunFailed(f"lost the cluster at {address}; {job_id} may still run. {_how_to_reach(address, job_id)}")
        await asyncio.sleep(_RETRY_SECONDS)


async def _tail(client: JobClient, job_id: str, log: _Log) -> bool:
    """Read the log from its beginning. True: to its end; False: the connection was lost on the way."""
    log.rewind()
    stream = client.tail_job_logs(job_id)
    step: asyncio.Future[str | None] | None = None
    ended = False
    try:
        while True:
            step = step or asyncio.ensure_future(_next(stream))
            done, _ = await asyncio.wait({step}, timeout=_SILENCE_SECONDS)
            if done:
                chunk, step = step.result(), None
                if chunk is None:
                    return True
                log.feed(chunk)
                continue
            # A connection can be dead without a word. It is, if the job ended and the stream did not.
            info = _info(client, job_id)
            if info is None or ended:
                return False
            ended = info.status.is_terminal()
    except _failures():
        return False
    finally:
        if step is not None:
            step.cancel()
            await asyncio.wait({step})


async def _next(stream: AsyncIterator[str]) -> str | None:
    return await anext(stream, None)


def _info(client: JobClient, job_id: str) -> Any:
    try:
        return client.get_job_info(job_id)
    except _failures():
        return None


def _failures() -> tuple[type[Exception], ...]:
    """What Ray's client raises where the cluster refuses or is gone."""
    import aiohttp
    from ray.exceptions import AuthenticationError

    return (RuntimeError, OSError, aiohttp.ClientError, AuthenticationError)


class _Log:
    """Turns chunks of text into lines, each told once, however often the text is read again from its beginning."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._seen = 0
        self._again = 0
        self._line = ""

    @property
    def empty(self) -> bool:
        return self._seen == 0

    def rewind(self) -> None:
        self._again = self._seen

    def feed(self, chunk: str) -> None:
        skipped = min(self._again, len(chunk))
        self._again -= skipped
        self._seen += len(chunk) - skipped
        *lines, self._line = (self._line + chunk[skipped:]).split("\n")
        for line in lines:
            self._tell(line)

    def finish(self) -> None:
        if self._line:
            self._tell(self._line)
            self._line = ""


@contextmanager
def _without_overrides() -> Iterator[None]:
    held = {name: os.environ.pop(name) for name in _OVERRIDES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(held)


def _how_to_reach(address: str, job_id: str) -> str:
    return (
        f"Follow it with: ray job logs --follow --address {address} {job_id}   "
        f"Stop it with: ray job stop --address {address} {job_id}"
    )


def _locations(job: JobSpec) -> dict[str, str]:
    """Every field that says where something is."""
    path = job.dataset.path
    found = {"dataset.path": path} if isinstance(path, str) else {f"dataset.path.{i}": p for i, p in enumerate(path)}
    found["output"] = job.output
    found.update({f"reuse[{place}]": url for place, url in enumerate(job.reuse)})
    for name, model in _models(job).items():
        found[f"{field_of(name)}.name"] = model.name
        if model.tokenizer is not None:
            found[f"{field_of(name)}.tokenizer"] = model.tokenizer
    return found


def _local_paths(job: JobSpec) -> dict[str, str]:
    return {name: text for name, text in _locations(job).items() if text.startswith(("/", "file://"))}


def _absolute(path: str) -> str:
    if "://" in path or path.startswith("reasoning_gym:"):
        return path
    return os.path.abspath(os.path.expanduser(path))


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, below in value.items():
            yield from _leaves(f"{name}.{key}", below)
    elif isinstance(value, list):
        for below in value:
            yield from _leaves(name, below)
    else:
        yield name, value
