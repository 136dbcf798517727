"""Adaptive: when the probe is enough, which arm is asked, what it teaches, and what happens where arms fail."""

import asyncio
import json
import math
import pickle
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budgets.bandit import Choice, subject_of
from budgets.evidence import Evidence
from budgets.experience import Lesson
from budgets.value import voting_value
from budgets.votes import p_lead
from pipeline.errors import EngineError, RequestRejected, SpecError, StrategyError
from pipeline.records import Sample, StopReason
from strategies.adaptive import Adaptive, Candidate
from strategies.arms import Arm
from strategies.base import PLAIN, Auditable, Draw
from strategies.self_consistency import SelfConsistency
from tests.factories import make_item, make_sample
from tests.fake_session import FakeSession

VOTES = Evidence("votes")
VOTE = Candidate(Arm("vote"), SelfConsistency(max_samples=8, evidence=VOTES))
LARGE = Candidate(Arm("large", model="large"), SelfConsistency(max_samples=4, evidence=VOTES))
HOT = Candidate(Arm("hot", temperature=1.5), SelfConsistency(max_samples=2, evidence=VOTES))


def adaptive(*arms: Candidate, **more) -> Adaptive:
    return Adaptive(arms or (VOTE, LARGE), **{"evidence": VOTES, "explore": 0.0, **more})


def answers(**by_way: str):
    """``small``, ``large`` or ``hot`` → the letters its samples answer; a dot does not parse, the last one goes on."""

    def drawn(draw: Draw, index: int) -> Sample:
        letters = by_way[_way(draw)]
        letter = letters[min(index, len(letters) - 1)]
        return make_sample(answer=None if letter == "." else letter)

    return drawn


def _way(draw: Draw) -> str:
    return draw.model or ("small" if draw.temperature is None else "hot")


def taught(bucket: str, **arms: tuple[int, float, float]) -> dict:
    """Lessons by arm: how many, mean outcome, mean cost. Enough of them that comparing is not the rule any more."""
    return {
        (subject_of(bucket), arm): Lesson(count, count * mean, count * mean, count * cost)
        for arm, (count, mean, cost) in arms.items()
    }


def favouring(first: str, second: str, bucket: str = "0.5") -> dict:
    return taught(bucket, **{first: (200, 0.9, 20.0), second: (200, 0.55, 20.0)})


def solve(strategy, session, **item):
    return asyncio.run(strategy.solve(make_item(**item), session))


def asked(session) -> str:
    return "".join(_way(draw)[0] for draw in session.draws)


def says(**scores: float):
    return lambda sample, verifier: scores.get(sample.answer or "")


def test_an_easy_question_ends_with_the_probe():
    session = FakeSession(answers(small="a"))
    solution = solve(adaptive(), session)
    assert (solution.answer, solution.stop_reason, solution.confidence) == ("a", StopReason.SETTLED, 31 / 32)
    assert asked(session) == "ssss"
    assert solution.facts == {"answered by": "probe", "arms": "probe"}
    assert (set(session.decisions), session.taught) == ({"adaptive/start"}, {})


@pytest.mark.parametrize(
    ("letters", "bucket"), [("aaab", "0.75"), ("abab", "0.5"), ("abcd", "0"), ("....", "0"), ("aa..", "0.5")]
)
def test_the_probe_says_how_difficult_a_question_is(letters, bucket):
    session = FakeSession(answers(small=letters + "a", large="b"))
    assert solve(adaptive(), session).facts["difficulty"] == bucket
    assert subject_of(bucket) in session.decisions


def test_what_others_taught_says_which_arm_is_asked():
    session = FakeSession(answers(small="abab", large="b"), known=favouring("large", "vote"))
    solution = solve(adaptive(), session)
    # Four large samples in agreement settle it; the vote is not asked.
    assert asked(session) == "ssssllll"
    assert (solution.answer, solution.stop_reason) == ("b", StopReason.SETTLED)
    assert solution.facts == {"difficulty": "0.5", "answered by": "large", "arms": "probe, large"}
    other = FakeSession(answers(small="ababaaaaa", large="b"), known=favouring("vote", "large"))
    solution = solve(adaptive(), other)
    # Six to two is not settled; at its cap the large one is asked too.
    assert asked(other) == "ssss" + "ssss" + "llll"
    assert solution.facts["arms"] == "probe, vote, large"


