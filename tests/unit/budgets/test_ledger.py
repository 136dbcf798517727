"""The ledger: every transition, and that no order of them breaks the ceiling."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from budgets.ledger import Grant, Ledger, LedgerError
from pipeline.errors import PonderError


def test_grant_reserves_and_settle_returns_the_rest():
    ledger = Ledger(100)
    assert ledger.grant("g1", "w1", 60)
    assert (ledger.spent, ledger.reserved, ledger.free) == (0, 60, 40)
    assert ledger.open_grants == (Grant("g1", 60),)
    assert ledger.settle("g1", 25)
    assert (ledger.spent, ledger.reserved, ledger.free) == (25, 0, 75)


def test_what_does_not_fit_is_refused():
    ledger = Ledger(100)
    assert ledger.grant("g1", "w1", 60)
    assert not ledger.grant("g2", "w2", 41)
    assert ledger.grant("g3", "w2", 40)
    assert ledger.free == 0


def test_repeats_change_nothing():
    ledger = Ledger(100)
    assert ledger.grant("g1", "w1", 60)
    assert ledger.grant("g1", "w1", 60)
    assert ledger.reserved == 60
    assert ledger.settle("g1", 10)
    assert not ledger.settle("g1", 50)
    assert (ledger.spent, ledger.reserved) == (10, 0)


@pytest.mark.parametrize("used", [-1, 61])
def test_impossible_settlement(used):
    ledger = Ledger(100)
    ledger.grant("g1", "w1", 60)
    with pytest.raises(LedgerError, match=r"used is .* 0\.\.60"):
        ledger.settle("g1", used)
    assert ledger.reserved == 60


def test_impossible_grants():
    ledger = Ledger(100)
    with pytest.raises(LedgerError, match="tokens is 0"):
        ledger.grant("g1", "w1", 0)
    ledger.grant("g1", "w1", 10)
    for holder, tokens in (("w2", 10), ("w1", 11)):
        with pytest.raises(LedgerError, match="use a new id"):
            ledger.grant("g1", holder, tokens)
    assert issubclass(LedgerError, PonderError)


@pytest.mark.parametrize(
    ("settled", "proven", "charged"),
    [(0, 0, 0), (0, 35, 35), (10, 10, 0), (10, 35, 25), (10, 5, 0), (10, 10_000, 80)],
)
def test_write_off_charges_exactly_what_is_proven_and_not_settled(settled, proven, charged):
    ledger = Ledger(1000)
    for name, tokens in (("g1", 20), ("g2", 30), ("g3", 50)):
        ledger.grant(name, "dead", tokens)
    ledger.grant("other", "alive", 100)
    ledger.settle("g1", settled)
    assert ledger.write_off("dead", proven) == charged
    assert (ledger.spent, ledger.reserved) == (settled + charged, 100)
    assert not ledger.settle("g2", 30), "late settlement of a written-off grant"
    assert ledger.write_off("dead", proven) == 0
    assert ledger.spent == settled + charged


def test_restore_over_a_lowered_budget_leaves_nothing_free():
    ledger = Ledger.restore(100, 150)
    assert (ledger.spent, ledger.free) == (150, 0)
    assert not ledger.grant("g", "w", 1)
    ledger.raise_budget(160)
    assert ledger.free == 10
    assert ledger.grant("g", "w", 10)


def test_budget_never_falls_and_is_positive():
    with pytest.raises(LedgerError, match="cannot fall"):
        Ledger(10).raise_budget(9)
    with pytest.raises(LedgerError, match="budget is 0"):
        Ledger(0)
    with pytest.raises(LedgerError, match="opening balance"):
        Ledger(10).spend(-1)


def test_opening_balance_cannot_overrun_open_grants():
    ledger = Ledger(10)
    ledger.grant("g", "w", 8)
    with pytest.raises(LedgerError, match="exceeds"):
        ledger.spend(3)


class LedgerMachine(RuleBasedStateMachine):
    """Random transitions against a model that only adds numbers."""

    def __init__(self):
        super().__init__()
        self.ledger = Ledger(500)
        self.open: dict[str, tuple[str, int]] = {}
        self.spent = 0
        self.settled: dict[str, int] = {}
        self.ids = 0

    @rule(holder=st.sampled_from("ab"), tokens=st.integers(1, 200))
    def grant(self, holder, tokens):
        self.ids += 1
        fits = tokens + self.spent + sum(t for _, t in self.open.values()) <= self.ledger.budget
        assert self.ledger.grant(f"g{self.ids}", holder, tokens) is fits
        if fits:
            self.open[f"g{self.ids}"] = (holder, tokens)

    @rule(number=st.integers(1, 30), share=st.floats(0, 1))
    def settle(self, number, share):
        name = f"g{number}"
        holder, tokens = self.open.pop(name, ("", 0))
        used = int(share * tokens)
        assert self.ledger.settle(name, used) is bool(holder)
        self.spent += used
        self.settled[holder] = self.settled.get(holder, 0) + used

    @rule(holder=st.sampled_from("ab"), proven=st.integers(0, 600))
    def write_off(self, holder, proven):
        held = sum(tokens for owner, tokens in self.open.values() if owner == holder)
        due = min(held, max(0, proven - self.settled.get(holder, 0)))
        assert self.ledger.write_off(holder, proven) == due
        self.open = {name: entry for name, entry in self.open.items() if entry[0] != holder}
        self.spent += due
        self.settled[holder] = self.settled.get(holder, 0) + due

    @rule(more=st.integers(0, 50))
    def raise_budget(self, more):
        self.ledger.raise_budget(self.ledger.budget + more)

    @invariant()
    def ceiling_holds(self):
        assert self.ledger.spent == self.spent
        assert self.ledger.reserved == sum(tokens for _, tokens in self.open.values())
        assert self.ledger.spent + self.ledger.reserved + self.ledger.free == self.ledger.budget


TestLedgerMachine = LedgerMachine.TestCase
