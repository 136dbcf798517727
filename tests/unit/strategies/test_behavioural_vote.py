"""The vote by behaviour on a scripted session, decided by hand; what of it is handed over, and what is left without."""

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from budgets.evidence import Evidence
from budgets.stopping import FixedN
from pipeline.errors import RequestRejected, SpecError
from pipeline.records import Sample, StopReason, Verdict
from strategies.base import Draw
from strategies.behavioural_vote import BehaviouralVote
from strategies.self_consistency import SelfConsistency
from tests.factories import make_item, make_sample, make_spec
from tests.fake_session import FakeSession

TESTS = "assert f(1) == 1\nassert f(2) == 4"


def rule(votes: int = 4, fixed: bool = True, **more) -> BehaviouralVote:
    vote = SelfConsistency(
        max_samples=votes, evidence=Evidence("votes"), rule=FixedN(votes) if fixed else None, min_samples=1
    )
    return BehaviouralVote(vote, **more)


def programs(texts: str, reply: str | Sample | Exception = TESTS):
    """A letter a program, in order; ``-`` a sample without one. ``reply`` to whatever else is asked."""

    def drawn(draw: Draw, index: int) -> Sample | None:
        if draw.prompt is not None:
            if isinstance(reply, Exception):
                raise reply
            return reply if isinstance(reply, Sample) else make_sample(index=index, answer=None, text=reply)
        if index >= len(texts):
            return None
        return make_sample(index=index, answer=None if texts[index] == "-" else texts[index], text=texts[index])

    return drawn


def told(**said: str | None):
    """By program: words; None: an error."""

    def verdict(sample: Sample, verifier: str) -> Verdict:
        words = said[sample.answer or ""]
        if words is None:
            return Verdict(verifier, error="there are no inputs")
        parts = words.split()
        return Verdict(verifier, sum(part[0] != "!" for part in parts) / len(parts), detail=words)

    return verdict


def solve(strategy: BehaviouralVote, session: FakeSession, **item):
    return asyncio.run(strategy.solve(make_item(**item), session))


def test_different_programs_that_do_the_same_vote_together():
    # By text b leads with two; a, c and d do the same and are three.
    session = FakeSession(programs("abbcd"), score=told(a="1 2", b="1 3", c="1 2", d="1 2"))
    solution = solve(rule(5), session)
    assert (solution.answer, solution.votes, solution.stop_reason) == ("a", 3, StopReason.CAPPED)
    assert solution.best == session.drawn[0]
    assert (solution.facts["behaviours"], solution.facts["fell"]) == (2.0, 0.0)
    # p_lead(3, 2) = P(Binomial(6, 1/2) <= 3) = 42/64.
    assert solution.confidence == 42 / 64


def test_the_vote_settles_and_bids_by_clusters():
    session = FakeSession(programs("abcdefgh"), score=told(**dict.fromkeys("abcdefgh", "1 2")))
    solution = solve(rule(8, fixed=False), session)
    # Adaptive consistency at .95: four of one mind, whatever their texts.
    assert (solution.stop_reason, solution.votes, len(session.drawn)) == (StopReason.SETTLED, 4, 4)
    # (1 − P_lead) / √n / 10 tokens with n unanimous: P_lead = 1 − 2^-(n+1).
    assert session.bids == [math.inf, *(2.0 ** -(n + 1) / math.sqrt(n) / 10.0 for n in (1, 2, 3))]


def test_programs_that_fail_on_all_inputs_do_not_vote():
    session = FakeSession(programs("aaab-"), score=told(a="! !ValueError", b="1 !"))
    solution = solve(rule(5), session)
    assert (solution.answer, solution.votes, solution.facts["fell"]) == ("b", 1, 3.0)
    assert [place for place in session.checked if place[1] == 4] == []


def test_where_all_fail_the_question_is_answered_with_what_there_is():
    session = FakeSession(programs("abb"), score=told(a="!TypeError", b="!TypeError"))
    solution = solve(rule(3), session)
    assert (solution.answer, solution.best, solution.votes) == ("b", session.drawn[1], 2)
    assert (solution.stop_reason, solution.confidence) == (StopReason.HOPELESS, 0.0)
    assert "fallback" in solution.facts


