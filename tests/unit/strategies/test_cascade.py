"""A cascade on a scripted session: who is asked, at which bid, and whose word stands."""

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgets.evidence import Evidence
from budgets.experience import Lesson
from pipeline.errors import RequestRejected, SpecError
from pipeline.records import Sample, StopReason
from strategies.base import Draw
from strategies.cascade import Cascade, Stage
from tests.factories import make_item, make_sample, make_spec
from tests.fake_session import FakeSession

VOTES = Evidence("votes")


def cascade(small: int = 4, large: int = 4, **more) -> Cascade:
    stages = (Stage(max_samples=small), Stage("large", max_samples=large))
    return Cascade(stages, evidence=VOTES, **more)


def by_model(small: str, large: str):
    def drawn(draw: Draw, index: int) -> Sample | None:
        answers = large if draw.model else small
        return make_sample(answer=answers[index]) if index < len(answers) else None

    return drawn


def solve(strategy, session):
    return asyncio.run(strategy.solve(make_item(), session))


def test_a_sure_small_model_is_believed():
    session = FakeSession(by_model("aaaa", "bbbb"))
    solution = solve(cascade(), session)
    assert (solution.answer, solution.stop_reason, solution.votes) == ("a", StopReason.SETTLED, 4)
    assert {draw.model for draw in session.draws} == {""}
    assert session.bids[0] == math.inf


def test_what_stays_contested_goes_to_the_large_model():
    session = FakeSession(by_model("abab", "bbbb"))
    solution = solve(cascade(), session)
    assert [draw.model for draw in session.draws] == [""] * 4 + ["large"] * 4
    assert (solution.answer, solution.stop_reason, solution.votes) == ("b", StopReason.SETTLED, 4)
    assert (solution.best.model, solution.facts["answered by"]) == ("large", "large")
    # 2:2 leaves the leader at one half: the step up bids (1 − ½) / 10 tokens.
    assert session.bids[4] == 0.05


def test_earlier_votes_count_as_far_as_they_are_kept():
    # Large: b, then a; with the small model's three a worth half each, a leads.
    assert solve(cascade(large=2), FakeSession(by_model("aaab", "ba"))).answer == "b"
    assert solve(cascade(large=2, keep_votes=0.5), FakeSession(by_model("aaab", "ba"))).answer == "a"


def test_refused_by_the_market_the_small_models_word_stands():
    solution = solve(cascade(), FakeSession(by_model("abab", "bbbb"), budget=4))
    assert (solution.answer, solution.stop_reason, solution.next_value) == ("a", StopReason.EXHAUSTED, 0.05)
    assert solve(cascade(), FakeSession([])).stop_reason is StopReason.EXHAUSTED


def test_a_model_that_is_refused_is_told_of():
    def drawn(draw: Draw, index: int) -> Sample:
        if draw.model:
            raise RequestRejected("too long")
        return make_sample(answer="ab"[index % 2])

    solution = solve(cascade(), FakeSession(drawn))
    assert (solution.answer, solution.facts["failed"]) == ("a", "large: too long")

    def no_small(draw: Draw, index: int) -> Sample:
        if not draw.model:
            raise RequestRejected("gone")
        return make_sample(answer="b")

    solution = solve(cascade(), FakeSession(no_small))
    assert (solution.answer, solution.stop_reason, solution.facts["failed"]) == ("b", StopReason.SETTLED, "model: gone")


def test_a_large_model_without_an_answer_takes_none_back():
    def drawn(draw: Draw, index: int) -> Sample:
        return make_sample(answer=None if draw.model else "ab"[index % 2])

    solution = solve(cascade(), FakeSession(drawn))
    assert (solution.answer, solution.best.model) == ("a", "")


def test_thresholds_are_learnt_from_questions_both_models_answered():
    learning = cascade(tolerance=0.1, audit=0.0)
    first = FakeSession(by_model("aaaa", "aaaa"))
    solve(learning, first)
    # Nothing is known yet: the large model is asked too, and agrees. 4:0 is .969, the bucket that begins at .95.
    assert len(first.drawn) == 8
    assert [(subject, lesson.count, lesson.reward) for subject, lesson in first.taught.items()] == [
        (("cascade 1", "0.95"), 1, 1.0)
    ]
    later = FakeSession(by_model("aaaa", "bbbb"), known={("cascade 1", "0.95"): Lesson(8, 8.0, 8.0, 1.0)})
    solution = solve(learning, later)
    assert (solution.answer, len(later.drawn), later.taught) == ("a", 4, {})
    audited = FakeSession(by_model("aaaa", "bbbb"), known=later.known)
    solution = solve(cascade(tolerance=0.1, audit=1.0), audited)
    assert (solution.answer, audited.taught[("cascade 1", "0.95")].reward) == ("b", 0.0)


@given(
    st.lists(st.sampled_from(["a", "b", None]), max_size=6),
    st.lists(st.sampled_from(["a", "b", None]), max_size=6),
    st.integers(0, 12),
    st.sampled_from([None, 0.1]),
    st.sampled_from([0.0, 0.5]),
)
def test_re_executed_it_gives_the_same_and_draws_nothing(small, large, budget, tolerance, keep):
    strategy = cascade(tolerance=tolerance, keep_votes=keep)
    first = FakeSession(by_model(small, large), budget=budget)
    one = solve(strategy, first)
    again = first.again()
    assert solve(strategy, again) == one
    assert again.drawn == first.drawn
    assert len(first.drawn) <= strategy.maximum


SECTION = {"kind": "cascade", "stages": [{}, {"model": "large"}]}
MODELS = {"large": {"engine": "scripted", "max_model_len": 256}}
DOLLARS = {"tokens": None, "dollars": 1, "price": {"prompt": 1, "completion": 1}}


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"strategy": SECTION}, "no model is called 'large'"),
        ({"models": MODELS}, "the strategy never asks it"),
        ({"strategy": {"kind": "cascade", "stages": [{}]}}, "at least 2"),
        ({"strategy": {"kind": "cascade", "stages": [{}, {}]}}, "two stages ask one model"),
        ({"strategy": SECTION, "models": MODELS, "budget": DOLLARS}, "'large' has no price"),
        (
            {"strategy": SECTION, "models": MODELS, "budget": {"price": {"models": {"huge": 2}}}},
            "no model is called 'huge'",
        ),
        ({"strategy": SECTION, "models": MODELS, "budget": {"price": {"models": {"large": 0}}}}, "must be above 0"),
    ],
)
def test_models_that_do_not_fit_are_refused_before_anything_is_spent(sections, said):
    with pytest.raises(SpecError, match=said):
        make_spec(**sections)
