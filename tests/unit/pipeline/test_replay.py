"""Replay: every figure worked out by hand or by a second way, and what cannot be asked is refused."""

import json
import math
from collections import Counter
from dataclasses import replace as changed
from pathlib import Path

import numpy as np
import pytest

from budgets.evidence import Evidence
from pipeline.errors import PonderError, SpecError, UsageError
from pipeline.recording import Recording, Span
from pipeline.records import StopReason
from pipeline.replay import DEFAULT_BUDGETS, Question, Settings, questions_of, replay
from pipeline.replay_intervals import LARGE, means_of
from tests.unit.pipeline.recordings import make_rows, write_rows
from tests.unit.pipeline.test_recording import make_run

VOTES = Settings(repeats=3, evidence=Evidence("votes"))


def open_rows(folder: Path, rows, name: str = "samples") -> Recording:
    return Recording.open(write_rows(folder / f"{name}.parquet", rows))


def vote(answers: list[str | None]) -> str | None:
    counts = Counter(answer for answer in answers if answer is not None)
    return max(counts, key=lambda answer: counts[answer]) if counts else None


def test_the_whole_pool_is_the_plain_vote(tmp_path: Path) -> None:
    rows = make_rows(questions=15, pool=9)
    with open_rows(tmp_path, rows) as recording:
        result = replay(recording, Question("fixed:40"), VOTES)
    answers = [[row["answer"] for row in rows[at : at + 9]] for at in range(0, 135, 9)]
    clear = [
        one for one in answers if sorted(Counter(filter(None, one)).values())[-2:].count(max(Counter(one).values())) < 2
    ]
    assert len(clear) >= 10
    assert (result.mean_samples, result.pool, result.agreement) == (9.0, 9.0, 1.0)
    assert result.mean_tokens == pytest.approx(sum(row["completion_tokens"] for row in rows) / 15)
    assert result.stop_reasons == {reason.value: 15.0 if reason is StopReason.CAPPED else 0.0 for reason in StopReason}
    assert result.accuracy == pytest.approx(np.mean([vote(one) == "right" for one in answers]), abs=5 / 15)


def test_one_sample_is_right_as_often_as_samples_are(tmp_path: Path) -> None:
    """Over 10 × 60 first samples the mean accuracy is the pool's own share of right samples, within noise."""
    rows = make_rows(questions=60, pool=10)
    with open_rows(tmp_path, rows) as recording:
        result = replay(recording, Question("fixed:1"), changed(VOTES, repeats=10))
    share = np.mean([row["answer"] == "right" for row in rows])
    assert result.accuracy == pytest.approx(share, abs=0.06)
    assert result.stop_reasons["capped"] + result.stop_reasons["hopeless"] == pytest.approx(60)
    empty = np.mean([row["answer"] is None for row in rows])
    assert result.stop_reasons["hopeless"] / 60 == pytest.approx(empty, abs=0.06)


def test_the_market_spends_its_budget_and_no_more(tmp_path: Path) -> None:
    with open_rows(tmp_path, make_rows(questions=50, pool=20)) as recording:
        for budget in (1.0, 2.5, 8.0):
            result = replay(recording, Question("market", budget), changed(VOTES, shards=7, workers=2))
            assert result.mean_samples == budget
            assert (result.budget_samples, result.budget_tokens, result.shards, result.workers) == (budget, None, 7, 2)
            assert sum(result.stop_reasons.values()) == pytest.approx(50)
        tokens = replay(recording, Question("market", 60.0, in_tokens=True), VOTES)
        assert 50.0 < tokens.mean_tokens <= 60.0
        assert (tokens.budget_samples, tokens.budget_tokens) == (None, 60.0)


def test_the_market_moves_samples_to_contested_questions(tmp_path: Path) -> None:
    rows = make_rows(questions=40, pool=20)
    for row in rows[400:]:
        row["answer"] = "right"
    with open_rows(tmp_path, rows) as recording:
        alone = replay(recording, Question("fixed:5"), changed(VOTES, repeats=8))
        market = replay(recording, Question("market", 5.0), changed(VOTES, repeats=8))
    assert market.mean_samples == alone.mean_samples == 5.0
    assert market.agreement > alone.agreement + 0.02
    with open_rows(tmp_path, rows) as recording:
        blind = replay(recording, Question("market", 5.0), changed(VOTES, repeats=8, slots=40))
    assert blind.agreement < market.agreement, "a slot for every question leaves nothing to choose"


