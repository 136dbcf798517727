"""Who works on which shard, in which generation, and what the closed questions cost.

Promises: a shard has at most one worker; sums over all shards are kept as reports come in, so reading them costs
nothing however many shards there are; a generation that bought nothing is not followed by another. Pure.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from budgets.curve import LOWEST, DemandCurve, Pairs
from budgets.ledger import LedgerError
from budgets.messages import Commits, ShardLease, ShardState


class _Stage(Enum):
    WAITING = "waiting"
    OPEN = "open"
    COMMITTED = "committed"


@dataclass
class _Shard:
    shard_id: int
    items: int
    stage: _Stage = _Stage.WAITING
    generation: int = 0
    min_value: float = 0.0
    worker: str | None = None
    reported: bool = False
    was_committed: bool = False
    open: int = 0
    finished: int = 0
    finished_tokens: int = 0
    parked: Pairs = ()
    """Demand of refused questions; counted until the next generation's worker reports it as demand of its own."""
    barren: Pairs = ()
    """Demand of refused questions that the last generation could not serve: set aside until the budget rises."""

    @property
    def unstarted(self) -> int:
        return 0 if self.was_committed else max(0, self.items - self.finished - self.open)


class Leases:
    """All shards of a run. Never-committed shards count item by item; once committed, all their items are finished."""

    def __init__(self, shards: Mapping[int, int], committed: Commits) -> None:
        """``shards``: id to number of questions (>= 1). ``committed``: what commit objects say on a restart.

        Raises:
            LedgerError: a shard without questions, or a commit of an unknown shard.
        """
        self.items = 0
        self.finished = 0
        self.finished_tokens = 0
        self.unstarted = 0
        self.parked = DemandCurve()
        self.committed = 0
        self._shards: dict[int, _Shard] = {}
        self._held: dict[str, dict[int, _Shard]] = {}
        self._waiting: list[int] = []
        self._withheld: set[int] = set()
        for shard_id, items in shards.items():
            if items < 1:
                raise LedgerError(f"shard {shard_id} has {items!r} questions: a shard holds at least one")
            shard = self._shards[shard_id] = _Shard(shard_id, items)
            self.items += items
            commit = committed.get(shard_id)
            if commit is None:
                self._waiting.append(shard_id)
            else:
                shard.stage, shard.was_committed, shard.generation = _Stage.COMMITTED, True, commit.generation
                shard.finished, shard.finished_tokens = items, commit.finished_tokens
                shard.parked = _worth_buying(commit.parked)
            self._count(shard, 1)
        unknown = sorted(set(committed) - set(self._shards))
        if unknown:
            raise LedgerError(f"commits name shards the plan does not have: {unknown[:5]}")
        heapq.heapify(self._waiting)

    @property
    def total(self) -> int:
        """Number of shards."""
        return len(self._shards)

    @property
    def waiting(self) -> int:
        """Shards that may be leased now, first time or again."""
        return len(self._waiting)

    @property
    def open(self) -> int:
        """Shards leased to workers."""
        return sum(len(held) for held in self._held.values())

    @property
    def all_committed(self) -> bool:
        """True when every shard is committed and none is to be reopened."""
        return self.committed == len(self._shards)

    def held_by(self, worker: str) -> tuple[ShardLease, ...]:
        """Everything leased to a worker and not committed, in shard order."""
        held = self._held.get(worker, {})
        return tuple(ShardLease(s.shard_id, s.generation, s.min_value) for _, s in sorted(held.items()))

    def lease_of(self, worker: str, shard_id: int) -> ShardLease | None:
        """One shard's lease, where this worker holds it."""
        shard = self._held.get(worker, {}).get(shard_id)
        return ShardLease(shard.shard_id, shard.generation, shard.min_value) if shard else None

    def unreported(self, worker: str) -> int:
        """Leases the worker has not reported yet: it may not know of them."""
        return sum(not shard.reported for shard in self._held.get(worker, {}).values())

    def unstarted_of(self, worker: str) -> int:
        """Questions of a worker's own shards that it has not admitted yet."""
        return sum(shard.unstarted for shard in self._held.get(worker, {}).values())

    def lease(self, worker: str, count: int) -> int:
        """Lease up to ``count`` waiting shards in shard order; how many were."""
        count = min(count, len(self._waiting))
        for _ in range(count):
            shard = self._shards[heapq.heappop(self._waiting)]
            shard.stage, shard.worker, shard.reported = _Stage.OPEN, worker, False
            self._held.setdefault(worker, {})[shard.shard_id] = shard
        return max(0, count)

    def report(self, worker: str, states: Iterable[ShardState]) -> tuple[int, ...]:
        """Take a worker's view of its shards; the ids whose commit is now known. Shards it lost are ignored."""
        acked: list[int] = []
        for state in states:
            shard = self._shards.get(state.shard_id)
            if shard is None:
                raise LedgerError(f"worker {worker} reports shard {state.shard_id}, which the plan does not have")
            if shard.worker == worker and shard.generation == state.generation and shard.stage is _Stage.OPEN:
                self._update(shard, state)
                if state.committed:
                    del self._held[worker][shard.shard_id]
            if state.committed and shard.was_committed and shard.generation >= state.generation:
                acked.append(state.shard_id)
        return tuple(acked)

    def release(self, worker: str, withhold: Callable[[int], bool] = lambda shard_id: False) -> None:
        """Give a lost worker's shards back to be opened again, same generation; what they finished is journalled.

        Those ``withhold`` holds for may not be leased before ``allow`` names them.
        """
        for shard in self._held.pop(worker, {}).values():
            self._count(shard, -1)
            shard.stage, shard.worker, shard.reported, shard.open = _Stage.WAITING, None, False, 0
            self._count(shard, 1)
            if withhold(shard.shard_id):
                self._withheld.add(shard.shard_id)
            else:
                heapq.heappush(self._waiting, shard.shard_id)

    def allow(self, shard_ids: Iterable[int]) -> None:
        """Shards that were withheld may be leased."""
        for shard_id in self._withheld.intersection(shard_ids):
            self._withheld.discard(shard_id)
            heapq.heappush(self._waiting, shard_id)

    def reopen(self, price: float) -> int:
        """Queue a new generation of every committed shard with parked demand at or above ``price``; how many."""
        floor = max(price, LOWEST)
        reopened = 0
        for shard in self._shards.values():
            if shard.stage is _Stage.COMMITTED and any(bid >= floor for bid, _ in shard.parked):
                self._count(shard, -1)
                shard.stage, shard.reported = _Stage.WAITING, False
                shard.generation, shard.min_value = shard.generation + 1, floor
                self._count(shard, 1)
                heapq.heappush(self._waiting, shard.shard_id)
                reopened += 1
        return reopened

    def revive(self) -> None:
        """Let demand that was set aside compete again: there is new money."""
        for shard in self._shards.values():
            if shard.barren:
                self._count(shard, -1)
                shard.parked, shard.barren = shard.barren, ()
                self._count(shard, 1)

    def _update(self, shard: _Shard, state: ShardState) -> None:
        self._count(shard, -1)
        shard.reported = True
        if state.committed:
            bought = not shard.was_committed or state.finished_tokens > shard.finished_tokens
            parked = _worth_buying(state.parked)
            shard.parked, shard.barren = (parked, ()) if bought else ((), parked)
            shard.stage, shard.worker, shard.was_committed = _Stage.COMMITTED, None, True
            shard.open, shard.finished, shard.finished_tokens = 0, shard.items, state.finished_tokens
        elif not shard.was_committed:
            # A shard returned by a lost worker is replayed from its journal: what it finished before stays finished.
            shard.open = state.open
            if state.finished >= shard.finished:
                shard.finished, shard.finished_tokens = state.finished, state.finished_tokens
        self._count(shard, 1)

    def _count(self, shard: _Shard, sign: int) -> None:
        self.finished += sign * shard.finished
        self.finished_tokens += sign * shard.finished_tokens
        self.unstarted += sign * shard.unstarted
        self.committed += sign * (shard.stage is _Stage.COMMITTED)
        if not shard.reported or shard.stage is _Stage.COMMITTED:
            self.parked.add_pairs(shard.parked, sign)


def _worth_buying(parked: Pairs) -> Pairs:
    """Parked demand without what no money should go to."""
    return tuple((bid, tokens) for bid, tokens in parked if bid >= LOWEST and tokens > 0)
