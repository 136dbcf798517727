"""``ponder compare`` over recorded samples: what it finds, what it prints, how it ends."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from click.testing import CliRunner, Result

from pipeline.cli import main
from pipeline.recording import Recording, Span
from pipeline.recording_parts import Wanted
from pipeline.records import Verdict
from tests.unit.pipeline.recordings import Row, make_rows, write_rows

QUICK = ("--repeats", 2)
VOTE = {"strategy": {"kind": "self_consistency", "max_samples": 8, "evidence": "votes"}}
VERDICTS = pa.list_(
    pa.struct(
        [("verifier", pa.string()), ("score", pa.float64()), ("error", pa.string()), ("tokens", pa.int64())],
    )
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "samples.parquet", make_rows(questions=12, pool=8))
    return tmp_path


def write(folder: Path, name: str, content: dict[str, Any]) -> str:
    (folder / name).write_text(yaml.safe_dump(content))
    return name


def call(*words: object) -> Result:
    return CliRunner().invoke(main, ["compare", *(str(word) for word in words)])


def compared(*words: object) -> dict[str, Any]:
    result = call(*words, *QUICK, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def place(rows: list[dict[str, Any]]) -> list[tuple[str, float]]:
    return [(row["strategy"], row["budget"]) for row in rows]


# --- what it finds -----------------------------------------------------------------------------------------------


def test_equal_budgets_equal_questions(folder: Path) -> None:
    write(folder, "a.yaml", VOTE)
    write(
        folder, "b.yaml", {"strategy": {"kind": "best_of_n", "score": "confidence", "stop": "fixed", "max_samples": 8}}
    )
    found = compared("samples.parquet", "--strategies", "a.yaml,b.yaml", "--budgets", "4,2", "--reach", "0.1,1.0")
    assert place(found["rows"]) == [("a", 2), ("a", 4), ("b", 2), ("b", 4)]
    assert (found["questions"], found["left_out"], found["repeats"], found["unit"]) == (12, 0, 2, "samples")
    for row in found["rows"]:
        assert row["samples"] <= row["budget"]
        assert row["accuracy_interval"][0] <= row["accuracy"] <= row["accuracy_interval"][1]
        assert row["cost"] == row["tokens"] + row["verification"]
        assert sum(row["stop_reasons"].values()) == pytest.approx(12)
    first, second = found["rows"][:2], found["rows"][2:]
    assert [row["difference"] for row in first] == [row["p"] for row in first] == [None, None]
    for one, other in zip(first, second, strict=True):
        assert other["difference"] == pytest.approx(other["accuracy"] - one["accuracy"])
        assert 0 < other["p"] <= 1
    assert [(one["strategy"], one["accuracy"]) for one in found["reach"]] == [
        ("a", 0.1),
        ("b", 0.1),
        ("a", 1),
        ("b", 1),
    ]
    assert [one["at_most"] for one in found["reach"]] == [True, True, False, False]
    assert [one["cost"] for one in found["reach"]][2:] == [None, None]
    assert json.loads((folder / "runs/compare-samples/compare.json").read_text()) == found
    assert (folder / "runs/compare-samples/compare.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_strategy_twice_does_not_differ(folder: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        write(folder, name, VOTE)
    found = compared("samples.parquet", "--strategies", "a.yaml,b.yaml", "--budgets", "3")
    one, other = found["rows"]
    assert (other["difference"], other["difference_interval"], other["p"]) == (0.0, [0.0, 0.0], 1.0)
    alike = ("accuracy", "tokens", "samples", "stop_reasons")
    assert [one[name] for name in alike] == [other[name] for name in alike]


def test_baselines_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    right = {"a": [1, 1, 0, 0], "b": [0, 0, 0, 0], "c": [1, 0, 0, 0]}
    rows: list[Row] = []
    for item_id, bits in right.items():
        for index, bit in enumerate([*bits, 1]):
            cold = index == len(bits)
            rows.append(
                {
                    "item_id": item_id,
                    "sample_index": index,
                    "answer": "right" if bit and not (cold and item_id == "b") else "wrong",
                    "reference": "right",
                    "completion_tokens": 30 if cold else 10,
                    "temperature": 0.0 if cold else 0.8,
                }
            )
    write_rows(tmp_path / "samples.parquet", rows)
    write(tmp_path, "a.yaml", VOTE)
    found = compared("samples.parquet", "--strategies", "a.yaml", "--budgets", "2")
    assert {
        one["name"]: (one["samples"], one["tokens"], pytest.approx(one["accuracy"])) for one in found["baselines"]
    } == {
        "greedy": (1, 30, 2 / 3),
        "random choice": (1, 10, (1 / 2 + 0 + 1 / 4) / 3),
        "oracle pass@2": (2, 20, (5 / 6 + 0 + 1 / 2) / 3),
        "oracle pass@4": (4, 40, 2 / 3),
    }
    assert found["notes"] == []


def test_without_temperatures_greedy_is_not_recorded(folder: Path) -> None:
    write(folder, "a.yaml", VOTE)
    found = compared("samples.parquet", "--strategies", "a.yaml")
    assert place(found["rows"]) == [("a", 3), ("a", 5), ("a", 8)]
    assert [one["name"] for one in found["baselines"]] == [
        "random choice", "oracle pass@2", "oracle pass@4", "oracle pass@8",
    ]  # fmt: skip
    assert found["notes"] == ["greedy: not recorded (no samples at temperature 0 in samples.parquet)"]


def test_pools_that_differ_are_compared_over_what_every_question_has(folder: Path) -> None:
    rows = [row for row in make_rows(questions=6, pool=8) if row["item_id"] != "q000" or row["sample_index"] < 3]
    write_rows(folder / "uneven.parquet", rows)
    write(folder, "a.yaml", VOTE)
    found = compared("uneven.parquet", "--strategies", "a.yaml", "--budgets", "3")
    assert [one["name"] for one in found["baselines"]] == ["random choice", "oracle pass@2", "oracle pass@3"]
    assert found["notes"][1:] == [
        "questions have 3 to 8 samples, and no strategy draws more than were recorded",
        "random choice and oracle are over the first 3 samples, which every question has",
    ]


def test_without_tokens_costs_are_samples(folder: Path) -> None:
    rows = [{name: row[name] for name in ("item_id", "sample_index", "answer", "reference")} for row in make_rows(6, 8)]
    write_rows(folder / "bare.parquet", rows)
    write(folder, "a.yaml", VOTE)
    words = ("bare.parquet", "--strategies", "a.yaml")
    found = compared(*words, "--budgets", "2,4", "--reach", "0.01")
    assert [(row["tokens"], row["cost"]) for row in found["rows"]] == [(None, row["samples"]) for row in found["rows"]]
    assert {one["tokens"] for one in found["baselines"]} == {None}
    assert found["reach"][0]["cost"] == found["rows"][0]["samples"]
    printed = call(*words, "--budgets", "2", "--reach", "0.01", *QUICK).stdout
    assert "at most 2.0 samples a question" in printed
    refused = call(*words, "--budget-tokens", "40", *QUICK)
    assert refused.exit_code == 2
    assert "--budget-tokens: bare.parquet has no completion_tokens" in refused.stderr


def test_questions_without_a_reference_are_left_out_of_all(folder: Path) -> None:
    rows = [{**row, "reference": None if row["item_id"] < "q004" else "right"} for row in make_rows(12, 8)]
    write_rows(folder / "some.parquet", rows)
    write(folder, "a.yaml", VOTE)
    found = compared("some.parquet", "--strategies", "a.yaml", "--budgets", "3")
    assert (found["questions"], found["left_out"]) == (8, 4)


def test_recorded_scores_stand_for_references(folder: Path) -> None:
    rows = [{**row, "score": float(row["answer"] == "right"), "reference": None} for row in make_rows(12, 8)]
    write_rows(folder / "scored.parquet", rows)
    write(folder, "a.yaml", {"strategy": {"kind": "best_of_n", "score": "checker", "stop": "pass", "max_samples": 8}})
    found = compared("scored.parquet", "--strategies", "a.yaml", "--budgets", "8")
    oracle = {one["name"]: one["accuracy"] for one in found["baselines"]}
    # A pass settles a question, so all that can be solved is.
    assert found["rows"][0]["accuracy"] == pytest.approx(oracle["oracle pass@8"])


def test_without_references_or_scores_accuracy_cannot_be_told(folder: Path) -> None:
    write_rows(folder / "bare.parquet", [{**row, "reference": None} for row in make_rows(4, 8)])
    write(folder, "a.yaml", VOTE)
    result = call("bare.parquet", "--strategies", "a.yaml", *QUICK)
    assert result.exit_code == 2
    assert "accuracy cannot be told" in result.stderr
    assert "--columns reference=" in result.stderr


# --- verifiers ---------------------------------------------------------------------------------------------------


def with_verdicts(folder: Path, rows: list[Row], tokens: int) -> str:
    """Of samples with equal answers the first alone is charged, as a run records it."""
    seen: set[tuple[str, Any]] = set()
    for row in rows:
        key = (row["item_id"], row["answer"])
        cost = 0 if key in seen else tokens
        seen.add(key)
        row["verdicts"] = [
            {"verifier": "grader", "score": float(row["answer"] == "right"), "error": None, "tokens": cost}
        ]
    schema = pa.Table.from_pylist(rows[:1]).schema
    schema = schema.set(schema.get_field_index("verdicts"), pa.field("verdicts", VERDICTS))
    return Path(write_rows(folder / "judged.parquet", rows, schema=schema)).name


PASS = {"kind": "best_of_n", "score": "grader", "stop": "pass", "max_samples": 8}


def test_recorded_checks_are_paid_from_a_budget_in_tokens(folder: Path) -> None:
    rows = [{**row, "text": str(row["answer"])} for row in make_rows(questions=12, pool=8)]
    source = with_verdicts(folder, rows, tokens=7)
    write(folder, "a.yaml", VOTE)
    write(folder, "checked.yaml", {"strategy": PASS})
    found = compared(source, "--strategies", "a.yaml,checked.yaml", "--budget-tokens", "40,1000")
    assert found["unit"] == "tokens"
    rows_of = {(row["strategy"], row["budget"]): row for row in found["rows"]}
    for (strategy, budget), row in rows_of.items():
        assert row["cost"] <= budget
        assert (row["verification"] > 0) == (strategy == "checked")
        assert row["verification"] * 12 * 2 % 7 == pytest.approx(0)
    # With enough of it, a question is checked until one passes, each distinct answer once.
    ample = rows_of["checked", 1000]
    assert ample["verification"] <= 7 * 4
    in_samples = compared(source, "--strategies", "checked.yaml", "--budgets", "8")["rows"][0]
    assert in_samples["verification"] == pytest.approx(ample["verification"])


def test_what_a_verifier_said_when_it_was_given_something_is_another_check(tmp_path: Path) -> None:
    rows = make_rows(questions=1, pool=2)
    said = {"verifier": "v", "score": 0.5, "error": None, "tokens": 1, "given": None}
    rows[0]["verdicts"] = [said, {**said, "score": 1.0, "given": "k"}]
    rows[1]["verdicts"] = [{**said, "given": "k"}]
    fields = [*VERDICTS.value_type, pa.field("given", pa.string())]
    schema = pa.Table.from_pylist(rows[:1]).schema
    at = schema.get_field_index("verdicts")
    schema = schema.set(at, pa.field("verdicts", pa.list_(pa.struct(fields))))
    path = write_rows(tmp_path / "given.parquet", rows, schema=schema)
    with Recording.open(path, wanted=Wanted(verdicts=True)) as recording:
        assert recording.read(Span(0, 1)).verdicts == [{"v": Verdict("v", 0.5, tokens=1)}, {}]


@pytest.mark.parametrize("kind", ["exact", "math"])
def test_a_free_verifier_is_run(folder: Path, kind: str) -> None:
    rows = [
        {**row, "answer": {"right": "1", "x": "2"}.get(str(row["answer"]), "3"), "reference": "1"}
        for row in make_rows(6, 6)
    ]
    write_rows(folder / "numbers.parquet", rows)
    write(folder, "a.yaml", {"strategy": {**PASS, "score": "gold"}, "verifiers": [{"kind": kind, "name": "gold"}]})
    found = compared("numbers.parquet", "--strategies", "a.yaml", "--budgets", "6")
    oracle = {one["name"]: one["accuracy"] for one in found["baselines"]}
    assert found["rows"][0]["accuracy"] == pytest.approx(oracle["oracle pass@6"])
    assert found["rows"][0]["verification"] == 0


# --- what it refuses ---------------------------------------------------------------------------------------------

REFUSED = {
    "greedy": ({"kind": "greedy"}, "samples at temperature 0"),
    "reader": ({"kind": "aggregate", "method": "usc", "vote": {"max_samples": 4}}, "a model says of the candidates"),
    "probes": ({"kind": "diversified"}, "completions that go on from a beginning"),
    "ladder": ({"kind": "self_consistency", "temperatures": [0.3, 1.0]}, "by temperature 0.3"),
    "arm of arms": (
        {"kind": "adaptive", "arms": [{"name": "a", "strategy": {"kind": "greedy"}}]},
        "samples at temperature 0",
    ),
    "arm's prompt": (
        {"kind": "adaptive", "arms": [{"name": "a", "template": "Think. {{ prompt }}"}]},
        "other prompts (templates)",
    ),
    "prompts": ({"kind": "self_consistency", "templates": ["Think. {{ prompt }}"]}, "other prompts (templates)"),
    "cold stage": (
        {"kind": "cascade", "stages": [{"temperature": 0.2, "max_samples": 2}, {"max_samples": 2}]},
        "by temperature 0.2",
    ),
    "two models": (
        {"kind": "cascade", "stages": [{"max_samples": 2}, {"model": "large", "max_samples": 2}]},
        "samples of model 'large'",
    ),
    "judge": (PASS, "what verifier 'grader' says was not recorded"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_was_not_recorded_is_refused_by_name_and_the_others_go_on(folder: Path, name: str) -> None:
    strategy, why = REFUSED[name]
    write(folder, "odd.yaml", {"strategy": strategy})
    write(folder, "a.yaml", VOTE)
    words = ("samples.parquet", "--budgets", "3", "--strategies")
    found = compared(*words, "odd.yaml,a.yaml")
    assert place(found["rows"]) == [("a", 3)]
    assert list(found["refused"]) == ["odd"]
    assert why in found["refused"]["odd"]
    printed = call(*words, "odd.yaml,a.yaml", *QUICK)
    assert "odd: left out: " in printed.stdout
    alone = call(*words, "odd.yaml", *QUICK)
    assert alone.exit_code == 2
    assert why in alone.stderr


def test_a_verifier_that_needs_the_row_is_refused(folder: Path) -> None:
    tests = {"kind": "programs", "name": "tests", "style": "asserts", "tests_column": "t"}
    write(folder, "a.yaml", {"strategy": {**PASS, "score": "tests"}, "verifiers": [tests]})
    result = call("samples.parquet", "--strategies", "a.yaml", *QUICK)
    assert result.exit_code == 2
    assert "'tests' says was not recorded, and it cannot be run here" in result.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--strategies", ","), "--strategies is empty"),
        (("--strategies", "nowhere.yaml"), "cannot read the strategy file nowhere.yaml"),
        (("--strategies", "a.yaml,sub/a.yaml"), "a.yaml and sub/a.yaml are both called 'a'"),
        (("--strategies", "un known.yaml"), "'un known' names no folder"),
        (("--strategies", "list.yaml"), "list.yaml must be a mapping with a strategy section"),
        (("--strategies", "unknown.yaml"), "unknown.yaml is not valid"),
        (("--strategies", "unknown.yaml"), "'nope'"),
        (("--strategies", "field.yaml"), "strategy.self_consistency.max_sample: unknown field"),
        (("--strategies", "none.yaml"), "strategy: required, but missing; add it to the strategy file none.yaml"),
        (("--budgets", "three"), "--budgets: 'three' is no number"),
        (("--budgets", "0"), "--budgets: 0 must be a finite number > 0"),
        (("--budgets", "3,nan"), "--budgets: nan must be"),
        (("--budgets", "3,3.0"), "--budgets: 3.0 is given twice"),
        (("--budgets", "3", "--budget-tokens", "9"), "leave one out"),
        (("--reach", "48"), "--reach 48: an accuracy is a share"),
        (("--repeats", "0"), "--repeats is 0"),
        (("--columns", "gold=reference"), "'gold' is nothing a recorded sample has"),
        (("--output", "old"), "--output old: holds a run"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_wrong_arguments_exit_with_2(folder: Path, words: tuple[str, ...], said: str, as_json: bool) -> None:
    (folder / "sub").mkdir()
    (folder / "old").mkdir()
    (folder / "old" / "run.json").write_text("{}")
    for name in ("a.yaml", "sub/a.yaml", "un known.yaml"):
        write(folder, name, VOTE)
    write(folder, "list.yaml", [])  # type: ignore[arg-type]
    write(folder, "unknown.yaml", {"strategy": {"kind": "nope"}})
    write(folder, "field.yaml", {"strategy": {"kind": "self_consistency", "max_sample": 3}})
    write(folder, "none.yaml", {"verifiers": []})
    strategies = () if "--strategies" in words else ("--strategies", "a.yaml")
    result = call("samples.parquet", *strategies, *words, *(["--json"] if as_json else []))
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.output
    if as_json:
        assert said in json.loads(result.stdout)["error"]
    assert not (folder / "runs").exists()


@pytest.mark.parametrize("source", ["nowhere.parquet", "sub"])
def test_a_source_that_is_none_exits_with_2(folder: Path, source: str) -> None:
    (folder / "sub").mkdir()
    write(folder, "a.yaml", VOTE)
    result = call(source, "--strategies", "a.yaml")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")


def test_the_table(folder: Path) -> None:
    write(folder, "a.yaml", VOTE)
    write(folder, "b.yaml", VOTE)
    result = call("samples.parquet", "--strategies", "a.yaml,b.yaml", "--budgets", "2", "--reach", "0.99", *QUICK)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].split("  ")[0] == "strategy"
    assert [line.split()[0] for line in lines[1:3]] == ["a", "b"]
    assert [line.split("  ")[0] for line in lines[3:7]] == [
        "random choice",
        "oracle pass@2",
        "oracle pass@4",
        "oracle pass@8",
    ]
    for line, name in zip(lines[7:9], "ab", strict=True):
        assert line.startswith(f"to reach 99.0%, {name}: not reached")
    assert lines[9].startswith("greedy: not recorded")
    assert lines[10].startswith("12 questions, 2 orders of the samples; ")
    assert lines[11].startswith("written to ")
    assert len(lines) == 12
