"""Verifiers that cannot work here are refused before anything is spent or written."""

import dataclasses
import io
import json
from pathlib import Path

import pytest

from pipeline.driver import prepare
from pipeline.errors import SpecError
from pipeline.forecast import forecast
from pipeline.progress import Progress, Reporter
from pipeline.readiness import refuse_unready, unjudged
from pipeline.records import Item
from pipeline.source import plan_dataset, read_shard
from pipeline.spec import JobSpec
from tests.factories import make_spec
from verifiers import registry
from verifiers.sandbox import confine

PLANNING = Progress("planning", 0, 0, 0, 0, 1, None, 0.0, None, 0, 0, 0)

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


def rows_job(folder: Path, rows: list[dict], *verifiers: dict) -> JobSpec:
    data = folder / "questions.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = {"path": str(data), "id": "id", "reference": "gold"}
    # Shards of two rows: all of them are looked at.
    return make_spec(dataset=dataset, verifiers=list(verifiers), output=str(folder / "run"), cluster={"shard_size": 2})


def row(name: str, gold: object = "1", **more: object) -> dict:
    return {"id": name, "prompt": "p", "gold": gold, **more}


UNREADABLE = [row("a", tests="assert f() =="), row("b", tests="def check(:"), row("c", tests="")]


@pytest.mark.parametrize(
    ("rows", "verifier", "field"),
    [
        ([row("a", "two"), row("b", "four"), row("c", None)], {"kind": "numeric"}, r"verifiers\[1\] \(numeric\)"),
        ([row("a", "E"), row("b", "F"), row("c", "1")], {"kind": "choice", "choices": "AB"}, r"verifiers\[1\]"),
        (UNREADABLE, {**PROGRAMS, "name": "mine", "unsafe": True}, r"verifiers\[1\] \(mine\)"),
        ([row("a", None), row("b", None), row("c", "")], {"kind": "math"}, r"verifiers\[1\] \(math\)"),
        (
            [row("a", "x"), row("b", "y"), row("c", "z")],
            {"kind": "weighted", "of": [{"kind": "numeric"}, {"kind": "regex", "pattern": "x"}], "weights": [1, 1]},
            r"verifiers\[1\] \(weighted\)",
        ),
    ],
)
@pytest.mark.parametrize("command", [prepare, forecast])
def test_a_verifier_that_can_judge_no_row_is_refused(tmp_path, rows, verifier, field, command):
    with pytest.raises(SpecError, match=field + ".*none of the 3 rows.*rows a, b, c"):
        command(rows_job(tmp_path, rows, {"kind": "regex", "name": "any", "pattern": "x"}, verifier))
    assert not (tmp_path / "run").exists()


def test_rows_it_cannot_judge_are_named_and_do_not_stop_the_run(tmp_path):
    rows = [row("a"), row("b", "two"), row("c"), row("d", "four"), row("e", prompt=None)]
    spec = rows_job(tmp_path, rows, {"kind": "numeric"}, {"kind": "exact"})
    (found,) = unjudged(spec, [item for item in read_all(spec) if isinstance(item, Item)])
    assert (found.field, found.rows, found.of, found.item_ids) == ("verifiers[0] (numeric)", 2, 4, ("b", "d"))
    (warning,) = prepare(spec).warnings
    assert "2 of 4 rows" in warning
    assert "rows b, d" in warning
    assert warning in forecast(spec).warnings
    assert prepare(spec).warnings == (), "a run that goes on has been told"


def read_all(spec: JobSpec) -> list:
    return [one for shard in plan_dataset(spec.dataset, 2).shards for one in read_shard(spec.dataset, shard)]


def test_rows_are_looked_at_where_the_cluster_is_elsewhere_too(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "ray://elsewhere:10001")
    with pytest.raises(SpecError, match="none of the 1 rows"):
        prepare(rows_job(tmp_path, [row("a", "two")], {"kind": "numeric"}))


def test_a_look_that_cannot_be_had_here_is_left_to_the_cluster(tmp_path, monkeypatch):
    def broken(spec, item, answer):
        raise SpecError("the package is not installed here")

    monkeypatch.setitem(registry._CHECKS, "regex", broken)
    spec = rows_job(tmp_path, [row("a")], {"kind": "regex", "pattern": "x"})
    with pytest.raises(SpecError, match="not installed here"):
        prepare(spec)
    monkeypatch.setenv("RAY_ADDRESS", "ray://elsewhere:10001")
    assert prepare(spec).warnings == ()


def test_a_warning_is_shown_once_and_stays():
    progress = dataclasses.replace(PLANNING, warnings=("verifiers[0]: look",))
    for live in (False, True):
        stream = io.StringIO()
        with Reporter(stream, live=live) as reporter:
            reporter(progress)
            reporter(progress)
            reporter(dataclasses.replace(PLANNING, phase="starting"))
        assert stream.getvalue().count("warning: verifiers[0]: look\n") == 1
