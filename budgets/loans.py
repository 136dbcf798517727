"""Open questions lent from a worker whose engine is full to one that idles, at the end of a run (DESIGN §5).

Promises: a question is worked on by one worker at a time, whatever messages are lost, repeated or late and whoever
dies; a shard whose worker died stays withheld until every borrower of its questions has let go; every loan ends. A
report costs O(its own loans). Knows ids only, never a question. Pure; see ``budgets.messages`` for the workers' part.

A loan is *asked* of its lender until that reports the questions; then it is *out* with its borrower until that reports
it returned, or dies. Closed loans are forgotten: a lender that reports a loan nobody knows is told that it is back.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from budgets.messages import LOAN_ITEMS, Loan, LoanRequest, ShardLease, WorkerReport

_ASKED_MOST = 4
"""Loans asked of one lender at once: its next report names the items of all of them."""
_BACKLOG_DIVISOR = 4
"""Fewer waiting questions than this share of a lender's slots are not moved: they start before a loan gets through."""


@dataclass(frozen=True, slots=True)
class Moves:
    """What changed. ``freed``: shards that may be leased again; ``stirred``: workers that news is on its way to."""

    freed: tuple[int, ...] = ()
    stirred: tuple[str, ...] = ()


@dataclass
class _Loan:
    loan_id: str
    count: int
    lender: str | None
    borrower: str | None
    lease: ShardLease | None = None
    """None until the lender has named the questions."""
    items: tuple[str, ...] = ()
    known: bool = False
    """The borrower has reported it."""


@dataclass(frozen=True, slots=True)
class _Backlog:
    """What a worker has waiting beyond what its free slots take, and how many slots it has in all."""

    questions: int
    slots: int


