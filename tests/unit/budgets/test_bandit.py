"""The bandit: what is believed, what is chosen, and how much is lost on the way to knowing."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budgets.bandit import (
    ENOUGH,
    Choice,
    Start,
    appeal,
    belief,
    bucket_of,
    choose,
    compare,
    exploring,
    heard,
    subject_of,
)
from budgets.experience import Lesson, outcome, total
from pipeline.errors import SpecError

BUCKETS = ["0", "0.5", "0.75"]
NAMES = ["a", "b", "c", "d"]


def taught(**lessons: Lesson) -> dict:
    return {(subject_of("0.5"), arm): lesson for arm, lesson in lessons.items()}


@pytest.mark.parametrize(
    ("votes", "drawn", "bucket"),
    [(0, 0, "0"), (1, 4, "0"), (2, 4, "0.5"), (2, 3, "0.5"), (3, 4, "0.75"), (4, 4, "0.75"), (1, 1, "0.75")],
)
def test_buckets_by_the_share_ahead(votes, drawn, bucket):
    assert bucket_of(votes, drawn) == bucket


@pytest.mark.parametrize(("votes", "drawn"), [(-1, 4), (5, 4)])
def test_what_is_no_share_is_refused(votes, drawn):
    with pytest.raises(SpecError, match="votes"):
        bucket_of(votes, drawn)


def test_a_belief_by_hand():
    # Nothing known: the prior. Its outcome has variance 1/20 over four: 1/80; a gain is twice an outcome.
    fresh = belief({}, "0.5", "a", 40.0)
    assert (fresh.gain, fresh.cost) == (pytest.approx(0.1), 40.0)
    assert fresh.spread == pytest.approx(2 * math.sqrt(0.05 / 4))
    # 16 wins at 10 units: over all buckets (4 × .55 + 16) / 20 = .91 at (4 × 40 + 160) / 20 = 16; of this bucket
    # (4 × .91 + 16) / 20 = .982 at (4 × 16 + 160) / 20 = 11.2.
    found = belief(taught(a=Lesson(16, 16.0, 16.0, 160.0)), "0.5", "a", 40.0)
    assert (found.gain, found.cost) == (pytest.approx(0.964), pytest.approx(11.2))
    # A bucket that taught nothing has the others' mean.
    assert belief(taught(a=Lesson(16, 16.0, 16.0, 160.0)), "0", "a", 40.0).gain == pytest.approx(0.82)


def test_a_choice_by_hand():
    many = 10_000
    known = taught(
        vote=Lesson(many, 0.55 * many, 0.35 * many, 20.0 * many),
        large=Lesson(many, 0.75 * many, 0.6 * many, 80.0 * many),
        broken=Lesson(many, 0.3 * many, 0.2 * many, 10.0 * many),
    )
    found = choose(known, "0.5", {"vote": 1.0, "broken": 1.0, "large": 1.0}, random.Random(0), draw=False)
    # Gains .1 at 20 units, .5 at 80, −.4: ratios .005 and .00625. At half of that a unit: .5 − .25 against .1 − .0625.
    assert (found.arms, found.worth) == (("large", "vote", "broken"), 2)
    assert found.rates == (1.0, pytest.approx(0.8, abs=0.01), 0.001)


def test_where_costs_alone_differ_the_cheaper_arm_is_first():
    assert choose({}, "0", {"dear": 80.0, "cheap": 20.0}, random.Random(0), draw=False).arms == ("cheap", "dear")


lessons = st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.floats(0, 1e6)), max_size=30).map(
    lambda seen: sum((outcome(reward, cost) for reward, cost in seen), Lesson())
)
experiences = st.dictionaries(
    st.tuples(st.sampled_from([subject_of(b) for b in BUCKETS]), st.sampled_from(NAMES)), lessons
)


@given(
    experiences,
    st.sampled_from(BUCKETS),
    st.dictionaries(st.sampled_from(NAMES), st.floats(0, 1e9), min_size=1),
    st.integers(0, 99),
    st.booleans(),
)
def test_any_experience_gives_an_order_of_all_arms_and_numbers_that_are_numbers(known, bucket, costs, seed, draw):
    found = choose(known, bucket, costs, random.Random(seed), draw)
    assert sorted(found.arms) == sorted(costs)
    assert found == choose(known, bucket, costs, random.Random(seed), draw), "nothing but its rng is random"
    assert all(0.0 < rate <= 1.0 for rate in found.rates)
    assert found.rates[0] == 1.0
    assert 1 <= found.worth <= len(costs)
    for arm, cost in costs.items():
        believed = belief(known, bucket, arm, cost)
        assert -1.0 <= believed.gain <= 1.0
        assert believed.spread > 0.0
        assert 0.0 <= believed.cost < math.inf
    again = heard(found.said(), list(costs))
    assert (again.arms, again.worth, again.compared) == (found.arms, found.worth, False)
    assert again.rates == pytest.approx(found.rates, rel=1e-3)


@pytest.mark.parametrize("cost", [-1.0, math.inf, math.nan])
def test_a_cost_that_is_none_is_refused(cost):
    with pytest.raises(SpecError, match="the cost of arm a"):
        choose({}, "0", {"a": cost}, random.Random(0))
    with pytest.raises(SpecError, match="no arm"):
        choose({}, "0", {}, random.Random(0))


def test_one_arm_that_harms_is_chosen_all_the_same():
    harmful = taught(a=Lesson(50, 0.0, 0.0, 50.0))
    assert choose(harmful, "0.5", {"a": 1.0}, random.Random(0)) == Choice(("a",), (1.0,), 1)


@pytest.mark.parametrize(
    "text", ["", "[]", "7", "null", '{"arms": ["a"]}', '{"arms": ["a"], "rates": [NaN], "worth": 1, "compared": false}']
)
def test_what_was_kept_and_cannot_be_read_is_no_choice(text):
    assert heard(text, ["a", "b"]) == Choice(("a", "b"), (1.0, 0.001), 1)


def test_of_arms_that_are_gone_nothing_is_left_and_new_ones_come_last():
    kept = Choice(("old", "b", "a"), (1.0, 0.5, 0.25), 2, compared=True).said()
    assert heard(kept, ["a", "b", "new"]) == Choice(("b", "a", "new"), (1.0, 0.25, 0.001), 1, compared=True)
    assert heard(Choice(("old", "a"), (1.0, 0.5), 2, compared=True).said(), ["a", "new"]).compared is False


def test_the_appeal_of_arms_by_hand():
    lessons = {
        "0.5": Lesson(10_000, 7_500.0, 7_500.0, 10_000 * 50.0),
        "0.75": Lesson(10_000, 6_000.0, 6_000.0, 10_000 * 50.0),
    }
    known = {(subject_of(bucket), "a"): lesson for bucket, lesson in lessons.items()}
    known[(subject_of("0"), "a")] = Lesson(3, 3.0, 3.0, 3.0)
    found = appeal(known, {"a": 1.0, "b": 1.0}, ["a"])
    # Gains .5 and .2; three lessons are too few to say anything.
    assert found == {"0.5": 1.0, "0.75": pytest.approx(0.4, abs=0.01)}
    assert appeal(known, {"a": 1.0, "b": 1.0}, ["b"]) == {}
    assert appeal({}, {"a": 1.0}, ["a"]) == {}
    start = Start(appeal=found)
    assert (start.appeal_of(3, 4), start.appeal_of(0, 4)) == (found["0.75"], 0.0)
    assert Start.heard(start.said()) == Start(appeal={"0.5": 1.0, "0.75": pytest.approx(found["0.75"], rel=1e-3)})
    assert Start.heard(Start(compares=True).said()) == Start(compares=True)


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"compares": true}'])
def test_a_start_that_cannot_be_read_is_none(text):
    assert Start.heard(text) == Start()


@given(experiences, st.dictionaries(st.sampled_from(NAMES), st.floats(0, 1e9), min_size=1))
def test_any_appeal_is_a_number_above_zero(known, costs):
    assert all(0.0 < one < math.inf for one in appeal(known, costs, list(costs)).values())


def test_comparing_is_the_rule_first_and_explore_at_last():
    assert exploring({}, 0.1) == 1.0
    assert exploring({(subject_of("0"), "a"): Lesson(ENOUGH // 2)}, 0.1) == 0.5
    assert exploring({(subject_of("0"), "a"): Lesson(10 * ENOUGH)}, 0.1) == 0.1
    assert exploring({("a/cascade/1", "0.95"): Lesson(10 * ENOUGH)}, 0.1) == 1.0, "what an arm learns is its own"
    pairs = {compare(["a", "b", "c"], random.Random(seed)).arms[:2] for seed in range(60)}
    assert len(pairs) == 6, "any two, in either order"


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 4), st.integers(0, 3))
def test_an_arm_that_clearly_pays_is_soon_chosen_nearly_always(seed, arms, best):
    """Synthetic arms of one cost: one wins four times in five, the others change nothing or harm."""
    rng = random.Random(seed)
    names = NAMES[:arms]
    good = names[best % arms]
    known: dict = {}
    late = 0
    for turn in range(300):
        arm = choose(known, "0.5", dict.fromkeys(names, 10.0), rng).arms[0]
        reward = float(rng.random() < 0.8) if arm == good else rng.choice([0.0, 0.5, 0.5])
        known = total([known, {(subject_of("0.5"), arm): outcome(reward, 10.0)}])
        late += turn >= 200 and arm == good
    assert late >= 80


def test_an_arm_that_costs_nothing_and_gains_is_first():
    found = choose(
        taught(free=Lesson(20, 12.0, 8.0, 0.0)), "0.5", {"free": 0.0, "dear": 5.0}, random.Random(1), draw=False
    )
    assert found.arms == ("free", "dear")
