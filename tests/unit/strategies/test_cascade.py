"""Cascades: which model is asked when, at which bid, and what is learnt on the way."""

import asyncio
import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.assembly import make_strategy
from budgets.curve import HIGHEST
from budgets.evidence import Evidence
from budgets.experience import Lesson
from budgets.stopping import AdaptiveConsistency, FixedN
from budgets.thresholds import seen
from budgets.votes import p_lead
from pipeline.errors import RequestRejected, SpecError
from pipeline.records import Sample, StopReason
from strategies.base import Auditable, Draw
from strategies.cascade import Cascade, Stage
from tests.factories import make_item, make_sample, make_spec
from tests.fake_session import FakeSession

VOTES = Evidence("votes")
SMALL, LARGE = Stage(max_samples=4), Stage("large", max_samples=3)


def cascade(*stages: Stage, **more) -> Cascade:
    return Cascade(stages or (SMALL, LARGE), evidence=VOTES, **more)


def answers(**by_model: str):
    """Model → the letters its samples answer, in order; a dot does not parse, the last one goes on for ever."""

    def drawn(draw: Draw, index: int) -> Sample:
        letters = by_model[draw.model or "small"]
        letter = letters[min(index, len(letters) - 1)]
        return make_sample(answer=None if letter == "." else letter)

    return drawn


def solve(strategy, session, **item):
    return asyncio.run(strategy.solve(make_item(**item), session))


def asked(session) -> str:
    return "".join((draw.model or "small")[0] for draw in session.draws)


def test_what_the_small_model_settles_stays_with_it():
    session = FakeSession(answers(small="a", large="b"))
    solution = solve(cascade(), session)
    # Four in agreement: P(Binomial(5, ½) <= 4) = 31/32.
    assert (solution.answer, solution.stop_reason, solution.confidence) == ("a", StopReason.SETTLED, 31 / 32)
    assert asked(session) == "ssss"
    assert solution.facts == {"stages": 1.0, "answered by": "model"}


def test_what_stays_contested_goes_on_at_the_bid_of_the_doubt_that_is_left():
    session = FakeSession(answers(small="abab", large="c"))
    solution = solve(cascade(), session, stakes=2.0)
    assert asked(session) == "sssslll"
    bids = [
        math.inf,
        # One vote leads with P = 3/4, one to one with 1/2, two to one with P(Binomial(4, ½) <= 2) = 11/16.
        2 * (1 / 4) / 10,
        2 * (1 / 2) / math.sqrt(2) / 10,
        2 * (5 / 16) / math.sqrt(3) / 10,
        # Two to two at the cap: the next model's first sample is bid for with P = 1/2.
        2 * (1 / 2) / 10,
        2 * (1 / 4) / 10,
        2 * (1 / 8) / math.sqrt(2) / 10,
    ]
    assert session.bids == pytest.approx(bids)
    # Three of its own votes are 15/16, less than its .95: its cap ends it.
    assert (solution.answer, solution.stop_reason, solution.votes) == ("c", StopReason.CAPPED, 3)
    assert (solution.confidence, solution.facts["answered by"]) == (15 / 16, "large")


def test_no_further_sample_of_a_stage_is_worth_more_than_its_first():
    # Three in agreement at the cap of 3: P = 15/16, so the next model is worth 1/16, also after one lone vote of it.
    session = FakeSession(answers(small="a", large="b"))
    solve(cascade(Stage(max_samples=3), LARGE), session)
    assert session.bids[3:] == pytest.approx([1 / 160, 1 / 160, 1 / 160])


def test_a_flat_vote_goes_on_before_its_cap():
    # Four to four after eight: going on as it went, twenty samples would not settle it.
    session = FakeSession(answers(small="abababababab", large="c"))
    solve(cascade(Stage(), LARGE), session)
    assert asked(session) == "ssssssss" + "lll"


def test_the_papers_own_rule_is_a_share_of_a_fixed_number():
    rule = AdaptiveConsistency("majority", 0.6)
    first = Stage(min_samples=5, max_samples=5, rule=rule)
    once = Stage("large", max_samples=1, temperature=0.0)
    agree, differ = (FakeSession(answers(small=letters, large="c")) for letters in ("aaabb", "aabbc"))
    assert solve(cascade(first, once), agree).answer == "a"
    solution = solve(cascade(first, once), differ)
    assert (solution.answer, asked(agree), asked(differ)) == ("c", "sssss", "sssssl")
    assert differ.draws[-1].temperature == 0.0


