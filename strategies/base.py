"""What a strategy is, and all it can see.

A strategy is a frozen config object with one coroutine, ``solve``. Re-executed over the same journal it returns the
same solution and draws nothing: its only inputs are the item, the samples in index order and ``session.rng``.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from pipeline.records import Item, Sample, StopReason


@dataclass(frozen=True, slots=True)
class Solution:
    """What a strategy decided. ``best`` is the sample whose text represents the answer.

    ``next_value`` is what one more sample was worth (expected gain per token) when it stopped; 0 when it is not wanted.
    """

    answer: str | None
    best: Sample | None
    stop_reason: StopReason
    confidence: float
    votes: int
    next_value: float = 0.0


class Session(Protocol):
    """A question's window on the run."""

    @property
    def rng(self) -> random.Random:
        """The only randomness, seeded by the run's seed and the item's id."""
        ...

    @property
    def expected_tokens(self) -> float:
        """Tokens one more sample of this question is expected to cost."""
        ...

    async def sample(self, n: int = 1, *, value: float, temperature: float | None = None) -> list[Sample]:
        """``n`` further samples in sample-index order: from the journal where they are there, else drawn and paid for.

        ``value`` is the bid, expected gain per token; infinity for a question's guaranteed minimum. A sample that was
        cut (``aborted``) is returned in its place. Fewer than ``n`` come back where the market paid for some only.

        Raises:
            BudgetDenied: the market pays for none of them.
        """
        ...

    def cancel(self) -> None:
        """Abort this question's samples in flight; they come back as aborted."""
        ...


class Strategy(Protocol):
    """One way to spend samples on a question."""

    @property
    def minimum(self) -> int:
        """Samples every question gets before any question gets more."""
        ...

    @property
    def maximum(self) -> int:
        """No question gets more samples than these."""
        ...

    async def solve(self, item: Item, session: Session) -> Solution: ...


@runtime_checkable
class Auditable(Protocol):
    """A strategy whose early stopping can be audited."""

    def unstopped(self) -> Strategy:
        """The same strategy drawing its maximum of samples: what it would have answered without stopping early."""
        ...
