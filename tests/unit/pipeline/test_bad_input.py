"""Bad jobs and bad data through the ``run`` command itself: refused with exit code 2 before anything is written.

The real driver runs here up to the moment it would start Ray, which none of these jobs reaches.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from pipeline import driver
from pipeline.cli import main
from pipeline.store import Store
from tests.factories import make_spec
from tests.integration.run_helpers import jsonl, questions

Mend = Callable[[Path, dict[str, Any]], None]


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(crew: object) -> None:
        raise AssertionError("the run would have started")

    monkeypatch.setattr(driver._Crew, "work", work)


def make_job(folder: Path) -> dict[str, Any]:
    data = folder / "questions.jsonl"
    data.write_text(jsonl(questions(4)))
    return make_spec(
        dataset={"path": str(data), "id": "id", "prompt": "{{ prompt }}", "reference": "gold"},
        output=str(folder / "run"),
    ).model_dump(mode="json")


def run_job(folder: Path, job: dict[str, Any], *more: str) -> Result:
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    return CliRunner().invoke(main, ["run", str(path), *more])


def setting(section: str, **fields: Any) -> Mend:
    return lambda folder, job: job[section].update(fields)


def data(content: str | bytes, name: str = "questions.jsonl") -> Mend:
    """The dataset is one file of this content."""

    def write(folder: Path, job: dict[str, Any]) -> None:
        path = folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        job["dataset"]["path"] = str(path)

    return write


def folder_as_file(folder: Path, job: dict[str, Any]) -> None:
    (folder / "more.jsonl").mkdir()
    job["dataset"]["path"] = str(folder / "more.jsonl")


TWICE = jsonl([*questions(4), questions(3)[2]])

BAD: dict[str, tuple[Mend, list[str]]] = {
    "unknown field": (setting("budget", tockens=5), ["budget.tockens", "unknown field", "ponder schema"]),
    "unknown section": (lambda folder, job: job.update(buget={}), ["buget", "unknown field"]),
    "wrong value": (setting("sampling", temperature=-1), ["sampling.temperature", "-1"]),
    "wrong type": (setting("cluster", workers="many"), ["cluster.workers", "'many'"]),
    "budget 0": (setting("budget", tokens=0), ["budget.tokens", "0"]),
    "budget below 0": (setting("budget", tokens=-5), ["budget.tokens", "-5"]),
    "no budget": (lambda folder, job: job.pop("budget"), ["budget", "missing"]),
    "no such id column": (setting("dataset", id="uid"), ["dataset.id", "'uid'", "questions.jsonl"]),
    "no such reference column": (setting("dataset", reference="answer"), ["dataset.reference", "'answer'", "gold"]),
    "no such prompt column": (setting("dataset", prompt="{{ query }}"), ["dataset.prompt", "'query'", "prompt"]),
    "no such messages column": (
        setting("dataset", prompt=None, messages="turns"),
        ["dataset.messages", "'turns'", "questions.jsonl"],
    ),
    "broken template": (setting("dataset", prompt="{{ prompt"), ["dataset.prompt", "{{ prompt"]),
    "no such file": (setting("dataset", path="no/such/file.jsonl"), ["dataset.path", "no/such/file.jsonl"]),
    "no match": (setting("dataset", path="no/such/*.parquet"), ["dataset.path", "no/such/*.parquet"]),
    "no known format": (data("x", "questions.txt"), ["dataset.path", "questions.txt", ".parquet"]),
    "a folder": (folder_as_file, ["dataset.path", "more.jsonl"]),
    "no such scheme": (setting("dataset", path="gs://bucket/a.jsonl"), ["dataset.path", "gs://bucket/a.jsonl"]),
    "empty file": (data(""), ["dataset.path", "questions.jsonl", "empty"]),
    "no rows": (data("id,prompt,gold\n", "questions.csv"), ["dataset.path", "questions.csv", "no rows"]),
    "no row that can be read": (data("{\n[1]\n"), ["dataset.path", "questions.jsonl", "mend"]),
    "no Parquet": (data(b"PAR1 no it is not", "questions.parquet"), ["dataset.path", "questions.parquet"]),
    "duplicate ids": (data(TWICE), ["dataset.id", "'q002'", "questions.jsonl"]),
    "output of no known scheme": (lambda folder, job: job.update(output="gs://b/run"), ["output", "gs://b/run"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_before_anything_is_written(tmp_path: Path, case: str) -> None:
    mend, said = BAD[case]
    job = make_job(tmp_path)
    mend(tmp_path, job)
    before = sorted(tmp_path.rglob("*"))
    result = run_job(tmp_path, job)
    assert result.exit_code == 2, result.output
    error = result.stderr[result.stderr.index("error: ") :]
    assert [word for word in said if word not in error] == [], error
    assert "Traceback" not in result.output
    assert result.stdout == ""
    assert sorted(tmp_path.rglob("*")) == sorted({*before, tmp_path / "job.yaml"})


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    # A loop of links: an error of the operating system that even root meets, unlike missing permissions.
    loop = tmp_path / "loop.jsonl"
    loop.symlink_to(loop)
    job["dataset"]["path"] = str(loop)
    result = run_job(tmp_path, job)
    assert result.exit_code == 2, result.output
    assert "error: dataset.path: " in result.stderr
    assert str(loop) in result.stderr
    assert not (tmp_path / "run").exists()


def test_the_good_job_would_have_started(tmp_path: Path) -> None:
    result = run_job(tmp_path, make_job(tmp_path))
    assert isinstance(result.exception, AssertionError)
    assert (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("sampling.temperature=0.3", ["sampling.temperature", "0.3"]),
        ("model.name=other", ["model.name", "other"]),
        ("strategy.max_samples=7", ["strategy.max_samples", "7"]),
    ],
)
def test_another_job_in_the_same_output_is_refused_with_a_diff(tmp_path: Path, change: str, said: list[str]) -> None:
    job = make_job(tmp_path)
    run_job(tmp_path, job)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    result = run_job(tmp_path, job, "--set", change)
    assert result.exit_code == 2, result.output
    assert [word for word in [str(tmp_path / "run"), *said] if word not in result.stderr] == []
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_other_data_in_the_same_output_is_refused(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    run_job(tmp_path, job)
    (tmp_path / "questions.jsonl").write_text(jsonl(questions(5)))
    result = run_job(tmp_path, job)
    assert result.exit_code == 2, result.output
    assert "holds another run" in result.stderr
    assert "data" in result.stderr


def test_an_output_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("years of work")
    result = run_job(tmp_path, job)
    assert result.exit_code == 2, result.output
    assert str(tmp_path / "run") in result.stderr
    assert "run.json" in result.stderr
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.tex"]


def test_the_budget_of_a_refused_top_up_is_not_recorded(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    run_job(tmp_path, job)
    result = run_job(tmp_path, job, "--set", "budget.tokens=9000000", "--set", "seed=4")
    assert result.exit_code == 2, result.output
    assert Store.open(str(tmp_path / "run")).budget() == 1_000_000
