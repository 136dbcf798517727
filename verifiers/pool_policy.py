"""What a pool of verifier processes does next: pure decisions, no Ray, no clock, no tasks.

State is here, time comes in as ``now`` (seconds of any monotonic clock). The shell (``actors.verifier_pool``) offers
checks, sends the batches it is told to, and reports what came of them. Promises:

- every check offered is settled exactly once: ``done``, or given up with an error after ``attempts`` deaths
- a batch goes out when it is full, or when its oldest check has waited ``wait_seconds``, or at once to an idle member
- a check that was in a batch when its member died is retried alone, so that a killer takes nobody with it
- no more than ``queue_samples`` samples wait: ``has_room`` is the back-pressure, and a check larger than that gets in
  when the queue is empty
- members are wanted in proportion to what waits, never more than ``most`` nor fewer than ``least``
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field

Member = Hashable


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """The pool's tunables."""

    least: int = 1
    most: int = 1
    batch_samples: int = 64
    """Samples a batch: a call to an actor costs about a millisecond, a cheap check some microseconds."""
    wait_seconds: float = 0.01
    """How long a check waits for company while all members are busy with at least one batch."""
    member_batches: int = 4
    """Batches in flight a member: one that waits for a child process can serve others."""
    queue_samples: int = 4_096
    """Samples that wait before askers are held back."""
    attempts: int = 3
    """Deaths a check may meet before it is taken for their cause."""
    grow_seconds: float = 1.0
    """Between two decisions to grow: a new member takes about as long to be there."""
    idle_seconds: float = 30.0
    """How long more members than needed are kept."""


