"""Wallets: exact attribution alone, and against one ledger over a network that loses, repeats and reorders."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budgets.ledger import Grant, Ledger, LedgerError, Settlement
from budgets.wallet import Wallet


def wallet_of(*tokens: int) -> Wallet:
    wallet = Wallet()
    for i, amount in enumerate(tokens):
        wallet.add(Grant(f"g{i}", amount))
    return wallet


def test_reserve_settle_and_return():
    wallet = wallet_of(100, 50)
    assert wallet.reserve(120)
    assert not wallet.reserve(31)
    wallet.settle(120, 70)
    assert (wallet.free, wallet.reserved, wallet.spent) == (80, 0, 70)
    assert wallet.take_settlements(0) == [Settlement("g0", 70), Settlement("g1", 0)]
    assert (wallet.free, wallet.held_grants) == (0, ())


def test_a_reserved_grant_stays_open():
    wallet = wallet_of(100)
    wallet.reserve(10)
    assert wallet.take_settlements(0) == []
    wallet.settle(10, 10)
    assert wallet.take_settlements(0) == [Settlement("g0", 10)]


def test_keep_free_is_kept():
    wallet = wallet_of(40, 40, 40)
    assert wallet.take_settlements(50) == [Settlement("g0", 0)]
    assert wallet.free == 80


def test_used_up_grants_close_whatever_is_kept():
    wallet = wallet_of(40, 40)
    wallet.reserve(40)
    wallet.settle(40, 40)
    assert wallet.take_settlements(1000) == [Settlement("g0", 40)]


def test_a_grant_is_taken_once_even_after_it_was_closed():
    wallet = wallet_of(40)
    assert not wallet.add(Grant("g0", 40))
    wallet.take_settlements(0)
    wallet.acknowledge(("g0",))
    assert not wallet.add(Grant("g0", 40))
    assert wallet.free == 0


def test_settlements_repeat_until_acknowledged():
    wallet = wallet_of(40)
    wallet.take_settlements(0)
    assert wallet.settlements == (Settlement("g0", 0),)
    wallet.acknowledge(("g0", "unknown"))
    assert wallet.settlements == ()


def test_impossible_settles():
    wallet = wallet_of(40)
    wallet.reserve(10)
    for worst, used in ((10, 11), (10, -1), (11, 5)):
        with pytest.raises(LedgerError):
            wallet.settle(worst, used)
    with pytest.raises(LedgerError):
        wallet.reserve(-1)


@given(st.lists(st.integers(1, 100), max_size=8), st.data())
def test_attribution_is_exact(tokens, data):
    wallet = wallet_of(*tokens)
    returned: list[Settlement] = []
    reserved: list[int] = []
    for _ in range(data.draw(st.integers(0, 15))):
        worst = data.draw(st.integers(0, 80))
        if wallet.reserve(worst):
            reserved.append(worst)
        if reserved and data.draw(st.booleans()):
            worst = reserved.pop()
            wallet.settle(worst, data.draw(st.integers(0, worst)))
        before, keep = wallet.free, data.draw(st.integers(0, 150))
        returned += wallet.take_settlements(keep)
        assert wallet.free >= min(before, keep)
    for worst in reserved:
        wallet.settle(worst, worst)
    returned += wallet.take_settlements(0)
    assert {s.grant_id for s in returned} == {f"g{i}" for i in range(len(tokens))}
    assert sum(s.used for s in returned) == wallet.spent
    assert all(s.used <= tokens[int(s.grant_id[1:])] for s in returned)


@settings(deadline=None)
@given(seed=st.integers(0, 10**9), loss=st.floats(0, 0.6), repeat=st.floats(0, 0.6))
def test_no_schedule_of_messages_breaks_the_ceiling(seed, loss, repeat):
    """Grants and settlements travel lossy, repeated and in any order; at rest the ledger equals what was used."""
    rng = random.Random(seed)
    ledger = Ledger(2000)
    wallets = {name: Wallet() for name in "abc"}
    running: list[tuple[str, int]] = []
    pending: dict[str, list[Grant]] = {name: [] for name in wallets}
    network: list[tuple[str, str, object]] = []

    def send(to, kind, payload):
        network.extend([(to, kind, payload)] * (0 if rng.random() < loss else 1 + (rng.random() < repeat)))

    def deliver():
        to, kind, payload = network.pop(rng.randrange(len(network)))
        if kind == "grant":
            wallets[to].add(payload)
        elif kind == "settle":
            ledger.settle(payload.grant_id, payload.used)
            pending[to] = [g for g in pending[to] if g.grant_id != payload.grant_id]
            send(to, "ack", (payload.grant_id,))
        else:
            wallets[to].acknowledge(payload)

    def finish(index):
        name, worst = running.pop(index)
        wallets[name].settle(worst, rng.randint(0, worst))

    for i in range(150):
        name = rng.choice("abc")
        wallet = wallets[name]
        action = rng.randrange(6)
        if action == 0:
            grant = Grant(f"{name}{i}", rng.randint(1, 400))
            if ledger.grant(grant.grant_id, name, grant.tokens):
                pending[name].append(grant)
        elif action == 1:
            worst = rng.randint(1, 150)
            if wallet.reserve(worst):
                running.append((name, worst))
        elif action == 2 and running:
            finish(rng.randrange(len(running)))
        elif action == 3:
            wallet.take_settlements(rng.choice([0, 100]))
        for grant in pending[name]:
            send(name, "grant", grant)
        for settlement in wallet.settlements:
            send(name, "settle", settlement)
        while network and rng.random() < 0.7:
            deliver()
        used = sum(w.spent for w in wallets.values())
        assert used + sum(worst for _, worst in running) <= ledger.spent + ledger.reserved <= ledger.budget

    while running:
        finish(0)
    for name, wallet in wallets.items():
        for grant in pending[name]:
            wallet.add(grant)
        wallet.take_settlements(0)
        for settlement in wallet.settlements:
            ledger.settle(settlement.grant_id, settlement.used)
    assert ledger.reserved == 0
    assert ledger.spent == sum(w.spent for w in wallets.values())
