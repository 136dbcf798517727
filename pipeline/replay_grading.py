"""Is a replayed answer right, and is it what the whole pool votes for?

Owns the comparison. A recording of a run is compared as its job says; any other holds answers and references that are
canonical already, so they are compared as text, and as numbers where both are numbers (``2`` and ``2.0``). Where there
is no reference but a recorded ``score``, an answer is worth the score of the sample that stands for it.
"""

from __future__ import annotations

import asyncio
import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from actors.virtual_shard import Closed
from pipeline.spec import AnswerSpec

_REMEMBERED = 1 << 16


class Grade(NamedTuple):
    """``correct`` in [0, 1], NaN where nothing tells; ``agrees``: 1.0 for a most voted answer of the pool, else 0.0."""

    correct: float
    agrees: float


class Grader:
    """Grades closed questions. ``answer``: how the recorded run compares; None: plain canonical text."""

    def __init__(self, answer: AnswerSpec | None) -> None:
        self._runner: asyncio.Runner | None = None
        self._equal = lru_cache(_REMEMBERED)(_equal)
        if answer is not None:
            from verifiers.registry import Correctness

            # The comparison may be a helper process; it is asked once for each distinct pair.
            self._runner = asyncio.Runner()
            self._correctness = Correctness(answer)
            self._equal = lru_cache(_REMEMBERED)(self._as_the_job)

    def grade(self, closed: Closed) -> Grade:
        """Grade one answer."""
        reference = closed.columns.references[closed.number]
        best = closed.solution.best
        correct: float | None = None
        if reference is not None:
            correct = self.correct(closed.solution.answer, reference)
        elif best is not None and best.verdicts:
            correct = best.verdicts[0].score
        elif closed.columns.score is not None:
            correct = 0.0
        return Grade(math.nan if correct is None else correct, _agrees(closed))

    def correct(self, answer: str | None, reference: str) -> float | None:
        """1.0 where the answer is the reference, 0.0 where not; None where nothing could tell."""
        return self._equal(answer, reference)

    def close(self) -> None:
        """End the comparison's helper processes. Idempotent."""
        if self._runner is not None:
            self._runner.run(self._correctness.close())
            self._runner.close()
            self._runner = None

    def _as_the_job(self, answer: str | None, reference: str) -> float | None:
        assert self._runner is not None, "closed"
        return self._runner.run(self._correctness.correct(answer, reference))


def _equal(answer: str | None, reference: str) -> float | None:
    if answer is None:
        return 0.0
    if answer == reference:
        return 1.0
    try:
        return float(float(answer) == float(reference))
    except ValueError:
        return float(answer.strip() == reference.strip())


def _agrees(closed: Closed) -> float:
    columns = closed.columns
    codes = columns.answer[columns.starts[closed.number] : columns.starts[closed.number + 1]]
    codes = codes[codes >= 0]
    if not len(codes):
        return float(closed.solution.answer is None)
    if closed.solution.answer is None:
        return 0.0
    votes = np.unique(codes, return_counts=True)
    own = [count for code, count in zip(*votes, strict=True) if columns.answers[code] == closed.solution.answer]
    return float(bool(own) and own[0] == votes[1].max())
