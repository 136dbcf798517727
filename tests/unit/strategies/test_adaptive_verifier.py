"""Adaptive with a verifier: what ends a question, which answer is given, and what an arm teaches."""

import pytest

from budgets.bandit import subject_of
from budgets.experience import Lesson
from pipeline.records import StopReason
from strategies.adaptive import Candidate
from strategies.arms import Arm
from strategies.base import PLAIN
from strategies.best_of_n import BestOfN
from tests.fake_session import FakeSession
from tests.unit.strategies.test_adaptive import LARGE, VOTE, adaptive, answers, asked, favouring, says, solve

TESTED = {"verifier": "tests"}


def test_a_sample_that_passes_ends_the_probe():
    session = FakeSession(answers(small="xxg"), score=says(x=0.0, g=1.0))
    solution = solve(adaptive(**TESTED), session)
    assert (asked(session), solution.answer, solution.stop_reason) == ("sss", "g", StopReason.VERIFIED)
    assert session.taught == {}


def test_an_arm_that_passes_teaches_a_win_and_one_that_fails_nothing_gained():
    known, score = favouring("vote", "large"), says(g=1.0, x=0.0, y=0.0)
    session = FakeSession(answers(small="xyxyxyxy", large="g"), known=known, score=score)
    solution = solve(adaptive(**TESTED), session)
    assert (solution.answer, solution.stop_reason, solution.confidence) == ("g", StopReason.VERIFIED, 1.0)
    # Nothing of the probe stands, so the answer at hand is none; x scores as little, g everything.
    assert session.taught == {
        (subject_of("0.5"), "vote"): Lesson(1, 0.5, 0.25, 40.0),
        (subject_of("0.5"), "large"): Lesson(1, 1.0, 1.0, 40.0),
    }
    assert ("k", 0) in session.checked


def test_an_arm_that_settles_on_what_fails_does_not_end_the_question():
    known = favouring("large", "tries")
    tries = Candidate(Arm("tries"), BestOfN("tests", stop="pass", max_samples=8))
    session = FakeSession(answers(small="xyxyxg", large="w"), known=known, score=says(x=0.0, y=0.0, w=0.0, g=1.0))
    solution = solve(adaptive(tries, LARGE, **TESTED), session)
    assert asked(session) == "ssssllll" + "ss"
    assert (solution.answer, solution.facts["answered by"], solution.stop_reason) == ("g", "tries", StopReason.VERIFIED)


def test_graded_scores_give_the_best_judged_answer():
    known = favouring("large", "vote")
    session = FakeSession(answers(small="xyxyxyxy", large="m"), known=known, score=says(x=0.25, y=0.25, m=0.5))
    solution = solve(adaptive(**TESTED), session)
    assert solution.answer == "m"
    assert session.taught[(subject_of("0.5"), "large")].reward == pytest.approx((1 + 0.5 - 0.25) / 2)


def test_a_check_that_is_not_paid_for_or_cannot_tell_teaches_nothing():
    session = FakeSession(answers(small="abab", large="b"), check_budget=0, score=says(a=1.0, b=1.0))
    assert solve(adaptive(**TESTED), session).answer == "b"
    assert session.taught == {}
    silent = FakeSession(answers(small="abab", large="b"))
    assert solve(adaptive(**TESTED), silent).answer == "b"
    assert silent.taught == {}


def test_where_checks_are_free_a_sample_an_arm_passed_over_may_pass():
    arms = (VOTE, LARGE)
    session = FakeSession(answers(small="xyxyxxxg"), known=favouring("vote", "large"), score=says(x=0.0, y=0.0, g=1.0))
    solution = solve(adaptive(*arms, **TESTED), session)
    assert (solution.answer, solution.stop_reason, solution.votes) == ("g", StopReason.VERIFIED, 1)
    assert session.taught == {(subject_of("0.5"), "vote"): Lesson(1, 1.0, 1.0, 40.0)}

    class Dear(FakeSession):
        def expected_tokens(self, draw=PLAIN, *, check=None):
            return 10.0 if check is None else 15.0

    # Where they cost, the arm's answer alone is checked.
    session = Dear(
        answers(small="xyxyxxxg", large="w"), known=favouring("vote", "large"), score=says(x=0.0, w=0.0, g=1.0)
    )
    assert solve(adaptive(*arms, **TESTED), session).answer != "g"