def test_templates_are_asked_in_turn():
    first = Stage(max_samples=4, templates=("Think. {{ prompt }}", "Program. {{ prompt }}"))
    session = FakeSession(answers(small="abab", large="c"))
    solve(cascade(first, LARGE), session)
    assert [draw.prompt.split(".")[0] for draw in session.draws[:4]] == ["Think", "Program"] * 2


def test_a_fixed_stage_always_goes_on_and_three_stages_are_climbed_in_order():
    stages = (Stage(max_samples=2, rule=FixedN(2)), Stage("middle", max_samples=2), Stage("large", max_samples=1))
    session = FakeSession(answers(small="a", middle="b", large="c"))
    solution = solve(cascade(*stages), session)
    assert (asked(session), solution.answer, solution.facts["stages"]) == ("ssmml", "c", 3.0)


@pytest.mark.parametrize(("carry", "votes", "rival"), [(0.0, 3, 0.0), (0.5, 4, 2.0), (1.0, 4, 4.0)])
def test_earlier_votes_count_on_as_far_as_they_are_carried(carry, votes, rival):
    # The small model's four for a and one for b, the large one's three for b: 3 to 0, 3½ to 2, and 4 to 4, a tie that
    # the large model's word wins.
    first = Stage(min_samples=5, max_samples=5, carry=carry, confidence=0.99)
    session = FakeSession(answers(small="aaaab", large="b"))
    solution = solve(cascade(first, LARGE), session)
    assert (solution.answer, solution.votes, solution.best.model) == ("b", votes, "large")
    assert solution.confidence == p_lead(3 + carry, rival)


def test_carried_votes_may_outvote_the_larger_model():
    first = Stage(min_samples=6, max_samples=6, carry=1.0, confidence=0.99)
    session = FakeSession(answers(small="aaaaab", large="bba"))
    solution = solve(cascade(first, LARGE), session)
    # 5 + 1 for a, 1 + 2 for b; the larger model's own sample speaks for the answer.
    assert (solution.answer, solution.votes, solution.best.model) == ("a", 6, "large")


@pytest.mark.parametrize(
    ("paid", "answer", "reason"),
    [(0, None, "exhausted"), (1, "a", "exhausted"), (4, "a", "exhausted"), (5, "c", "exhausted"), (7, "c", "capped")],
)
def test_refused_at_any_point_it_answers_with_what_is_there(paid, answer, reason):
    session = FakeSession(answers(small="abab", large="c"), budget=paid)
    solution = solve(cascade(), session)
    assert (solution.answer, solution.stop_reason.value) == (answer, reason)
    assert len(session.drawn) == paid
    if reason == "exhausted":
        assert solution.next_value == session.bids[-1]


def refusing(model: str, script, after: int = 0):
    def drawn(draw: Draw, index: int) -> Sample:
        if draw.model == model and index >= after:
            raise RequestRejected("too long for it")
        return script(draw, index)

    return drawn


def test_a_model_that_refuses_is_recorded_and_the_question_is_answered_with_what_there_is():
    session = FakeSession(refusing("large", answers(small="abab", large="c")))
    solution = solve(cascade(), session)
    assert (solution.answer, solution.stop_reason) == ("a", StopReason.CAPPED)
    assert solution.facts["failed"] == "large: too long for it"
    assert solution.facts["answered by"] == "model"


def test_a_model_that_refuses_in_mid_vote_is_heard_as_far_as_it_got():
    session = FakeSession(refusing("large", answers(small="abab", large="c"), after=1))
    solution = solve(cascade(), session)
    assert (solution.answer, solution.stop_reason, solution.confidence) == ("c", StopReason.CAPPED, 0.75)
    assert solution.facts["failed"] == "large: too long for it"


def test_where_the_small_model_refuses_the_next_redeems_the_guarantee():
    session = FakeSession(refusing("", answers(small="a", large="c")))
    solution = solve(cascade(SMALL, Stage("large", min_samples=3, max_samples=3)), session)
    assert (solution.answer, asked(session)) == ("c", "lll")
    assert [bid for bid in session.bids if bid == math.inf] == [math.inf, math.inf], "refused once, then one sample"
    assert solution.facts["failed"] == "model: too long for it"


