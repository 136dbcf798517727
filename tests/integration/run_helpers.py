"""``ponder run`` as a process of its own that a test watches and kills, and the jobs and results around it.

A ``Running`` remembers every process it has seen below the command, so that a test can say afterwards what is left;
leaving its context ends the command and all of them. Conditions are polled: nothing here sleeps for a fixed time in
the hope that something has happened.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from pipeline.records import Sample
from pipeline.run import open_run
from pipeline.spec import JobSpec
from pipeline.spending import spent_by_life
from pipeline.store import Store
from tests.factories import make_spec

ROOT = Path(__file__).resolve().parents[2]
PONDER = [sys.executable, "-m", "pipeline.cli"]
WAIT_SECONDS = 180
"""How long a condition may take on a busy machine; no test expects to wait this long."""
POLL_SECONDS = 0.1

Key = tuple[str, int, str]
"""A sample's identity: item id, sample index, prompt key."""


@dataclass(frozen=True)
class Job:
    """A job file and what it says."""

    path: Path
    spec: JobSpec
    ids: tuple[str, ...]

    @property
    def output(self) -> str:
        return self.spec.output

    @property
    def store(self) -> Store:
        """The run directory, opened anew."""
        return Store.open(self.output)

    def words(self, *more: str) -> list[str]:
        """The arguments of ``ponder`` that run this job."""
        return ["run", str(self.path), "--json", *more]

    def journal_files(self) -> list[Path]:
        """Files of samples written so far, in a local run directory."""
        return list(Path(self.output).glob("journal/*/*.parquet"))

    def journal(self) -> dict[Key, str]:
        """Every sample in the journal, with the worker life that paid for it."""
        store = self.store
        return {key_of(s): s.writer for shard in store.read_plan() for s in store.read_journal(shard.shard_id)}

    def spent(self) -> int:
        """Tokens the journal proves, repetitions included."""
        return sum(spent_by_life(self.store).values())


def questions(rows: int) -> list[dict[str, Any]]:
    """Questions q000, q001, … of three words each, with a gold answer."""
    return [{"id": f"q{i:03d}", "prompt": f"What is {i}?", "gold": "1"} for i in range(rows)]


def jsonl(rows: list[dict[str, Any]]) -> str:
    """Rows as the text of a JSONL file."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def write_job(folder: Path, rows: list[dict[str, Any]], **sections: Any) -> Job:
    """A job on the scripted engine over ``rows``, in ``folder``, with small shards; ``sections`` are merged into it."""
    data = folder / "questions.jsonl"
    data.write_text(jsonl(rows))
    defaults: dict[str, Any] = {
        "dataset": {"path": str(data), "id": "id", "reference": "gold"},
        "cluster": {"shard_size": 7},
        "output": str(folder / "run"),
        "verifiers": [{"kind": "numeric"}],
    }
    for name, section in sections.items():
        defaults[name] = {**defaults.get(name, {}), **section} if isinstance(section, dict) else section
    return write_spec(folder, make_spec(**defaults), tuple(row["id"] for row in rows))


def write_spec(folder: Path, spec: JobSpec, ids: tuple[str, ...]) -> Job:
    """A resolved job as a file in ``folder``."""
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(spec.model_dump(mode="json")))
    return Job(path, spec, ids)


def environment(**more: str) -> dict[str, str]:
    """This process's environment without what would lead a run to another cluster or object store."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AWS_"))}
    return {**kept, **more}


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def result(self) -> dict[str, Any]:
        """The object on the last line of standard output."""
        assert self.stdout, self.stderr
        found: dict[str, Any] = json.loads(self.stdout.splitlines()[-1])
        return found


