"""Best-of-N on a scripted session: every decision worked out by hand; resumption, refusals and nonsense."""

import asyncio
import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.assembly import make_strategy
from budgets.bounded import BetaScores
from budgets.pandora import ScorePosterior
from budgets.value import success_value
from pipeline.errors import SpecError
from pipeline.records import Item, Sample, StopReason, Verdict
from strategies.base import Solution
from strategies.best_of_n import BestOfN
from strategies.scored import confidence_of
from tests.factories import make_item, make_sample, make_spec
from tests.fake_session import FakeSession

FIXED = BestOfN("judge", stop="fixed", max_samples=4)
PANDORA = BestOfN("judge")
PASS = BestOfN("judge", stop="pass")
RULES = ("argmax", "weighted", "soft", "pessimistic", "majority_of_the_bests")


def session_of(answers, scores, **fields: Any) -> FakeSession:
    """Samples with these answers, which the judge gives these scores, by place; what is past the list is not drawn."""
    samples = [one if isinstance(one, Sample) else make_sample(index=at, answer=one) for at, one in enumerate(answers)]
    return FakeSession(samples, score=lambda sample, verifier: scores[sample.sample_index], **fields)


def next_score(posterior: ScorePosterior) -> BetaScores:
    return BetaScores(posterior.scores().mean, posterior.scores().spread)


def solve(strategy: BestOfN, session: FakeSession, item: Item | None = None) -> Solution:
    return asyncio.run(strategy.solve(item or make_item(), session))


def seen(solution: Solution, session: FakeSession) -> tuple[str | None, int, StopReason]:
    return solution.answer, len(session.drawn), solution.stop_reason


def test_a_fixed_number_is_drawn_and_the_highest_score_wins():
    session = session_of("abac", [0.2, 0.9, 0.3, 1.0])
    solution = solve(FIXED, session)
    assert seen(solution, session) == ("c", 4, StopReason.CAPPED)
    assert (solution.confidence, solution.votes, solution.best) == (1.0, 1, session.drawn[3])
    assert solution.facts == {"selected": "argmax", "score": 1.0, "scored": 4.0}
    assert session.checked == [("k", 0), ("k", 1), ("k", 2), ("k", 3)]


@pytest.mark.parametrize(
    ("selection", "answer", "confidence"),
    [
        ("argmax", "b", 0.9),
        # a .7 + .6 = 1.3 against b .9: P_lead of the weights, 1 − I_½(2.3, 1.9).
        ("weighted", "a", None),
        # n = 4, m ∈ 4, 3, 2, 1. b is the best of all: 175, 148, 112, 64 of 256; c, worst of all, 1, 4, 16, 64: a has
        # 80, 104, 128, 128. So L1 moves by 54, 72, and 2 · 48 = 96: m = 4.
        ("majority_of_the_bests", "b", 175 / 256),
    ],
)
def test_the_selection_decides(selection, answer, confidence):
    solution = solve(replace(FIXED, selection=selection), session_of("abac", [0.7, 0.9, 0.6, 0.1]))
    assert (solution.answer, solution.facts["selected"]) == (answer, selection)
    assert confidence is None or solution.confidence == pytest.approx(confidence)


def test_sampling_rules_take_their_lot_from_the_sessions_randomness():
    session = session_of("abcd", [0.5] * 4, seed=3)
    expected = "abcd"[int(session.rng.random() * 4)]
    for selection in ("soft", "pessimistic"):
        assert solve(replace(FIXED, selection=selection), session_of("abcd", [0.5] * 4, seed=3)).answer == expected


# A prior of 2 scores of mean .5 and variance 1/8; after one score of .5 the variance is 2 · 1/8 / 3 = 1/12, so the next
# score is uniform on [0, 1] and E[(X − z)+] = (1 − z)² / 2: over .5 it is 1/8.
UNIFORM = replace(PANDORA, prior_mean=0.5, prior_spread=math.sqrt(1 / 8), prior_samples=2.0)


def test_pandora_stops_where_the_next_box_is_not_worth_its_cost():
    session = session_of("ab", [0.5, 0.5])
    solve(replace(UNIFORM, cost_per_sample=0.0), session)
    assert session.bids[:2] == [math.inf, pytest.approx(1 / 8 / 10)]
    stopped = session_of("ab", [0.5, 0.5])
    assert seen(solve(replace(UNIFORM, cost_per_sample=0.126), stopped), stopped) == ("a", 1, StopReason.SETTLED)
    going = session_of("ab", [0.5, 0.5])
    solve(replace(UNIFORM, cost_per_sample=0.124), going)
    assert len(going.drawn) == 2


