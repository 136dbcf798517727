"""Loans of open questions at a worker: withdrawn here for another to go on with, or taken over from another's shard.

Plain asyncio: no Ray. Promises, as ``budgets.messages`` asks them:

- a question leaves only with nothing of it in the engine, its samples durable and its attempt released
- a borrowed question's attempt is durable before dispatch; its samples go to the journal of its own shard
- a loan is returned once nothing of it runs and all that was paid is durable
- a question that comes back is run again from the journal; what it did to a worker that died counts

Owns the loans. Which questions there are, and how one is asked, is ``questions``'; what waits and runs is
``dispatch``'. A borrower commits nothing and keeps no answer: the lender finds the same one in the journal, free.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

from actors.life import Life
from actors.shard_run import ShardRun
from budgets.messages import LOAN_ITEMS, Borrowed, Lent, Loan, LoanRequest, Reply, ShardLease
from pipeline.records import Item, Sample
from pipeline.source import read_shard

Place = tuple[int, str]
"""A question: shard id and item id."""
COUNTED = 16 * LOAN_ITEMS
"""A worker says once a second how many questions it could lend: to count ten thousand took a tenth of a core."""


class Engaged(Protocol):
    """What waits at the desk and runs in the engine; ``actors.dispatch.Dispatch`` is one."""

    def queued(self) -> list[Place]:
        """Questions that wait for a slot, not for money, with nothing in the engine; the best bid last.

        As many of the best as slots are free now are left out: they start at once.
        """
        ...

    def waiting(self) -> Iterator[Place]:
        """As many questions as ``queued`` has, one by one and in no order: for a count that may stop early."""
        ...

    def interrupt(self, places: Collection[Place]) -> None:
        """Cut what runs for these questions: nobody's choice."""
        ...

    async def gone(self, places: Collection[Place]) -> None:
        """Return when nothing runs for these questions."""
        ...


class Host(Protocol):
    """The worker's questions; ``actors.questions.Questions`` is one."""

    def may_lend(self, place: Place) -> bool:
        """Is this an open question of a shard held here that nobody suspects?"""
        ...

    async def withdraw(self, shard_id: int, item_ids: Collection[str]) -> list[str]:
        """Stop asking these questions; the ids of those that were stopped."""
        ...

    def held(self, shard_id: int) -> ShardRun:
        """A shard held here."""
        ...

    async def readmit(self, run: ShardRun, item_ids: Collection[str]) -> None:
        """Ask questions that were withdrawn, again; those that killed workers meanwhile as ``run.attempts`` says."""
        ...

    def enter(self, guests: Guests) -> None:
        """Let a loan's questions in once no group of suspects runs by itself: ``guests.admitted`` is then set."""
        ...

    async def leave(self, count: int) -> None:
        """So many questions run here no more."""
        ...

    async def draw(self, run: ShardRun, item: Item) -> None:
        """Ask a borrowed question: its samples are paid and journalled, its outcome is the lender's to find."""
        ...


@dataclass
class Guests:
    """A borrowed loan. ``run`` is None until it is read."""

    loan: Loan
    run: ShardRun | None = None
    admitted: asyncio.Event = field(default_factory=asyncio.Event)
    asking: list[asyncio.Task[None]] = field(default_factory=list)
    dropped: bool = False
    returned: bool = False

    @property
    def places(self) -> set[Place]:
        return {(self.loan.shard_id, item_id) for item_id in self.loan.items}


@dataclass
class Withdrawn:
    """A loan made here. ``lent`` is None until it is ready."""

    lent: Lent | None = None
    items: tuple[str, ...] = ()
    resuming: bool = False