@dataclass
class Running:
    """A command that runs in a session of its own. ``family`` holds every process seen below it."""

    process: subprocess.Popen[bytes]
    folder: Path
    family: set[psutil.Process] = field(default_factory=set)

    def look(self) -> None:
        """Remember who is below the command now."""
        try:
            self.family |= set(psutil.Process(self.process.pid).children(recursive=True))
        except psutil.NoSuchProcess:
            return

    def alive(self, *titles: str) -> list[psutil.Process]:
        """Processes seen below the command that still live; with ``titles``, those whose command line has one."""
        self.look()
        return [one for one in self.family if _lives(one) and (not titles or any(t in _title(one) for t in titles))]

    def until(self, met: Callable[[], Any], what: str, seconds: float = WAIT_SECONDS) -> None:
        """Wait for a condition of a run that goes on; fails if the command ends first."""
        end = time.monotonic() + seconds
        while not met():
            assert self.process.poll() is None, f"ended before {what}: {self._ended()}"
            assert time.monotonic() < end, f"no {what}: {self._read('stderr')}"
            self.look()
            time.sleep(POLL_SECONDS)

    def wait(self, seconds: float = WAIT_SECONDS) -> Ended:
        """Wait for the command's end."""
        end = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < end, f"still running: {self._read('stderr')}"
            self.look()
            time.sleep(POLL_SECONDS)
        return self._ended()

    def kill(self) -> None:
        """SIGKILL to the command alone."""
        self.look()
        self.process.kill()
        self.process.wait()

    def left(self, seconds: float = 60) -> list[str]:
        """Command lines of what outlives the command, once nothing does or ``seconds`` have passed."""
        end = time.monotonic() + seconds
        while (living := [one for one in self.family if _lives(one)]) and time.monotonic() < end:
            time.sleep(POLL_SECONDS)
        return [_title(one) for one in living]

    def _ended(self) -> Ended:
        return Ended(self.process.returncode, self._read("stdout"), self._read("stderr"))

    def _read(self, stream: str) -> str:
        return (self.folder / stream).read_text()


@contextmanager
def start(folder: Path, words: list[str], env: dict[str, str] | None = None) -> Iterator[Running]:
    """Start ``ponder`` with these arguments. ``folder`` takes its output."""
    with open(folder / "stdout", "wb") as out, open(folder / "stderr", "wb") as err:
        process = subprocess.Popen(
            [*PONDER, *words],
            cwd=ROOT,
            env=environment() if env is None else env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
            # A shell's background job ignores Ctrl-C, and what it starts inherits that.
            preexec_fn=_listening,
        )
    running = Running(process, folder)
    try:
        yield running
    finally:
        running.look()
        process.kill()
        process.wait()
        for one in running.family:
            if _lives(one):
                one.send_signal(signal.SIGKILL)


def _listening() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def ponder(folder: Path, words: list[str], env: dict[str, str] | None = None) -> Ended:
    """Run ``ponder`` to its end, and see that nothing of it is left."""
    with start(folder, words, env) as running:
        ended = running.wait()
        assert running.left() == []
    return ended


@dataclass(frozen=True)
class Outcome:
    """The committed rows of a run, by item id."""

    answers: list[dict[str, Any]]
    samples: list[dict[str, Any]]
    dead: list[dict[str, Any]]

    @property
    def answered(self) -> list[str]:
        return [row["item_id"] for row in self.answers]

    @property
    def dead_ids(self) -> list[str]:
        return [row["item_id"] for row in self.dead]

    @property
    def writers(self) -> dict[Key, str]:
        """Every sample with the worker life that paid for it; fails where one is there twice."""
        found = {(row["item_id"], row["sample_index"], row["prompt_key"]): row["writer"] for row in self.samples}
        assert len(found) == len(self.samples)
        return found


def outcome(url: str) -> Outcome:
    """What ``open_run`` shows of a run."""
    run = open_run(url)
    tables = (run.answers(), run.samples(), run.dead_letters())
    return Outcome(*(sorted(each.to_table().to_pylist(), key=lambda row: row["item_id"]) for each in tables))


def key_of(sample: Sample) -> Key:
    """A sample's identity."""
    return (sample.item_id, sample.sample_index, sample.prompt_key)


def _lives(process: psutil.Process) -> bool:
    # A zombie has ended; who reaps it is not ours to say. psutil checks the start time: a reused id is another process.
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""
