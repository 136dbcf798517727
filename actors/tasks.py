"""The asyncio tasks of one worker life: the first failure of any of them ends the life.

Owns the tasks. Knows nothing of questions or samples.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable


class Tasks:
    """Spawns tasks, remembers their first failure and wakes whoever waits."""

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None

    def spawn(self, work: Awaitable[None]) -> asyncio.Task[None]:
        """Start a task that is nobody's to await."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def check(self) -> None:
        """Raise the first failure, if there was one."""
        if self._failure is not None:
            raise self._failure

    def cancel(self) -> None:
        """Cancel everything that still runs."""
        for task in list(self._tasks):
            task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or task.exception() is None:
            return
        self._failure = self._failure or task.exception()
        self.wake.set()
