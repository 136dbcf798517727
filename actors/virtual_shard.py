"""Shards of a replay: which questions of one are open, what is paid for, and what became of them.

``VirtualStore`` stands for journal and commits: a few numbers a question, and nothing else outlives a shard. Pure.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from actors.virtual_session import Paid, Terms, VirtualSession
from budgets.curve import DemandCurve
from budgets.experience import Lesson, Subject, total
from budgets.messages import ShardLease, ShardState
from pipeline.recording import Columns
from strategies.base import Solution


class VirtualStore:
    """By question of the recording: ``samples`` drawn and units ``spent`` so far, and ``next_value``, what one more
    sample was worth (per unit) when the question was closed; NaN until it was closed once."""

    def __init__(self, questions: int) -> None:
        self.samples: NDArray[np.int32] = np.zeros(questions, dtype=np.int32)
        self.spent: NDArray[np.int64] = np.zeros(questions, dtype=np.int64)
        self.next_value: NDArray[np.float64] = np.full(questions, math.nan)
        self.checked: dict[int, set[Paid]] = {}
        """Checks paid for, of the questions that had any that cost."""
        self.decisions: dict[int, dict[str, str]] = {}
        """What was decided of a question, by name; of those alone that decide anything."""


class Closed(NamedTuple):
    """A question that was answered: number ``number`` of ``columns``."""

    columns: Columns
    number: int
    session: VirtualSession
    solution: Solution


class VirtualShard:
    """One shard while a worker holds it. See ``actors.shard_run.ShardRun`` for the live one."""

    def __init__(self, lease: ShardLease, columns: Columns, order: NDArray[np.int64], store: VirtualStore) -> None:
        self.lease = lease
        self.columns = columns
        self.committed = False
        self.lessons: dict[Subject, Lesson] = {}
        self._order, self._store = order, store
        self._slice = slice(columns.first, columns.first + len(columns.item_ids))
        self._parked = DemandCurve()
        known = store.next_value[self._slice]
        # From generation 1 on a question goes on only where its next sample is worth it; the others keep their answer.
        continues = np.isnan(known) if lease.generation == 0 else known >= lease.min_value
        self._todo: list[int] = np.flatnonzero(continues).tolist()
        self.open = len(self._todo)
        self._finished_tokens = int(store.spent[self._slice][~continues].sum())
        for number in np.flatnonzero(~continues & (known > 0)).tolist():
            samples = int(store.samples[columns.first + number])
            self._park(float(known[number]), int(store.spent[columns.first + number]) / max(1, samples))

    def sessions(self, terms: Terms) -> list[VirtualSession]:
        """A session for every question that goes on, each over what is paid for already."""
        starts, first = self.columns.starts.tolist(), self.columns.first
        return [
            VirtualSession(
                self.columns,
                number,
                self._order[starts[number] : starts[number + 1]].tolist(),
                terms,
                paid=int(self._store.samples[first + number]),
                min_value=self.lease.min_value,
                checked=self._store.checked.get(first + number, set()),
                decisions=self._store.decisions.get(first + number),
            )
            for number in self._todo
        ]

    def close(self, session: VirtualSession, solution: Solution) -> None:
        """A question is answered."""
        place = self.columns.first + session.number
        self._store.samples[place] = session.drawn
        self._store.spent[place] = session.spent
        self._store.next_value[place] = solution.next_value
        if session.checked:
            self._store.checked[place] = session.checked
        if session.decisions:
            self._store.decisions[place] = session.decisions
        if session.lessons:
            self.lessons = total([self.lessons, session.lessons])
        self._finished_tokens += session.spent
        self.open -= 1
        if solution.next_value > 0:
            self._park(solution.next_value, session.expected_tokens())

    def state(self) -> ShardState:
        """What the market is told."""
        return ShardState(
            shard_id=self.lease.shard_id,
            generation=self.lease.generation,
            open=self.open,
            finished=len(self.columns.item_ids) - self.open,
            finished_tokens=self._finished_tokens,
            committed=self.committed,
            parked=self._parked.to_pairs() if self.committed else (),
            lessons=tuple(self.lessons.items()),
        )

    def _park(self, value: float, tokens: float) -> None:
        self._parked.add(value, max(1, math.ceil(tokens)))