class LoanDesk:
    """Loans made and taken by one worker life."""

    def __init__(self, life: Life, engaged: Engaged, host: Host) -> None:
        self._life, self._engaged, self._host = life, engaged, host
        self._made: dict[str, Withdrawn] = {}
        self._taken: dict[str, Guests] = {}
        self._were_lent: set[Place] = set()

    @property
    def away(self) -> int:
        """Questions of this worker's shards that are elsewhere."""
        return sum(len(made.items) for made in self._made.values())

    @property
    def hosted(self) -> int:
        """Questions of other workers' shards that are here."""
        return sum(len(taken.loan.items) for taken in self._taken.values() if not taken.returned)

    def lent(self) -> tuple[Lent, ...]:
        """What the allocator is told of loans made."""
        return tuple(made.lent for made in self._made.values() if made.lent is not None)

    def borrowed(self) -> tuple[Borrowed, ...]:
        """What the allocator is told of loans taken."""
        return tuple(Borrowed(loan_id, taken.returned) for loan_id, taken in self._taken.items())

    def lendable(self) -> int:
        """Questions that could be lent now; past ``COUNTED`` they are not told apart."""
        return sum(1 for _ in islice(filter(self._may_go, self._engaged.waiting()), COUNTED))

    def landed(self, shard_id: int, sample: Sample) -> None:
        """Take note of a paid sample of a borrowed question."""
        for taken in self._taken.values():
            if taken.loan.shard_id == shard_id and taken.run is not None:
                taken.run.note(sample)

    def apply(self, reply: Reply) -> None:
        """Begin loans, drop those whose lender died, take back those that are over."""
        for request in reply.lend:
            if request.loan_id not in self._made:
                self._made[request.loan_id] = Withdrawn()
                self._life.tasks.spawn(self._make(request))
        asked = {request.loan_id for request in reply.lend}
        for loan_id, made in self._made.items():
            if made.lent is not None and made.lent.items and loan_id not in asked:
                made.lent = dataclasses.replace(made.lent, items=None)
        for loan_id in reply.back:
            back = self._made.get(loan_id)
            if back is not None and not back.resuming:
                back.resuming = True
                self._life.tasks.spawn(self._resume(loan_id, back))
        for loan in reply.borrow:
            self._take(loan)
        named = {loan.loan_id for loan in reply.borrow}
        self._taken = {name: taken for name, taken in self._taken.items() if name in named or not taken.returned}

    # --- the lender ----------------------------------------------------------------------------------------------

    def _candidates(self) -> list[Place]:
        return list(filter(self._may_go, self._engaged.queued()))

    def _may_go(self, place: Place) -> bool:
        # A question is lent once: what another was refused, or died of, stays here.
        return place not in self._were_lent and self._host.may_lend(place)

    async def _make(self, request: LoanRequest) -> None:
        """Withdraw questions of one shard, the lowest bids: the best start here before a loan gets through."""
        found = self._candidates()
        shard_id = found[0][0] if found else 0
        chosen = [place for place in found if place[0] == shard_id][: request.count]
        made = self._made[request.loan_id]
        if chosen:
            self._were_lent.update(chosen)
            made.items = tuple(item_id for _, item_id in chosen)
            made.items = tuple(await self._host.withdraw(shard_id, made.items))
        if made.items:
            await self._life.log.release_attempts(shard_id, made.items)
        made.lent = Lent(request.loan_id, shard_id, made.items)
        self._life.tasks.wake.set()

    async def _resume(self, loan_id: str, made: Withdrawn) -> None:
        if made.lent is not None and made.items:
            shard_id, items = made.lent.shard_id, frozenset(made.items)
            run = self._host.held(shard_id)
            journal = await asyncio.to_thread(self._life.store.read_journal, shard_id)
            run.attempts = await asyncio.to_thread(
                lambda: self._life.store.attempts(shard_id, self._life.store.deaths())
            )
            for sample in journal:
                if sample.item_id in items:
                    run.note(sample)
            run.decided.update(await asyncio.to_thread(self._life.store.decided, shard_id))
            made.items = ()
            await self._host.readmit(run, items)
        del self._made[loan_id]
        self._life.tasks.wake.set()

    # --- the borrower --------------------------------------------------------------------------------------------

    def _take(self, loan: Loan) -> None:
        taken = self._taken.get(loan.loan_id)
        if taken is None:
            taken = self._taken[loan.loan_id] = Guests(loan, dropped=loan.dropped, returned=loan.dropped)
            if not loan.dropped:
                self._life.tasks.spawn(self._serve(taken))
        elif loan.dropped and not taken.dropped:
            taken.dropped = True
            self._engaged.interrupt(taken.places)
            for task in taken.asking:
                task.cancel()

    async def _serve(self, taken: Guests) -> None:
        """Ask a loan's questions, from reading them to giving them back."""
        taken.run = run = await asyncio.to_thread(self._read, taken.loan)
        self._host.enter(taken)
        await taken.admitted.wait()
        ids = [item.item_id for item in run.items]
        if not taken.dropped:
            await self._life.log.record_attempts(run.shard_id, ids)
            if not taken.dropped:
                taken.asking = [self._life.tasks.spawn(self._host.draw(run, item)) for item in run.items]
            if taken.asking:
                await asyncio.wait(taken.asking)
            if any(not task.cancelled() and task.exception() is not None for task in taken.asking):
                return  # this life is ending: whatever was in flight in it counts as attempted
            await self._engaged.gone(taken.places)
            await self._life.log.release_attempts(run.shard_id, ids)
        taken.returned = True
        self._life.tasks.wake.set()
        await self._host.leave(len(run.items))

    def _read(self, loan: Loan) -> ShardRun:
        wanted = set(loan.items)
        rows = [
            row
            for row in read_shard(self._life.spec.dataset, self._life.shards[loan.shard_id])
            if isinstance(row, Item) and row.item_id in wanted
        ]
        journal = [sample for sample in self._life.store.read_journal(loan.shard_id) if sample.item_id in wanted]
        lease = ShardLease(loan.shard_id, loan.generation, loan.min_value)
        # Nobody lends a question that is suspected, so there are no attempts to count.
        decided = self._life.store.decided(loan.shard_id)
        attempts = self._life.spec.cluster.max_attempts
        shared = self._life.siblings.read(loan.shard_id, wanted)
        return ShardRun.open(lease, rows, journal, {}, attempts, self._life.cost, decided=decided, shared=shared)