def test_a_bucket_is_its_own_context():
    known = favouring("large", "vote", "0") | favouring("vote", "large", "0.5")
    flat, split = (FakeSession(answers(small=letters, large="b"), known=known) for letters in ("abcd", "abab"))
    assert solve(adaptive(), flat).facts["arms"] == "probe, large"
    assert solve(adaptive(), split).facts["arms"].startswith("probe, vote")


def test_samples_of_the_probe_count_for_an_arm_that_asks_alike():
    session = FakeSession(answers(small="abaaaaaa"), known=favouring("vote", "large", "0.75"))
    solution = solve(adaptive(), session)
    # Votes 5 : 1 at six samples: P(Binomial(7, ½) <= 5) = .9375; 6 : 1 at seven settles.
    assert (asked(session), solution.votes, solution.stop_reason) == ("sssssss", 6, StopReason.SETTLED)


def test_bids_follow_the_probe_and_the_rate_of_gain():
    session = FakeSession(answers(small="abab", large="ab"), known=favouring("large", "vote"))
    solve(adaptive(), session)
    half = p_lead(2, 2)
    # The probe: its first sample is guaranteed, the others bid as a vote does.
    assert session.bids[0] == math.inf
    opening = voting_value(half, 4, 10.0)
    assert session.bids[4] == pytest.approx(opening), "what one more sample of the probe would bid"
    assert session.bids[5] == pytest.approx(min(opening, voting_value(p_lead(1, 0), 1, 10.0)))
    rates = json.loads(session.decisions[subject_of("0.5")])["rates"]
    assert session.bids[8] == pytest.approx(opening * rates[1]), "the second arm bids in proportion"


def test_a_question_the_market_refuses_is_answered_with_what_there_is():
    for budget in (0, 1, 3, 5, 7, 9):
        session = FakeSession(answers(small="ababaaaa", large="b"), budget=budget, known=favouring("vote", "large"))
        solution = solve(adaptive(), session)
        assert len(session.drawn) == budget
        assert solution.answer == ("a" if budget else None)
        assert solution.stop_reason is StopReason.EXHAUSTED
        # What never had its first sample comes before everything.
        assert solution.next_value == math.inf if budget == 0 else 0.0 < solution.next_value < math.inf


def test_an_arm_whose_model_is_missing_leaves_the_question_to_the_next():
    small = answers(small="ababaaaaaaa")

    def drawn(draw: Draw, index: int) -> Sample | None:
        if draw.model:
            raise RequestRejected("no model called 'large'")
        return small(draw, index)

    session = FakeSession(drawn, known=favouring("large", "vote"))
    solution = solve(adaptive(), session)
    assert solution.facts["failed"] == "large: no model called 'large'"
    assert (solution.answer, solution.facts["answered by"]) == ("a", "vote")


@pytest.mark.parametrize("error", [StrategyError("broke"), EngineError("embeds no texts"), SpecError("bad")])
def test_an_arm_that_breaks_is_named_and_the_probe_stands(error):
    class Broken:
        minimum, maximum = 1, 4

        async def solve(self, item, session):
            await session.sample(1, value=1.0)
            raise error

    session = FakeSession(answers(small="aab.", large="b"))
    solution = solve(adaptive(Candidate(Arm("broken", model="large"), Broken())), session)
    assert (solution.answer, solution.stop_reason) == ("a", StopReason.CAPPED)
    assert solution.facts["failed"] == f"broken: {error}"
    assert solution.facts["answered by"] == "probe"
    assert asked(session) == "ssssl"


def test_a_template_that_a_row_cannot_fill_fails_its_arm_alone():
    arms = (Candidate(Arm("columns", template="{{ missing }}"), VOTE.strategy), LARGE)
    solution = solve(adaptive(*arms), FakeSession(answers(small="abab", large="b")))
    assert str(solution.facts["failed"]).startswith("columns: arm columns: ")
    assert solution.answer == "b"


