"""Self-consistency with adaptive stopping.

Vote over sampled answers (Wang et al. 2023, arXiv:2203.11171), one sample at a time, until a stopping rule is content;
by default until the leader's posterior of being the mode reaches ``confidence`` (Adaptive-Consistency, Aggarwal et al.
2023, arXiv:2305.11860, §3, Beta form, threshold 0.95, at most 40 samples). Votes are counted in sample-index order,
whatever finishes first.

Where we differ: votes are weighted by the model's own confidence where it is known (``budgets.evidence``), and each
further sample is a bid on the run's market, so a question also stops when others offer more.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

from budgets.evidence import AUTO, Evidence, WeightedTally
from budgets.stopping import AdaptiveConsistency, FixedN, StoppingRule, is_hopeless
from budgets.value import DEFAULT_ALPHA, voting_value
from budgets.votes import p_lead
from pipeline.errors import BudgetDenied, SpecError
from pipeline.records import Item, Sample, StopReason
from strategies.base import Session, Solution


@dataclass(frozen=True)
class SelfConsistency:
    """Vote until settled, hopeless, capped or outbid. Numbers of samples and the confidence are the paper's.

    ``rule`` None is Adaptive-Consistency's Beta form at ``confidence``. ``evidence`` says what a vote is worth and
    ``alpha`` how fast a flat vote is given up (``budgets.value.voting_value``). ``prune`` is who gives up a question
    that stays flat: *price*, the market alone, once others offer more; *forecast*, the question too, once its vote,
    going on as it went, would not reach ``confidence`` within ``max_samples``.
    """

    min_samples: int = 1
    max_samples: int = 40
    confidence: float = 0.95
    rule: StoppingRule | None = None
    evidence: Evidence = AUTO
    alpha: float = DEFAULT_ALPHA
    prune: Literal["price", "forecast"] = "price"

    def __post_init__(self) -> None:
        if self.prune not in ("price", "forecast"):
            raise SpecError(f"prune is {self.prune!r}: choose price or forecast")

    @property
    def minimum(self) -> int:
        return self.min_samples

    @property
    def maximum(self) -> int:
        return self.max_samples

    def unstopped(self) -> SelfConsistency:
        """The same vote over ``max_samples`` samples, whatever it looks like on the way."""
        return dataclasses.replace(self, rule=FixedN(self.max_samples), prune="price")

    async def solve(self, item: Item, session: Session) -> Solution:
        rule = self.rule if self.rule is not None else AdaptiveConsistency("beta", self.confidence)
        tally, first = self.evidence.tally(), dict[str, Sample]()
        while tally.n < self.max_samples:
            need = self.min_samples - tally.n
            if need <= 0:
                if rule.should_stop(tally):
                    return _solution(tally, first, _content(rule))
                if self.prune == "forecast" and is_hopeless(tally, self.confidence, self.max_samples):
                    return _solution(tally, first, StopReason.HOPELESS)
            value = math.inf if need > 0 else self._bid(tally, item, session)
            try:
                drawn = await session.sample(max(1, need), value=value)
            except BudgetDenied:
                flat = is_hopeless(tally, self.confidence, self.max_samples)
                reason = StopReason.HOPELESS if flat else StopReason.EXHAUSTED
                return _solution(tally, first, reason, self._bid(tally, item, session))
            for sample in drawn:
                tally.add_sample(sample)
                if sample.answer is not None and not sample.aborted:
                    first.setdefault(sample.answer, sample)
        if rule.should_stop(tally):
            return _solution(tally, first, _content(rule))
        return _solution(tally, first, StopReason.CAPPED)

    def _bid(self, tally: WeightedTally, item: Item, session: Session) -> float:
        lead = p_lead(tally.lead_weight, tally.runner_up_weight)
        return voting_value(lead, tally.n, session.expected_tokens(), stakes=item.stakes, alpha=self.alpha)


def _content(rule: StoppingRule) -> StopReason:
    """A fixed number is a cap and no finding about the vote."""
    return StopReason.CAPPED if isinstance(rule, FixedN) else StopReason.SETTLED


def _solution(tally: WeightedTally, first: dict[str, Sample], reason: StopReason, next_value: float = 0.0) -> Solution:
    leader = tally.leader
    if leader is None:
        # Without money it is exhausted; else nothing parsed in all the samples allowed, and more would not parse.
        unanswered = reason if reason is StopReason.EXHAUSTED else StopReason.HOPELESS
        return Solution(None, None, unanswered, confidence=0.0, votes=0, next_value=next_value)
    return Solution(
        answer=leader,
        best=first[leader],
        stop_reason=reason,
        confidence=p_lead(tally.lead_weight, tally.runner_up_weight),
        votes=round(tally.plain[leader]),
        next_value=next_value,
    )
