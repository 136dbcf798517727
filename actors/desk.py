"""The desk: samples that are wanted and not yet paid for, best bid first.

Pure bookkeeping: no engine, no Ray, no clock. A question waits here between asking for a sample and either the engine
starting on it (``take``) or the market refusing it (``deny_below``, ``deny_all``).
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections import Counter
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
    _worsts: Counter[int] = field(default_factory=Counter)

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[Ask]:
        return (ask for _, _, ask in self._heap)

    def add(self, ask: Ask) -> None:
        """Queue an ask."""
        self._arrivals += 1
        self._worsts[ask.worst] += 1
        heapq.heappush(self._heap, (-ask.bid, self._arrivals, ask))

    @property
    def smallest_worst(self) -> int:
        """The smallest worst case that waits, in tokens; 0 when nothing does."""
        return min(self._worsts, default=0)

    def take(self, free: int, price: float) -> Ask | None:
        """Remove and return the best ask that bids at least ``price`` and whose worst case fits ``free`` tokens.

        One that does not fit does not block the next: its question waits for a larger grant.
        """
        passed: list[tuple[float, int, Ask]] = []
        found = None
        while self._heap and found is None and free >= self.smallest_worst > 0:
            entry = heapq.heappop(self._heap)
            ask = entry[2]
            if ask.paid.done():
                self._forget(ask)
            elif ask.bid < price:
                passed.append(entry)
                break
            elif ask.worst > free:
                passed.append(entry)
            else:
                self._forget(ask)
                found = ask
        for entry in passed:
            heapq.heappush(self._heap, entry)
        return found

    def deny_below(self, price: float) -> int:
        """Refuse every ask that bids less than ``price``; returns how many."""
        kept, denied = [], 0
        for entry in self._heap:
            ask = entry[2]
            if ask.paid.done():
                self._forget(ask)
            elif ask.bid < price:
                self._forget(ask)
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
        self._worsts.clear()
        return denied

    def _forget(self, ask: Ask) -> None:
        self._worsts[ask.worst] -= 1
        if not self._worsts[ask.worst]:
            del self._worsts[ask.worst]
