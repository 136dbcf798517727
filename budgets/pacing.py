"""A deadline as a budget: how many units can still be computed before it, at the rate measured so far.

Promises: nothing is assumed before it is measured; once the deadline has come it stays so. Pure: times are passed in
(seconds on any clock that does not go back), samples of ``spent`` come from the ledger.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

WINDOW = 60.0
"""Seconds the rate is taken over, at least: short enough to follow a worker that joins."""
SETTLING = 5.0
"""Seconds of work before a rate is believed: an engine's first seconds are slower than all that follow."""
ROUNDS = 2
"""Times all slots must have been filled anew within the window: long samples that began together land together, and a
rate taken between two such landings would be that of neither."""
CLOSING = 2.0
"""Seconds kept at least for what comes after the last sample: aborting, answering, committing."""
ANSWERS_PER_SECOND = 2000.0
"""Questions a run answers and commits a second once nothing is drawn any more: set low, to be early and not late."""
MOST_CLOSING = 0.2
"""No more than this share of the whole time is kept for closing."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """``units`` that can still be computed (None: not known yet), and ``returning``: what open reservations will give
    back unused. ``expired``: nothing more may start."""

    units: int | None
    returning: int = 0
    expired: bool = False


@dataclass(frozen=True, slots=True)
class _Seen:
    at: float
    spent: int
    landed: int


class Pace:
    """The rate of one run and what it leaves room for."""

    def __init__(self, start: float, deadline: float) -> None:
        """``deadline`` on the same clock as ``start``; one that has passed is expired at once."""
        self._start, self._deadline = start, deadline
        self._seen: deque[_Seen] = deque()
        self._expired = False
        self._rate: float | None = None
        self._each: float | None = None

    @property
    def rate(self) -> float | None:
        """The best rate of any window so far, in units a second; None before it can be told.

        The best and not the latest: near the end a rate falls because little is left to do, not because little can be
        done, and a pace that followed it down would refuse the last questions what there is time for.
        """
        return self._rate

    def seen(self, now: float, spent: int, landed: int, slots: int) -> None:
        """Note what was spent by ``now``, in how many samples, and how many slots work (0: engines are starting).

        Time counts from the first moment at which something runs: a sample is computed before it is spent.
        """
        if slots == 0 and (not self._seen or self._seen[-1].landed == landed):
            self._seen.clear()
            return
        self._seen.append(_Seen(now, spent, landed))
        while len(self._seen) > 2 and self._suffices(self._seen[1], WINDOW, slots):
            self._seen.popleft()
        first = self._seen[0]
        if self._suffices(first, SETTLING, slots):
            self._rate = max(self._rate or 0.0, (spent - first.spent) / (now - first.at))
            self._each = (spent - first.spent) / (landed - first.landed)

    def _suffices(self, first: _Seen, seconds: float, slots: int) -> bool:
        """Is what was seen since ``first`` enough to tell a rate from?"""
        last = self._seen[-1]
        return last.at - first.at >= seconds and last.landed - first.landed >= max(1, ROUNDS * slots)

    def closing(self, unanswered: int) -> float:
        """Seconds before the deadline at which drawing ends, with so many questions still to answer."""
        whole = max(0.0, self._deadline - self._start)
        return min(max(CLOSING, unanswered / ANSWERS_PER_SECOND), MOST_CLOSING * whole)

    def allowance(self, now: float, unanswered: int, reserved: int = 0, worst: int = 0) -> Allowance:
        """What may still be sold at ``now``: what can be computed, and what open reservations will give back.

        ``reserved``: units set aside at ``worst`` a sample. A sample takes less than its worst case on average, and
        counting it in full would leave slots idle for as long as it takes to fill them all with worst cases.
        """
        left = self._deadline - self.closing(unanswered) - now
        self._expired = self._expired or left <= 0
        if self._expired:
            return Allowance(0, expired=True)
        if self._rate is None or self._each is None:
            return Allowance(None)
        returning = reserved * max(0.0, 1.0 - self._each / worst) if worst else 0.0
        return Allowance(int(self._rate * left), int(returning))
