"""The time that engines without a model pretend to take, and how it is cut short."""

from __future__ import annotations

import asyncio


class Pretence:
    """Requests that run for as long as told, unless they are cut."""

    def __init__(self, seconds: float) -> None:
        """``seconds``: how long each request runs."""
        self._seconds = seconds
        self._running: dict[str, asyncio.Event] = {}

    @property
    def running(self) -> int:
        """How many requests run."""
        return len(self._running)

    async def run(self, request_id: str) -> bool:
        """Take the time of one request; False where it was cut."""
        cut = self._running[request_id] = asyncio.Event()
        try:
            await asyncio.wait_for(cut.wait(), timeout=self._seconds)
        except TimeoutError:
            return True
        finally:
            del self._running[request_id]
        return False

    def cut(self, request_id: str) -> None:
        """End a request early; nothing where it does not run."""
        if request_id in self._running:
            self._running[request_id].set()

    def cut_all(self) -> None:
        """End everything early."""
        for cut in self._running.values():
            cut.set()