def test_where_nothing_can_be_asked_the_refusal_is_the_outcome():
    def drawn(draw: Draw, index: int) -> Sample | None:
        raise RequestRejected("the prompt has 300 tokens")

    with pytest.raises(RequestRejected, match="300 tokens"):
        solve(adaptive(), FakeSession(drawn))


def test_where_the_plain_way_is_refused_an_arm_answers():
    def drawn(draw: Draw, index: int) -> Sample | None:
        if not draw.model:
            raise RequestRejected("too long")
        return make_sample(answer="b")

    session = FakeSession(drawn)
    solution = solve(adaptive(), session)
    assert (solution.answer, solution.stop_reason) == ("b", StopReason.SETTLED)
    assert session.bids[0] == session.bids[1] == math.inf, "the guarantee is redeemed by whoever can"
    assert "probe: too long" in str(solution.facts["failed"])


class Priced(FakeSession):
    """A sample of the large model costs 80 units, a small one 10."""

    def expected_tokens(self, draw=PLAIN, *, check=None):
        return 80.0 if draw.model else 10.0


def test_an_arm_that_is_known_to_gain_more_cuts_the_probe_short():
    # Split questions: .5 / 100 a unit. Of those that lean one way, .4 / 100: an appeal of .8 of what the next sample of
    # a split one is worth, .5 / √4; so .2, and after two samples in agreement, 1/8 / √2 = .088.
    known = taught("0.5", large=(10_000, 0.75, 100.0)) | taught("0.75", large=(10_000, 0.7, 100.0))
    session = Priced(answers(small="aaaa", large="b"), known=known)
    solution = solve(adaptive(), session)
    assert asked(session)[:3] == "ssl"
    assert json.loads(json.loads(session.decisions["adaptive/start"])["appeal"])["0.75"] == pytest.approx(0.8, abs=0.01)
    assert session.bids[2] == pytest.approx(0.8 * 0.25 / 10.0, rel=0.01)
    assert solution.facts["difficulty"] == "0.75"
    # By agreement alone a model that costs no more has no claim over the probe; by a verifier it has.
    cheap = FakeSession(answers(small="aaaa", large="b"), known=known)
    assert solve(adaptive(), cheap).facts["arms"] == "probe"
    judged = FakeSession(answers(small="aaaa", large="g"), known=known, score=says(a=0.5, g=1.0))
    assert solve(adaptive(verifier="tests"), judged).answer == "g"
    assert asked(judged)[:3] == "ssl"


def test_questions_that_compare_are_probed_whole():
    known = taught("0.5", large=(10, 0.9, 10.0)) | taught("0.75", large=(10, 0.9, 10.0))
    session = Priced(answers(small="aaab", large="b"), known=known)
    solve(adaptive(explore=1.0), session)
    assert json.loads(session.decisions["adaptive/start"])["compares"]
    assert asked(session).startswith("ssss")


# --- what is learnt without a verifier


def comparing(first: str, second: str, **settings) -> tuple[Adaptive, dict]:
    """A strategy, and the decision that it compares these two."""
    kept = Choice((first, second), (1.0, 1.0), 2, compared=True).said()
    return adaptive(**settings), {subject_of("0.5"): kept}


def test_two_arms_are_compared_with_all_samples_together():
    strategy, kept = comparing("vote", "large")
    session = FakeSession(answers(small="ababababab", large="b"))
    session.decisions = dict(kept)
    solution = solve(strategy, session)
    # The vote stays at four to four, the large model says b four times: eight to four. The probe said a.
    assert asked(session) == "ssssssssllll"
    assert (solution.answer, solution.facts["answered by"]) == ("b", "large")
    assert session.taught == {
        (subject_of("0.5"), "vote"): Lesson(1, 0.5, 0.25, 40.0),
        (subject_of("0.5"), "large"): Lesson(1, 1.0, 1.0, 40.0),
    }


def test_both_are_asked_though_the_first_settles():
    strategy, kept = comparing("large", "vote")
    session = FakeSession(answers(small="abab", large="b"))
    session.decisions = dict(kept)
    solve(strategy, session)
    assert asked(session).startswith("ssssllll" + "s")
    assert {arm for _, arm in session.taught} == {"large", "vote"}


