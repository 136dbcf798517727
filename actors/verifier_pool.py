"""A pool of verifier processes as its askers see it: ``PoolPolicy`` decides, this carries it out.

Plain asyncio, no Ray: ``Members`` is what a member can do. Promises: every ``check`` ends, with one verdict a sample or
a ``VerifierError``; askers wait while the queue is full; a call that does not come back in time costs its member, not
the question. A cancelled ``check`` leaves the queue; what a member already works on ends by its own limits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.errors import VerifierError
from pipeline.records import Item, Sample, Verdict
from verifiers.pool_policy import Batch, Check, Member, PoolLimits, PoolPolicy, PoolStats

TIDY_SECONDS = 5.0
"""Between two looks at whether a member has become superfluous."""
START_ATTEMPTS = 3
"""Members that may fail to start in a row, while none is left, before what waits is given up."""

CLOSED = "the verifier pool was closed"


@dataclass(frozen=True, slots=True)
class Request:
    """Check these samples with the job's verifier number ``index``."""

    index: int
    item: Item
    samples: tuple[Sample, ...]


class MemberDied(Exception):
    """A member is gone, or did not answer in time and was ended."""


class Members(Protocol):
    """The processes a pool is made of."""

    async def call(self, member: Member, requests: Sequence[Request]) -> list[list[Verdict]]:
        """One list of verdicts a request. Raises MemberDied; VerifierError where it failed otherwise and is well."""
        ...

    async def end(self, member: Member) -> None:
        """Kill a member that does not answer; ``revive`` tells whether it comes back."""
        ...

    async def revive(self, member: Member) -> bool:
        """Wait until a member that died is well again. False: it will not be."""
        ...

    async def start(self) -> Member | None:
        """Another member, well; None where no more can be had."""
        ...

    async def dismiss(self, member: Member) -> None:
        """Let a member go."""
        ...


class ProcessDied(VerifierError):
    """The processes that were asked died of it, as far as one can tell."""


@dataclass(frozen=True, slots=True, eq=False)
class _Work:
    request: Request
    result: asyncio.Future[list[Verdict]]

    def fail(self, error: VerifierError) -> None:
        if not self.result.done():
            self.result.set_exception(error)


