"""The desk: samples that are wanted and not yet paid for, best bid first.

Pure bookkeeping: no engine, no Ray, no clock. A question waits here between asking for a sample and either the engine
starting on it (``take``) or the market refusing it (``deny_below``, ``deny_all``). Live workers queue ``Ask``; replay
queues asks of its own over the same desk: whatever has a bid, a worst case and somebody to tell is a ``Wanted``.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol

from typing_extensions import TypeVar

from actors.engines.base import Prompt
from budgets.curve import DemandCurve, Pairs
from pipeline.errors import BudgetDenied
from pipeline.records import Item, Sample, Verdict
from strategies.base import Draw


class Told(Protocol):
    """Who waits for a sample; an ``asyncio.Future`` is one."""

    def done(self) -> bool:
        """True once nobody waits any more."""
        ...

    def set_exception(self, exception: BudgetDenied, /) -> None:
        """Say that the sample is refused."""
        ...


class Wanted(Protocol):
    """What the desk needs of an ask; see ``Ask``."""

    @property
    def bid(self) -> float: ...

    @property
    def worst(self) -> int: ...

    @property
    def paid(self) -> Told: ...


@dataclass(slots=True)
class Ask:
    """One wanted sample. ``worst`` is what a grant must reserve for it, in units; ``paid`` resolves to the sample.
    ``draw`` is how it is asked for, its temperature resolved.

    ``found``: what another run generated for it, and ``warm``: tokens of its prompt that were charged with others
    (``actors.siblings``). ``ahead``: drawn before its question needs it, to fill an idle slot. ``interrupted``: the run
    cuts it, whatever its strategy wants.
    """

    bid: float
    worst: int
    item: Item
    shard_id: int
    sample_index: int
    prompt: Prompt
    prompt_key: str
    draw: Draw
    attempt: int
    paid: asyncio.Future[Sample]
    found: Sample | None = None
    warm: int = 0
    request_id: str = ""
    ahead: bool = False
    interrupted: bool = False


@dataclass(slots=True, eq=False)
class Check:
    """One wanted check that costs tokens. ``run`` makes and journals it; ``paid`` resolves to its verdicts.

    ``worst`` is what a grant must reserve for all its samples, in units.
    """

    bid: float
    worst: int
    item: Item
    shard_id: int
    run: Callable[[], Awaitable[list[Verdict]]]
    paid: asyncio.Future[list[Verdict]]
    request_id: str = ""
    ahead: bool = False
    """Never: a check is asked for when its question needs it."""
    interrupted: bool = False


W = TypeVar("W", bound=Wanted, default=Ask)


@dataclass(slots=True)
class Desk(Generic[W]):
    """Heaps of asks by bid, first come first served among equals; one heap a *lane*: what asks of it run on.

    What waits is summed up as it comes and goes, so reading ``demand`` and its like costs nothing however long the
    heaps, and a lane that has no room costs the others nothing. An ask that was withdrawn counts until the desk comes
    across it.
    """

    minimums: int = 0
    """Asks that wait with an infinite bid: a question's guaranteed minimum."""
    _lanes: dict[str, list[tuple[float, int, W]]] = field(default_factory=dict)
    _arrivals: int = 0
    _worsts: Counter[int] = field(default_factory=Counter)
    _demand: DemandCurve = field(default_factory=DemandCurve)

    def __len__(self) -> int:
        return sum(map(len, self._lanes.values()))

    def __iter__(self) -> Iterator[W]:
        return (ask for heap in self._lanes.values() for _, _, ask in heap)

    @property
    def waiting(self) -> dict[str, int]:
        """Lane → how many wait in it; lanes where none does are left out."""
        return {lane: len(heap) for lane, heap in self._lanes.items() if heap}

    def add(self, ask: W, lane: str = "") -> None:
        """Queue an ask."""
        self._arrivals += 1
        self._worsts[ask.worst] += 1
        self._demand.add(ask.bid, ask.worst)
        self.minimums += ask.bid == math.inf
        heapq.heappush(self._lanes.setdefault(lane, []), (-ask.bid, self._arrivals, ask))

    @property
    def smallest_worst(self) -> int:
        """The smallest worst case that waits, in tokens; 0 when nothing does."""
        return min(self._worsts, default=0)

    @property
    def largest_worst(self) -> int:
        """The largest worst case that waits, in tokens; 0 when nothing does."""
        return max(self._worsts, default=0)

    def demand(self) -> Pairs:
        """Worst cases of what waits, by bid."""
        return self._demand.to_pairs()

    def startable(self, free: int, price: float) -> bool:
        """True where ``take`` would find something if every lane had room."""
        heads = [heap[0] for heap in self._lanes.values() if heap]
        if not heads or free < self.smallest_worst or -min(heads)[0] < price:
            return False
        if any(-bid >= price and ask.worst <= free and not ask.paid.done() for bid, _, ask in heads):
            return True
        return any(ask.bid >= price and ask.worst <= free and not ask.paid.done() for ask in self)

    def take(self, free: int, price: float, lanes: Iterable[str] | None = None) -> W | None:
        """Remove and return the best ask that bids at least ``price`` and whose worst case fits ``free`` tokens.

        One that does not fit does not block the next: its question waits for a larger grant. ``lanes``: those that have
        room; None: all.
        """
        heaps = [heap for lane in (self._lanes if lanes is None else lanes) if (heap := self._lanes.get(lane))]
        passed: list[tuple[list[tuple[float, int, W]], tuple[float, int, W]]] = []
        found = None
        while found is None and free >= self.smallest_worst > 0:
            heap = min((heap for heap in heaps if heap), key=lambda heap: heap[0][:2], default=None)
            if heap is None:
                break
            entry = heapq.heappop(heap)
            ask = entry[2]
            if ask.paid.done():
                self._forget(ask)
            elif ask.bid < price:
                passed.append((heap, entry))
                break
            elif ask.worst > free:
                passed.append((heap, entry))
            else:
                self._forget(ask)
                found = ask
        for heap, entry in passed:
            heapq.heappush(heap, entry)
        return found

    def deny_below(self, price: float) -> int:
        """Refuse every ask that bids less than ``price``; returns how many."""
        denied = 0
        for lane, heap in self._lanes.items():
            kept = []
            for entry in heap:
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
            self._lanes[lane] = kept
        return denied

    def deny_all(self) -> int:
        """Refuse everything, minimum included: the budget is dry."""
        denied = 0
        for ask in self:
            if not ask.paid.done():
                ask.paid.set_exception(BudgetDenied(math.inf))
                denied += 1
        self._lanes.clear()
        self._worsts.clear()
        self._demand = DemandCurve()
        self.minimums = 0
        return denied

    def _forget(self, ask: W) -> None:
        self._demand.add(ask.bid, -ask.worst)
        self.minimums -= ask.bid == math.inf
        self._worsts[ask.worst] -= 1
        if not self._worsts[ask.worst]:
            del self._worsts[ask.worst]
