"""Diversified exploration on a scripted session: which beginnings are gone on with, and what they weigh."""

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import RequestRejected, SpecError
from pipeline.records import Sample, StopReason
from strategies.arms import PLAIN_ARM, Arm
from strategies.base import Draw
from strategies.clusters import Leaders, effective_number
from strategies.diversified import Diversified
from tests.factories import make_item, make_sample, make_spec
from tests.fake_session import FakeSession

EAST, NORTH = (1.0, 0.0), (0.0, 1.0)


def direction(text: str) -> tuple[float, ...]:
    return EAST if text.startswith("a") else NORTH


def beginnings(letters: str):
    """Probe i begins with letter i; gone on with, it ends in an answer of that letter."""

    def drawn(draw: Draw, index: int) -> Sample | None:
        if draw.prefix:
            return make_sample(answer=draw.prefix[0], text=draw.prefix + " end")
        if index >= len(letters):
            return None
        return make_sample(answer=None, text=letters[index] * 3, finish_reason="length")

    return drawn


def solve(strategy, session):
    return asyncio.run(strategy.solve(make_item(), session))


def test_near_duplicates_are_cut_and_keep_their_vote():
    session = FakeSession(beginnings("aaab"), vectors=direction)
    solution = solve(Diversified(arms=(PLAIN_ARM,), probes=4, confidence=0.99), session)
    # The first probe is gone on with at once; its two duplicates are cut, the other direction may not change 3 to 1.
    assert [draw.prefix for draw in session.draws if draw.prefix] == ["aaa"]
    assert (solution.answer, solution.stop_reason) == ("a", StopReason.SETTLED)
    assert (solution.facts["clusters"], solution.facts["cut"]) == (2.0, 3.0)


def test_a_smaller_cluster_is_gone_on_with_where_it_could_matter():
    session = FakeSession(beginnings("abbb"), vectors=direction)
    solution = solve(Diversified(arms=(PLAIN_ARM,), probes=4, confidence=0.99), session)
    assert [draw.prefix for draw in session.draws if draw.prefix] == ["aaa", "bbb"]
    assert solution.answer == "b"


def test_an_arm_that_is_refused_is_told_of():
    inner = beginnings("aabb")

    def drawn(draw: Draw, index: int) -> Sample | None:
        if draw.temperature == 2.0:
            raise RequestRejected("too hot")
        return inner(draw, index)

    arms = (Arm("hot", temperature=2.0), PLAIN_ARM)
    solution = solve(Diversified(arms=arms, probes=4), FakeSession(drawn, vectors=direction))
    assert solution.answer == "a"
    assert solution.facts["failed"] == "hot: too hot"


@given(st.text("ab", max_size=6), st.integers(0, 14))
def test_re_executed_it_gives_the_same_and_draws_nothing(letters, budget):
    strategy = Diversified(arms=(PLAIN_ARM,), probes=6)
    first = FakeSession(beginnings(letters), budget=budget, vectors=direction)
    one = solve(strategy, first)
    again = first.again()
    assert solve(strategy, again) == one
    assert again.drawn == first.drawn
    assert len(first.drawn) <= strategy.maximum


def test_clusters_are_led_by_the_first_that_is_unlike_all_before():
    clusters = Leaders(0.9)
    assert [clusters.add(vector) for vector in (EAST, NORTH, (0.95, math.sqrt(1 - 0.95**2)), EAST)] == [0, 1, 0, 0]
    assert clusters.sizes == [3, 1]
    assert clusters.add((math.nan, math.nan)) == 2


@given(st.integers(1, 20), st.floats(0.1, 9))
def test_so_many_alike_count_as_so_many(count, weight):
    assert math.isclose(effective_number([weight] * count), count)
    assert effective_number([]) == 0.0


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"probe_tokens": 16}, "looks at the first 16 tokens"),
        ({"probes": 1, "arms": [{"name": "a"}, {"name": "b"}]}, "must not be fewer than arms"),
        ({"arms": [{"name": "a"}, {"name": "a"}]}, "two arms are called"),
    ],
)
def test_what_cannot_work_is_refused(more, said):
    with pytest.raises(SpecError, match=said):
        make_spec(strategy={"kind": "diversified", "probe_tokens": 4, **more})