def test_pandoras_stop_is_the_reservation_value():
    scores = [0.3, 0.5, 0.45, 0.6, 0.4, 0.55, 0.5, 0.58] * 2
    posterior, expected = ScorePosterior(), 0
    for score in scores:
        posterior.add(score)
        expected += 1
        if next_score(posterior).reservation_value(0.02) <= posterior.best:
            break
    session = session_of("a" * 16, scores)
    strategy = replace(PANDORA, cost_per_sample=0.02, prior_samples=2.0)
    assert seen(solve(strategy, session), session) == ("a", expected, StopReason.SETTLED)
    assert 1 < expected < 16


def test_stakes_divide_the_cost_and_multiply_the_bid():
    high, low, none = (session_of("ab", [0.5, 0.5]) for _ in range(3))
    strategy = replace(UNIFORM, cost_per_sample=0.126)
    solve(strategy, high, make_item(stakes=2.0))
    solve(strategy, low, make_item(stakes=0.5))
    solve(strategy, none, make_item(stakes=0.0))
    assert [len(one.drawn) for one in (high, low, none)] == [2, 1, 1]
    assert high.bids[1] == pytest.approx(2 * 1 / 8 / 10)


def test_a_score_that_cannot_be_beaten_verifies_pandora_too():
    session = session_of("abc", [0.0, 1.0, 0.0])
    solution = solve(replace(PANDORA, cost_per_sample=0.0), session)
    assert seen(solution, session) == ("b", 2, StopReason.VERIFIED)
    assert solution.facts["selected"] == "pass"


def test_pass_retires_at_the_first_pass_and_bids_by_the_chance_of_one():
    session = session_of("abcd", [0.0, 0.7, 0.8, 1.0])
    solution = solve(replace(PASS, pass_score=0.8, prior_failures=3.0), session)
    assert seen(solution, session) == ("c", 3, StopReason.VERIFIED)
    # Beta(1, 3): 1/5 after one failure, 1/6 after two; a sample costs 10.
    assert session.bids == [math.inf, pytest.approx(1 / 5 / 10), pytest.approx(1 / 6 / 10)]
    assert solution.confidence == 0.8


def test_of_a_batch_the_first_that_passes_wins_whatever_the_selection():
    for selection in RULES:
        session = session_of("aabc", [0.9, 0.9, 1.0, 1.0])
        solution = solve(replace(PASS, min_samples=4, selection=selection), session)
        assert seen(solution, session) == ("b", 4, StopReason.VERIFIED)


def test_without_a_pass_the_best_is_given_at_the_cap():
    session = session_of("abcd", [0.0, 0.7, 0.6, 0.0])
    assert seen(solve(replace(PASS, max_samples=4), session), session) == ("b", 4, StopReason.CAPPED)


def test_confidence_is_the_geometric_mean_of_token_probabilities():
    samples = [make_sample(index=at, answer=a, mean_logprob=x) for at, (a, x) in enumerate([("a", -1.0), ("b", -0.5)])]
    session = FakeSession(samples)
    solution = solve(BestOfN(stop="fixed", max_samples=2), session)
    assert (solution.answer, solution.confidence, session.checked) == ("b", math.exp(-0.5), [])
    assert [confidence_of(make_sample(mean_logprob=x)) for x in (None, math.nan, 0.1, -math.inf)] == [None, None, 1, 0]


def test_a_sure_model_verifies_nothing():
    session = FakeSession([make_sample(mean_logprob=-0.01)])
    assert solve(BestOfN(stop="pass", pass_score=0.9), session).stop_reason is StopReason.SETTLED


def test_samples_without_an_answer_and_cut_ones_are_not_checked_and_never_win():
    answers = [None, make_sample(index=1, answer="b", finish_reason="abort"), "a", "a"]
    session = session_of(answers, [1.0, 1.0, 0.1, 0.2])
    solution = solve(FIXED, session)
    assert seen(solution, session) == ("a", 4, StopReason.CAPPED)
    assert (solution.votes, session.checked) == (2, [("k", 2), ("k", 3)])


