"""What questions of one worker teach, and what all workers know: ``budgets.experience`` between two reports.

Plain bookkeeping. Own lessons are added up over the life; what the allocator says replaces what it said before.
"""

from __future__ import annotations

from collections.abc import Mapping

from budgets.experience import Experience, Lesson, Subject, total


class School:
    """The lessons of one worker life."""

    def __init__(self) -> None:
        self._own: dict[Subject, Lesson] = {}
        self._others: dict[Subject, Lesson] = {}

    def teach(self, lessons: Mapping[Subject, Lesson]) -> None:
        """A question's lessons, once."""
        self._own = total([self._own, lessons])

    def known(self) -> Experience:
        """All that is known here: the whole run's as of the last reply, and what this life has learnt since."""
        return total([self._others, self._own])

    def report(self) -> tuple[tuple[Subject, Lesson], ...]:
        """This life's lessons so far."""
        return tuple(self._own.items())

    def apply(self, lessons: tuple[tuple[Subject, Lesson], ...]) -> None:
        """What the lives beside this one have taught."""
        self._others = dict(lessons)
