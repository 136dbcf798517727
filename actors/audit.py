"""The audit: a seeded few of the settled questions run on to their cap, to measure what early stopping changed.

Promises: the same questions are chosen in every execution; the answer, its votes and its stop are those of the early
stop; samples of an audit are paid for and journalled like any other. An audit the market would not pay to its end says
nothing and does not count. Owns no task and no journal.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from actors.judge import Judge, Judgement
from budgets.curve import HIGHEST
from pipeline.errors import BudgetDenied
from pipeline.records import Item, Sample, Verdict
from strategies.base import Draw, Session, Solution, Strategy
from strategies.wrapped import Wrapped

# After every guaranteed minimum, so that a tight budget starves no question, and before everything else: a sample
# of a random few is only unbiased where the few are paid whatever they look like.
AUDIT_BID = HIGHEST


@dataclass(frozen=True, slots=True)
class Audit:
    """What the vote at the cap said. ``flipped`` is None where the market did not pay to the end.

    ``correct``: whether ``answer`` is, where that can be told of an audit that came to its end; see ``judged``.
    """

    answer: str | None
    samples: int
    flipped: bool | None
    correct: bool | None = None


def is_audited(seed: int, item_id: str, fraction: float) -> bool:
    """Is this question among the ``fraction`` that is audited? Depends on nothing but its arguments."""
    digest = hashlib.sha256(f"audit/{seed}/{item_id}".encode()).digest()
    return int.from_bytes(digest[:8]) < fraction * 2.0**64


async def run_audit(unstopped: Strategy, item: Item, session: Session, early: Solution, used: int) -> Audit:
    """Ask ``item`` again without early stopping, over the same journal: only samples past the early stop are paid.

    ``session`` is a fresh one of the same question; ``used``: samples the early stop had seen.
    """
    counting = _AuditSession(session)
    full = await unstopped.solve(item, counting)
    # Not the stop reason: a vote that went flat calls itself hopeless when it is refused.
    flipped = None if counting.refused else full.answer != early.answer
    return Audit(full.answer, max(0, counting.samples - used), flipped)


async def judged(audit: Audit | None, item: Item, judge: Judge, early: Judgement) -> Audit | None:
    """``audit`` with its ``correct``; ``early``: what was said of the answer of the early stop.

    The audit's samples are not verified: only its answer is held against the reference, where it is another.
    """
    if audit is None or audit.flipped is None:
        return audit
    said = await judge.judge(item, [], audit.answer) if audit.flipped else early
    return dataclasses.replace(audit, correct=said.correct)


class _AuditSession(Wrapped):
    """A session whose bids are the audit's own. ``refused``: the market would not pay for a sample, or a check."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.samples = 0
        self.refused = False

    async def sample_each(self, draws: Sequence[Draw], *, value: float) -> list[Sample]:
        try:
            drawn = await super().sample_each(draws, value=_bid(value))
        except BudgetDenied:
            self.refused = True
            raise
        self.samples += len(drawn)
        return drawn

    async def verify(
        self, samples: Sequence[Sample], verifier: str, *, value: float, given: Sequence[str] = ()
    ) -> list[Verdict]:
        try:
            return await super().verify(samples, verifier, value=_bid(value), given=given)
        except BudgetDenied:
            self.refused = True
            raise

    def learn(self, name: str, option: str, reward: float, cost: float) -> None:
        """Nothing: the question has taught what it had to when it stopped."""


def _bid(value: float) -> float:
    return value if value == math.inf else AUDIT_BID
