"""A comparison that runs: what is checked beforehand, which runs it is made of, and what is read from them."""

import asyncio
import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from actors.engines.scripted import ScriptedEngine
from pipeline.cli import main
from pipeline.compare_live import Course, plan_course, result_of, serves
from pipeline.errors import UsageError
from pipeline.fingerprint import fingerprint_of
from pipeline.records import Reviewed
from pipeline.reuse import refuse_unlike
from pipeline.reviews import Reviews
from pipeline.run import open_run
from pipeline.run_outcomes import outcomes_of
from pipeline.source import plan_dataset
from pipeline.spec import JobSpec
from pipeline.store import Store
from pipeline.strategy_files import load_strategies
from pipeline.verifier_spec import NumericSpec
from tests.unit.actors.test_station import begin, outcome, spent, work

VOTE = {"kind": "self_consistency", "max_samples": 4, "rule": "fixed:4"}
PASS = {"kind": "best_of_n", "score": "checker", "stop": "pass", "max_samples": 3}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = [{"id": f"q{i:03d}", "prompt": f"What is {i}?", "gold": "1"} for i in range(8)]
    rows[3]["prompt"] = None  # a dead letter in every run
    rows[5]["gold"] = None  # an answer that nobody can grade
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write("job.yaml", job())
    write("vote.yaml", {"strategy": VOTE})
    write("best.yaml", {"strategy": PASS, "verifiers": [{"kind": "numeric", "name": "checker"}]})
    write("greedy.yaml", {"strategy": {"kind": "greedy"}})
    return tmp_path


def job(**sections: Any) -> dict[str, Any]:
    return {
        "dataset": {"path": "questions.jsonl", "id": "id", "reference": "gold"},
        "model": {"engine": "scripted", "max_model_len": 256, "max_num_seqs": 8},
        "sampling": {"max_tokens": 16, "temperature": 1.0},
        "cluster": {"shard_size": 3},
        "verifiers": [{"kind": "exact"}],
        **sections,
    }


def write(name: str, content: dict[str, Any]) -> str:
    Path(name).write_text(yaml.safe_dump(content))
    return name


def course(strategies: str = "vote.yaml,best.yaml", budgets: tuple[float, ...] = (900.0,), **more: Any) -> Course:
    options = {"overrides": [], "output": "out", "greedy": True, **more}
    return plan_course("job.yaml", strategies=load_strategies(strategies), budgets=budgets, **options)


# --- the runs ----------------------------------------------------------------------------------------------------


def test_one_run_a_strategy_and_budget_and_one_for_greedy(folder: Path) -> None:
    found = course(budgets=(100.0, 1e6), overrides=["budget.audit=0.1", "budget.tokens=7"])
    assert [(leg.strategy, leg.budget, leg.spec.output) for leg in found.legs] == [
        (None, 1e6, "out/baselines/greedy"),
        ("vote", 100, "out/vote-100"),
        ("vote", 1e6, "out/vote-1000000"),
        ("best", 100, "out/best-100"),
        ("best", 1e6, "out/best-1000000"),
    ]
    assert [leg.spec.budget.tokens for leg in found.legs] == [10**6, 100, 10**6, 100, 10**6]
    assert {leg.spec.budget.audit for leg in found.legs} == {0.1}
    # A strategy file's verifiers take the place of the job's.
    assert [[one.kind for one in leg.spec.verifiers] for leg in found.legs] == [["exact"]] * 3 + [["numeric"]] * 2
    assert found.unit == "tokens"
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("strategies", "more", "names"),
    [
        ("vote.yaml", {"greedy": False}, ["vote"]),
        ("vote.yaml,greedy.yaml", {}, ["vote", "greedy"]),
        ("vote.yaml", {}, [None, "vote"]),
    ],
)
def test_greedy_is_run_once_or_not_at_all(
    folder: Path, strategies: str, more: dict[str, Any], names: list[str | None]
) -> None:
    assert [leg.strategy for leg in course(strategies, **more).legs] == names


