"""Arms in turn: which sample comes from which, and what becomes of those the engine refuses."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.assembly import make_strategy
from budgets.evidence import Evidence
from pipeline.errors import RequestRejected, SpecError
from pipeline.records import Sample, StopReason
from strategies.arms import Arm
from strategies.base import Draw
from strategies.self_consistency import SelfConsistency
from tests.factories import make_item, make_sample, make_spec
from tests.fake_session import FakeSession

COLD, HOT = Arm("cold", temperature=0.1), Arm("hot", temperature=1.5)
STEPS = Arm("steps", template="{{ prompt }} Step by step, {{ name }}.")


def vote(*arms: Arm, **more) -> SelfConsistency:
    return SelfConsistency(**{"max_samples": 6, "evidence": Evidence("votes"), "arms": arms, **more})


def solve(strategy, session, item=None):
    return asyncio.run(strategy.solve(item or make_item(payload='{"name": "Ann"}'), session))


def by_heat(cold: str, hot: str):
    def drawn(draw: Draw, index: int) -> Sample:
        return make_sample(answer=cold if draw.temperature == 0.1 else hot)

    return drawn


def test_samples_come_from_the_arms_in_turn():
    session = FakeSession(by_heat("a", "b"))
    solution = solve(vote(COLD, HOT, min_samples=3), session)
    heats = [draw.temperature for draw in session.draws]
    assert heats == [0.1, 1.5, 0.1, 1.5, 0.1, 1.5]
    assert (solution.answer, solution.stop_reason, solution.votes) == ("a", StopReason.CAPPED, 3)
    assert (solution.facts["agree cold"], solution.facts["agree hot"]) == (1.0, 0.0)


def test_a_template_sees_the_prompt_and_the_columns():
    session = FakeSession(lambda draw, index: make_sample(answer="a"))
    solve(vote(STEPS), session)
    assert session.draws[0].prompt == "What is the answer, q1? Step by step, Ann."


@pytest.mark.parametrize("minimum", [1, 4])
def test_an_arm_that_is_refused_is_left_out_and_told_of(minimum):
    def drawn(draw: Draw, index: int) -> Sample:
        if draw.temperature == 1.5:
            raise RequestRejected("too hot")
        return make_sample(answer="a")

    session = FakeSession(drawn)
    solution = solve(vote(COLD, HOT, min_samples=minimum), session)
    assert (solution.answer, solution.stop_reason, len(session.drawn)) == ("a", StopReason.SETTLED, 4)
    assert solution.facts["failed"] == "hot: too hot"
    assert "agree hot" not in solution.facts


def test_a_template_that_this_row_cannot_fill_fails_alone():
    session = FakeSession(lambda draw, index: make_sample(answer="a"))
    solution = solve(vote(STEPS, COLD), session, make_item())
    assert solution.answer == "a"
    assert str(solution.facts["failed"]).startswith("steps: arm steps: the prompt template failed")
    assert {draw.temperature for draw in session.draws} == {0.1}


def test_without_an_arm_left_the_question_is_refused():
    def refused(draw: Draw, index: int) -> Sample:
        raise RequestRejected("too long")

    for arms in ((), (COLD,), (COLD, HOT)):
        with pytest.raises(RequestRejected, match="too long"):
            solve(vote(*arms), FakeSession(refused))


@given(
    st.lists(st.sampled_from(["a", "b", None]), min_size=1, max_size=5),
    st.integers(1, 4),
    st.integers(0, 9),
    st.sets(st.integers(0, 2), max_size=2),
)
def test_the_same_journal_gives_the_same_answer(pattern, minimum, budget, refusing):
    arms = [Arm(f"arm{i}", temperature=float(i)) for i in range(3)]

    def drawn(draw: Draw, index: int) -> Sample:
        if draw.temperature in refusing:
            raise RequestRejected("no")
        return make_sample(answer=pattern[(index + int(draw.temperature or 0)) % len(pattern)])

    strategy = vote(*arms, min_samples=minimum)
    first = FakeSession(drawn, budget=budget)
    one = solve(strategy, first)

    def paid(draw: Draw, index: int) -> Sample | None:
        if draw.temperature in refusing:
            raise RequestRejected("no")
        return first.again()._script(draw, index)

    again = FakeSession(paid)
    assert solve(strategy, again) == one
    assert again.drawn == first.drawn
    assert len(first.drawn) <= strategy.maximum


def test_short_forms_are_arms_written_out():
    section = {"kind": "self_consistency", "templates": ["A {{ prompt }}", "B {{ prompt }}"], "temperatures": [0.5, 1]}
    strategy = make_strategy(make_spec(strategy={**section, "min_p": 0.05}).strategy)
    assert strategy.arms == (
        Arm("template 1 t=0.5", "A {{ prompt }}", 0.5, min_p=0.05),
        Arm("template 2 t=0.5", "B {{ prompt }}", 0.5, min_p=0.05),
        Arm("template 1 t=1", "A {{ prompt }}", 1.0, min_p=0.05),
        Arm("template 2 t=1", "B {{ prompt }}", 1.0, min_p=0.05),
    )
    assert make_strategy(make_spec(strategy={"kind": "self_consistency"}).strategy).arms == ()
    assert make_strategy(make_spec(strategy={"kind": "self_consistency", "min_p": 0.1}).strategy).arms == (
        Arm("min_p", min_p=0.1),
    )


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"arms": [{"name": "a"}, {"name": "a"}]}, "two arms are called 'a'"),
        ({"arms": [{"name": "a"}], "temperatures": [1]}, "either arms, or templates"),
        ({"temperatures": [1, 1]}, "holds one twice"),
        ({"templates": ["{{ x"]}, "not a Jinja template"),
        ({"verify": "weigh"}, "name one, or leave them out"),
        ({"verifier": "exact"}, "no verifier is called 'exact'"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_spent(more, said):
    with pytest.raises(SpecError, match=said):
        make_spec(strategy={"kind": "self_consistency", **more})