def test_of_a_comparison_that_was_not_paid_nothing_is_learnt():
    strategy, kept = comparing("vote", "large")
    session = FakeSession(answers(small="ababababab", large="b"), budget=8)
    session.decisions = dict(kept)
    assert solve(strategy, session).answer == "a"
    assert session.taught == {}


def test_a_sample_of_a_dear_model_counts_for_what_it_costs():
    strategy, kept = comparing("vote", "large")
    session = Priced(answers(small="abaa" + "a" * 8, large="bcde"))
    session.decisions = {subject_of("0.75"): kept[subject_of("0.5")]}
    solution = solve(strategy, session)
    # Nearly all small samples say a, and one large one says b: 6 votes to 8.
    assert json.loads(session.decisions["adaptive/weights"]) == {"": 1.0, "large": 8.0}
    assert session.taught[(subject_of("0.75"), "large")].reward == 0.5 + 0.5 * (solution.answer != "a")
    assert solution.answer == "b"


def test_who_is_compared_is_seeded_and_all_are_at_first():
    chosen = {}
    for seed in range(200):
        session = FakeSession(answers(small="abab", large="b"), known=favouring("large", "vote"), seed=seed)
        solve(adaptive(explore=0.25), session)
        chosen[seed] = json.loads(session.decisions[subject_of("0.5")])["compared"]
    assert 30 <= sum(chosen.values()) <= 70
    fresh = FakeSession(answers(small="abab", large="b"))
    solve(adaptive(), fresh)
    assert json.loads(fresh.decisions[subject_of("0.5")])["compared"]


# --- promises


@settings(max_examples=60, deadline=None)
@given(
    small=st.text("abc.", min_size=1, max_size=14),
    large=st.text("abc.", min_size=1, max_size=6),
    hot=st.text("ab.", min_size=1, max_size=3),
    budget=st.integers(0, 25),
    verifier=st.sampled_from([None, "tests"]),
    seed=st.integers(0, 30),
    explored=st.booleans(),
)
def test_re_executed_it_says_the_same_and_draws_nothing(small, large, hot, budget, verifier, seed, explored):
    strategy = adaptive(VOTE, LARGE, HOT, verifier=verifier, explore=1.0 if explored else 0.0)
    script = answers(small=small, large=large, hot=hot)
    session = FakeSession(script, budget=budget, score=says(a=0.5, b=0.0, c=1.0), seed=seed)
    first = solve(strategy, session)
    assert len(session.drawn) <= min(budget, strategy.maximum)
    keys = [(sample.prompt_key, sample.sample_index) for sample in session.drawn]
    assert len(set(keys)) == len(keys)
    if first.answer is not None:
        assert first.best is not None
        assert first.best.answer == first.answer
    assert 0.0 <= first.confidence <= 1.0
    again = session.again()
    second = solve(strategy, again)
    assert len(again.drawn) == len(session.drawn)
    assert (second.answer, second.stop_reason, second.votes, second.facts) == (
        first.answer,
        first.stop_reason,
        first.votes,
        first.facts,
    )


def test_unstopped_asks_everything_to_its_end():
    strategy = adaptive()
    assert isinstance(strategy, Auditable)
    session = FakeSession(answers(small="a", large="b"))
    solution = solve(strategy.unstopped(), session)
    assert asked(session) == "ssss" + "ssss" + "llll"
    assert solution.answer == "a", "eight to four"
    assert (session.taught, session.decisions) == ({}, {"adaptive/weights": '{"": 1.0, "large": 1.0}'})


def test_it_is_a_value_and_its_bounds_are_those_of_its_arms():
    strategy = adaptive(VOTE, LARGE, HOT)
    assert pickle.loads(pickle.dumps(strategy)) == strategy
    assert (strategy.minimum, strategy.maximum) == (1, 4 + 8 + 4 + 2)
    assert replace(strategy, always=True) == strategy.unstopped()
    for arms in ((), (VOTE, VOTE)):
        with pytest.raises(SpecError, match="a name of its own"):
            Adaptive(arms)
