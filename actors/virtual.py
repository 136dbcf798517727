"""A worker in virtual time: the worker's part of ``budgets.messages`` over recorded samples, with no engine and no Ray.

Promises: the same market, ledger, wallet, desk and strategies as a live run, spoken to in the same messages at the
same moments (``actors.station``: once a second, sooner when it has free slots and nothing it may start); a sample lasts
as long as its tokens take; everything is decided by the recording and the seed, so a replay gives the same twice.
Workers share nothing but the market and take turns in the order of their reports. No clock, no threads, no asyncio.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from actors.station import SYNC_MIN_SECONDS, SYNC_SECONDS
from actors.till import Till
from actors.virtual_checks import Checking
from actors.virtual_session import Terms, VirtualAsk, VirtualSession, refuse_other
from actors.virtual_shard import Closed, VirtualShard, VirtualStore
from budgets.experience import Experience, Lesson, Subject, total
from budgets.market import Market
from budgets.messages import MarketStatus, Reply, WorkerReport
from budgets.value import ExpectedTokens
from pipeline.errors import BudgetDenied, PonderError, StrategyError
from pipeline.recording import Recording, Span
from strategies.base import Draw, Solution, Strategy

SLOTS = 64
"""Samples a virtual engine runs at once: the default of ``model.max_num_seqs``."""
OPEN_QUESTIONS = 2048
"""Open questions a worker holds: the default of ``cluster.max_open_questions``."""
TOKENS_PER_SECOND = 32.0
"""How fast a sample grows. It sets how much happens between two reports, and nothing else."""
_UNKNOWN_TOKENS = 16
"""How long a sample lasts where its tokens were not recorded."""
_STUCK = 10_000
"""Reports in a row that change nothing: the market would never end."""


@dataclass(frozen=True, slots=True)
class VirtualJob:
    """What is replayed. ``strategy`` gives the strategy for a question with so many recorded samples; ``cost`` the
    units of the budget a sample of so many tokens takes, ``worst`` the most any takes; ``closed`` is told of each
    answer, again after each generation. ``asked`` raises for draws that the recording cannot answer."""

    recording: Recording
    spans: Sequence[Span]
    strategy: Callable[[int], Strategy]
    cost: Callable[[int], int]
    worst: int
    seed: int
    repeat: int
    closed: Callable[[Closed], None]
    slots: int = SLOTS
    open_questions: int = OPEN_QUESTIONS
    checking: Checking = field(default_factory=Checking)
    asked: Callable[[Draw], None] = refuse_other

    def terms(
        self,
        costs: ExpectedTokens,
        submit: Callable[[VirtualAsk], None],
        ready: Callable[[VirtualSession], None],
        experience: Callable[[], Experience],
    ) -> Terms:
        """What the sessions of one worker share."""
        return Terms(
            self.cost, self.worst, self.seed, costs, submit, ready, experience, checking=self.checking, asked=self.asked
        )


def run_market(job: VirtualJob, budget: int, workers: int = 1) -> MarketStatus:
    """Spend ``budget`` units over all questions by the market; where it stands at the end.

    Raises:
        LedgerError: the budget is not a whole number >= 1.
        SourceError: the recording cannot be read any more.
        StrategyError: a strategy does not handle a refusal.
    """
    market = Market(budget, 0, {shard: span.stop - span.start for shard, span in enumerate(job.spans)})
    store = VirtualStore(job.recording.questions)
    crew = [VirtualWorker(job, store, f"v{number}") for number in range(workers)]
    turns = [(0.0, number) for number in range(workers)]
    seen, still = (0, 0, 0), 0
    while turns:
        _, number = heapq.heappop(turns)
        if not crew[number].sync(market):
            heapq.heappush(turns, (crew[number].run(), number))
        status = market.snapshot()
        now = (status.spent, status.shards_committed, status.finished_items)
        still = still + 1 if now == seen else 0
        seen = now
        if still > _STUCK:
            raise PonderError(f"the market does not end: {status}; this is a defect")
    return market.snapshot()


def run_alone(job: VirtualJob) -> None:
    """Let every question decide by itself: its strategy over a pool that is all paid for. No market, no order."""
    taught: dict[Subject, Lesson] = {}
    terms = job.terms(ExpectedTokens(), _nobody, _nobody, lambda: taught)
    for span in job.spans:
        columns = job.recording.read(span)
        order, starts = columns.draw_order(job.seed, job.repeat), columns.starts.tolist()
        for number in range(len(columns.item_ids)):
            rows = order[starts[number] : starts[number + 1]].tolist()
            session = VirtualSession(columns, number, rows, terms, paid=len(rows))
            solution = _step(session, job.strategy(len(rows)))
            assert solution is not None, "a question whose pool is paid for never waits"
            taught = total([taught, session.lessons])
            job.closed(Closed(columns, number, session, solution))


class VirtualWorker:
    """One worker life. ``sync`` and ``run`` alternate until ``sync`` says that the run is over."""

    def __init__(self, job: VirtualJob, store: VirtualStore, life: str) -> None:
        self._job, self._store, self._life = job, store, life
        self._till = Till[VirtualAsk]()
        self._costs = ExpectedTokens()
        self._terms = job.terms(self._costs, self._submit, self._ready_again, self._known)
        self._shards: dict[int, VirtualShard] = {}
        self._taught: Experience = {}
        self._shard_of: dict[VirtualSession, VirtualShard] = {}
        self._largest_shard = max(span.stop - span.start for span in job.spans)
        self._running: list[tuple[float, int, VirtualAsk]] = []
        self._ready: deque[VirtualSession] = deque()
        self._now = self._synced = 0.0
        self._started = self._seq = self._applied = 0
        self._wake = False

    @property
    def samples(self) -> int:
        """Samples drawn so far."""
        return self._costs.count

    def sync(self, market: Market) -> bool:
        """Report, and take the answer; True where the run is over."""
        reply = market.sync(self._report())
        self._apply(reply)
        self._pump()
        self._synced = self._now
        starved = self._idle > 0 and bool(reply.grants or reply.open_shards or len(self._till.desk))
        self._wake = self._wake or starved
        return reply.done and not self._shards

    def run(self) -> float:
        """Let samples land until the next report is due, and the virtual time of that, in seconds."""
        while True:
            due = max(self._now, self._synced + (SYNC_MIN_SECONDS if self._wake else SYNC_SECONDS))
            if not self._running or self._running[0][0] > due:
                self._now, self._wake = due, False
                return due
            self._now, _, ask = heapq.heappop(self._running)
            self._land(ask)

    @property
    def _idle(self) -> int:
        return self._job.slots - len(self._running)

    def _land(self, ask: VirtualAsk) -> None:
        self._till.wallet.settle(ask.worst, ask.cost)
        if not ask.check:
            self._costs.add(ask.cost)
        ask.land(ask.cost)
        self._solve()
        self._pump()

    def _pump(self) -> None:
        """Start the best bids, at the price or above it, while slots and money last."""
        while len(self._running) < self._job.slots:
            ask = self._till.start()
            if ask is None:
                self._wake = self._wake or len(self._till.desk) > 0
                return
            tokens = ask.tokens
            lasts = (_UNKNOWN_TOKENS if tokens is None else max(1, tokens)) / TOKENS_PER_SECOND
            self._started += 1
            heapq.heappush(self._running, (self._now + lasts, self._started, ask))

    def _report(self) -> WorkerReport:
        self._seq += 1
        return replace(
            self._till.report(self._life, self._seq, len(self._running), self._idle),
            shards=tuple(shard.state() for shard in self._shards.values()),
            wants_shards=self._wanted(),
            samples=self._costs.count,
        )

    def _wanted(self) -> int:
        """A shard is opened while fewer first samples wait than the engine runs at once, and there is room for it."""
        room = self._job.open_questions - sum(shard.open for shard in self._shards.values())
        return int(self._till.desk.minimums < self._job.slots and (room >= self._largest_shard or not self._shards))

    def _apply(self, reply: Reply) -> None:
        if reply.seq <= self._applied:
            return
        self._applied = reply.seq
        self._till.apply(reply)
        self._taught = dict(reply.lessons)
        for shard_id in reply.acked_commits:
            if shard_id in self._shards and self._shards[shard_id].committed:
                del self._shards[shard_id]
        for lease in reply.open_shards:
            held = self._shards.get(lease.shard_id)
            if held is None or (held.committed and held.lease.generation < lease.generation):
                columns = self._job.recording.read(self._job.spans[lease.shard_id])
                order = columns.draw_order(self._job.seed, self._job.repeat)
                self._open(VirtualShard(lease, columns, order, self._store))
        self._solve()

    def _open(self, shard: VirtualShard) -> None:
        self._shards[shard.lease.shard_id] = shard
        for session in shard.sessions(self._terms):
            self._shard_of[session] = shard
            self._ready.append(session)
        if not shard.open:
            self._commit(shard)

    def _solve(self) -> None:
        """Run every strategy that has something new to go by."""
        while self._ready:
            session = self._ready.popleft()
            solution = _step(session, self._job.strategy(session.pool))
            if solution is None:
                continue
            shard = self._shard_of.pop(session)
            shard.close(session, solution)
            self._job.closed(Closed(shard.columns, session.number, session, solution))
            if not shard.open:
                self._commit(shard)

    def _commit(self, shard: VirtualShard) -> None:
        shard.committed = True
        self._wake = True

    def _submit(self, ask: VirtualAsk) -> None:
        self._till.desk.add(ask)

    def _known(self) -> Experience:
        return total([self._taught, *(shard.lessons for shard in self._shards.values())])

    def _ready_again(self, session: VirtualSession) -> None:
        self._ready.append(session)


def _step(session: VirtualSession, strategy: Strategy) -> Solution | None:
    try:
        return session.go_on(strategy)
    except BudgetDenied:
        raise StrategyError(
            f"{type(strategy).__name__} does not handle BudgetDenied; answer with what is there"
        ) from None


def _nobody(_: object) -> None:
    raise AssertionError("a question whose pool is paid for asks nobody")
