"""Self-consistency with adaptive stopping.

Majority vote over sampled answers (Wang et al. 2023, arXiv:2203.11171), one sample at a time, until the leader's
posterior of being the mode reaches ``confidence`` (Adaptive-Consistency, Aggarwal et al. 2023, arXiv:2305.11860, §3,
Beta form, threshold 0.95, at most 40 samples). Votes are counted in sample-index order, whatever finishes first.

Where we differ: each further sample is a bid on the run's market, so a question also stops when others offer more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from budgets.stopping import AdaptiveConsistency, is_hopeless
from budgets.value import voting_value
from budgets.votes import Tally, p_lead
from pipeline.errors import BudgetDenied
from pipeline.records import Item, Sample, StopReason
from strategies.base import Session, Solution


@dataclass(frozen=True)
class SelfConsistency:
    """Vote until settled, hopeless, capped or outbid. Defaults are the paper's."""

    min_samples: int = 1
    max_samples: int = 40
    confidence: float = 0.95

    @property
    def minimum(self) -> int:
        return self.min_samples

    @property
    def maximum(self) -> int:
        return self.max_samples

    async def solve(self, item: Item, session: Session) -> Solution:
        rule = AdaptiveConsistency(form="beta", threshold=self.confidence)
        tally, first = Tally(), dict[str, Sample]()
        while tally.n < self.max_samples:
            need = self.min_samples - tally.n
            if need <= 0 and rule.should_stop(tally):
                return _solution(tally, first, StopReason.SETTLED)
            value = math.inf if need > 0 else self._bid(tally, item, session)
            try:
                drawn = await session.sample(max(1, need), value=value)
            except BudgetDenied:
                flat = is_hopeless(tally, self.confidence, self.max_samples)
                reason = StopReason.HOPELESS if flat else StopReason.EXHAUSTED
                return _solution(tally, first, reason, self._bid(tally, item, session))
            for sample in drawn:
                tally.add(sample.answer)
                if sample.answer is not None:
                    first.setdefault(sample.answer, sample)
        if rule.should_stop(tally):
            return _solution(tally, first, StopReason.SETTLED)
        # Capped without one answer that parses: forty more would not parse either.
        return _solution(tally, first, StopReason.CAPPED if tally.leader is not None else StopReason.HOPELESS)

    def _bid(self, tally: Tally, item: Item, session: Session) -> float:
        lead = p_lead(tally.lead_weight, tally.runner_up_weight)
        return voting_value(lead, tally.n, session.expected_tokens, stakes=item.stakes)


def _solution(tally: Tally, first: dict[str, Sample], reason: StopReason, next_value: float = 0.0) -> Solution:
    leader = tally.leader
    return Solution(
        answer=leader,
        best=first[leader] if leader is not None else None,
        stop_reason=reason,
        confidence=p_lead(tally.lead_weight, tally.runner_up_weight) if leader is not None else 0.0,
        votes=round(tally.counts[leader]) if leader is not None else 0,
        next_value=next_value,
    )
