"""Questions of one worker: shards opened, strategies run, outcomes committed.

Plain asyncio: no Ray. Invariants:

- a question's attempt is durable before any sample of it is dispatched
- a question has one outcome; a shard commits when all its questions have one, after its samples are durable

Owns the open shards. Draws nothing itself: strategies ask through their sessions.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque

from actors.assembly import make_strategy
from actors.audit import Audit, is_audited, run_audit
from actors.engines.base import Engine
from actors.judge import Judge
from actors.logbook import Logbook
from actors.session import QuestionSession, Terms
from actors.shard_run import Admission, ShardRun
from actors.tasks import Tasks
from budgets.messages import Reply, ShardLease, ShardState
from pipeline.errors import BudgetDenied, EngineError, RequestRejected, StoreError
from pipeline.records import Item, Sample, Shard, StopReason
from pipeline.source import read_shard
from pipeline.spec import JobSpec
from pipeline.store import Store
from strategies.base import Auditable, Solution


class Questions:
    """The shards a worker holds and the coroutines that answer their questions."""

    def __init__(
        self,
        spec: JobSpec,
        shards: dict[int, Shard],
        engine: Engine,
        store: Store,
        judge: Judge,
        log: Logbook,
        life: str,
        tasks: Tasks,
        terms: Terms,
    ) -> None:
        self._spec, self._shards, self._engine, self._store, self._judge = spec, shards, engine, store, judge
        self._log, self._life, self._tasks, self._terms = log, life, tasks, terms
        self._strategy = make_strategy(spec.strategy)
        self._runs: dict[int, ShardRun] = {}
        self._fresh: deque[Admission] = deque()
        self._suspects: deque[Admission] = deque()
        self._active = 0
        self._exclusive = False
        self._started = time.monotonic()

    @property
    def empty(self) -> bool:
        """True when no shard is held."""
        return not self._runs

    def states(self) -> tuple[ShardState, ...]:
        """What the allocator is told of every shard held."""
        return tuple(run.state() for run in self._runs.values())

    def wanted(self) -> int:
        """How many more shards there is room for, whatever the engine has to do."""
        room = self._spec.cluster.max_open_questions - sum(run.open_count for run in self._runs.values())
        if self._exclusive or self._fresh:
            return 0
        return 1 if room >= self._spec.cluster.shard_size or not self._runs else 0

    def landed(self, shard_id: int, sample: Sample) -> None:
        """Take note of a paid sample, whether or not its question still wants it."""
        run = self._runs.get(shard_id)
        if run is not None:
            run.journal.setdefault(sample.item_id, {})[(sample.prompt_key, sample.sample_index)] = sample

    def apply(self, reply: Reply) -> None:
        """Forget shards whose commit is known, open those newly leased."""
        for shard_id in reply.acked_commits:
            if shard_id in self._runs and self._runs[shard_id].committed:
                del self._runs[shard_id]
        for lease in reply.open_shards:
            held = self._runs.get(lease.shard_id)
            if held is None or (held.committed and held.generation < lease.generation):
                items = self._shards[lease.shard_id].items
                self._runs[lease.shard_id] = ShardRun(
                    lease.shard_id, lease.generation, lease.min_value, (), {}, {}, self._terms.cost, total=items
                )
                self._tasks.spawn(self._open(lease))

    async def _open(self, lease: ShardLease) -> None:
        shard = self._shards[lease.shard_id]
        limit = self._spec.cluster.max_attempts

        def read() -> ShardRun:
            return ShardRun.open(
                lease,
                read_shard(self._spec.dataset, shard),
                self._store.read_journal(lease.shard_id),
                self._store.attempts(lease.shard_id, self._store.deaths()),
                limit,
                self._terms.cost,
            )

        run = await asyncio.to_thread(read)
        self._runs[lease.shard_id] = run
        for group in run.admissions(limit):
            (self._suspects if group.exclusive else self._fresh).append(group)
        await self._admit()
        await self._commit_if_done(run)

    async def _admit(self) -> None:
        """Let in what may run now: fresh groups together, a suspects' group only by itself."""
        while self._fresh and not self._exclusive:
            await self._let_in(self._fresh.popleft())
        if self._suspects and self._active == 0:
            self._exclusive = True
            await self._let_in(self._suspects.popleft())

    async def _let_in(self, group: Admission) -> None:
        run = self._runs[group.shard_id]
        self._active += len(group.items)
        ids = [item.item_id for item in group.items]
        # Durable before dispatch: whatever these questions do to this process, their next holder will know.
        await asyncio.to_thread(self._store.record_attempts, run.shard_id, ids, self._life, self._log.next_seq())
        questions = [self._tasks.spawn(self._question(run, item)) for item in group.items]
        if group.exclusive:
            self._tasks.spawn(self._release(group, questions))

    async def _release(self, group: Admission, questions: list[asyncio.Task[None]]) -> None:
        await asyncio.wait(questions)
        ids = [item.item_id for item in group.items]
        await self._log.flush()
        await asyncio.to_thread(self._store.release_attempts, group.shard_id, ids, self._life, self._log.next_seq())
        self._exclusive = False
        await self._admit()

    async def _question(self, run: ShardRun, item: Item) -> None:
        session: QuestionSession | None = None
        try:
            session = self._session(run, item)
            try:
                solution = await self._strategy.solve(item, session)
            finally:
                await session.finish()
            judgement = await self._judge.judge(item, session.drawn, solution.answer)
            audit = await self._audit(run, item, session, solution)
            run.close(session, solution, judgement, time.monotonic() - self._started, audit)
        except RequestRejected as error:
            run.bury(item, "engine", str(error), session)
        except (EngineError, StoreError):
            raise
        except BudgetDenied:
            run.bury(item, "strategy", "the strategy did not handle BudgetDenied", session)
        except Exception as error:  # a strategy is code of others: its failure is this question's, not the run's
            run.bury(item, "strategy", f"{type(error).__name__}: {error}", session)
        self._active -= 1
        if self._active == 0 and not self._exclusive:
            await self._admit()
        await self._commit_if_done(run)

    async def _audit(self, run: ShardRun, item: Item, session: QuestionSession, early: Solution) -> Audit | None:
        """The vote at the cap, where this question settled and is one of those the audit looks at."""
        chosen = is_audited(self._spec.seed, item.item_id, self._spec.budget.audit)
        if early.stop_reason is not StopReason.SETTLED or not chosen or not isinstance(self._strategy, Auditable):
            return None
        again = self._session(run, item)
        try:
            return await run_audit(self._strategy.unstopped(), item, again, early, len(session.drawn))
        finally:
            await again.finish()

    def _session(self, run: ShardRun, item: Item) -> QuestionSession:
        """A question's session over what is paid already. Raises RequestRejected where the engine cannot take it."""
        journal = run.journal.setdefault(item.item_id, {})
        attempt = run.attempts.get(item.item_id, 0)
        prompt = self._engine.prepare(item)
        most = self._strategy.maximum
        return QuestionSession(item, prompt, run.shard_id, self._terms, journal, run.min_value, attempt, most)

    async def _commit_if_done(self, run: ShardRun) -> None:
        if run.open_count or run.committed or run.committing:
            return
        run.committing = True
        await self._log.flush()
        samples = [sample for paid in run.samples.values() for sample in paid]
        await asyncio.to_thread(
            self._store.commit,
            run.shard_id,
            run.generation,
            list(run.answers.values()),
            samples,
            run.decisions,
            list(run.dead.values()),
            self._life,
        )
        run.committed = True
        self._tasks.wake.set()