def test_budgets_are_in_what_the_job_is_paid_in(folder: Path) -> None:
    price = {"prompt": 0.1, "completion": 0.4}
    write("job.yaml", job(budget={"dollars": 5, "price": price}))
    found = course("vote.yaml", (0.25, 2.0), greedy=False)
    assert [(leg.spec.output, leg.spec.budget.dollars) for leg in found.legs] == [
        ("out/vote-0.25", 0.25),
        ("out/vote-2", 2),
    ]
    assert (found.unit, found.legs[0].spec.budget.price.completion) == ("dollars", 0.4)
    assert [leg.budget for leg in course("vote.yaml", (), greedy=False).legs] == [5]


LARGE = {"engine": "scripted", "max_model_len": 256}
CASCADE = {"kind": "cascade", "stages": [{"max_samples": 2}, {"model": "large", "max_samples": 1}]}


def test_runs_whose_models_of_one_name_differ_serve_each_other_nothing(folder: Path) -> None:
    for name, tokens in (("short", 4), ("long", 12), ("again", 12)):
        write(f"{name}.yaml", {"strategy": CASCADE, "models": {"large": {**LARGE, "options": {"tokens": tokens}}}})
    found = course("vote.yaml,short.yaml,long.yaml,again.yaml", greedy=False)
    specs = {str(leg.strategy): leg.spec for leg in found.legs}
    assert not serves(specs["vote"], specs["short"])
    for spec in specs.values():
        begin(spec)
    assert {name for name, spec in specs.items() if serves(spec, specs["long"])} == {"vote", "long", "again"}
    assert {name for name, spec in specs.items() if serves(spec, specs["vote"])} == {"vote", "short", "long", "again"}


EXAMPLES = Path(__file__).resolve().parents[3] / "jobs" / "examples"


def test_shipped_strategies_fit_the_shipped_job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(EXAMPLES.parents[1])
    names = ["vote", "plain_vote", "best_of_n", "adaptive"]
    strategies = load_strategies(",".join(str(EXAMPLES / "strategies" / f"{name}.yaml") for name in names))
    found = plan_course(str(EXAMPLES / "arithmetic.yaml"), [], strategies, [20_000], str(tmp_path / "out"), True)
    assert [leg.strategy for leg in found.legs] == [None, *names]


# --- what is refused, before anything is spent -------------------------------------------------------------------


def call(*words: str) -> Result:
    return CliRunner().invoke(main, ["compare", *words])