def test_empty_boxes_lower_what_the_next_is_worth():
    session = session_of([None, None, None], [None] * 3)
    solve(replace(FIXED, max_samples=3), session)
    # The prior's mean is .5; shares of boxes that showed a score: 2/3, then 2/4.
    first, second = session.bids[1:]
    assert (first, second) == (pytest.approx(0.5 * 2 / 3 / 10), pytest.approx(0.5 * 2 / 4 / 10))


def test_failed_checks_leave_samples_out_of_the_scores():
    session = session_of("aabc", [None, None, 0.1, 0.05])
    solution = solve(FIXED, session)
    assert (solution.answer, solution.facts["scored"], solution.facts["unscored"]) == ("b", 2.0, "the fake cannot tell")


@pytest.mark.parametrize("score", [None, math.nan, math.inf, -0.1, 7.0])
def test_without_any_score_it_is_a_plain_vote_and_says_so(score):
    session = session_of("baaa", [Verdict("judge", score)] * 4)
    solution = solve(FIXED, session)
    assert (seen(solution, session), solution.votes) == (("a", 4, StopReason.CAPPED), 3)
    assert (solution.confidence, solution.best) == (1 - 6 / 32, session.drawn[1])
    assert (solution.facts["selected"], solution.facts["score"]) == ("vote", None)
    assert "score" in str(solution.facts["unscored"])


def test_nothing_parsed_is_hopeless_and_no_money_exhausted():
    session = session_of([None] * 4, [1.0] * 4)
    assert seen(solve(FIXED, session), session) == (None, 4, StopReason.HOPELESS)
    broke = session_of([], [])
    solution = solve(PANDORA, broke)
    assert (seen(solution, broke), solution.next_value) == ((None, 0, StopReason.EXHAUSTED), math.inf)


def test_outbid_it_answers_with_what_there_is_and_says_what_more_was_worth():
    session = session_of("abab", [0.4, 0.6, 0.9, 0.9], budget=2)
    solution = solve(FIXED, session)
    posterior = ScorePosterior(samples=FIXED.prior_samples)
    posterior.add(0.4)
    posterior.add(0.6)
    assert seen(solution, session) == ("b", 2, StopReason.EXHAUSTED)
    assert solution.next_value == pytest.approx(next_score(posterior).gain_over(0.6) / 10)
    outbid = solve(PASS, session_of("ab", [0.4, 0.6], budget=1))
    assert outbid.next_value == pytest.approx(success_value(1, 10))


def test_a_check_that_is_not_paid_leaves_the_scores_there_are():
    session = session_of("abc", [0.4, 0.6, 0.9], check_budget=2)
    solution = solve(FIXED, session)
    assert seen(solution, session) == ("b", 3, StopReason.EXHAUSTED)
    assert solution.next_value > 0
    batch = session_of("abc", [0.4, 0.6, 0.9], check_budget=2)
    assert seen(solve(replace(FIXED, min_samples=3), batch), batch) == ("b", 3, StopReason.EXHAUSTED)
    nothing = session_of("abb", [0.4, 0.6, 0.9], check_budget=0)
    unchecked = solve(replace(FIXED, min_samples=3), nothing)
    assert (unchecked.answer, unchecked.votes, unchecked.facts["selected"]) == ("b", 2, "vote")


def test_unstopped_draws_all():
    session = session_of("abcd", [1.0, 0.0, 0.0, 0.0])
    assert seen(solve(replace(PASS, max_samples=4).unstopped(), session), session) == ("a", 4, StopReason.CAPPED)


SCORES = st.none() | st.sampled_from([math.nan, math.inf, -1.0]) | st.floats(0, 1)
DRAWN = st.lists(st.tuples(st.sampled_from(["a", "b", "", None]), SCORES, st.booleans()), max_size=20)
STRATEGIES = st.builds(
    BestOfN,
    score=st.sampled_from(["judge", "confidence"]),
    selection=st.sampled_from(RULES),
    stop=st.sampled_from(["fixed", "pandora", "pass"]),
    min_samples=st.integers(1, 5),
    max_samples=st.integers(5, 12),
    cost_per_sample=st.sampled_from([0.0, 0.01, 0.2]),
    pass_score=st.sampled_from([0.5, 1.0]),
)


def scripted(drawn: list[tuple[str | None, float | None, bool]]) -> list[Sample]:
    return [
        make_sample(
            index=at, answer=answer, text=answer or "", mean_logprob=score, finish_reason="abort" if cut else "stop"
        )
        for at, (answer, score, cut) in enumerate(drawn)
    ]


