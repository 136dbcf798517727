"""Greedy decoding: one sample at temperature 0. The baseline every other strategy is measured against."""

from __future__ import annotations

import math
from dataclasses import dataclass

from budgets.votes import p_lead
from pipeline.errors import BudgetDenied
from pipeline.records import Item, StopReason
from strategies.base import Draw, Session, Solution


@dataclass(frozen=True)
class Greedy:
    """One sample; its answer is the answer."""

    minimum: int = 1
    maximum: int = 1

    async def solve(self, item: Item, session: Session) -> Solution:
        try:
            [sample] = await session.sample(1, value=math.inf, draw=Draw(temperature=0.0))
        except BudgetDenied:
            return Solution(
                None, None, StopReason.EXHAUSTED, 0.0, 0, next_value=item.stakes / session.expected_tokens()
            )
        if sample.answer is None:
            return Solution(None, sample, StopReason.HOPELESS, 0.0, 0)
        return Solution(sample.answer, sample, StopReason.CAPPED, p_lead(1, 0), 1)
