import asyncio
import math

from hypothesis import given
from hypothesis import strategies as st

from actors.desk import Ask, Desk
from actors.engines.base import Prompt
from budgets.curve import DemandCurve
from pipeline.errors import BudgetDenied
from tests.factories import make_item


def make_ask(name: str, bid: float, worst: int = 10) -> Ask:
    future = asyncio.get_running_loop().create_future()
    return Ask(bid, worst, make_item(name), 0, 0, Prompt((1,), "p"), "k", 1.0, 0, future)


def names(desk: Desk) -> list[str]:
    taken = []
    while (ask := desk.take(10**9, 0.0)) is not None:
        taken.append(ask.item.item_id)
    return taken


async def test_best_bid_first_and_first_come_among_equals():
    desk = Desk()
    for name, bid in [("low", 0.1), ("first", 0.5), ("minimum", math.inf), ("second", 0.5)]:
        desk.add(make_ask(name, bid))
    assert names(desk) == ["minimum", "first", "second", "low"]


async def test_withdrawn_asks_are_skipped():
    desk = Desk()
    gone = make_ask("gone", 2.0)
    desk.add(gone)
    desk.add(make_ask("here", 1.0))
    gone.paid.cancel()
    assert names(desk) == ["here"]
    assert desk.smallest_worst == 0


async def test_deny_below_refuses_exactly_the_lower_bids():
    desk = Desk()
    asks = {bid: make_ask(str(bid), bid) for bid in (0.1, 0.2, 0.3)}
    for ask in asks.values():
        desk.add(ask)
    assert desk.deny_below(0.2) == 1
    assert isinstance(asks[0.1].paid.exception(), BudgetDenied)
    assert names(desk) == ["0.3", "0.2"]


async def test_deny_all_refuses_the_minimum_too():
    desk = Desk()
    ask = make_ask("minimum", math.inf)
    desk.add(ask)
    assert desk.deny_all() == 1
    assert isinstance(ask.paid.exception(), BudgetDenied)
    assert len(desk) == 0


async def test_what_does_not_fit_does_not_block_the_next_and_keeps_its_place():
    desk = Desk()
    desk.add(make_ask("large", 2.0, worst=100))
    desk.add(make_ask("small", 1.0, worst=10))
    assert desk.take(5, 0.0) is None
    assert desk.take(50, 0.0).item.item_id == "small"
    assert desk.smallest_worst == 100
    assert desk.take(100, 0.0).item.item_id == "large"


async def test_nothing_below_the_price_is_taken():
    desk = Desk()
    desk.add(make_ask("cheap", 1.0))
    assert desk.take(100, 1.1) is None
    assert desk.take(100, 1.0).item.item_id == "cheap"


async def test_an_empty_desk():
    assert Desk().take(100, 0.0) is None
    assert Desk().smallest_worst == 0


class Ticket:
    """An ask that is its own ticket, as in replay: the desk needs no event loop."""

    def __init__(self, bid: float, worst: int) -> None:
        self.bid, self.worst, self.refused = bid, worst, False

    @property
    def paid(self) -> "Ticket":
        return self

    def done(self) -> bool:
        return self.refused

    def set_exception(self, exception: BudgetDenied) -> None:
        self.refused = True


BIDS = st.sampled_from([0.0, 0.001, 0.1, 0.5, 1.0, math.inf])
STEPS = st.one_of(
    st.tuples(st.just("add"), BIDS, st.integers(1, 30)),
    st.tuples(st.just("take"), BIDS, st.integers(0, 40)),
    st.tuples(st.just("deny"), BIDS, st.just(0)),
    st.tuples(st.just("deny all"), st.just(0.0), st.just(0)),
)


@given(st.lists(STEPS, max_size=40))
def test_sums_are_those_of_what_waits(steps):
    desk: Desk[Ticket] = Desk()
    waiting: list[Ticket] = []
    for what, bid, tokens in steps:
        if what == "add":
            waiting.append(Ticket(bid, tokens))
            desk.add(waiting[-1])
        elif what == "take":
            startable = desk.startable(tokens, bid)
            taken = desk.take(tokens, bid)
            fits = [ask for ask in waiting if ask.bid >= bid and ask.worst <= tokens]
            assert (taken is not None) == startable == bool(fits)
            if taken is not None:
                assert taken.bid == max(ask.bid for ask in fits)
                waiting.remove(taken)
        elif what == "deny":
            assert desk.deny_below(bid) == sum(ask.bid < bid for ask in waiting)
            waiting = [ask for ask in waiting if not ask.done()]
        else:
            assert desk.deny_all() == len(waiting)
            waiting = []
        curve = DemandCurve()
        for ask in waiting:
            curve.add(ask.bid, ask.worst)
        worsts = [ask.worst for ask in waiting]
        assert desk.demand() == curve.to_pairs()
        assert (desk.smallest_worst, desk.largest_worst) == (min(worsts, default=0), max(worsts, default=0))
        assert (len(desk), desk.minimums) == (len(waiting), sum(ask.bid == math.inf for ask in waiting))
