"""What a strategy is, and all it can see.

A strategy is a frozen config object with one coroutine, ``solve``. Re-executed over the same journal it returns the
same solution and draws nothing: its only inputs are the item, the samples in index order, verdicts, what it decided
before, and ``session.rng``. It awaits nothing but its session, so that a replay can drive it without an event loop.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol, runtime_checkable

from budgets.experience import Experience
from pipeline.records import Item, Sample, StopReason, Verdict

Fact = float | str | None
"""What a strategy may tell of its way: a number, or a few words."""

_NOTHING: Mapping[str, Fact] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Draw:
    """How a sample is asked for. None and empty: as the job says.

    ``prompt`` is asked in place of the question's own (of a chat: of its last user turn). ``prefix``: the completion
    begins with this text; a sample comes back with it in front of its own. ``model``: one of the job's ``models``.
    ``group``: over how many tokens the lowest group confidence is measured. ``cut_below``: generation ends, as *cut*,
    once the confidence of a whole group falls below this (Fu et al. 2025, §3.3). Draws that differ in anything are
    different samples, each counted from index 0.
    """

    prompt: str | None = None
    prefix: str = ""
    temperature: float | None = None
    top_p: float | None = None
    min_p: float | None = None
    max_tokens: int | None = None
    model: str = ""
    cut_below: float | None = None
    group: int | None = None


PLAIN = Draw()
"""As the job says."""


@dataclass(frozen=True, slots=True)
class Solution:
    """What a strategy decided. ``best`` is the sample whose text represents the answer.

    ``next_value`` is what one more sample was worth (expected gain per token) when it stopped; 0 when it is not wanted.
    ``facts``: what it found on the way, kept with the decision; ``failed`` names arms that could not be used, and why.
    """

    answer: str | None
    best: Sample | None
    stop_reason: StopReason
    confidence: float
    votes: int
    next_value: float = 0.0
    facts: Mapping[str, Fact] = field(default_factory=lambda: _NOTHING)


class Session(Protocol):
    """A question's window on the run."""

    @property
    def rng(self) -> random.Random:
        """The only randomness, seeded by the run's seed and the item's id; each use begins anew."""
        ...

    def expected_tokens(self, draw: Draw = PLAIN, *, check: str | None = None) -> float:
        """Units of the budget one more such sample is expected to cost, with its check by verifier ``check``."""
        ...

    async def sample(self, n: int = 1, *, value: float, draw: Draw = PLAIN) -> list[Sample]:
        """``n`` further samples in sample-index order: from the journal where they are there, else drawn and paid for.

        ``value`` is the bid, expected gain per token; infinity for a question's guaranteed minimum. A sample that was
        cut (``aborted``) is returned in its place. Fewer than ``n`` come back where the market paid for some only.

        Raises:
            BudgetDenied: the market pays for none of them.
            RequestRejected: the engine refuses to be asked like this; it may take other draws.
        """
        ...

    async def sample_each(self, draws: Sequence[Draw], *, value: float) -> list[Sample]:
        """One further sample of each draw, side by side; in the order of ``draws``, up to the first not paid for.

        A draw that stands there twice gives two samples. Raises as ``sample`` does.
        """
        ...

    async def verify(
        self, samples: Sequence[Sample], verifier: str, *, value: float, given: Sequence[str] = ()
    ) -> list[Verdict]:
        """What the job's verifier of that name says of each sample; what was said before costs nothing.

        ``given``: what it is handed beside the row, for kinds that take something; another given is another check.

        Raises:
            BudgetDenied: the check costs tokens, and the market will not pay for it.
        """
        ...

    async def embed(self, texts: Sequence[str]) -> list[tuple[float, ...]]:
        """A unit vector a text; texts that mean alike lie close. Free of the budget. Raises EngineError."""
        ...

    async def decide(self, name: str, choose: Callable[[Experience], str]) -> str:
        """A decision that rests on what other questions taught. ``choose`` is asked once; its word is kept and given
        again whenever the strategy is re-executed."""
        ...

    def learn(self, name: str, option: str, reward: float, cost: float) -> None:
        """Teach the other questions what came of an option: ``reward`` in [0, 1], ``cost`` in units of the budget.

        A question teaches each subject once; said again, the later word counts.
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