class Loans:
    """All loans that are not closed, and who could lend and borrow."""

    def __init__(self) -> None:
        self._asked: dict[str, dict[str, _Loan]] = {}
        self._out: dict[str, dict[str, _Loan]] = {}
        self._loans: dict[str, _Loan] = {}
        self._coming: dict[str, str] = {}
        """Borrower to the one loan on its way there: until it is known, that worker's room is spoken for."""
        self._made = 0
        self._withheld: Counter[int] = Counter()
        self._backlogs: dict[str, _Backlog] = {}
        self._by_size: dict[int, dict[str, None]] = {}
        """Workers by the octave of their backlog: the longest is found without looking at every worker."""
        self._room: dict[str, int] = {}
        self._room_total = 0

    def report(self, report: WorkerReport, lease_of: Callable[[str, int], ShardLease | None]) -> Moves:
        """Take a worker's view of its loans; ``lease_of``: worker and shard id to the lease, where it holds one."""
        freed: list[int] = []
        stirred: list[str] = []
        for lent in report.lent:
            loan = self._asked.get(report.worker, {}).pop(lent.loan_id, None)
            if loan is None:
                continue
            lease = lease_of(report.worker, lent.shard_id)
            if not lent.items or lease is None or loan.borrower is None:
                self._cancel(loan)
                continue
            loan.lease, loan.items = lease, lent.items
            self._out.setdefault(loan.borrower, {})[loan.loan_id] = loan
            stirred.append(loan.borrower)
        for borrowed in report.borrowed:
            loan = self._out.get(report.worker, {}).get(borrowed.loan_id)
            if loan is None:
                continue
            loan.known, loan.items = True, ()
            self._arrived(loan)
            if borrowed.returned:
                freed += self._close(loan)
                stirred += [loan.lender] if loan.lender else []
        self._watch(report)
        return Moves(tuple(freed), tuple(stirred))

    def match(self, borrower: str) -> tuple[str, ...]:
        """Ask the worker with the longest backlog to lend to this one; the lender, where there is one.

        Sized so that work per slot evens out over all slots that are free now.
        """
        if borrower in self._coming:
            return ()
        lender = self._longest()
        if lender is None:
            return ()
        backlog, room = self._backlogs[lender], self._room[borrower]
        waiting = backlog.questions - sum(loan.count for loan in self._asked.get(lender, {}).values())
        load = (backlog.slots + backlog.questions) / (backlog.slots + self._room_total)
        count = min(waiting, math.ceil(load * room), LOAN_ITEMS)
        if waiting * _BACKLOG_DIVISOR < backlog.slots or count < 1 or len(self._asked.get(lender, ())) >= _ASKED_MOST:
            return ()
        self._made += 1
        loan = _Loan(f"{lender}~{self._made}", count, lender, borrower)
        self._loans[loan.loan_id] = self._asked.setdefault(lender, {})[loan.loan_id] = loan
        self._coming[borrower] = loan.loan_id
        return (lender,)

    def asked_of(self, worker: str) -> tuple[LoanRequest, ...]:
        """Loans this worker is to make."""
        return tuple(LoanRequest(loan.loan_id, loan.count) for loan in self._asked.get(worker, {}).values())

    def borrowed_by(self, worker: str) -> tuple[Loan, ...]:
        """Loans this worker holds, or is to hold; with their questions until it knows of them."""
        return tuple(
            Loan(
                loan.loan_id,
                loan.lease.shard_id,
                loan.lease.generation,
                loan.lease.min_value,
                loan.items if loan.lender else (),
                dropped=loan.lender is None,
            )
            for loan in self._out.get(worker, {}).values()
            if loan.lease is not None
        )

    def back_to(self, report: WorkerReport) -> tuple[str, ...]:
        """Loans the lender still reports that are over."""
        return tuple(lent.loan_id for lent in report.lent if lent.loan_id not in self._loans)

    def in_transit(self, report: WorkerReport) -> bool:
        """Is something on its way to this worker, or coming from it, that its report does not show yet?"""
        if self._asked.get(report.worker) or self.back_to(report):
            return True
        return any(not loan.known or loan.lender is None for loan in self._out.get(report.worker, {}).values())

    def withholds(self, shard_id: int) -> bool:
        """Does somebody still hold questions of this shard, though its worker is dead?"""
        return self._withheld[shard_id] > 0

    def lost(self, worker: str) -> Moves:
        """A worker life is over: what it borrowed is back; what it lent is dropped wherever it is now."""
        freed: list[int] = []
        stirred: list[str] = []
        for loan in self._asked.pop(worker, {}).values():
            self._cancel(loan)
        for loan in list(self._out.get(worker, {}).values()):
            freed += self._close(loan)
            stirred += [loan.lender] if loan.lender else []
        self._out.pop(worker, None)
        self._coming.pop(worker, None)
        for loan in self._loans.values():
            if loan.borrower == worker:
                loan.borrower = None
            if loan.lender == worker and loan.lease is not None:
                loan.lender = None
                self._withheld[loan.lease.shard_id] += 1
                stirred += [loan.borrower] if loan.borrower else []
        self._forget(worker)
        return Moves(tuple(freed), tuple(stirred))

    def _close(self, loan: _Loan) -> list[int]:
        """Forget a loan that was out; the shard, if this was the last that kept it withheld."""
        assert loan.borrower is not None
        assert loan.lease is not None
        del self._loans[loan.loan_id]
        del self._out[loan.borrower][loan.loan_id]
        if loan.lender is not None:
            return []
        shard_id = loan.lease.shard_id
        self._withheld[shard_id] -= 1
        if self._withheld[shard_id]:
            return []
        del self._withheld[shard_id]
        return [shard_id]

    def _cancel(self, loan: _Loan) -> None:
        """Forget a loan that never went out."""
        del self._loans[loan.loan_id]
        self._arrived(loan)

    def _arrived(self, loan: _Loan) -> None:
        if loan.borrower is not None and self._coming.get(loan.borrower) == loan.loan_id:
            del self._coming[loan.borrower]

    def _watch(self, report: WorkerReport) -> None:
        self._forget(report.worker)
        if report.borrows > 0:
            self._room[report.worker] = report.borrows
            self._room_total += report.borrows
        if report.lendable > 0:
            self._backlogs[report.worker] = _Backlog(report.lendable, report.inflight + report.capacity)
            self._by_size.setdefault(report.lendable.bit_length(), {})[report.worker] = None

    def _forget(self, worker: str) -> None:
        self._room_total -= self._room.pop(worker, 0)
        backlog = self._backlogs.pop(worker, None)
        if backlog is not None:
            octave = backlog.questions.bit_length()
            del self._by_size[octave][worker]
            if not self._by_size[octave]:
                del self._by_size[octave]

    def _longest(self) -> str | None:
        if not self._by_size:
            return None
        return next(iter(self._by_size[max(self._by_size)]))
