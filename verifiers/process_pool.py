"""A few processes that serve one request at a time and are thrown away at the first doubt.

Promises: a process is used by one request at a time; one whose request failed, was cancelled or ran late never serves
another; after ``close`` none is left. Owns the processes; what is said to them is the owner's. A pool belongs to the
event loop that first uses it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from pipeline.errors import VerifierError


class Member(Protocol):
    """One process. ``served``: requests it was given so far."""

    served: int

    @property
    def pid(self) -> int: ...

    @property
    def alive(self) -> bool: ...

    def kill(self) -> None:
        """End it, soon. Harmless where it has ended."""
        ...

    async def end(self) -> None:
        """Kill it and wait until it is gone. Not while a request waits for it."""
        ...


M = TypeVar("M", bound=Member)


@dataclass(slots=True)
class Turn(Generic[M]):
    """A request's hold on a process. Set ``healthy`` once its reply is whole; else the process is thrown away."""

    member: M
    healthy: bool = False


class ProcessPool(Generic[M]):
    """At most ``size`` processes, started when needed. ``start`` must ``hold`` what it starts; ``who``: for errors."""

    def __init__(self, size: int, recycle_after: int, who: str, start: Callable[[], Awaitable[M]]) -> None:
        self._size, self._recycle_after, self._who, self._start = size, recycle_after, who, start
        self._turns = asyncio.Semaphore(size)
        self._idle: list[M] = []
        self._held: set[M] = set()
        self._closed = False

    @property
    def pids(self) -> frozenset[int]:
        """Process ids of the processes now held."""
        return frozenset(member.pid for member in self._held)

    @property
    def closed(self) -> bool:
        """True from ``close`` on."""
        return self._closed

    def hold(self, member: M) -> None:
        """Take a process that is starting into the pool's keeping."""
        self._held.add(member)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[Turn[M]]:
        """A process for one request, once one is free. Raises VerifierError after close, and what ``start`` raises."""
        async with self._turns:
            turn = Turn(await self._take())
            try:
                yield turn
            finally:
                # Cancelled too: what an unread result would do to the next request, and what may still go on inside.
                if turn.healthy and turn.member.served < self._recycle_after and not self._closed:
                    self._idle.append(turn.member)
                else:
                    await self.discard(turn.member)

    async def discard(self, member: M) -> None:
        """Kill a process and wait until it is gone."""
        member.kill()
        self._held.discard(member)
        await member.end()

    async def close(self) -> None:
        """Kill all processes, requests in flight included, and wait until they are gone. Idempotent."""
        self._closed = True
        for member in self._held:
            member.kill()
        while self._idle:
            await self.discard(self._idle.pop())
        # Those in flight discard their own; once every turn is ours, none is left.
        for _ in range(self._size):
            await self._turns.acquire()
        for _ in range(self._size):
            self._turns.release()

    async def _take(self) -> M:
        if self._closed:
            raise VerifierError(f"{self._who}: used after close")
        while self._idle:
            member = self._idle.pop()
            if member.alive:
                return member
            await self.discard(member)
        return await self._start()
