"""The worker's inside: speaks to the allocator for its questions and its samples (``questions``, ``dispatch``).

Plain asyncio: no Ray. The actor in ``actors.worker`` gives it an engine, a store, a judge and a way to reach the
allocator. Any failure of store or engine ends the station: the shards it held are opened again elsewhere, from the
journal.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Awaitable, Callable

from actors.checks import JudgeTerms
from actors.dispatch import Dispatch
from actors.engines.base import Engine
from actors.engines.fleet import Fleet
from actors.judge import Judge
from actors.life import Life
from actors.logbook import FLUSH_SECONDS, Logbook
from actors.questions import Questions
from actors.session import Embed, Terms, no_embedder
from actors.siblings import Siblings
from actors.tasks import Tasks
from budgets.cost import TOKENS, CostModel
from budgets.messages import Reply, WorkerReport
from pipeline.errors import RunFailed
from pipeline.records import Decided, Sample, Shard
from pipeline.spec import JobSpec
from pipeline.store import Store

Sync = Callable[[WorkerReport], Awaitable[Reply]]

# A worker reports once a second; sooner when it has free slots and nothing it may start.
SYNC_SECONDS = 1.0
SYNC_MIN_SECONDS = 0.05
# A new shard is opened while fewer first samples than this many engine-fulls wait.
_READY_FILLS = 1
# Shards opened at once after the deadline: their questions only have to be answered with what there is.
_CLOSING_SHARDS = 4


class Station:
    """One worker life. ``run`` returns when the allocator says the run is done, or raises what ended it."""

    def __init__(
        self,
        spec: JobSpec,
        shards: dict[int, Shard],
        engine: Engine | Fleet,
        store: Store,
        judge: Judge,
        life: str,
        cost: CostModel = TOKENS,
        embed: Embed = no_embedder,
    ) -> None:
        self._tasks = Tasks()
        self._log = Logbook(store, life)
        siblings = Siblings(spec.reuse)
        self._life = Life(life, spec, cost, shards, Fleet.of(engine), store, self._log, self._tasks, siblings)
        self._dispatch = Dispatch(self._life, self._landed)
        terms = Terms(
            spec=spec,
            cost=cost,
            submit=self._dispatch.submit,
            cancel=self._dispatch.cancel,
            prior_tokens=self._dispatch.prior,
            prepare=self._life.fleet.prepare,
            checks=JudgeTerms(spec, cost, judge, self._dispatch.submit, self._log.note),
            writer=life,
            ahead=self._dispatch.ahead,
            experience=lambda: self._questions.known(),
            decided=self._decided,
            embed=embed,
        )
        self._questions = Questions(self._life, judge, terms, self._dispatch)
        self._seq = 0
        self._stopping = False

    async def run(self, sync: Sync) -> None:
        """Work until done or ``stop``. Raises StoreError or EngineError; open shards are then left to others."""
        flusher = self._tasks.spawn(self._flush_often())
        try:
            while True:
                reply = await sync(self._report())
                self._apply(reply)
                self._dispatch.pump()
                if (reply.done and self._questions.empty) or self._stopping:
                    break
                await self._rest(reply)
                self._tasks.check()
        finally:
            flusher.cancel()
            await self._dispatch.put_down()
            self._tasks.cancel()
            await self._log.flush()

    def stop(self) -> None:
        """Ask the station to stop: samples in flight are aborted, everything paid is journalled."""
        self._stopping = True
        self._dispatch.halt()
        self._tasks.wake.set()

    async def _rest(self, reply: Reply) -> None:
        """Wait for the next sync: a second, or a moment when something waits that money could start."""
        starved = self._dispatch.useful_slots > 0
        # Woken by what changes the picture: a landed sample that leaves slots free, a finished shard, a failure.
        self._tasks.wake.clear()
        await asyncio.sleep(SYNC_MIN_SECONDS)
        if starved and (reply.grants or reply.open_shards or len(self._dispatch.till.desk)):
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._tasks.wake.wait(), SYNC_SECONDS - SYNC_MIN_SECONDS)

    def _report(self) -> WorkerReport:
        self._seq += 1
        wanted = self._wanted()
        # A new shard asks models that what waits may not; else a slot that nothing waits for is worth no grant.
        idle = self._dispatch.idle_slots if wanted else self._dispatch.useful_slots
        return dataclasses.replace(
            self._dispatch.till.report(self._life.name, self._seq, self._dispatch.inflight, idle),
            shards=self._questions.states(),
            wants_shards=wanted,
            samples=self._dispatch.samples,
            lendable=self._questions.loans.lendable(),
            borrows=self._borrows(),
            lent=self._questions.loans.lent(),
            borrowed=self._questions.loans.borrowed(),
        )

    def _wanted(self) -> int:
        ready = self._dispatch.till.desk.minimums >= _READY_FILLS * self._life.fleet.capacity
        if self._stopping or ready:
            return 0
        return self._questions.wanted() * (_CLOSING_SHARDS if self._dispatch.expired else 1)

    def _borrows(self) -> int:
        """Slots that stand idle though money is there: nothing waits at the desk, nothing is about to."""
        if self._stopping or self._dispatch.expired or len(self._dispatch.till.desk):
            return 0
        return min(self._dispatch.idle_slots, self._questions.room())

    def _apply(self, reply: Reply) -> None:
        if reply.reset:
            raise RunFailed("the allocator does not know this worker any more; run the same command again to go on")
        self._questions.apply(reply)
        self._dispatch.apply(reply)

    def _landed(self, shard_id: int, sample: Sample) -> None:
        self._questions.landed(shard_id, sample)

    def _decided(self, shard_id: int, item_id: str, name: str, choice: str) -> None:
        self._log.note(shard_id, Decided(item_id, name, choice, self._life.name))

    async def _flush_often(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self._log.flush()
