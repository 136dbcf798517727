"""A deadline as a budget: how many units can still be computed before it, at the rate measured so far.

Promises: nothing is assumed before it is measured; once the deadline has come it stays so. Pure: times are passed in
(seconds on any clock that does not go back), samples of ``spent`` come from the ledger.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

WINDOW = 60.0
"""Seconds the rate is taken over: long enough to smooth the landing of long samples, short enough to follow a worker
that joins."""
SETTLING = 5.0
"""Seconds of spending before a rate is believed: an engine's first seconds are slower than all that follow."""
CLOSING = 2.0
"""Seconds kept at least for what comes after the last sample: aborting, answering, committing."""
ANSWERS_PER_SECOND = 2000.0
"""Questions a run answers and commits a second once nothing is drawn any more: set low, to be early and not late."""
MOST_CLOSING = 0.2
"""No more than this share of the whole time is kept for closing."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """``units`` that can still be computed (None: not known yet). ``expired``: nothing more may start."""

    units: int | None
    expired: bool = False


class Pace:
    """The rate of one run and what it leaves room for."""

    def __init__(self, start: float, deadline: float) -> None:
        """``deadline`` on the same clock as ``start``; one that has passed is expired at once."""
        self._start, self._deadline = start, deadline
        self._seen: deque[tuple[float, int]] = deque()
        self._expired = False
        self._rate: float | None = None

    @property
    def rate(self) -> float | None:
        """The best rate of any window so far, in units a second; None before it can be told.

        The best and not the latest: near the end a rate falls because little is left to do, not because little can be
        done, and a pace that followed it down would refuse the last questions what there is time for.
        """
        return self._rate

    def seen(self, now: float, spent: int) -> None:
        """Note how much was spent by ``now``. Time before the first spending does not count: engines were starting."""
        if self._seen and self._seen[-1][1] == spent and len(self._seen) == 1:
            self._seen.clear()
        self._seen.append((now, spent))
        while len(self._seen) > 2 and now - self._seen[1][0] >= WINDOW:
            self._seen.popleft()
        (first, least), (last, most) = self._seen[0], self._seen[-1]
        if last - first >= SETTLING:
            self._rate = max(self._rate or 0.0, (most - least) / (last - first))

    def closing(self, unanswered: int) -> float:
        """Seconds before the deadline at which drawing ends, with so many questions still to answer."""
        whole = max(0.0, self._deadline - self._start)
        return min(max(CLOSING, unanswered / ANSWERS_PER_SECOND), MOST_CLOSING * whole)

    def allowance(self, now: float, unanswered: int) -> Allowance:
        """What may still be drawn at ``now``."""
        left = self._deadline - self.closing(unanswered) - now
        self._expired = self._expired or left <= 0
        if self._expired:
            return Allowance(0, expired=True)
        rate = self.rate
        return Allowance(None if rate is None else int(rate * left))
