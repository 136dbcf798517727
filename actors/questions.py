"""Questions of one worker: shards opened, strategies run, outcomes committed.

Plain asyncio: no Ray. Invariants:

- a question's attempt is durable before any sample of it is dispatched
- a question has one outcome; a shard commits when all its questions have one, after its samples are durable
- while a group of suspects runs, nothing else does, borrowed questions included

Owns the open shards. Draws nothing itself: strategies ask through their sessions.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from actors.assembly import make_strategy
from actors.audit import Audit, is_audited, judged, run_audit
from actors.checks import not_bought
from actors.judge import Judge
from actors.life import Life
from actors.loans import Engaged, Guests, LoanDesk, Place
from actors.session import QuestionSession, Terms
from actors.shard_run import Admission, ShardRun
from budgets.experience import Experience, total
from budgets.messages import Reply, ShardLease, ShardState
from pipeline.errors import BudgetDenied, EngineError, RequestRejected, StoreError
from pipeline.records import Item, Sample, StopReason
from pipeline.source import read_shard
from pipeline.verifier_kinds import label_of, worst_tokens
from strategies.base import Auditable, Solution


@dataclass(frozen=True, slots=True)
class _Asked:
    """What came of asking a question."""

    solution: Solution
    audit: Audit | None


class Questions:
    """The shards a worker holds and the coroutines that answer their questions."""

    def __init__(self, life: Life, judge: Judge, terms: Terms, engaged: Engaged) -> None:
        self._life, self._spec, self._judge, self._terms = life, life.spec, judge, terms
        self._strategy = make_strategy(life.spec.strategy)
        steering = life.spec.strategy.checks
        labels = [label_of(one) for one in life.spec.verifiers if worst_tokens(one)]
        self._bought = [label for label in labels if label not in steering]
        self._runs: dict[int, ShardRun] = {}
        self._taught: Experience = {}
        self._fresh: deque[Admission] = deque()
        self._suspects: deque[Admission] = deque()
        self._guests: deque[Guests] = deque()
        self._asking: dict[Place, asyncio.Task[None]] = {}
        self._active = 0
        self._exclusive = False
        self._started = time.monotonic()
        self.loans = LoanDesk(life, engaged, self)

    @property
    def empty(self) -> bool:
        """True when no shard is held."""
        return not self._runs

    def states(self) -> tuple[ShardState, ...]:
        """What the allocator is told of every shard held."""
        return tuple(run.state() for run in self._runs.values())

    def known(self) -> Experience:
        """What the run's questions taught: of the shards held here as of now, of the others as of the last reply."""
        return total([self._taught, *(run.lessons for run in self._runs.values())])

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
            run.note(sample)
        self.loans.landed(shard_id, sample)

    def apply(self, reply: Reply) -> None:
        """Forget shards whose commit is known, open those newly leased, and hear what others taught."""
        self._taught = dict(reply.lessons)
        for shard_id in reply.acked_commits:
            if shard_id in self._runs and self._runs[shard_id].committed:
                del self._runs[shard_id]
        for lease in reply.open_shards:
            held = self._runs.get(lease.shard_id)
            if held is None or (held.committed and held.generation < lease.generation):
                items = self._life.shards[lease.shard_id].items
                self._runs[lease.shard_id] = ShardRun(
                    lease.shard_id, lease.generation, lease.min_value, (), {}, {}, self._life.cost, total=items
                )
                self._life.tasks.spawn(self._open(lease))
        self.loans.apply(reply)

    # --- loans: see ``actors.loans.Host`` ------------------------------------------------------------------------

    def room(self) -> int:
        """How many more questions this worker could ask at once with what it holds now."""
        if self._exclusive or self._fresh or self._suspects or self._guests:
            return 0
        here = sum(run.open_count for run in self._runs.values()) - self.loans.away + self.loans.hosted
        return max(0, self._life.fleet.capacity - here)

    def may_lend(self, place: Place) -> bool:
        """See ``Host``."""
        run = self._runs.get(place[0])
        return run is not None and place in self._asking and not self._exclusive and not run.attempts.get(place[1], 0)

    async def withdraw(self, shard_id: int, item_ids: Collection[str]) -> list[str]:
        """See ``Host``."""
        asking = [(item_id, self._asking[(shard_id, item_id)]) for item_id in item_ids]
        for _, task in asking:
            task.cancel()
        await asyncio.wait([task for _, task in asking])
        stopped = [item_id for item_id, task in asking if task.cancelled()]
        for item_id in stopped:
            del self._asking[(shard_id, item_id)]
        await self.leave(len(stopped))
        return stopped

    def held(self, shard_id: int) -> ShardRun:
        """See ``Host``."""
        return self._runs[shard_id]

    async def readmit(self, run: ShardRun, item_ids: Collection[str]) -> None:
        """See ``Host``."""
        limit = self._spec.cluster.max_attempts
        run.set_aside(limit, item_ids)
        self._queue(run.admissions(limit, item_ids))
        await self._admit()
        await self._commit_if_done(run)

    def enter(self, guests: Guests) -> None:
        """See ``Host``."""
        self._guests.append(guests)
        self._seat()

    async def leave(self, count: int) -> None:
        """See ``Host``."""
        self._active -= count
        if self._active == 0 and not self._exclusive:
            await self._admit()

    async def draw(self, run: ShardRun, item: Item) -> None:
        """See ``Host``."""
        try:
            session = self._session(run, item)
            await self._ask(run, item, session)
        except (EngineError, StoreError):
            raise
        except Exception:  # the lender meets it too, over the same journal, and records it
            return

    def _seat(self) -> None:
        while self._guests and not self._exclusive:
            guests = self._guests.popleft()
            self._active += len(guests.run.items) if guests.run else 0
            guests.admitted.set()

    def _queue(self, groups: Iterable[Admission]) -> None:
        for group in groups:
            (self._suspects if group.exclusive else self._fresh).append(group)

    # --- shards --------------------------------------------------------------------------------------------------

    async def _open(self, lease: ShardLease) -> None:
        shard = self._life.shards[lease.shard_id]
        limit = self._spec.cluster.max_attempts

        def read() -> ShardRun:
            return ShardRun.open(
                lease,
                read_shard(self._spec.dataset, shard),
                self._life.store.read_journal(lease.shard_id),
                self._life.store.attempts(lease.shard_id, self._life.store.deaths()),
                limit,
                self._life.cost,
                self._life.store.rule_of(self._spec.strategy.model_dump(mode="json")),
                self._life.store.decided(lease.shard_id),
                self._life.siblings.read(lease.shard_id),
            )

        run = await asyncio.to_thread(read)
        self._runs[lease.shard_id] = run
        self._queue(run.admissions(limit))
        await self._admit()
        await self._commit_if_done(run)

    async def _admit(self) -> None:
        """Let in what may run now: fresh groups together, a suspects' group only by itself."""
        self._seat()
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
        await self._life.log.record_attempts(run.shard_id, ids)
        questions = [self._life.tasks.spawn(self._question(run, item)) for item in group.items]
        for item, task in zip(group.items, questions, strict=True):
            self._asking[(run.shard_id, item.item_id)] = task
        if group.exclusive:
            self._life.tasks.spawn(self._release(group, questions))

    async def _release(self, group: Admission, questions: list[asyncio.Task[None]]) -> None:
        await asyncio.wait(questions)
        await self._life.log.release_attempts(group.shard_id, [item.item_id for item in group.items])
        self._exclusive = False
        await self._admit()

    async def _question(self, run: ShardRun, item: Item) -> None:
        session = self._session(run, item)
        try:
            asked = await self._ask(run, item, session)
            await self._scored(session)
            judgement = await self._judge.judge(item, session.drawn, asked.solution.answer)
            audit = await judged(asked.audit, item, self._judge, judgement)
            run.close(session, asked.solution, judgement, time.monotonic() - self._started, audit)
        except RequestRejected as error:
            run.bury(item, "engine", str(error), session)
        except (EngineError, StoreError):
            raise
        except BudgetDenied:
            run.bury(item, "strategy", "the strategy did not handle BudgetDenied", session)
        except Exception as error:  # a strategy is code of others: its failure is this question's, not the run's
            run.bury(item, "strategy", f"{type(error).__name__}: {error}", session)
        del self._asking[(run.shard_id, item.item_id)]
        await self.leave(1)
        await self._commit_if_done(run)

    async def _ask(self, run: ShardRun, item: Item, session: QuestionSession) -> _Asked:
        """A question's answer, and what its audit says: all that draws samples."""
        try:
            solution = await self._strategy.solve(item, session)
        finally:
            await session.finish()
        return _Asked(solution, await self._audit(run, item, session, solution))

    async def _scored(self, session: QuestionSession) -> None:
        """Verdicts of verifiers that cost and that the strategy does not steer by: the job wants them of every sample.

        A steering strategy buys those that can change its answer; buying the others afterwards would change nothing.
        """
        for verifier in self._bought:
            drawn = [sample for sample in session.drawn if not sample.aborted]
            try:
                await session.verify(drawn, verifier, value=math.inf)
            except BudgetDenied as denied:
                session.mark(drawn, not_bought(verifier, denied))

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
        """A question's session over what is paid already."""
        journal = run.journal.setdefault(item.item_id, {})
        attempt = run.attempts.get(item.item_id, 0)
        decisions = run.decided.setdefault(item.item_id, {})
        most = self._strategy.maximum
        shared = run.shared.get(item.item_id, {})
        return QuestionSession(
            item, run.shard_id, self._terms, journal, run.min_value, attempt, most, decisions, shared=shared
        )

    async def _commit_if_done(self, run: ShardRun) -> None:
        if run.open_count or run.committed or run.committing:
            return
        run.committing = True
        await self._life.log.flush()
        samples = [sample for paid in run.samples.values() for sample in paid]
        await asyncio.to_thread(
            self._life.store.commit,
            run.shard_id,
            run.generation,
            list(run.answers.values()),
            samples,
            run.decisions,
            list(run.dead.values()),
            self._life.name,
            run.rule,
            tuple(run.lessons.items()),
        )
        run.committed = True
        self._life.tasks.wake.set()
