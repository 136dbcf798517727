"""The commands: what goes to which stream, and with which exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pipeline.cli import main
from pipeline.errors import RunFailed, RunMismatch, StoreError
from pipeline.progress import Progress
from pipeline.spec import JobSpec
from pipeline.status import RunStatus
from pipeline.store import Store
from tests.factories import make_spec

ROOT = Path(__file__).resolve().parents[3]
HEAVY = ("ray", "torch", "vllm", "transformers")

Listen = Callable[[Progress], None]


def make_status(spec: JobSpec) -> RunStatus:
    reasons = {"settled": 2, "verified": 0, "capped": 1, "hopeless": 0, "exhausted": 0, "failed": 0}
    return RunStatus(
        run=spec.output,
        run_id="id",
        state="finished",
        items=3,
        answered=3,
        dead_lettered=0,
        samples=9,
        tokens_spent=90,
        tokens_budget=spec.budget.tokens,
        stop_reasons=reasons,
        accuracy=2 / 3,
        accuracy_interval=(0.2, 0.9),
        correct=2,
        judged=3,
        mean_tokens_per_sample=10.0,
        max_samples=40,
    )


class FakeDriver:
    """Stands in for ``pipeline.driver``: tells two phases, then ends as the test says."""

    def __init__(self) -> None:
        self.specs: list[JobSpec] = []
        self.ending: Callable[[], None] = lambda: None

    def run(self, spec: JobSpec, listen: Listen | None = None) -> RunStatus:
        self.specs.append(spec)
        assert listen is not None
        for phase in ("planning", "solving"):
            listen(Progress(phase, 3, 1, 2, 20, spec.budget.tokens, 5.0, 0.1, None, 0, 1, 1))
        self.ending()
        return make_status(spec)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    fake = FakeDriver()
    module = types.ModuleType("pipeline.driver")
    module.run = fake.run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pipeline.driver", module)
    monkeypatch.setattr("pipeline.driver", module, raising=False)
    return fake


@pytest.fixture
def job(tmp_path: Path) -> Path:
    rows = [{"id": f"q{i}", "prompt": f"What is {i} + {i}?", "gold": str(2 * i)} for i in range(3)]
    data = tmp_path / "questions.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    path = tmp_path / "job.yaml"
    path.write_text(
        f"dataset: {{path: {data}, id: id, reference: gold}}\n"
        "sampling: {max_tokens: 16}\n"
        "budget: {tokens: 1000}\n"
        f"output: {tmp_path / 'run'}\n",
        encoding="utf-8",
    )
    return path


def call(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def last_object(result: Result) -> dict[str, Any]:
    return dict(json.loads(result.stdout.splitlines()[-1]))


# --- run -----------------------------------------------------------------------------------------------------------


def test_run_ends_with_the_table(driver: FakeDriver, job: Path) -> None:
    result = call("run", job)
    assert result.exit_code == 0, result.output
    assert "66.7% (95% interval 20.0% to 90.0%; 2 of 3 right)" in result.stdout
    assert f"{job.parent / 'run'}/answers" in result.stdout
    assert [line.split(":")[0] for line in result.stderr.splitlines()] == ["planning", "solving"]


def test_run_json_is_one_object_on_standard_output(driver: FakeDriver, job: Path) -> None:
    result = call("run", job, "--json")
    assert result.exit_code == 0
    [line] = result.stdout.splitlines()
    found = json.loads(line)
    assert found.pop("seconds") >= 0
    expected = make_status(driver.specs[0]).as_json()
    del expected["seconds"]
    assert found == expected
    assert "solving: 1/3 questions finished" in result.stderr


def test_run_takes_overrides_and_output(driver: FakeDriver, job: Path) -> None:
    result = call("run", job, "--set", "budget.tokens=2e6", "--set", "strategy.kind=greedy", "--output", "s3://b/other")
    assert result.exit_code == 0, result.output
    [spec] = driver.specs
    assert (spec.budget.tokens, spec.strategy.kind, spec.output) == (2_000_000, "greedy", "s3://b/other")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RunMismatch("output x: holds another run"), 2),
        (RunFailed("2 of 3 rows failed"), 1),
        (StoreError("cannot write x"), 1),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_errors_have_codes_and_no_traceback(
    driver: FakeDriver, job: Path, error: Exception, code: int, as_json: bool
) -> None:
    def fail() -> None:
        raise error

    driver.ending = fail
    result = call("run", job, *(["--json"] if as_json else []))
    assert result.exit_code == code
    assert result.stderr.splitlines()[-1] == f"error: {error}"
    assert "Traceback" not in result.output
    if as_json:
        assert last_object(result) == {"error": str(error), "kind": type(error).__name__}
    else:
        assert result.stdout == ""


def test_a_defect_keeps_its_traceback_and_programs_are_told(driver: FakeDriver, job: Path) -> None:
    def fail() -> None:
        raise ZeroDivisionError("never meant to happen")

    driver.ending = fail
    result = call("run", job, "--json")
    assert isinstance(result.exception, ZeroDivisionError)
    assert last_object(result) == {"error": "never meant to happen", "kind": "ZeroDivisionError"}


def interrupted() -> None:
    raise KeyboardInterrupt


def terminated() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    # The handler runs before the next bytecode or so; a run that goes on would be the failure.
    for _ in range(10**6):
        pass


def terminated_under_rays_handler() -> None:
    # What Ray installs while it starts.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))
    terminated()


@pytest.mark.parametrize("ending", [interrupted, terminated, terminated_under_rays_handler])
def test_interrupts_save_and_say_how_to_go_on(driver: FakeDriver, job: Path, ending: Callable[[], None]) -> None:
    driver.ending = ending
    before = signal.getsignal(signal.SIGTERM)
    result = call("run", job, "--set", "answer.pattern=a b", "--output", job.parent / "elsewhere", "--json")
    assert result.exit_code == 130
    again = f"ponder run {job} --set 'answer.pattern=a b' --output {job.parent / 'elsewhere'} --json"
    assert result.stderr.splitlines()[-1].endswith(f"To go on, run: {again}")
    assert last_object(result)["kind"] == "KeyboardInterrupt"
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_signal_is_taken_back_from_ray(driver: FakeDriver, job: Path) -> None:
    def rays(number: int, frame: object) -> None:
        raise AssertionError("Ray's handler ran")

    class TakenOver(FakeDriver):
        def run(self, spec: JobSpec, listen: Listen | None = None) -> RunStatus:
            signal.signal(signal.SIGTERM, rays)
            return super().run(spec, listen)

    stolen = TakenOver()
    stolen.ending = terminated
    sys.modules["pipeline.driver"].run = stolen.run  # type: ignore[attr-defined]
    assert call("run", job).exit_code == 130


def test_other_exits_are_passed_on(driver: FakeDriver, job: Path) -> None:
    driver.ending = lambda: sys.exit(7)
    assert call("run", job).exit_code == 7


# --- wrong arguments -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run"], "Missing argument 'JOB'"),
        (["run", "JOB", "--nonsense"], "No such option '--nonsense'"),
        (["nonsense"], "No such command 'nonsense'"),
        (["run", "no-such-job.yaml"], "cannot read the job file no-such-job.yaml"),
        (["run", "JOB", "--set", "budget.tokens=0"], "budget.tokens: "),
        (["plan", "JOB", "--set", "budget.tokens=-5"], "budget.tokens: "),
        (["plan", "JOB", "--set", "budget.tockens=5"], "budget.tockens: unknown field"),
        (["plan", "JOB", "--set", "dataset.reference=nope"], "there is no column 'nope'"),
        (["submit", "JOB"], "Missing option '--address'"),
        (["status", "no-such-run"], "no run at"),
    ],
)
def test_wrong_arguments_are_exit_code_2(driver: FakeDriver, job: Path, words: list[str], said: str) -> None:
    words = [str(job) if word == "JOB" else word for word in words]
    result = call(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")
    assert said in result.stderr
    result = call(*words, "--json")
    if words[0] != "nonsense":
        assert said in last_object(result)["error"]
    assert driver.specs == []


def test_no_command_shows_help() -> None:
    result = call()
    assert result.exit_code == 2
    assert "Commands:" in result.output
    assert "error:" not in result.output


# --- plan, status, schema, doctor ----------------------------------------------------------------------------------


def test_plan(job: Path) -> None:
    result = call("plan", job)
    assert result.exit_code == 0, result.output
    assert "3, shards: 1" in result.stdout
    found = last_object(call("plan", job, "--json"))
    assert (found["items"], found["shards"], found["max_samples"], found["resumes"]) == (3, 1, 40, False)
    assert found["minimum"].keys() == {"expected", "worst", "expected_in_budget", "worst_in_budget"}
    assert found["budget"] == {"unit": "tokens", "total": 1000, "spent": 0}
    assert not (job.parent / "run").exists()


def test_status(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "run"))
    store.begin(make_spec().model_dump(mode="json"), {})
    result = call("status", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert "planned" in result.stdout
    found = last_object(call("status", tmp_path / "run", "--json"))
    assert found.keys() == set(RunStatus.__dataclass_fields__)
    assert (found["run"], found["state"], found["accuracy"]) == (store.url, "planned", None)


def test_schema_is_that_of_the_job() -> None:
    pretty, compact = call("schema"), call("schema", "--json")
    assert json.loads(pretty.stdout) == last_object(compact) == JobSpec.model_json_schema()


@pytest.mark.parametrize(("sound", "code"), [(True, 0), (False, 1)])
def test_doctor(monkeypatch: pytest.MonkeyPatch, sound: bool, code: int) -> None:
    from pipeline import doctor

    checks = [doctor.Check("cores", doctor.Level.OK, "2")]
    if not sound:
        checks.append(doctor.Check("ray", doctor.Level.FAIL, "not installed", "install it"))
    monkeypatch.setattr(doctor, "judge", lambda machine: checks)
    result = call("doctor")
    assert result.exit_code == code
    assert ("→ install it" in result.stdout) is not sound
    result = call("doctor", "--json")
    assert result.exit_code == code
    assert last_object(result)["ready"] is sound
    assert [check["level"] for check in last_object(result)["checks"]] == ["ok", "fail"][: 1 if sound else 2]


# --- submit --------------------------------------------------------------------------------------------------------


class FakeSubmit:
    """Stands in for ``jobs.submit``."""

    def __init__(self, status: str) -> None:
        self.status = status
        self.calls: list[tuple[str, str, bool]] = []

    def submit(self, job: JobSpec, address: str, wait: bool, on_line: Callable[[str], None]) -> Any:
        from jobs.submit import SubmitResult

        self.calls.append((job.output, address, wait))
        on_line("a line of the job")
        return SubmitResult("raysubmit_1", self.status if wait else "PENDING")


@pytest.mark.parametrize(
    ("status", "words", "code"),
    [("SUCCEEDED", [], 0), ("FAILED", [], 1), ("STOPPED", [], 1), ("FAILED", ["--no-wait"], 0)],
)
def test_submit(monkeypatch: pytest.MonkeyPatch, job: Path, status: str, words: list[str], code: int) -> None:
    fake = FakeSubmit(status)
    monkeypatch.setattr("jobs.submit.submit", fake.submit)
    result = call("submit", job, "--address", "http://head:8265", "--output", "s3://b/r", *words)
    assert (result.exit_code, result.stdout) == (code, "a line of the job\n")
    assert fake.calls == [("s3://b/r", "http://head:8265", not words)]
    result = call("submit", job, "--address", "http://head:8265", "--json", *words)
    assert result.exit_code == code
    assert result.stderr.startswith("a line of the job\n")
    [line] = result.stdout.splitlines()
    if code:
        assert json.loads(line)["kind"] == "RunFailed"
    else:
        assert json.loads(line) == {"job_id": "raysubmit_1", "status": "PENDING" if words else status}


# --- what is loaded ------------------------------------------------------------------------------------------------

LOADED = f"""
import sys
from pipeline.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    # doctor: 1 where this machine lacks something, which is not the question here.
    assert end.code in (0, 1), end.code
loaded = [name for name in {HEAVY} if name in sys.modules]
assert not loaded, loaded
"""


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["plan", "JOB"], ["schema"], ["doctor", "--json"]])
def test_light_commands_load_nothing_heavy(job: Path, words: list[str]) -> None:
    words = [str(job) if word == "JOB" else word for word in words]
    ended = subprocess.run([sys.executable, "-c", LOADED, *words], cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_the_module_is_a_program(job: Path) -> None:
    words = [sys.executable, "-m", "pipeline.cli", "plan", str(job), "--json"]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert json.loads(ended.stdout)["items"] == 3