@settings(deadline=None, max_examples=300)
@given(DRAWN, STRATEGIES, st.none() | st.integers(0, 12), st.none() | st.integers(0, 12))
def test_re_executed_it_says_the_same_and_draws_nothing(drawn, strategy, budget, check_budget):
    session = FakeSession(
        scripted(drawn),
        budget,
        score=lambda one, _: drawn[one.sample_index][1],
        check_budget=check_budget,
        seed=len(drawn),
    )
    solution = solve(strategy, session)
    assert len(session.drawn) <= strategy.maximum
    assert all(bid == math.inf for bid in session.bids[:1])
    assert all(0.0 <= bid < math.inf for at, bid in enumerate(session.bids) if at >= strategy.min_samples)
    assert 0.0 <= solution.confidence <= 1.0
    if solution.answer is not None:
        assert solution.best in session.drawn
        assert solution.best.answer == solution.answer
        assert not solution.best.aborted
        assert solution.votes >= 1
    paid: Callable[..., Any] = {(one.prompt_key, one.sample_index): one for one in session.drawn}.get
    again = FakeSession(lambda draw, index: paid(("k", index)), seed=len(drawn))
    again.said, again.checks_left = dict(session.said), 0
    assert solve(strategy, again) == solution
    assert [one.sample_index for one in again.drawn] == [one.sample_index for one in session.drawn]


@settings(deadline=None)
@given(DRAWN, STRATEGIES)
def test_a_longer_record_is_resumed_as_it_began(drawn, strategy):
    def bids(count: int) -> list[float]:
        session = FakeSession(scripted(drawn[:count]), score=lambda one, _: drawn[one.sample_index][1])
        solve(strategy, session)
        return session.bids

    whole = bids(len(drawn))
    for count in range(len(drawn)):
        part = bids(count)
        assert part == whole[: len(part)] or len(drawn[:count]) < strategy.min_samples


def test_it_pickles():
    assert pickle.loads(pickle.dumps(PASS)) == PASS


def test_settings_that_cannot_be():
    for fields in ({"selection": "luck"}, {"stop": "never"}, {"cost_per_sample": math.nan}):
        [name] = fields
        with pytest.raises(SpecError, match=name):
            BestOfN(**fields)


def test_a_job_names_every_setting():
    section = {
        "kind": "best_of_n",
        "score": "both",
        "selection": "majority_of_the_bests",
        "stop": "pass",
        "min_samples": 2,
        "max_samples": 20,
        "cost_per_sample": 0.02,
        "pass_score": 0.9,
        "softness": 0.3,
        "pessimism": 0.4,
        "prior_mean": 0.6,
        "prior_spread": 0.2,
        "prior_samples": 4.0,
        "prior_passes": 1.5,
        "prior_failures": 20.0,
    }
    parts = [{"kind": "regex", "pattern": "a"}, {"kind": "regex", "pattern": "b", "name": "second"}]
    spec = make_spec(strategy=section, verifiers=[{"kind": "all", "name": "both", "of": parts}]).strategy
    assert (spec.checks, spec.least, spec.most) == (("both",), 2, 20)
    assert make_strategy(spec) == BestOfN(**{name: value for name, value in section.items() if name != "kind"})


def test_a_job_that_names_none_gets_the_strategys_defaults():
    spec = make_spec(strategy={"kind": "best_of_n"}).strategy
    assert (make_strategy(spec), spec.checks) == (BestOfN(), ())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"score": "nobody"}, "no verifier is called 'nobody'"),
        ({"score": ""}, "score"),
        ({"selection": "luck"}, "selection"),
        ({"stop": "never"}, "stop"),
        ({"min_samples": 17}, r"min_samples \(17\) must not exceed max_samples \(16\)"),
        ({"cost_per_sample": -0.1}, "cost_per_sample"),
        ({"cost_per_sample": math.nan}, "cost_per_sample"),
        ({"pass_score": 0}, "pass_score"),
        ({"softness": 0}, "softness"),
        ({"pessimism": math.inf}, "pessimism"),
        ({"prior_mean": 1.1}, "prior_mean"),
        ({"prior_samples": 0}, "prior_samples"),
        ({"prior_passes": 0}, "prior_passes"),
        ({"stop": "pass"}, "set pass_score below 1"),
    ],
)
def test_a_malformed_setting_is_named(fields, message):
    with pytest.raises(SpecError, match=message):
        make_spec(strategy={"kind": "best_of_n", **fields})