@dataclass(slots=True, eq=False)
class Check:
    """One question's samples for one verifier. ``work`` is the shell's and is not looked at."""

    work: object
    samples: int
    deaths: int = 0
    offered: float = 0.0

    @property
    def alone(self) -> bool:
        """Has it met a death? Then it shares no batch."""
        return self.deaths > 0


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Checks that go to ``member`` together."""

    member: Member
    checks: tuple[Check, ...]

    @property
    def samples(self) -> int:
        """Samples in all checks."""
        return sum(check.samples for check in self.checks)


@dataclass(frozen=True, slots=True)
class PoolStats:
    """Counts since the start, but for ``queued``, ``running`` and ``members``, which are of now."""

    queued: int = 0
    """Samples that wait."""
    running: int = 0
    """Samples at members."""
    members: int = 0
    checks: int = 0
    """Checks settled, failed ones included."""
    samples: int = 0
    batches: int = 0
    largest_batch: int = 0
    longest_queue: int = 0
    deaths: int = 0
    retries: int = 0
    given_up: int = 0
    wait_seconds: float = 0.0
    """Summed over checks, from offer to the batch that settled it."""
    busy_seconds: float = 0.0
    """Summed over batches, from sending to the reply."""

    @property
    def mean_batch(self) -> float:
        """Samples a batch."""
        return self.samples / self.batches if self.batches else 0.0


@dataclass(slots=True)
class _Seat:
    running: dict[Batch, float] = field(default_factory=dict)
    up: bool = True

    @property
    def samples(self) -> int:
        return sum(batch.samples for batch in self.running)


class PoolPolicy:
    """Queue, members and counts of one pool."""

    def __init__(self, limits: PoolLimits) -> None:
        self._limits = limits
        self._queue: deque[Check] = deque()
        self._alone: deque[Check] = deque()
        self._queued = 0
        self._seats: dict[Member, _Seat] = {}
        self._grown = -math.inf
        self._needed = 0.0
        """When the last member above ``least`` was still of use."""
        self._checks = self._samples = self._batches = self._largest = self._longest = 0
        self._deaths = self._retries = self._given_up = 0
        self._waited = self._busy = 0.0

    def has_room(self, samples: int) -> bool:
        """May a check of this size join the queue now?"""
        return self._queued == 0 or self._queued + samples <= self._limits.queue_samples

    def offer(self, check: Check, now: float) -> None:
        """Put a check in the queue. ``has_room`` is asked first."""
        check.offered = now
        (self._alone if check.alone else self._queue).append(check)
        self._queued += check.samples
        self._longest = max(self._longest, self._queued)

    def withdraw(self, check: Check) -> bool:
        """Take a check back that nobody wants any more. False: it is at a member already."""
        for queue in (self._queue, self._alone):
            if check in queue:
                queue.remove(check)
                self._queued -= check.samples
                return True
        return False

    def join(self, member: Member) -> None:
        """A member is there and well, for the first time or again."""
        self._seats.setdefault(member, _Seat()).up = True

    def send(self, now: float) -> list[Batch]:
        """Batches to send now, each to the member with the least in hand that may have one."""
        sent: list[Batch] = []
        while (batch := self._next(now)) is not None:
            self._seats[batch.member].running[batch] = now
            self._batches += 1
            self._largest = max(self._largest, batch.samples)
            sent.append(batch)
        return sent

    def done(self, batch: Batch, now: float) -> bool:
        """A batch came back. False: its member was taken for dead meanwhile, and its checks are on their way again."""
        seat = self._seats.get(batch.member)
        if seat is None or batch not in seat.running:
            return False
        self._busy += now - seat.running.pop(batch)
        for check in batch.checks:
            self._settle(check, now)
        return True

    def died(self, batch: Batch, now: float) -> list[Check] | None:
        """The member of ``batch`` died: all it had in hand goes back to the queue, but the checks returned are given
        up. Until ``join`` it is sent nothing; ``leave`` forgets it. None: that death is known already."""
        seat = self._seats.get(batch.member)
        if seat is None or batch not in seat.running:
            return None
        self._deaths += 1
        seat.up = False
        # Nothing tells which of them killed it.
        met = [check for each in seat.running for check in each.checks]
        seat.running.clear()
        lost: list[Check] = []
        for check in met:
            check.deaths += 1
            if check.deaths >= self._limits.attempts:
                lost.append(check)
                self._given_up += 1
                self._settle(check, now)
            else:
                self._retries += 1
                self._alone.append(check)
                self._queued += check.samples
        return lost

    def leave(self, member: Member) -> None:
        """Forget a member with nothing in hand: it was dismissed, or will not come back."""
        self._seats.pop(member, None)

    def abandon(self, now: float) -> list[Check]:
        """Give up all that waits: no member can be had."""
        lost = [*self._alone, *self._queue]
        self._alone.clear()
        self._queue.clear()
        self._queued = 0
        self._given_up += len(lost)
        for check in lost:
            self._settle(check, now)
        return lost

    def wake(self) -> float | None:
        """When ``send`` may have something new to say though nothing happens; None: never."""
        if not self._queue or self._alone or not self._free():
            return None
        return self._queue[0].offered + self._limits.wait_seconds

    def grow(self, now: float) -> bool:
        """Should one more member be started? Answering yes counts as a decision."""
        count, wanted = len(self._seats), self._wanted()
        if count >= wanted or now - self._grown < self._limits.grow_seconds:
            return False
        self._grown = now
        return True

    def shrink(self, now: float) -> Member | None:
        """A member to dismiss, or None: one that is idle, after ``idle_seconds`` in which fewer would have done."""
        if len(self._seats) <= self._limits.least or self._wanted() >= len(self._seats):
            self._needed = now
            return None
        if now - self._needed < self._limits.idle_seconds:
            return None
        idle = [member for member, seat in self._seats.items() if seat.up and not seat.running]
        return idle[-1] if idle else None

    def stats(self) -> PoolStats:
        """Counts and gauges."""
        return PoolStats(
            queued=self._queued,
            running=sum(seat.samples for seat in self._seats.values()),
            members=sum(seat.up for seat in self._seats.values()),
            checks=self._checks,
            samples=self._samples,
            batches=self._batches,
            largest_batch=self._largest,
            longest_queue=self._longest,
            deaths=self._deaths,
            retries=self._retries,
            given_up=self._given_up,
            wait_seconds=self._waited,
            busy_seconds=self._busy,
        )

    def _wanted(self) -> int:
        """One member for each load it can have in hand, of what waits and runs."""
        load = self._queued + sum(seat.samples for seat in self._seats.values())
        each = self._limits.batch_samples * self._limits.member_batches
        return min(self._limits.most, max(self._limits.least, math.ceil(load / each)))

    def _free(self) -> list[Member]:
        """Members that may have another batch, the least laden first. One that works on a suspect gets no other."""
        room = self._limits.member_batches
        free = [
            member
            for member, seat in self._seats.items()
            if seat.up
            and len(seat.running) < room
            and not any(check.alone for batch in seat.running for check in batch.checks)
        ]
        return sorted(free, key=lambda member: (len(self._seats[member].running) > 0, self._seats[member].samples))

    def _next(self, now: float) -> Batch | None:
        """The next batch: a suspect alone on an idle member, else what is first in the queue."""
        free = self._free()
        if not free:
            return None
        member = free[0]
        idle = not self._seats[member].running
        if self._alone:
            # All hold back until one member is idle: it will not be long, and suspects must not starve.
            return self._take(member, self._alone, 1) if idle else None
        if not self._queue:
            return None
        waiting = count = 0
        for check in self._queue:
            if count and waiting + check.samples > self._limits.batch_samples:
                break
            waiting += check.samples
            count += 1
        full = waiting >= self._limits.batch_samples or count < len(self._queue)
        if idle or full or now - self._queue[0].offered >= self._limits.wait_seconds:
            return self._take(member, self._queue, count)
        return None

    def _take(self, member: Member, queue: deque[Check], count: int) -> Batch:
        batch = Batch(member, tuple(queue.popleft() for _ in range(count)))
        self._queued -= batch.samples
        return batch

    def _settle(self, check: Check, now: float) -> None:
        self._checks += 1
        self._samples += check.samples
        self._waited += now - check.offered