def test_rules_decide_in_the_order_their_papers_say(tmp_path: Path) -> None:
    """All samples alike: Beta .95 stops at 4, a window of 5 at 5, PPR .05 at 8."""
    rows = make_rows(questions=3, pool=20)
    for row in rows:
        row["answer"] = "right"
    with open_rows(tmp_path, rows) as recording:
        for rule, samples in {"adaptive_consistency:0.95": 4, "esc:5": 5, "ppr:0.05": 8, "fixed:2": 2}.items():
            result = replay(recording, Question(rule), VOTES)
            assert (result.mean_samples, result.accuracy, result.rule) == (samples, 1.0, rule)
            assert result.stop_reasons["capped" if rule == "fixed:2" else "settled"] == 3
            assert result.mean_samples_interval == (samples, samples)


def test_evidence_is_taken_up(tmp_path: Path) -> None:
    """Log-probabilities that know the truth: weighted votes follow them, plain votes cannot."""
    rows = make_rows(questions=30, pool=8)
    for row in rows:
        row["mean_logprob"] = -0.01 if row["answer"] == "right" else -3.0
    with open_rows(tmp_path, rows) as recording:
        plain = replay(recording, Question("fixed:3"), VOTES)
        weighted = replay(recording, Question("fixed:3"), changed(VOTES, evidence=Evidence("mean_logprob")))
    assert weighted.accuracy > plain.accuracy + 0.05
    assert (plain.evidence, weighted.evidence) == ("votes", "mean_logprob")


def test_repeats_are_other_orders_and_seeds_too(tmp_path: Path) -> None:
    with open_rows(tmp_path, make_rows(questions=30, pool=10)) as recording:
        one = [
            replay(recording, Question("fixed:2"), changed(VOTES, repeats=n, seed=s))
            for n, s in ((1, 0), (1, 1), (9, 0))
        ]
        again = replay(recording, Question("fixed:2"), changed(VOTES, repeats=1, seed=0))
    assert one[0] == again
    assert len({result.mean_tokens for result in one}) == 3


def test_a_question_that_never_parses_is_hopeless_at_its_cap(tmp_path: Path) -> None:
    rows = make_rows(questions=4, pool=6)
    for row in rows[:6]:
        row["answer"] = None
    with open_rows(tmp_path, rows) as recording:
        alone = replay(recording, Question("adaptive_consistency:0.95"), VOTES)
        market = replay(recording, Question("market", 6.0), VOTES)
    for result in (alone, market):
        assert result.stop_reasons["hopeless"] == 1.0
        assert result.questions == 4


def test_pools_of_different_sizes(tmp_path: Path) -> None:
    rows = [row for row in make_rows(questions=2, pool=8) if row["sample_index"] < 2 or row["item_id"] == "q001"]
    with open_rows(tmp_path, rows) as recording:
        result = replay(recording, Question("fixed:5"), VOTES)
    assert (result.pool, result.pool_min, result.pool_max, result.mean_samples) == (5.0, 2, 8, 3.5)


def test_without_references_tokens_or_log_probabilities(tmp_path: Path) -> None:
    rows = [{key: row[key] for key in ("item_id", "sample_index", "answer")} for row in make_rows()]
    with open_rows(tmp_path, rows) as recording:
        result = replay(recording, Question("market", 3.0), changed(VOTES, evidence=Evidence("auto")))
        raw = json.loads(json.dumps(result.as_json(), allow_nan=False))
        nulls = {name for name, value in raw.items() if value is None}
        assert nulls == {"accuracy", "accuracy_interval", "mean_tokens", "mean_tokens_interval", "budget_tokens"}
        with pytest.raises(UsageError, match="has no completion_tokens"):
            replay(recording, Question("market", 3.0, in_tokens=True), VOTES)


def test_questions_without_a_reference_do_not_count_in_the_accuracy(tmp_path: Path) -> None:
    rows = make_rows(questions=4, pool=4)
    for row in rows:
        row["answer"] = "right"
        row["reference"] = (
            None if row["item_id"] in ("q000", "q001") else ("right" if row["item_id"] == "q002" else "no")
        )
    with open_rows(tmp_path, rows) as recording:
        assert replay(recording, Question("fixed:1"), VOTES).accuracy == 0.5


def test_scores_stand_in_for_references(tmp_path: Path) -> None:
    rows = [{key: row[key] for key in ("item_id", "sample_index", "answer")} for row in make_rows(questions=3, pool=3)]
    for row in rows:
        row |= {"answer": row["item_id"], "score": {"q000": 1.0, "q001": 0.25, "q002": 0.0}[row["item_id"]]}
    with open_rows(tmp_path, rows) as recording:
        assert replay(recording, Question("fixed:2"), VOTES).accuracy == pytest.approx(1.25 / 3)