BROKEN: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[str, ...], str]] = {
    "no budget": ({}, {}, ("--budgets", ""), "budget: required, but missing"),
    "half a token": ({"budget": {"tokens": 5}}, {}, ("--budgets", "10.5"), "best.yaml at a budget of 10.5: "),
    "missing model": (
        {},
        {"strategy": {"kind": "cascade", "stages": [{"max_samples": 2}, {"model": "large", "max_samples": 1}]}},
        (),
        "no further model is called 'large'; models has: none",
    ),
    "missing verifier": ({}, {"strategy": PASS}, (), "no verifier is called 'checker'; the job has: exact"),
    "unknown strategy": ({}, {"strategy": {"kind": "hope"}}, (), "'hope'"),
    "job's own field": ({"sampling": {"heat": 1}}, {}, (), "sampling.heat: unknown field"),
    "data": ({"dataset": {"path": "nowhere.jsonl", "reference": "gold"}}, {}, (), "nowhere.jsonl"),
    "columns": ({}, {}, ("--columns", "answer=a"), "--columns is for recorded samples, and job.yaml is none"),
    "tokens": ({}, {}, ("--budget-tokens", "9"), "--budget-tokens is for recorded samples"),
    "repeats": ({}, {}, ("--repeats", "0"), "--repeats is for recorded samples"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_run_is_said_before_anything_does(folder: Path, name: str) -> None:
    sections, strategy, words, said = BROKEN[name]
    write("job.yaml", job(**sections))
    write("vote.yaml", {"strategy": VOTE, **strategy})
    result = call("job.yaml", "--strategies", "best.yaml,vote.yaml", "--budgets", "900", *words)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.output
    assert not (folder / "runs").exists()


def test_without_references_accuracy_cannot_be_told(folder: Path) -> None:
    write("job.yaml", job(dataset={"path": "questions.jsonl", "id": "id"}, verifiers=[]))
    result = call("job.yaml", "--strategies", "vote.yaml", "--budgets", "900")
    assert result.exit_code == 2
    assert "dataset.reference: accuracy cannot be told without it" in result.stderr


@pytest.mark.parametrize("words", [("--set", "seed=1"), ("--no-greedy",)])
def test_a_job_s_options_are_not_for_recorded_samples(folder: Path, words: tuple[str, ...]) -> None:
    result = call("samples.parquet", "--strategies", "vote.yaml", *words)
    assert result.exit_code == 2
    assert "is for a job, and samples.parquet is none" in result.stderr


@pytest.mark.parametrize("change", [{"strategy": {**VOTE, "max_samples": 9}}, {"sampling": {"temperature": 0.5}}])
def test_a_directory_with_another_run_is_refused(folder: Path, change: dict[str, Any]) -> None:
    [leg] = course("vote.yaml", greedy=False).legs
    begin(leg.spec)
    assert [one.spec for one in course("vote.yaml", greedy=False).legs] == [leg.spec]
    if "strategy" in change:
        write("vote.yaml", change)
    else:
        write("job.yaml", job(sampling={"max_tokens": 16, **change["sampling"]}))
    with pytest.raises(UsageError, match="out/vote-900: holds another run"):
        course("vote.yaml", greedy=False)


def test_other_shards_are_refused_and_moved_data_is_not(folder: Path) -> None:
    [leg] = course("vote.yaml", greedy=False).legs
    begin(leg.spec)
    (folder / "moved").mkdir()
    (folder / "moved" / "questions.jsonl").write_bytes((folder / "questions.jsonl").read_bytes())
    dataset = {"path": "moved/questions.jsonl", "id": "id", "reference": "gold"}
    write("job.yaml", job(dataset=dataset))
    [moved, other] = course("vote.yaml", (900.0, 1000.0), greedy=False).legs
    run(other.spec.model_copy(update={"reuse": [moved.spec.output]}))
    plan = plan_dataset(other.spec.dataset, 3)
    reusing = other.spec.model_copy(update={"reuse": [moved.spec.output]})
    refuse_unlike(reusing, fingerprint_of(reusing, plan.fingerprint), plan.shards)
    write("job.yaml", job(dataset=dataset, cluster={"shard_size": 4}))
    with pytest.raises(UsageError, match="out/vote-900 was begun with another cluster"):
        course("vote.yaml", greedy=False)


# --- what the runs gave ------------------------------------------------------------------------------------------


def run(spec: JobSpec) -> None:
    """As the driver would, without a cluster."""
    asyncio.run(work(spec, ["w-0"], ScriptedEngine(spec)))


def run_all(found: Course) -> None:
    for place, leg in enumerate(found.legs):
        run(leg.spec.model_copy(update={"reuse": [one.spec.output for one in found.legs[:place]]}))


def test_the_runs_are_read_question_by_question(folder: Path) -> None:
    found = course()
    run_all(found)
    result = result_of(found, [], seed=0)
    # q003 is dead in every run and q005 has no reference: neither is anybody's failure.
    assert (result.questions, result.left_out) == (6, 2)
    rows = {row.strategy: row for row in result.rows}
    for leg in found.legs[1:]:
        answers = [row for row in outcome(leg.spec)[0] if row["item_id"] != "q005"]
        row = rows[str(leg.strategy)]
        assert row.accuracy == sum(answer["correct"] for answer in answers) / 6
        assert row.tokens == sum(answer["tokens"] for answer in answers) / 6
        assert row.samples == sum(answer["samples"] for answer in answers) / 6
        assert sum(row.stop_reasons.values()) == 8
        assert row.stop_reasons["failed"] == 1
    [greedy, *others] = result.baselines
    answers = [row for row in outcome(found.legs[0].spec)[0] if row["item_id"] != "q005"]
    assert (greedy.name, greedy.accuracy) == ("greedy", sum(answer["correct"] for answer in answers) / 6)
    assert [one.name for one in others] == ["random choice", "oracle pass@2", "oracle pass@4"]
    samples = [row for row in outcome(found.legs[1].spec)[1] if row["item_id"] != "q005"]
    assert others[0].accuracy == pytest.approx(sum(row["answer"] == "1" for row in samples) / 24)


def test_tokens_are_charged_in_each_and_generated_once(folder: Path) -> None:
    found = course()
    run_all(found)
    result = result_of(found, [], seed=0)
    generated: dict[tuple[str, str, int], int] = {}
    for leg in found.legs:
        for row in outcome(leg.spec)[1]:
            place = (row["item_id"], row["prompt_key"], row["sample_index"])
            tokens = row["prompt_tokens"] - row["cached_prompt_tokens"] + row["completion_tokens"]
            # The same sample costs the same wherever it is charged.
            assert generated.setdefault(place, tokens) == tokens
    assert result.tokens_generated == sum(generated.values())
    assert result.tokens_charged == sum(spent(leg.spec) for leg in found.legs) > sum(generated.values())


def test_without_a_greedy_run_that_is_said(folder: Path) -> None:
    found = course("vote.yaml", greedy=False)
    run_all(found)
    result = result_of(found, [], seed=0)
    assert [one.name for one in result.baselines] == ["random choice", "oracle pass@2", "oracle pass@4"]
    assert result.notes[0] == "greedy: not run"


def test_a_failure_counts_as_wrong_where_others_answered(folder: Path) -> None:
    found = course("vote.yaml", greedy=False)
    poisoned = [
        leg.spec.model_copy(update={"model": leg.spec.model.model_copy(update={"options": {"reject": "is 1?"}})})
        for leg in found.legs
    ]
    run_all(found)
    other = poisoned[0].model_copy(update={"output": "out/other"})
    run(other)
    owns = [("vote", 900.0, "out/vote-900"), ("other", 900.0, "out/other")]
    one, two = outcomes_of(owns, other.answer, set()).contenders
    ids = [f"q{i:03d}" for i in range(8)]
    assert not math.isnan(one.measured.correct[ids.index("q001")])
    assert two.measured.correct[ids.index("q001")] == 0.0
    assert [item_id for item_id, value in zip(ids, two.measured.correct, strict=True) if math.isnan(value)] == [
        "q003",
        "q005",
    ]


def test_a_question_without_a_sample_leaves_no_baselines(folder: Path) -> None:
    found = course("vote.yaml", (20.0,), greedy=False)
    run_all(found)
    outcomes = outcomes_of([("vote", 20.0, "out/vote-20")], found.legs[0].spec.answer, set())
    assert outcomes.standards == []
    assert outcomes.notes == ["random choice and oracle: not known, for a question has no sample"]


# --- over a run that was verified later --------------------------------------------------------------------------


def test_verdicts_of_a_later_verifier_are_used_at_their_cost(folder: Path) -> None:
    found = course("vote.yaml", greedy=False)
    run_all(found)
    url = found.legs[0].spec.output
    section = NumericSpec(name="later").model_dump(mode="json")
    later = Reviews(Store.open(url).files, "later")
    later.begin(section)
    for shard_id in open_run(url).commits:
        rows = open_run(url).shard_samples(shard_id).to_table().to_pylist()
        said = [
            Reviewed(
                row["item_id"], row["prompt_key"], row["sample_index"], "later", float(row["answer"] == "1"), tokens=7
            )
            for row in rows
        ]
        later.append(shard_id, 0, said)
    write("later.yaml", {"strategy": {**PASS, "score": "later", "stop": "fixed", "max_samples": 4}})
    write("other.yaml", {"strategy": {**PASS, "score": "unheard"}})
    words = ["--strategies", "later.yaml,other.yaml", "--budgets", "4", "--repeats", "1", "--json"]
    result = json.loads(call(url, *words).stdout)
    # A question's equal answers are checked as one, however often they were paid for.
    answers = {(row["item_id"], row["answer"]) for row in outcome(found.legs[0].spec)[1] if row["item_id"] != "q005"}
    assert result["rows"][0]["verification"] == pytest.approx(7 * len(answers) / 6)
    oracle = {one["name"]: one["accuracy"] for one in result["baselines"]}
    assert result["rows"][0]["accuracy"] == pytest.approx(oracle["oracle pass@4"])
    assert "'unheard' says was not recorded, and the strategy file describes no verifier" in result["refused"]["other"]
