"""Lessons are sums: put in, replaced and left out in any order."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgets.experience import Lesson, Register, outcome, total
from pipeline.errors import StrategyError

SUBJECTS = st.tuples(st.sampled_from(["arm/hard", "arm/easy"]), st.sampled_from(["a", "b"]))
LESSONS = st.builds(outcome, st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.integers(0, 50).map(float))
TAUGHT = st.dictionaries(SUBJECTS, LESSONS, max_size=4).map(lambda found: tuple(found.items()))


@given(st.lists(st.tuples(st.integers(0, 4), TAUGHT), max_size=20), st.sets(st.integers(0, 5)))
def test_a_register_holds_the_last_word_of_every_shard(said, held):
    register = Register()
    for shard_id, lessons in said:
        register.put(shard_id, lessons)
    last = dict(said)
    assert dict(register.beside(held)) == total([dict(lessons) for shard, lessons in last.items() if shard not in held])


def test_what_is_left_of_rounded_sums_is_never_negative():
    parts = [outcome(0.1, 0.1), outcome(0.2, 0.2)]
    left = parts[0] + parts[1] - parts[1] - parts[0]
    assert left.count == 0
    assert min(left.reward, left.squares, left.cost) >= 0.0


def test_means_are_of_what_was_seen_and_zero_before():
    assert (Lesson().mean, Lesson().mean_cost) == (0.0, 0.0)
    both = outcome(1.0, 4.0) + outcome(0.5, 2.0)
    assert (both.count, both.mean, both.squares, both.mean_cost) == (2, 0.75, 1.25, 3.0)


@pytest.mark.parametrize(
    ("reward", "cost"), [(1.5, 0), (-0.1, 0), (math.nan, 0), (0.5, -1), (0.5, math.inf), (0.5, math.nan)]
)
def test_what_is_no_outcome_is_refused(reward, cost):
    with pytest.raises(StrategyError, match="a lesson's"):
        outcome(reward, cost)
