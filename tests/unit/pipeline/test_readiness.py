"""Verifiers that cannot work here are refused before anything is spent or written."""

from pathlib import Path

import pytest

from pipeline.driver import prepare
from pipeline.errors import SpecError
from pipeline.forecast import forecast
from pipeline.readiness import refuse_unready
from pipeline.spec import JobSpec
from tests.factories import make_spec
from verifiers.sandbox import confine

BEHAVIOUR = {"kind": "behaviour", "style": "source"}
PROGRAMS = {"kind": "programs", "style": "asserts", "tests_column": "tests"}


def job(folder: Path, *verifiers: dict) -> JobSpec:
    data = folder / "questions.jsonl"
    data.write_text('{"prompt": "p", "tests": "assert f()", "gold": "1"}\n')
    return make_spec(
        dataset={"path": str(data), "reference": "gold"}, verifiers=list(verifiers), output=str(folder / "run")
    )


@pytest.mark.parametrize(
    "verifiers", [[PROGRAMS], [BEHAVIOUR], [{"kind": "any", "of": [{"kind": "regex", "pattern": "x"}, PROGRAMS]}]]
)
@pytest.mark.parametrize("command", [prepare, forecast])
def test_programs_without_a_sandbox(tmp_path, monkeypatch, verifiers, command):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(confine, "problem", lambda: "bwrap is not installed")
    with pytest.raises(SpecError, match="bwrap is not installed"):
        command(job(tmp_path, *verifiers))
    assert not (tmp_path / "run").exists()


def test_programs_that_may_run_without_one(tmp_path, monkeypatch):
    monkeypatch.setattr(confine, "problem", lambda: "bwrap is not installed")
    refuse_unready(job(tmp_path, {**PROGRAMS, "unsafe": True}, {**BEHAVIOUR, "unsafe": True}))


def test_a_function_that_cannot_be_imported(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    missing = job(tmp_path, {"kind": "function", "function": "nowhere.at_all:score"})
    with pytest.raises(SpecError, match="cannot import"):
        refuse_unready(missing)
    monkeypatch.setenv("RAY_ADDRESS", "ray://elsewhere:10001")
    refuse_unready(missing)
