"""The desk: samples that are wanted and not yet paid for, best bid first.

Pure bookkeeping: no engine, no Ray, no clock. A question waits here between asking for a sample and either the engine
starting on it (``take``) or the market refusing it (``deny_below``, ``deny_all``).
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from actors.engines.base import Prompt
from pipeline.errors import BudgetDenied
from pipeline.records import Item, Sample


@dataclass(slots=True)
class Ask:
    """One wanted sample. ``worst`` is what a grant must reserve for it, in tokens; ``paid`` resolves to the sample."""

    bid: float
    worst: int
    item: Item
    shard_id: int
    sample_index: int
    prompt: Prompt
    prompt_key: str
    temperature: float
    attempt: int
    paid: asyncio.Future[Sample]
    request_id: str = ""


@dataclass(slots=True)
class Desk:
    """A heap of asks by bid, first come first served among equals."""

    _heap: list[tuple[float, int, Ask]] = field(default_factory=list)
    _arrivals: int = 0

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[Ask]:
        return (ask for _, _, ask in self._heap)

    def add(self, ask: Ask) -> None:
        """Queue an ask."""
        self._arrivals += 1
        heapq.heappush(self._heap, (-ask.bid, self._arrivals, ask))

    def best(self) -> Ask | None:
        """The ask with the highest bid, left in place. Asks whose question gave up are dropped on the way."""
        while self._heap:
            ask = self._heap[0][2]
            if not ask.paid.done():
                return ask
            heapq.heappop(self._heap)
        return None

    def take(self) -> Ask:
        """Remove and return the best ask. Raises IndexError when there is none."""
        if self.best() is None:
            raise IndexError("the desk is empty")
        return heapq.heappop(self._heap)[2]

    def deny_below(self, price: float) -> int:
        """Refuse every ask that bids less than ``price``; returns how many."""
        kept, denied = [], 0
        for entry in self._heap:
            ask = entry[2]
            if ask.paid.done():
                continue
            if ask.bid < price:
                ask.paid.set_exception(BudgetDenied(price))
                denied += 1
            else:
                kept.append(entry)
        heapq.heapify(kept)
        self._heap = kept
        return denied

    def deny_all(self) -> int:
        """Refuse everything, minimum included: the budget is dry."""
        denied = 0
        for _, _, ask in self._heap:
            if not ask.paid.done():
                ask.paid.set_exception(BudgetDenied(math.inf))
                denied += 1
        self._heap = []
        return denied
