"""The market: one allocator's whole policy, as a state machine without a clock.

Promises: the ledger's ceiling always holds; every question's minimum comes before anything else; the last token
granted anywhere is worth the same everywhere; a question that will not be paid is told so, hence every run ends. One
report costs O(buckets + that worker's own shards), whatever the number of rows, shards and workers. May not do I/O,
read a clock, or assume that any message arrives; see ``budgets.messages`` for the worker's part.

How it clears (DESIGN §5). The fair share of an unfinished question is h = (budget − spent on finished) / unfinished.
Shares of questions not admitted yet are held back; the rest is available, and is filled from the highest bid down
over the waiting demand of all workers and the parked demand of committed shards. Minimums (infinite bids) may reserve
from what is held back too: a reservation returns, and the shares are made for exactly this.

At the tail, where no shard and no question is left to open, workers that idle borrow what waits elsewhere: see
``budgets.loans``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from budgets.clearing import Needs, needs_of
from budgets.curve import DemandCurve, just_above
from budgets.experience import Register
from budgets.leases import Leases
from budgets.ledger import Grant, Ledger, LedgerError
from budgets.loans import Loans, Moves
from budgets.messages import Commits, MarketStatus, Reply, WorkerReport

_PIECES = 4
"""A grant comes in up to this many pieces: only whole ones return, and one long sample must not hold back the rest."""


@dataclass
class _Worker:
    report: WorkerReport
    reply: Reply
    curve: DemandCurve = field(default_factory=DemandCurve)
    unacked: dict[str, Grant] = field(default_factory=dict)
    demand: int = 0
    granted: int = 0
    deny_below: float = 0.0
    deny_step: int = 0

    @property
    def covered(self) -> int:
        """Tokens of its demand that its own wallet can serve."""
        return min(self.report.free, self.demand)

    @property
    def idle(self) -> bool:
        """Nothing runs there, and nothing can start before the next grant: stays so whatever messages are under way."""
        can_start = self.report.capacity > 0 or not self.report.demand  # an engine still starting is not starved
        return can_start and self.report.inflight == 0 and self.report.free == 0 and not self.unacked


class Market:
    """One budget over many shards and workers. ``sync`` is the only message; the rest is called by the driver."""

    def __init__(self, budget: int, spent: int, shards: Mapping[int, int], committed: Commits | None = None) -> None:
        """Begin, or begin again after a crash.

        Args:
            budget: the ceiling, in tokens.
            spent: what journals and commits prove was spent before. No worker life of that time may still run; name
                each to ``worker_lost``, so that a late report of it is not taken for a new life.
            shards: every shard of the plan, id to number of questions.
            committed: shards with a commit object, each at its highest generation.

        Raises:
            LedgerError: the budget is not positive, spent is negative, or shards and commits do not match.
        """
        self.ledger = Ledger.restore(budget, spent)
        self._leases = Leases(shards, committed or {})
        self._loans = Loans()
        self._workers: dict[str, _Worker] = {}
        self._lost: set[str] = set()
        self._busy: set[str] = set()
        self._waiting = DemandCurve()
        self._covered = 0
        self._taught = Register()
        for shard_id, commit in (committed or {}).items():
            self._taught.put(shard_id, commit.lessons)
        self._worst_seen = 0
        self._least_seen = 0
        self._price = 0.0
        self._pace: int | None = None
        self._hurry = False
        self._expired = False
        self._done = False
        self._close_or_reopen()

    @property
    def done(self) -> bool:
        """True when every shard is committed and nothing is worth reopening. ``raise_budget`` may undo it."""
        return self._done

    def sync(self, report: WorkerReport) -> Reply:
        """Take one worker's report; the reply to send back.

        A repeated or outdated report gets the reply to the newest one.

        Raises:
            LedgerError: a settlement uses more than its grant, or a shard is unknown: a defect of the worker.
            SpecError: a bid is NaN or negative.
        """
        worker = self._workers.get(report.worker)
        if worker is None:
            has_past = report.acked_grants or report.settlements or report.spent or report.shards
            if report.worker in self._lost or has_past:
                return Reply(seq=report.seq, reset=True)
            worker = self._workers[report.worker] = _Worker(WorkerReport(report.worker, 0), Reply(seq=0))
        if report.seq <= worker.report.seq:
            return worker.reply
        curve = DemandCurve.from_pairs(report.demand)  # refuses a malformed bid before anything is booked
        for settlement in report.settlements:
            self.ledger.settle(settlement.grant_id, settlement.used)
        self._watch(worker, report, curve)
        self._listen(report)
        acked_commits = self._leases.report(report.worker, report.shards)
        self._settle_loans(self._loans.report(report, self._leases.lease_of))
        self._close_or_reopen()
        price, amount = self._clear(worker)
        self._grant(worker, amount)
        self._lease(worker)
        self._lend(report)
        self._mark(worker)
        deny_below, dry = 0.0, False
        if report.demand and report.worker not in self._busy:
            deny_below, dry = self._refuse(worker, price)
            if not deny_below and not dry and self._last_resort(worker):
                price = 0.0
        if not deny_below:
            worker.deny_step = 0
        worker.deny_below = deny_below
        held = self._leases.held_by(report.worker)
        worker.reply = Reply(
            seq=report.seq,
            acked_settlements=tuple(settlement.grant_id for settlement in report.settlements),
            grants=tuple(worker.unacked.values()),
            price=price,
            deny_below=deny_below,
            dry=dry,
            open_shards=held,
            acked_commits=acked_commits,
            done=self._done,
            hurry=self._hurry and not self._leases.waiting and not self._leases.unstarted,
            expired=self._expired,
            lend=self._loans.asked_of(report.worker),
            borrow=self._loans.borrowed_by(report.worker),
            back=self._loans.back_to(report),
            lessons=self._taught.beside(lease.shard_id for lease in held),
        )
        return worker.reply

    def worker_lost(self, worker: str, proven_spent: int) -> None:
        """A worker life is over (make sure of it first). Its shards open again; its grants are written off.

        ``proven_spent``: all tokens the journal proves this life spent. Repeating the call changes nothing.
        """
        self.ledger.write_off(worker, proven_spent)
        self._lost.add(worker)
        gone = self._workers.pop(worker, None)
        if gone is not None:
            self._waiting.merge(gone.curve, -1)
            self._covered -= gone.covered
            self._busy.discard(worker)
        moves = self._loans.lost(worker)
        self._leases.release(worker, self._loans.withholds)
        self._settle_loans(moves)
        self._close_or_reopen()

    def raise_budget(self, budget: int) -> None:
        """Set a larger ceiling; a finished run goes on with its best parked questions."""
        self.ledger.raise_budget(budget)
        self._leases.revive()
        self._done = False
        self._close_or_reopen()

    def pace(self, tokens: int | None, hurry: bool = False) -> None:
        """Sell as if only ``tokens`` more could be computed (None: no limit), because time runs out before the budget.

        ``hurry``: at the tail, slots that would idle may draw several samples of one question at once.
        """
        self._pace = None if tokens is None else self._spent() + max(0, tokens)
        self._hurry = hurry

    def expire(self) -> None:
        """The deadline has come: nothing more is sold, and every open question is answered with what it has."""
        self._expired = True
        self._close_or_reopen()

    def snapshot(self) -> MarketStatus:
        """Where the market stands now."""
        unsettled = self._unsettled()
        return MarketStatus(
            budget=self.ledger.budget,
            spent=self.ledger.spent + unsettled,
            reserved=self.ledger.reserved - unsettled,
            price=self._price,
            shards_open=self._leases.open,
            shards_committed=self._leases.committed,
            shards_total=self._leases.total,
            finished_items=self._leases.finished,
            items=self._leases.items,
            done=self._done,
            expired=self._expired,
        )

    def holdback(self) -> int:
        """Tokens kept for questions not admitted yet: a fair share each, and at least one worst case."""
        unstarted = self._leases.unstarted
        if not unstarted:
            return 0
        left = max(0, self._ceiling() - self._leases.finished_tokens)
        return max(unstarted * left // (self._leases.items - self._leases.finished), self._worst_seen)

    def _listen(self, report: WorkerReport) -> None:
        """Take what the worker's shards taught; one that is asked again, elsewhere or for more, teaches anew."""
        for state in report.shards:
            lease = self._leases.lease_of(report.worker, state.shard_id)
            if lease is not None and lease.generation == state.generation:
                self._taught.put(state.shard_id, state.lessons)

    def _unsettled(self) -> int:
        return sum(w.report.spent - self.ledger.settled_by(name) for name, w in self._workers.items())

    def _spent(self) -> int:
        return self.ledger.spent + self._unsettled()

    def _ceiling(self) -> int:
        return self.ledger.budget if self._pace is None else min(self.ledger.budget, self._pace)

    def _free(self) -> int:
        """Tokens that may still be granted: under the budget, and under what time allows."""
        if self._expired:
            return 0
        return max(0, min(self.ledger.free, self._ceiling() - self.ledger.spent - self.ledger.reserved))

    def _watch(self, worker: _Worker, report: WorkerReport, curve: DemandCurve) -> None:
        self._waiting.merge(worker.curve, -1)
        self._waiting.merge(curve)
        self._covered -= worker.covered
        worker.report, worker.curve = report, curve
        worker.demand = sum(tokens for _, tokens in report.demand)
        self._covered += worker.covered
        for grant_id in (*report.acked_grants, *(settlement.grant_id for settlement in report.settlements)):
            worker.unacked.pop(grant_id, None)
        self._worst_seen = max(self._worst_seen, report.worst)
        if report.smallest_worst:
            self._least_seen = min(self._least_seen or report.smallest_worst, report.smallest_worst)

    def _clear(self, worker: _Worker) -> tuple[float, int]:
        available = max(0, self._free() - self.holdback())
        supply = available + self._covered
        everything = self._waiting.copy()
        everything.merge(self._leases.parked)
        self._price = price = everything.marginal(supply)
        needs = needs_of(worker.report, sum(grant.tokens for grant in worker.unacked.values()), price)
        minimums = min(needs.minimum, self._free())
        room = max(0, min(available - minimums, supply - self._waiting.at_or_above(float("inf"))))
        above = min(needs.above, room)
        at_price = min(needs.at_price, room - above, max(0, supply - everything.at_or_above(just_above(price))))
        amount = min(minimums + above + at_price, needs.room)
        return price, amount if _is_useful(amount, needs, worker.report.worst) else 0

    def _grant(self, worker: _Worker, amount: int) -> None:
        pieces = min(_PIECES, amount)
        for piece in range(pieces):
            worker.granted += 1
            grant_id = f"{worker.report.worker}#{worker.granted}"
            tokens = amount * (piece + 1) // pieces - amount * piece // pieces
            if not self.ledger.grant(grant_id, worker.report.worker, tokens):
                raise LedgerError(f"grant {grant_id} of {tokens} tokens does not fit into {self.ledger.free} free")
            worker.unacked[grant_id] = Grant(grant_id, tokens)

    def _lease(self, worker: _Worker) -> None:
        name = worker.report.worker
        wants = worker.report.wants_shards - self._leases.unreported(name)
        if wants > 0 and (worker.report.capacity > 0 or self._expired):
            # No more than an even share at once, so that the last shards do not pile up on who asks first.
            self._leases.lease(name, min(wants, -(-self._leases.waiting // len(self._workers))))

    def _lend(self, report: WorkerReport) -> None:
        """At the tail, let a worker that idles take over what waits for a slot elsewhere."""
        at_tail = not (self._expired or self._leases.waiting or self._leases.unstarted)
        if at_tail and report.borrows > 0 and not self._leases.unreported(report.worker):
            self._stir(self._loans.match(report.worker))

    def _settle_loans(self, moves: Moves) -> None:
        self._leases.allow(moves.freed)
        self._stir(moves.stirred)

    def _stir(self, names: tuple[str, ...]) -> None:
        """News is on its way to these workers: they may start something whatever they reported last."""
        self._busy.update(name for name in names if name in self._workers)

    def _mark(self, worker: _Worker) -> None:
        name = worker.report.worker
        if worker.idle and not self._leases.unreported(name) and not self._loans.in_transit(worker.report):
            self._busy.discard(name)
        else:
            self._busy.add(name)

    def _refuse(self, worker: _Worker, price: float) -> tuple[float, bool]:
        """What an idle worker with waiting requests is told to refuse: ``deny_below`` and ``dry``."""
        quiet = not self._busy
        smallest = [w.report.smallest_worst for w in self._workers.values() if w.report.demand] if quiet else []
        if self._expired or (quiet and self._free() < min(smallest)):
            return float("inf"), True
        finite = [bid for bid, _ in reversed(worker.report.demand) if bid < float("inf")]
        if not finite:
            return 0.0, False
        name = worker.report.worker
        blocks_others = self._leases.waiting > 0 or self._leases.unstarted_of(name) > 0
        if self._leases.unstarted and (quiet or (blocks_others and len(finite) == len(worker.report.demand))):
            return _next_refusal(worker, finite), False
        if quiet and finite[0] < price and self._leases.parked.total():
            return min(price, _next_refusal(worker, finite)), False
        return 0.0, False

    def _last_resort(self, worker: _Worker) -> bool:
        """Where nothing moves anywhere and the rest pays for some request, though not the best one: grant it."""
        if self._busy or self._free() < worker.report.smallest_worst:
            return False
        self._grant(worker, min(self._free(), worker.demand, needs_of(worker.report, 0, 0.0).room))
        self._mark(worker)
        return True

    def _close_or_reopen(self) -> None:
        if self._done or not self._leases.all_committed or self.ledger.reserved:
            return
        if not self._expired and self._free() >= max(1, self._least_seen):
            self._leases.reopen(self._leases.parked.marginal(self._free()))
        self._done = self._leases.all_committed


def _is_useful(amount: int, needs: Needs, worst: int) -> bool:
    """A grant that lets something start at once; anything less would go to and fro without end."""
    if amount <= 0:
        return False
    better = needs.minimum + needs.above
    return needs.held + amount >= worst or amount >= better + needs.at_price or (better > 0 and amount >= better)


def _next_refusal(worker: _Worker, finite: list[float]) -> float:
    """Below what a starved worker refuses next: its lowest 1, 2, 4, 8 … buckets. ``finite``: lowest first."""
    if finite[0] < worker.deny_below:
        return worker.deny_below  # the last refusal has not arrived yet
    count = 1 << min(worker.deny_step, 20)
    worker.deny_step += 1
    return finite[count] if count < len(finite) else just_above(finite[-1])
