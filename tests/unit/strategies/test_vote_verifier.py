"""Vote and verifier together: decisions worked out by hand, on scripted sessions."""

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgets.checking import checking_value
from budgets.evidence import Evidence
from pipeline.errors import SpecError
from pipeline.records import Sample, StopReason, Verdict
from strategies.base import PLAIN, Draw
from strategies.self_consistency import SelfConsistency
from tests.factories import make_item, make_sample
from tests.fake_session import FakeSession

VOTES = Evidence("votes")


def plain(**more) -> SelfConsistency:
    return SelfConsistency(**{"max_samples": 10, "evidence": VOTES, "verifier": "v", **more})


def scores(**table: float | None):
    """What the verifier says, by answer."""
    return lambda sample, verifier: table[sample.answer]


class Dear(FakeSession):
    """Checks cost as much as a sample."""

    def expected_tokens(self, draw: Draw = PLAIN, *, check: str | None = None) -> float:
        return 10.0 if check is None else 20.0


def solve(strategy, session):
    return asyncio.run(strategy.solve(make_item(), session))


def test_a_pass_settles_at_once():
    session = FakeSession(list("abab"), score=scores(a=0.0, b=1.0))
    solution = solve(plain(), session)
    # a fails, b passes: two samples, one vote.
    assert (solution.answer, solution.stop_reason, solution.votes, len(session.drawn)) == (
        "b",
        StopReason.VERIFIED,
        1,
        2,
    )
    assert (solution.best, solution.confidence) == (session.drawn[1], 1.0)


def test_what_failed_does_not_vote():
    session = FakeSession(list("aaab" + "b" * 6), score=lambda s, v: 0.0 if s.answer == "a" else None)
    solution = solve(plain(), session)
    # The three a fail; b needs four votes unanimous for .95: samples four to seven.
    assert (solution.answer, solution.stop_reason, solution.votes, len(session.drawn)) == (
        "b",
        StopReason.SETTLED,
        4,
        7,
    )


@pytest.mark.parametrize("said", [None, Verdict("v", math.nan), Verdict("v", error="hung")])
def test_an_error_leaves_a_plain_vote(said):
    session = FakeSession(list("aaaa"), score=lambda sample, verifier: said)
    solution = solve(plain(), session)
    assert (solution.answer, solution.stop_reason, solution.votes) == ("a", StopReason.SETTLED, 4)


def test_every_answer_failed_is_no_answer():
    session = FakeSession(list("abcabcabca"), score=lambda sample, verifier: 0.0)
    solution = solve(plain(), session)
    assert (solution.answer, solution.best, solution.stop_reason) == (None, None, StopReason.HOPELESS)
    assert solution.facts["rejected"] == "every answer failed its check"
    assert len(session.drawn) == 10


def test_scores_weigh_votes():
    # Three votes of .2 are worth less than one of .9.
    session = FakeSession(list("aaab"), score=scores(a=0.2, b=0.9))
    assert solve(plain(max_samples=4, verify="weigh"), session).answer == "b"
    assert solve(plain(max_samples=4), FakeSession(list("aaab"), score=scores(a=0.2, b=0.9))).answer == "a"


def test_the_best_judged_sample_stands_for_its_answer():
    session = FakeSession(list("aaaa"), score=lambda sample, verifier: [0.2, 0.8, 0.8, 0.5][sample.sample_index])
    assert solve(plain(max_samples=4), session).best == session.drawn[1]


def test_checks_that_cost_are_bought_for_the_answer_ahead():
    session = Dear(list("aab"), score=scores(a=1.0, b=0.0))
    solution = solve(plain(), session)
    # One a: the check bids (1 − 3/4) / 10, a sample (1 − 3/4) / √1 / 10: as much, so a is checked at once.
    assert (solution.answer, solution.stop_reason) == ("a", StopReason.VERIFIED)
    assert (len(session.drawn), session.checked) == (1, [("k", 0)])


def test_an_answer_that_was_judged_is_not_bought_again():
    session = Dear(list("aaab" + "b" * 9), score=lambda s, v: None if s.answer == "b" else 0.5)
    solution = solve(plain(max_samples=12), session)
    assert solution.answer == "b"
    # One check of each answer that ever led: a from the start, b once it has more votes.
    assert session.checked == [("k", 0), ("k", 3)]


def test_without_money_for_checks_the_vote_goes_on():
    session = Dear(list("aaaa"), score=scores(a=1.0), check_budget=0)
    solution = solve(plain(), session)
    assert (solution.answer, solution.stop_reason, solution.votes) == ("a", StopReason.SETTLED, 4)
    assert session.checked == []


def test_a_check_changes_least_where_the_vote_is_settled():
    def standing(answers: str):
        tally = VOTES.tally()
        for answer in answers:
            tally.add(answer)
        return tally

    contested, settled = standing("ab"), standing("aaaaaaaa")
    assert math.isclose(checking_value(contested, 10.0), 0.5 / 10)
    assert checking_value(settled, 10.0) < 0.003 / 10
    # Two rivals of one vote each: the runner-up gets half of what the leader did not.
    assert math.isclose(checking_value(standing("abc"), 10.0, stakes=2.0), 2 * 0.5 * 0.5 / 10)
    with pytest.raises(SpecError, match="no leading answer"):
        checking_value(VOTES.tally(), 10.0)


@given(
    st.lists(st.sampled_from(["a", "b", "c", None]), max_size=14),
    st.dictionaries(st.sampled_from("abc"), st.sampled_from([0.0, 0.3, 1.0, None]), min_size=3),
    st.sampled_from(["pass", "weigh"]),
    st.booleans(),
    st.integers(0, 5),
)
def test_re_executed_it_gives_the_same_and_draws_and_checks_nothing(answers, table, verify, dear, checks):
    kind = Dear if dear else FakeSession
    scripted = [make_sample(index=i, answer=answer) for i, answer in enumerate(answers)]

    def drawn(draw: Draw, index: int) -> Sample | None:
        return scripted[index] if index < len(scripted) else None

    first = kind(drawn, score=lambda s, v: table[s.answer], check_budget=checks)
    strategy = plain(verify=verify)
    one = solve(strategy, first)
    again = first.again()
    again.expected_tokens = first.expected_tokens
    assert solve(strategy, again) == one
    assert (again.drawn, again.checked) == (first.drawn, [])
    assert len(first.drawn) <= strategy.maximum
    if one.stop_reason is StopReason.VERIFIED:
        assert table[one.answer] == 1.0
    if one.answer is not None:
        said = first.said.get((one.best.prompt_key, one.best.sample_index, "v"))
        assert said is None or said.score != 0.0


def test_denied_at_the_first_sample_there_is_nothing_to_answer():
    solution = solve(plain(), FakeSession([]))
    assert (solution.answer, solution.stop_reason) == (None, StopReason.EXHAUSTED)
