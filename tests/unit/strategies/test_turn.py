"""What an arm sees: samples that are there first, its own way to ask, its bids capped, its lessons under its name."""

import asyncio
import math

import pytest

from budgets.experience import Lesson
from pipeline.errors import BudgetDenied
from strategies.base import PLAIN, Draw
from strategies.turn import Pool, Turn
from tests.factories import make_sample
from tests.fake_session import FakeSession

HOT = Draw(temperature=1.5)


def by_index(draw: Draw, index: int):
    return make_sample(answer=f"{draw.temperature}/{index}")


def answers(samples) -> list[str]:
    return [sample.answer for sample in samples]


def test_what_was_drawn_before_is_handed_out_again_and_paid_once():
    session, pool = FakeSession(by_index), Pool()
    first, second = (Turn(session, name, pool, PLAIN, math.inf) for name in ("a", "b"))
    assert answers(asyncio.run(first.sample(2, value=1.0))) == ["None/0", "None/1"]
    assert answers(asyncio.run(second.sample(3, value=1.0))) == ["None/0", "None/1", "None/2"]
    assert answers(asyncio.run(first.sample(2, value=1.0))) == ["None/2", "None/3"]
    assert len(session.drawn) == 4
    assert [len(turn.paid) for turn in (first, second)] == [3, 1]
    assert answers(second.drawn) == ["None/0", "None/1", "None/2"]
    assert (first.cost(), second.cost()) == (30.0, 10.0)


def test_an_arm_fills_in_what_a_draw_leaves_open_and_no_more():
    session = FakeSession(by_index)
    turn = Turn(session, "a", {}, Draw(prompt="p", temperature=1.5, top_p=0.9, min_p=0.1, model="large"), math.inf)
    asked = [PLAIN, Draw(prompt="own", temperature=0.0, model="other", max_tokens=3)]
    asyncio.run(turn.sample_each(asked, value=1.0))
    assert session.draws == [
        Draw(prompt="p", temperature=1.5, top_p=0.9, min_p=0.1, model="large"),
        Draw(prompt="own", temperature=0.0, top_p=0.9, min_p=0.1, model="other", max_tokens=3),
    ]


def test_draws_side_by_side_come_back_in_order_up_to_the_first_that_is_not_paid():
    session, pool = FakeSession(by_index, budget=4), Pool()
    asyncio.run(Turn(session, "a", pool, PLAIN, math.inf).sample(2, value=1.0))
    turn = Turn(session, "b", pool, PLAIN, math.inf)
    found = asyncio.run(turn.sample_each([PLAIN, HOT, PLAIN, HOT, HOT, PLAIN], value=2.0))
    assert answers(found) == ["None/0", "1.5/0", "None/1", "1.5/1"]
    assert turn.denied is None, "some were paid"
    # The rest: the third hot sample is refused; the plain one before it is not there.
    with pytest.raises(BudgetDenied):
        asyncio.run(turn.sample_each([HOT, PLAIN], value=2.0))
    assert turn.denied == 2.0


def test_what_is_there_is_handed_out_where_the_market_refuses_the_rest():
    session, pool = FakeSession(by_index, budget=1), Pool()
    asyncio.run(Turn(session, "a", pool, PLAIN, math.inf).sample(1, value=1.0))
    turn = Turn(session, "b", pool, PLAIN, 0.5)
    assert answers(asyncio.run(turn.sample(3, value=1.0))) == ["None/0"]
    assert turn.denied == 0.5


def test_bids_are_scaled_and_capped():
    session = FakeSession(by_index)
    turn = Turn(session, "a", {}, PLAIN, opening=0.4, scale=0.5)
    for value in (math.inf, 1.0, 0.6):
        asyncio.run(turn.sample(1, value=value))
    assert session.bids == [0.4, 0.4, 0.3]


def test_an_arm_decides_and_teaches_under_its_name():
    known = {("a/cascade/1", "0.9"): Lesson(3), ("b/cascade/1", "0.9"): Lesson(5), ("cascade/1", "0.9"): Lesson(7)}
    session = FakeSession(by_index, known=known)
    turn = Turn(session, "a", {}, PLAIN, math.inf)
    assert asyncio.run(turn.decide("cascade/1", lambda seen: str(sorted(seen.items())))) == str(
        [(("cascade/1", "0.9"), Lesson(3))]
    )
    turn.learn("cascade/1", "0.9", 1.0, 2.0)
    assert session.taught == {("a/cascade/1", "0.9"): Lesson(1, 1.0, 1.0, 2.0)}
    assert list(session.decisions) == ["a/cascade/1"]