def test_without_inputs_programs_of_one_text_are_a_cluster():
    session = FakeSession(programs("abba"), score=told(a=None, b=None))
    solution = solve(rule(3), session)
    assert (solution.answer, solution.votes) == ("b", 2)
    assert solution.facts["unknown"] == "3 of 3, 3 × there are no inputs"


def test_a_program_of_which_nothing_is_known_does_not_vote_beside_others():
    session = FakeSession(programs("abbb"), score=told(a="1", b=None))
    assert solve(rule(4), session).answer == "a"


@pytest.mark.parametrize("texts", ["", "---"])
def test_nothing_to_run_is_no_answer(texts):
    solution = solve(rule(3), FakeSession(programs(texts), score=told()))
    assert (solution.answer, solution.best, solution.votes) == (None, None, 0)


def test_an_aborted_sample_is_neither_run_nor_counted():
    cut = make_sample(index=0, answer="a", finish_reason="abort")
    session = FakeSession([cut, make_sample(index=1, answer="b")], score=told(b="1"))
    solution = solve(rule(2), session)
    assert (solution.answer, session.checked) == ("b", [("k", 1)])


def test_dual_execution_agreement_is_solutions_times_tests():
    # {a, b} pass 2 of 4 tests: 2 × 2 = 4. {c} passes all: 1 × 4 = 4, and {c, d} 2 × 4 = 8. {e, f, g} pass 1: 3.
    words = {"a": "+ + ! !", "b": "+ + ! !", "c": "+ + + +", "d": "+ + + +", **dict.fromkeys("efg", "! ! ! +")}
    session = FakeSession(programs("abefgcd"), score=told(**words))
    solution = solve(rule(7, generate="tests", generations=2), session)
    assert (solution.answer, solution.votes, solution.stop_reason) == ("c", 2, StopReason.CAPPED)
    assert solution.facts["given"] == 2.0
    assert set(session.given) == {("assert f(1) == 1", "assert f(2) == 4")}
    # The same behaviours without weights: the three lead.
    assert solve(rule(7), FakeSession(programs("abefgcd"), score=told(**words))).answer == "e"


def test_passing_every_test_a_model_wrote_verifies_nothing():
    session = FakeSession(programs("aaaa"), score=told(a="+ +"))
    solution = solve(rule(8, fixed=False, generate="tests"), session)
    assert (solution.stop_reason, solution.votes) == (StopReason.SETTLED, 4)


def test_the_model_is_asked_once_with_the_bid_of_a_second_sample():
    session = FakeSession(programs("aab"), score=told(a="1", b="2"))
    strategy = rule(3, generate="inputs", generations=3, per_generation=1, temperature=0.3, max_tokens=50, model="big")
    solve(strategy, session)
    asked = [draw for draw in session.draws if draw.prompt is not None]
    assert len(asked) == 3
    assert len(set(asked)) == 1
    assert (asked[0].temperature, asked[0].max_tokens, asked[0].model) == (0.3, 50, "big")
    # (1 − p_lead(1, 0)) / √1 / (3 replies of 10 tokens).
    assert session.bids[1] == pytest.approx(0.25 / 30.0)
    assert set(session.given) == {("f(1)",)}


@pytest.mark.parametrize(
    ("reply", "facts"),
    [
        ("no tests here", {"unusable": 4.0, "given": 0.0}),
        (make_sample(answer=None, text=TESTS, finish_reason="abort"), {"unusable": 4.0, "given": 0.0}),
        (RequestRejected("too long"), {"failed": "tests: too long", "given": 0.0}),
    ],
)
def test_without_usable_tests_the_column_is_what_there_is(reply, facts):
    session = FakeSession(programs("abb", reply), score=told(a="1", b="2"))
    solution = solve(rule(3, generate="tests"), session)
    assert (solution.answer, set(session.given)) == ("b", {()})
    assert {name: solution.facts[name] for name in facts} == facts