def test_where_every_model_refuses_the_question_is_refused():
    def drawn(draw: Draw, index: int) -> Sample:
        raise RequestRejected(f"{draw.model or 'small'} refuses")

    with pytest.raises(RequestRejected, match="large refuses"):
        solve(cascade(), FakeSession(drawn))


def test_nothing_parses_anywhere():
    session = FakeSession(answers(small=".", large="."))
    solution = solve(cascade(), session)
    assert (solution.answer, solution.best, solution.stop_reason) == (None, None, StopReason.HOPELESS)
    assert session.bids[4] == 1 / 10, "the small model is sure of nothing"


def test_a_larger_model_without_an_answer_takes_none_back():
    solution = solve(cascade(), FakeSession(answers(small="abab", large=".")))
    assert (solution.answer, solution.stop_reason) == ("a", StopReason.CAPPED)


def test_aborted_samples_never_vote():
    def drawn(draw: Draw, index: int) -> Sample:
        return make_sample(answer="a", finish_reason="abort")

    session = FakeSession(drawn)
    assert solve(cascade(), session).answer is None
    assert asked(session) == "sssslll"


# --- learning ------------------------------------------------------------------------------------------------------


def learning(fraction: float, **more) -> Cascade:
    return cascade(learn_threshold=True, audit_fraction=fraction, **more)


@pytest.mark.parametrize(("large", "agreed"), [("a", 1.0), ("b", 0.0)])
def test_a_settled_question_of_the_few_teaches_whether_the_next_model_agrees(large, agreed):
    session = FakeSession(answers(small="a", large=large))
    solution = solve(learning(1.0), session)
    assert session.bids[4] == HIGHEST, "paid whatever it looks like"
    assert (solution.answer, solution.facts["asked to learn"], solution.facts["threshold 1"]) == (
        large,
        "large",
        "0.95",
    )
    # Three samples of ten units each.
    assert session.taught == {
        (seen("cascade/1"), "0.95"): Lesson(1, 1.0, 1.0, 0.0),
        ("cascade/1", "0.95"): Lesson(1, agreed, agreed, 30.0),
    }


def test_of_the_others_only_that_they_were_there_is_taught():
    session = FakeSession(answers(small="a", large="b"))
    assert solve(learning(0.0), session).stop_reason is StopReason.SETTLED
    assert session.taught == {(seen("cascade/1"), "0.95"): Lesson(1, 1.0, 1.0, 0.0)}


def test_a_contested_question_teaches_too_and_at_its_own_confidence():
    session = FakeSession(answers(small="abab", large="a"))
    solve(learning(0.0), session)
    assert session.taught[("cascade/1", "0")] == Lesson(1, 1.0, 1.0, 30.0), "two to two is a half"


def test_a_lesson_that_was_not_paid_to_its_end_is_none_and_the_answer_stands():
    session = FakeSession(answers(small="a", large="b"), budget=5)
    solution = solve(learning(1.0), session)
    assert (solution.answer, solution.stop_reason, solution.next_value) == ("a", StopReason.SETTLED, 0.0)
    assert ("cascade/1", "0.95") not in session.taught


def agreeing(bucket: str, lessons: int, agreed: int) -> dict:
    return {
        (seen("cascade/1"), "0.95"): Lesson(80, 80, 80),
        (seen("cascade/1"), bucket): Lesson(20, 20, 20),
        ("cascade/1", bucket): Lesson(lessons, agreed, agreed),
    }


def test_what_others_taught_moves_the_threshold_either_way():
    # Two to two is P = 1/2, in the lowest bucket: 200 lessons in agreement make (10 + 0) / 220 of a fifth. Every
    # bucket between has to be believed first.
    edges = ("0", "0.6", "0.7", "0.8", "0.9")
    known = {("cascade/1", edge): Lesson(200, 200, 200) for edge in edges}
    session = FakeSession(answers(small="abab", large="c"), known=agreeing("0", 200, 200) | known)
    solution = solve(learning(0.0, tolerance=0.06), session)
    assert (solution.answer, solution.stop_reason, asked(session)) == ("a", StopReason.SETTLED, "ssss")
    assert solution.facts["threshold 1"] == "0"
    # Half of a hundred lessons against it: (20 × .05 + 50) / 120 of all that settled.
    doubtful = {(seen("cascade/1"), "0.95"): Lesson(80), ("cascade/1", "0.95"): Lesson(100, 50, 50)}
    session = FakeSession(answers(small="a", large="c"), known=doubtful)
    solution = solve(learning(0.0), session)
    assert (solution.answer, asked(session), solution.facts["threshold 1"]) == ("c", "sssslll", "0.99")