def test_numbers_meet_their_references_as_numbers(tmp_path: Path) -> None:
    rows = [
        {"item_id": f"q{number}", "sample_index": 0, "answer": answer, "reference": reference}
        for number, (answer, reference) in enumerate(
            [("2", "2.0"), ("1e1", "10"), ("x", "x "), ("3", "4"), ("nan", "3")]
        )
    ]
    with open_rows(tmp_path, rows) as recording:
        assert replay(recording, Question("fixed:1"), VOTES).accuracy == pytest.approx(3 / 5)


def test_a_run_is_graded_as_its_job_grades(tmp_path: Path) -> None:
    """Answers 0, 1, 2 once each; references "0.0" and "1.0", which the job reads as the numbers 0 and 1."""
    with Recording.open(make_run(tmp_path)) as recording:
        result = replay(recording, Question("fixed:1"), changed(VOTES, repeats=30))
    assert result.accuracy == pytest.approx(1 / 3, abs=0.2)
    assert result.questions == 4


# --- what is asked ---------------------------------------------------------------------------------------------------


def test_every_rule_once_and_the_market_at_every_budget() -> None:
    assert questions_of(["fixed:3", "market"], [3, 5], []) == [
        Question("fixed:3"), Question("market", 3), Question("market", 5)
    ]  # fmt: skip
    assert questions_of(["market"], [], [90.0]) == [Question("market", 90.0, in_tokens=True)]
    assert [one.budget for one in questions_of(["market"], [], [])] == list(DEFAULT_BUDGETS)
    assert questions_of(["market:ppr:0.05"], [3.0], []) == [Question("market:ppr:0.05", 3.0)]


@pytest.mark.parametrize(
    ("rules", "samples", "tokens", "error", "said"),
    [
        (["nope"], [], [], SpecError, "--rules: rule 'nope' is unknown; choose one of .*; or market"),
        (["fixed:x"], [], [], SpecError, "'x' is not a whole number"),
        (["market:nope"], [3.0], [], SpecError, "'nope' is unknown"),
        ([], [], [], UsageError, "--rules is empty"),
        (["market"], [0.0], [], UsageError, "--budget-samples is 0.0"),
        (["market"], [-3.0], [], UsageError, "--budget-samples is -3.0"),
        (["market"], [math.nan], [], UsageError, "--budget-samples is nan"),
        (["fixed:3"], [], [math.inf], UsageError, "--budget-tokens is inf"),
    ],
)
def test_what_cannot_be_asked(rules, samples, tokens, error: type[PonderError], said: str) -> None:
    with pytest.raises(error, match=said):
        questions_of(rules, samples, tokens)


@pytest.mark.parametrize("field", ["repeats", "max_samples", "shards", "workers", "slots"])
@pytest.mark.parametrize("value", [0, -2])
def test_settings_below_one(field: str, value: int) -> None:
    with pytest.raises(UsageError, match=f"--{field.replace('_', '-')} is {value}"):
        Settings(**{field: value})


# --- intervals -------------------------------------------------------------------------------------------------------


def test_intervals_cover_and_shrink() -> None:
    rng = np.random.default_rng(0)
    small, large = rng.random(100), rng.random(10_000)
    found = {"small": small, "large": large, "one": np.array([3.0]), "none": np.array([math.nan])}
    means = means_of(found, seed=0)
    assert means == {**means_of(found, seed=0), "none": means["none"]}
    low, high = means["small"].interval
    assert low < small.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * small.std() / 10, rel=0.15)
    assert len(large) >= LARGE
    low, high = means["large"].interval
    assert high - low == pytest.approx(2 * 1.96 * large.std() / 100, rel=0.01)
    assert means["one"].interval == (3.0, 3.0)
    assert (means["none"].questions, math.isnan(means["none"].mean)) == (0, True)


def test_missing_values_do_not_count() -> None:
    means = means_of({"x": np.array([1.0, math.nan, 3.0])}, seed=0)
    assert (means["x"].mean, means["x"].questions) == (2.0, 2)


def test_reading_is_lazy_by_shard(tmp_path: Path) -> None:
    """What is open at once is a window, not the recording."""
    spans: list[Span] = []
    with open_rows(tmp_path, make_rows(questions=40, pool=4)) as recording:
        read = recording.read
        recording.read = lambda span: (spans.append(span), read(span))[1]  # type: ignore[method-assign]
        replay(recording, Question("market", 4.0), changed(VOTES, repeats=1, shards=10, open_questions=8, slots=2))
    assert spans[:10] == recording.spans(10)
    assert max(span.stop - span.start for span in spans) == 4