def test_a_template_that_cannot_be_rendered_is_told():
    session = FakeSession(programs("ab"), score=told(a="1", b="1"))
    solution = solve(rule(2, generate="tests", template="{{ missing }}"), session)
    assert "missing" in str(solution.facts["failed"])


def test_tests_the_market_does_not_pay_for_end_the_question_with_what_there_is():
    session = FakeSession(programs("aab"), budget=1, score=told(a=None))
    solution = solve(rule(3, generate="tests"), session)
    assert (solution.answer, solution.stop_reason, len(session.drawn)) == ("a", StopReason.EXHAUSTED, 1)
    assert solution.next_value > 0.0
    assert str(solution.facts["failed"]).startswith("tests: not bought")


def test_a_check_the_market_does_not_pay_for_ends_it_too():
    session = FakeSession(programs("aab"), score=told(a="1"), check_budget=0)
    solution = solve(rule(3), session)
    assert (solution.answer, solution.stop_reason) == ("a", StopReason.EXHAUSTED)


WORDS = st.sampled_from(["1 2", "1 3", "! !", "+ !", None])


@given(
    st.text("abc-", max_size=7),
    st.fixed_dictionaries(dict.fromkeys("abc", WORDS)),
    st.sampled_from(["nothing", "inputs", "tests"]),
    st.integers(0, 12),
)
def test_re_executed_it_gives_the_same_draws_nothing_and_checks_nothing(texts, said, generate, budget):
    strategy = rule(6, fixed=False, generate=generate, generations=2)
    first = FakeSession(programs(texts), budget=budget, score=told(**said))
    one = solve(strategy, first)
    again = first.again()
    two = solve(strategy, again)
    assert (two.answer, two.best, two.votes, two.confidence) == (one.answer, one.best, one.votes, one.confidence)
    assert (again.drawn, again.checked) == (first.drawn, [])
    assert len(first.drawn) <= strategy.maximum
    assert one.best is None or one.best in first.drawn
    assert (one.answer is None) == all(letter == "-" for letter in [s.answer or "-" for s in first.drawn])


def test_the_audits_twin_draws_its_maximum():
    session = FakeSession(programs("aaaaaa"), score=told(a="1"))
    assert solve(rule(6, fixed=False).unstopped(), session).votes == 6


def test_settings_that_cannot_be():
    with pytest.raises(SpecError, match="generate"):
        rule(generate="prose")
    with pytest.raises(SpecError, match=r"vote\.verifier"):
        BehaviouralVote(SelfConsistency(verifier="numeric"))


BEHAVIOUR = {"kind": "behaviour", "style": "source"}
VOTE = {"kind": "behavioural_vote"}


@pytest.mark.parametrize(
    ("strategy", "verifiers", "says"),
    [
        ({}, [], "no verifier is called 'behaviour'"),
        ({"verifier": "numeric"}, [{"kind": "numeric"}], "another kind"),
        ({}, [BEHAVIOUR], "set its inputs_column"),
        ({"generate": "tests"}, [{"kind": "behaviour", "style": "stdio", "inputs_column": "i"}], "style source"),
        ({"vote": {"verifier": "behaviour"}}, [BEHAVIOUR], "leave it out"),
        ({"template": "{{ x }}"}, [BEHAVIOUR], "set generate"),
        ({"generate": "tests", "template": "{{ x"}, [BEHAVIOUR], "template"),
        ({"generate": "tests", "model": "big"}, [BEHAVIOUR], "'big'"),
    ],
)
def test_jobs_that_cannot_work_are_refused(strategy, verifiers, says):
    with pytest.raises((SpecError, ValidationError), match=says):
        make_spec(strategy=VOTE | strategy, verifiers=verifiers, dataset={"reference": "gold"})


def test_a_job_says_how_many_samples_it_may_draw():
    spec = make_spec(strategy=VOTE | {"generate": "tests", "vote": {"max_samples": 9}}, verifiers=[BEHAVIOUR]).strategy
    assert (spec.least, spec.most, spec.checks, spec.uses) == (1, 13, ("behaviour",), ())
