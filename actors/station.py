"""The worker's inside: open shards, run their questions, keep the engine's slots full, settle with the allocator.

Plain asyncio: no Ray. The actor in ``actors.worker`` gives it an engine, a store, a judge and a way to reach the
allocator. Invariants:

- a sample is dispatched only after its worst case was reserved in the wallet, and only the best bid is dispatched
- a sample reaches the journal whether or not its question still wants it
- a question has one outcome; a shard commits when all its questions have one, after its samples are durable
- any failure of store or engine ends the station: the shards it held are opened again elsewhere, from the journal
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable

from actors.assembly import make_strategy
from actors.desk import Ask, Desk
from actors.engines.base import Completion, Engine, Request
from actors.judge import Judge
from actors.logbook import FLUSH_SECONDS, Logbook
from actors.session import QuestionSession, Terms
from actors.shard_run import Admission, ShardRun
from budgets.curve import DemandCurve
from budgets.messages import Reply, ShardLease, WorkerReport
from budgets.value import ExpectedTokens
from budgets.wallet import Wallet
from pipeline.errors import BudgetDenied, EngineError, RequestRejected, RunFailed, StoreError
from pipeline.records import Item, Sample, Shard
from pipeline.source import read_shard
from pipeline.spec import JobSpec
from pipeline.store import Store
from verifiers.canonical import canonical_for
from verifiers.extract import make_extractor

Sync = Callable[[WorkerReport], Awaitable[Reply]]

# A worker reports once a second; sooner when it has free slots and nothing it may start.
SYNC_SECONDS = 1.0
SYNC_MIN_SECONDS = 0.05
# A new shard is opened while fewer first samples than this many engine-fulls wait.
_READY_FILLS = 1


class Station:
    """One worker life. ``run`` returns when the allocator says the run is done, or raises what ended it."""

    def __init__(
        self, spec: JobSpec, shards: dict[int, Shard], engine: Engine, store: Store, judge: Judge, life: str
    ) -> None:
        self._spec, self._shards, self._engine, self._store, self._judge = spec, shards, engine, store, judge
        self._life = life
        self._strategy = make_strategy(spec.strategy)
        self._extract = make_extractor(spec.answer)
        self._canonical = canonical_for(spec.answer)
        self._desk, self._wallet, self._log = Desk(), Wallet(), Logbook(store, life)
        self._runs: dict[int, ShardRun] = {}
        self._running: dict[str, Ask] = {}
        self._fresh: deque[Admission] = deque()
        self._suspects: deque[Admission] = deque()
        self._active = 0
        self._exclusive = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._generating: set[asyncio.Task[None]] = set()
        self._failure: asyncio.Future[None] | None = None
        self._wake = asyncio.Event()
        self._seq = 0
        self._cost = ExpectedTokens()
        self._price = 0.0
        self._started = time.monotonic()
        self._stopping = False
        self._terms = Terms(spec, self._submit, engine.cancel, lambda: self._cost.mean(spec.sampling.max_tokens))

    async def run(self, sync: Sync) -> None:
        """Work until done or ``stop``. Raises StoreError or EngineError; open shards are then left to others."""
        self._failure = asyncio.get_running_loop().create_future()
        flusher = self._spawn(self._flush_often())
        try:
            while True:
                reply = await sync(self._report())
                self._apply(reply)
                self._pump()
                if (reply.done and not self._runs) or self._stopping:
                    break
                await self._rest(reply)
                if self._failure.done():
                    self._failure.result()
        finally:
            flusher.cancel()
            await self._put_down()

    def stop(self) -> None:
        """Ask the station to stop: samples in flight are aborted, everything paid is journalled."""
        self._stopping = True
        self._wake.set()

    async def _rest(self, reply: Reply) -> None:
        """Wait for the next sync: a second, or a moment when something waits that money could start."""
        starved = self._idle_slots() > 0
        # Woken by what changes the picture: a landed sample that leaves slots free, a finished shard, a failure.
        self._wake.clear()
        await asyncio.sleep(SYNC_MIN_SECONDS)
        if starved and (reply.grants or reply.open_shards or len(self._desk)):
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), SYNC_SECONDS - SYNC_MIN_SECONDS)

    # -- messages ------------------------------------------------------------------------------------------------

    def _report(self) -> WorkerReport:
        self._seq += 1
        curve, largest = DemandCurve(), 0
        for ask in self._desk:
            if not ask.paid.done():
                curve.add(ask.bid, ask.worst)
                largest = max(largest, ask.worst)
        # What idles in a wallet is missing elsewhere: keep what the free slots can start, all of it back when stuck.
        stuck = not self._running and not self._startable()
        self._wallet.take_settlements(0 if stuck else largest * self._idle_slots())
        return WorkerReport(
            worker=self._life,
            seq=self._seq,
            acked_grants=self._wallet.held_grants,
            settlements=self._wallet.settlements,
            spent=self._wallet.spent,
            free=self._wallet.free,
            demand=curve.to_pairs(),
            smallest_worst=self._desk.smallest_worst,
            worst=largest,
            inflight=len(self._running),
            capacity=self._idle_slots(),
            shards=tuple(run.state() for run in self._runs.values()),
            wants_shards=self._wanted(),
            samples=self._cost.count,
        )

    def _startable(self) -> bool:
        """True where something waits that the wallet could pay at the current price."""
        return any(
            ask.bid >= self._price and ask.worst <= self._wallet.free for ask in self._desk if not ask.paid.done()
        )

    def _wanted(self) -> int:
        room = self._spec.cluster.max_open_questions - sum(run.open_count for run in self._runs.values())
        first = sum(1 for ask in self._desk if ask.bid == float("inf"))
        if self._stopping or self._exclusive or self._fresh or first >= _READY_FILLS * self._engine.capacity:
            return 0
        return 1 if room >= self._spec.cluster.shard_size or not self._runs else 0

    def _apply(self, reply: Reply) -> None:
        if reply.reset:
            raise RunFailed("the allocator does not know this worker any more; run the same command again to go on")
        self._wallet.acknowledge(reply.acked_settlements)
        for grant in reply.grants:
            self._wallet.add(grant)
        for shard_id in reply.acked_commits:
            if shard_id in self._runs and self._runs[shard_id].committed:
                del self._runs[shard_id]
        for lease in reply.open_shards:
            held = self._runs.get(lease.shard_id)
            if held is None or (held.committed and held.generation < lease.generation):
                items = self._shards[lease.shard_id].items
                self._runs[lease.shard_id] = ShardRun(
                    lease.shard_id, lease.generation, lease.min_value, (), {}, {}, total=items
                )
                self._spawn(self._open(lease))
        self._price = reply.price
        if reply.dry:
            self._desk.deny_all()
        elif reply.deny_below > 0:
            self._desk.deny_below(reply.deny_below)

    # -- shards --------------------------------------------------------------------------------------------------

    async def _open(self, lease: ShardLease) -> None:
        shard = self._shards[lease.shard_id]
        limit = self._spec.cluster.max_attempts

        def read() -> ShardRun:
            return ShardRun.open(
                lease.shard_id,
                lease.generation,
                lease.min_value,
                read_shard(self._spec.dataset, shard),
                self._store.read_journal(lease.shard_id),
                self._store.attempts(lease.shard_id, self._store.deaths()),
                limit,
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
        questions = [self._spawn(self._question(run, item)) for item in group.items]
        if group.exclusive:
            self._spawn(self._release(group, questions))

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
            journal = run.journal.setdefault(item.item_id, {})
            attempt = run.attempts.get(item.item_id, 0)
            prompt = self._engine.prepare(item)
            session = QuestionSession(item, prompt, run.shard_id, self._terms, journal, run.min_value, attempt)
            solution = await self._strategy.solve(item, session)
            judgement = await self._judge.judge(item, session.drawn, solution.answer)
            run.close(session, solution, judgement, time.monotonic() - self._started)
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
        self._wake.set()

    # -- samples -------------------------------------------------------------------------------------------------

    def _submit(self, ask: Ask) -> None:
        self._desk.add(ask)
        if self._idle_slots() > 0:
            asyncio.get_running_loop().call_soon(self._pump)

    def _idle_slots(self) -> int:
        return max(0, self._engine.capacity - len(self._running))

    def _pump(self) -> None:
        """Start the best bids, at the price or above it, while slots and money last."""
        while self._idle_slots() > 0 and not self._stopping and not self._warming():
            ask = self._desk.take(self._wallet.free, self._price)
            if ask is None:
                if self._desk:
                    self._wake.set()
                return
            self._wallet.reserve(ask.worst)
            ask.request_id = f"{self._life}/{ask.item.item_id}/{ask.prompt_key}/{ask.sample_index}"
            self._running[ask.request_id] = ask
            generating = self._spawn(self._generate(ask))
            self._generating.add(generating)
            generating.add_done_callback(self._generating.discard)

    def _warming(self) -> bool:
        """Until one sample has landed, only one runs: it fills the prefix cache for all that share its beginning.

        Meant to spare prompts that share a beginning from being computed side by side. What it saves is not shown: two
        noisy runs of the example job drew 1,473 samples without it and 1,500 with it from 60,000 tokens.
        """
        return self._cost.count == 0 and bool(self._running)

    async def _generate(self, ask: Ask) -> None:
        began = time.monotonic()
        request = Request(ask.request_id, ask.prompt, ask.temperature, ask.sample_index, ask.item.item_id)
        try:
            completion = await self._engine.generate(request)
        except RequestRejected as error:
            self._wallet.settle(ask.worst, 0)
            del self._running[ask.request_id]
            if not ask.paid.done():
                ask.paid.set_exception(error)
            self._pump()
            return
        sample = self._sample(ask, completion, time.monotonic() - began)
        self._wallet.settle(ask.worst, sample.billed_tokens)
        del self._running[ask.request_id]
        self._cost.add(sample.billed_tokens)
        self._log.add(ask.shard_id, sample)
        run = self._runs.get(ask.shard_id)
        if run is not None:
            run.journal.setdefault(sample.item_id, {})[(sample.prompt_key, sample.sample_index)] = sample
        if not ask.paid.done():
            ask.paid.set_result(sample)
        # The question's next ask, if any, must be at the desk before the slot is given away.
        asyncio.get_running_loop().call_soon(self._pump)

    def _sample(self, ask: Ask, completion: Completion, seconds: float) -> Sample:
        aborted = completion.finish_reason == "abort"
        return Sample(
            item_id=ask.item.item_id,
            sample_index=ask.sample_index,
            prompt_key=ask.prompt_key,
            text=completion.text,
            answer=None if aborted else self._canonical(self._extract(completion.text)),
            prompt_tokens=completion.prompt_tokens,
            cached_prompt_tokens=completion.cached_prompt_tokens,
            completion_tokens=completion.completion_tokens,
            mean_logprob=completion.mean_logprob,
            min_group_confidence=completion.min_group_confidence,
            finish_reason="interrupted" if aborted and self._stopping else completion.finish_reason,
            attempt=ask.attempt,
            seconds=seconds,
            writer=self._life,
        )

    # -- tasks ---------------------------------------------------------------------------------------------------

    def _spawn(self, work: Awaitable[None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or task.exception() is None:
            return
        if self._failure is not None and not self._failure.done():
            self._failure.set_exception(task.exception())  # type: ignore[arg-type]
        self._wake.set()

    async def _flush_often(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self._log.flush()

    async def _put_down(self) -> None:
        """Leave nothing running and nothing paid unwritten."""
        for request_id in list(self._running):
            self._engine.cancel(request_id)
        if self._generating:
            await asyncio.wait(self._generating, timeout=_ABORT_SECONDS)
        for task in list(self._tasks):
            task.cancel()
        await self._log.flush()


# How long aborted samples may take to come back with what they cost.
_ABORT_SECONDS = 5.0