def test_a_decision_stands_whatever_is_learnt_later():
    session = FakeSession(answers(small="a", large="c"))
    first = solve(learning(0.0), session)
    again = session.again()
    again.known = {(seen("cascade/1"), "0.95"): Lesson(80), ("cascade/1", "0.95"): Lesson(100, 0, 0)}
    assert solve(learning(0.0), again) == first


# --- promises ------------------------------------------------------------------------------------------------------

letters = st.text("ab.", min_size=1, max_size=8)
shapes = st.builds(
    Stage,
    st.just(""),
    st.integers(1, 3),
    st.integers(3, 10),
    st.sampled_from([0.8, 0.95]),
    st.sampled_from([None, FixedN(3)]),
    carry=st.sampled_from([0.0, 0.5]),
)


@given(
    shapes,
    st.integers(1, 4),
    letters,
    letters,
    st.integers(0, 14) | st.none(),
    st.sampled_from([None, "", "large"]),
    st.booleans(),
    st.integers(0, 3),
)
def test_re_executed_it_answers_the_same_and_draws_nothing(first, cap, small, large, budget, refuses, learns, seed):
    script = answers(small=small, large=large)
    if refuses is not None:
        script = refusing(refuses, script)
    strategy = cascade(
        first, Stage("large", max_samples=cap), learn_threshold=learns and first.rule is None, audit_fraction=0.5
    )
    session = FakeSession(script, budget=budget, seed=seed)
    solution = solve(strategy, session)
    assert len(session.drawn) <= strategy.maximum
    assert sum(bid == math.inf for bid in session.bids) <= 1 + 2 * strategy.minimum
    if budget is None and refuses is None:
        again = session.again()
        assert solve(strategy, again) == solution
        assert [s.sample_index for s in again.drawn] == [s.sample_index for s in session.drawn]


def test_unstopped_every_stage_is_asked_to_its_cap():
    assert isinstance(cascade(), Auditable)
    session = FakeSession(answers(small="a", large="c"))
    solution = solve(cascade(learn_threshold=True).unstopped(), session)
    assert (asked(session), solution.answer) == ("sssslll", "c")
    assert session.decisions == {}


def section(**more):
    large = {"large": {"engine": "scripted", "max_model_len": 256}}
    stages = [{"max_samples": 4}, {"model": "large", "max_samples": 3, "temperature": 0.1, "carry": 0.5}]
    return make_spec(models=large, strategy={"kind": "cascade", "stages": stages, **more}).strategy


def test_the_section_is_the_strategy():
    spec = section(learn_threshold=True, tolerance=0.1)
    made = make_strategy(spec)
    stages = (Stage(max_samples=4), Stage("large", max_samples=3, temperature=0.1, carry=0.5))
    assert made == Cascade(stages, learn_threshold=True, tolerance=0.1)
    assert pickle.loads(pickle.dumps(made)) == made
    assert (made.minimum, made.maximum) == (spec.least, spec.most) == (1, 7)
    assert (spec.uses, spec.by_model) == (("large",), {"": (1, 4), "large": (0, 3)})


@pytest.mark.parametrize(
    ("stages", "more", "said"),
    [
        ([{}], {}, "stages"),
        ([{}, {}], {}, "stages 0 and 1 ask the job's model alike"),
        ([{}, {"model": "big"}], {}, "no further model is called 'big'; models has: large"),
        ([{"min_samples": 9, "max_samples": 3}, {"model": "large"}], {}, "must not exceed"),
        ([{"rule": "never"}, {"model": "large"}], {}, "rule 'never' is unknown"),
        ([{"rule": "esc"}, {"model": "large"}], {"learn_threshold": True}, "stands in the way of learn_threshold"),
        ([{"templates": ["{{ a"]}, {"model": "large"}], {}, "templates"),
        ([{"templates": ["x", "x"]}, {"model": "large"}], {}, "stands there twice"),
        ([{}, {"model": "large"}], {"tolerance": 0}, "tolerance"),
        ([{}, {"model": "large", "confidence": 1}], {}, "confidence"),
    ],
)
def test_sections_that_cannot_work_are_refused(stages, more, said):
    with pytest.raises(SpecError) as caught:
        section(stages=stages, **more)
    assert said in str(caught.value)