class CheckPool:
    """Spreads checks over members. Belongs to the event loop that first uses it."""

    def __init__(
        self,
        members: Members,
        first: Sequence[Member],
        limits: PoolLimits,
        call_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``first``: members that are there already. ``call_seconds``: what one batch may take before its member is
        taken for dead; longer than any limit inside the member."""
        self._members, self._limits, self._call_seconds, self._clock = members, limits, call_seconds, clock
        self._policy = PoolPolicy(limits)
        for member in first:
            self._policy.join(member)
        self._present = len(first)
        """Members the policy knows, those that are down and may come back included."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: set[_Work] = set()
        self._waiters: list[asyncio.Future[None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._tidier: asyncio.TimerHandle | None = None
        self._failed_starts = 0
        self._starting = False
        self._closed = False

    async def check(self, request: Request, suspect: bool = False) -> list[Verdict]:
        """One verdict a sample. Waits while the queue is full. ``suspect``: it goes alone, it was part of a death.

        Raises:
            ProcessDied: every attempt ended with its process dead.
            VerifierError: it hung, no process can be had, or the reply has the wrong shape.
        """
        while not self._closed and not self._policy.has_room(len(request.samples)):
            room = asyncio.get_running_loop().create_future()
            self._waiters.append(room)
            await room
        if self._closed:
            raise VerifierError(CLOSED)
        work = _Work(request, asyncio.get_running_loop().create_future())
        check = Check(work, len(request.samples), deaths=int(suspect))
        self._open.add(work)
        self._policy.offer(check, self._clock())
        self._pump()
        try:
            return await work.result
        finally:
            self._open.discard(work)
            if work.result.cancelled() and self._policy.withdraw(check):
                self._pump()

    def stats(self) -> PoolStats:
        """Counts and gauges."""
        return self._policy.stats()

    async def close(self) -> None:
        """Give up what waits and stop. Members are their owner's to end. Idempotent."""
        self._closed = True
        for timer in (self._timer, self._tidier):
            if timer is not None:
                timer.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._policy.abandon(self._clock())
        for work in list(self._open):
            work.fail(VerifierError(CLOSED))
        self._let_in()

    def _pump(self) -> None:
        """Send what can be sent, start what is wanted, and come back when waiting alone changes the answer."""
        if self._closed:
            return
        now = self._clock()
        for batch in self._policy.send(now):
            self._spawn(self._run(batch))
        wanted = self._policy.stats().queued > 0 and self._present == 0
        if not self._starting and (wanted or self._policy.grow(now)):
            self._starting = True
            self._spawn(self._start())
        if self._timer is not None:
            self._timer.cancel()
        wake, loop = self._policy.wake(), asyncio.get_running_loop()
        self._timer = None if wake is None else loop.call_later(max(0.0, wake - now), self._pump)
        if self._tidier is None and self._limits.most > self._limits.least:
            self._tidier = loop.call_later(TIDY_SECONDS, self._tidy)
        if self._policy.has_room(1):
            self._let_in()

    async def _run(self, batch: Batch) -> None:
        works = [_work(check) for check in batch.checks]
        try:
            async with asyncio.timeout(self._call_seconds):
                replies = await self._members.call(batch.member, [work.request for work in works])
        except MemberDied as died:
            await self._died(batch, ProcessDied(f"the verifier's process died of it, each time: {died}"))
        except TimeoutError:
            await self._members.end(batch.member)
            hung = f"the verifier's process gave no reply within {self._call_seconds:g} s and was ended, each time"
            await self._died(batch, VerifierError(hung))
        except Exception as error:
            # The member answered, so it is well: these checks cannot be made, and asking again would not help.
            if self._policy.done(batch, self._clock()):
                for work in works:
                    work.fail(VerifierError(f"the verifier's process failed: {type(error).__name__}: {error}"))
            self._pump()
        else:
            if self._policy.done(batch, self._clock()):
                self._settle(works, replies)
            self._pump()

    def _settle(self, works: Sequence[_Work], replies: object) -> None:
        broken = VerifierError("the verifier's process broke its contract: one verdict a sample expected")
        if not isinstance(replies, list) or len(replies) != len(works):
            for work in works:
                work.fail(broken)
            return
        for work, verdicts in zip(works, replies, strict=True):
            if not isinstance(verdicts, list) or len(verdicts) != len(work.request.samples):
                work.fail(broken)
            elif not work.result.done():
                work.result.set_result(verdicts)

    async def _died(self, batch: Batch, error: VerifierError) -> None:
        lost = self._policy.died(batch, self._clock())
        if lost is None:
            return
        self._give_up(lost, error)
        self._pump()
        if await self._members.revive(batch.member):
            self._policy.join(batch.member)
        else:
            self._policy.leave(batch.member)
            self._present -= 1
            await self._members.dismiss(batch.member)
        self._pump()

    async def _start(self) -> None:
        try:
            member = await self._members.start()
        except Exception:  # a start that fails is a member that cannot be had
            member = None
        finally:
            self._starting = False
        if member is not None:
            self._failed_starts = 0
            self._present += 1
            self._policy.join(member)
        elif self._present == 0:
            self._failed_starts += 1
            if self._failed_starts >= START_ATTEMPTS:
                self._failed_starts = 0
                self._give_up(self._policy.abandon(self._clock()), VerifierError("no verifier process can be had"))
        self._pump()

    def _tidy(self) -> None:
        self._tidier = None
        member = self._policy.shrink(self._clock())
        if member is not None:
            self._policy.leave(member)
            self._present -= 1
            self._spawn(self._members.dismiss(member))
        self._pump()

    def _give_up(self, checks: Sequence[Check], error: VerifierError) -> None:
        for check in checks:
            _work(check).fail(error)
        self._let_in()

    def _let_in(self) -> None:
        """Wake those that wait for room; each looks for itself."""
        waiting, self._waiters = self._waiters, []
        for room in waiting:
            if not room.done():
                room.set_result(None)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _work(check: Check) -> _Work:
    assert isinstance(check.work, _Work)
    return check.work
