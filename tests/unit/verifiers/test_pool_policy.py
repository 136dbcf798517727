"""The pool's decisions, step by step, in time that the test makes up."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from verifiers.pool_policy import Batch, Check, PoolLimits, PoolPolicy

LIMITS = PoolLimits(batch_samples=4, wait_seconds=1.0, member_batches=2, queue_samples=10, attempts=3)


def pool(*members: str, limits: PoolLimits = LIMITS) -> PoolPolicy:
    policy = PoolPolicy(limits)
    for member in members:
        policy.join(member)
    return policy


def offer(policy: PoolPolicy, *names: str, samples: int = 1, now: float = 0.0) -> list[Check]:
    checks = [Check(name, samples) for name in names]
    for check in checks:
        policy.offer(check, now)
    return checks


def names(batches: list[Batch]) -> list[tuple[object, list[object]]]:
    return [(batch.member, [check.work for check in batch.checks]) for batch in batches]


def test_an_idle_member_gets_what_there_is_and_a_busy_one_waits_for_company() -> None:
    policy = pool("m")
    offer(policy, "a")
    assert names(policy.send(0.0)) == [("m", ["a"])]
    offer(policy, "b", "c", now=0.5)
    assert policy.send(0.6) == []
    assert policy.wake() == 1.5
    assert names(policy.send(1.5)) == [("m", ["b", "c"])]
    offer(policy, "d", now=1.6)
    assert policy.send(9.0) == []
    assert policy.wake() is None


def test_a_full_batch_does_not_wait_and_is_never_too_large() -> None:
    policy = pool("m")
    offer(policy, "a", "b", "c", samples=2)
    offer(policy, "large", samples=9)
    assert names(policy.send(0.0)) == [("m", ["a", "b"]), ("m", ["c"])]
    assert policy.stats().largest_batch == 4


def test_batches_go_to_the_member_with_the_least_in_hand() -> None:
    policy = pool("m", "n")
    offer(policy, *"abcdefgh")
    assert [batch.member for batch in policy.send(0.0)] == ["m", "n"]


def test_the_queue_is_bounded_but_lets_one_too_large_in() -> None:
    policy = pool()
    assert policy.has_room(99)
    offer(policy, *"abcdefgh")
    assert policy.has_room(2)
    assert not policy.has_room(3)


def test_what_met_a_death_is_retried_alone_and_given_up_in_the_end() -> None:
    policy = pool("m")
    offer(policy, "a", "b")
    (batch,) = policy.send(0.0)
    assert policy.died(batch, 1.0) == []
    assert policy.died(batch, 1.0) is None
    assert policy.send(2.0) == []
    policy.join("m")
    (alone,) = policy.send(2.0)
    assert names([alone]) == [("m", ["a"])]
    assert policy.done(alone, 3.0)
    (alone,) = policy.send(3.0)
    assert names([alone]) == [("m", ["b"])]
    assert policy.died(alone, 4.0) == []
    policy.join("m")
    (alone,) = policy.send(5.0)
    assert [check.work for check in policy.died(alone, 6.0) or []] == ["b"]
    stats = policy.stats()
    assert (stats.checks, stats.given_up, stats.deaths, stats.retries, stats.queued) == (2, 1, 3, 3, 0)


def test_a_suspect_waits_for_an_idle_member_and_shares_it_with_nobody() -> None:
    policy = pool("m")
    offer(policy, "a")
    (running,) = policy.send(0.0)
    policy.offer(Check("suspect", 1, deaths=1), 0.0)
    offer(policy, "b")
    assert policy.send(5.0) == []
    policy.done(running, 6.0)
    (alone,) = policy.send(6.0)
    assert names([alone]) == [("m", ["suspect"])]
    assert policy.send(9.0) == []
    policy.done(alone, 9.0)
    assert names(policy.send(9.0)) == [("m", ["b"])]


def test_a_reply_after_the_death_was_known_counts_for_nothing() -> None:
    policy = pool("m")
    offer(policy, *"abcd")
    offer(policy, "e")
    (first,) = policy.send(0.0)
    (second,) = policy.send(1.0)
    assert policy.died(first, 1.0) == []
    policy.join("m")
    assert not policy.done(second, 1.5)
    assert policy.died(second, 1.5) is None
    assert policy.stats().queued == 5


def test_members_follow_the_load_between_least_and_most() -> None:
    policy = pool("m", limits=PoolLimits(least=1, most=3, batch_samples=4, member_batches=2, grow_seconds=1.0))
    assert not policy.grow(0.0)
    offer(policy, *map(str, range(60)))
    assert policy.grow(0.0)
    assert not policy.grow(0.5)
    policy.join("n")
    assert policy.grow(1.0)
    policy.join("o")
    assert not policy.grow(9.0)
    assert policy.shrink(9.0) is None
    policy.abandon(9.0)
    assert policy.shrink(9.0 + 29) is None
    assert policy.shrink(9.0 + 31) == "o"
    policy.leave("o")
    assert policy.shrink(9.0 + 32) == "n"
    policy.leave("n")
    assert policy.shrink(999.0) is None


def test_a_withdrawn_check_is_not_sent() -> None:
    policy = pool("m")
    wanted, unwanted = offer(policy, "a", "b")
    assert policy.withdraw(unwanted)
    assert names(policy.send(0.0)) == [("m", ["a"])]
    assert not policy.withdraw(wanted)
    assert policy.stats().queued == 0


@settings(max_examples=150)
@given(st.data())
def test_every_check_is_settled_exactly_once(data: st.DataObject) -> None:
    """Whatever dies and whenever: all checks end, killers given up, and samples add up."""
    members = data.draw(st.integers(1, 3))
    sizes = data.draw(st.lists(st.integers(1, 6), max_size=20))
    killers = data.draw(st.sets(st.integers(0, 19)))
    policy = pool(*map(str, range(members)))
    for number, size in enumerate(sizes):
        policy.offer(Check(number, size), 0.0)
    settled: list[object] = []
    running: list[Batch] = []
    now = 0.0
    for _ in range(2_000):
        now += 1.0
        running += policy.send(now)
        if not running:
            break
        batch = running.pop(data.draw(st.integers(0, len(running) - 1)))
        if any(check.work in killers for check in batch.checks):
            settled += [check.work for check in policy.died(batch, now) or []]
            policy.join(batch.member)
        elif policy.done(batch, now):
            settled += [check.work for check in batch.checks]
    assert sorted(map(str, settled)) == sorted(map(str, range(len(sizes))))
    stats = policy.stats()
    assert (stats.checks, stats.samples, stats.queued, stats.running) == (len(sizes), sum(sizes), 0, 0)
    assert stats.given_up >= len(killers & set(range(len(sizes))))
