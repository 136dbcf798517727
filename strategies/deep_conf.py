"""DeepConf, online: traces that the model itself is unsure of are cut in mid-generation, and the sure ones vote.

Fu et al. 2025, "Deep Think with Confidence", arXiv:2508.15260, §3.3, algorithm 2. A trace's confidence C_t is its
lowest group confidence (``actors.engines.confidence``). ``warmup`` traces (N_init) are generated whole; the bar s is
the (100 − η)-th percentile of their confidences, η being ``keep``. Every later trace is cut by the engine as soon as a
group falls below s. What reached its end at or above s votes with weight C_t. The question is settled once the leader
has a share of ``consensus`` (τ) of all weight, β = V(â) / Σ V(a) ≥ τ, and capped at ``max_samples`` (B). η = 10 is the
paper's DeepConf-low, which cuts most; η = 90 is DeepConf-high.

Where we differ: each trace is a bid on the run's market, in the warm-up too, where ``min_samples`` alone are
guaranteed; a warm-up the market does not pay to its end sets no bar. Where no trace reaches the bar with an answer,
those below it vote; where none has a confidence that can be used, nothing is cut and votes count alike. So whatever is
paid for is answered with, and ``Solution.facts`` says what was missing.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from budgets.value import DEFAULT_ALPHA, voting_value
from budgets.votes import Tally, p_lead
from pipeline.errors import BudgetDenied, RequestRejected, SpecError
from pipeline.records import Item, Sample, StopReason
from strategies.base import Draw, Fact, Session, Solution

_LEAST = 1e-9
"""A trace of confidence 0 is a vote all the same, so that a vote of such traces has a leader."""


@dataclass(frozen=True)
class DeepConf:
    """Numbers are the paper's, of them ``keep`` that of DeepConf-high. ``group``: tokens of a group.

    ``alpha``: how fast a flat vote is given up (``budgets.value.voting_value``). ``early`` False draws up to the cap.
    """

    warmup: int = 16
    keep: float = 90.0
    consensus: float = 0.95
    max_samples: int = 512
    group: int = 2048
    min_samples: int = 1
    alpha: float = DEFAULT_ALPHA
    early: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.min_samples <= self.warmup <= self.max_samples:
            raise SpecError(
                f"min_samples is {self.min_samples}, warmup {self.warmup}, max_samples {self.max_samples}: "
                "each must be >= 1 and not exceed the next"
            )
        if not 0.0 < self.keep <= 100.0:
            raise SpecError(f"keep is {self.keep!r}: it must be a percentage > 0")

    @property
    def minimum(self) -> int:
        return self.min_samples

    @property
    def maximum(self) -> int:
        return self.max_samples

    def unstopped(self) -> DeepConf:
        """The same without the consensus stop; traces are cut as before, for that is how they are drawn."""
        return dataclasses.replace(self, early=False)

    async def solve(self, item: Item, session: Session) -> Solution:
        traces = _Traces()
        while traces.n < self.warmup:
            need = self.min_samples - traces.n
            value = math.inf if need > 0 else self._bid(traces, item, session)
            try:
                traces.add(await session.sample(max(1, need), value=value, draw=Draw(group=self.group)))
            except BudgetDenied:
                return traces.solution(StopReason.EXHAUSTED, self._bid(traces, item, session))
        watched = Draw(group=self.group, cut_below=traces.set_bar(self.keep))
        while not self._settled(traces):
            if traces.n >= self.max_samples or watched.cut_below is None:
                return traces.solution(StopReason.CAPPED)
            value = self._bid(traces, item, session)
            try:
                traces.add(await session.sample(1, value=value, draw=watched))
            except BudgetDenied:
                return traces.solution(StopReason.EXHAUSTED, value)
            except RequestRejected as refused:
                traces.failed["watched traces"] = str(refused)
                return traces.solution(StopReason.CAPPED)
        return traces.solution(StopReason.SETTLED)

    def _settled(self, traces: _Traces) -> bool:
        """At the cap an agreement is one, however it was come to."""
        agreed = traces.share >= self.consensus and traces.sure
        return agreed and (self.early or traces.n >= self.max_samples)

    def _bid(self, traces: _Traces, item: Item, session: Session) -> float:
        tokens = session.expected_tokens(Draw(group=self.group))
        return voting_value(traces.p_lead, traces.n, tokens, stakes=item.stakes, alpha=self.alpha)


class _Traces:
    """The traces of one question, and their vote."""

    def __init__(self) -> None:
        self._samples: list[Sample] = []
        self._tiers = _empty()
        self.bar: float | None = None
        self._set = False
        self.failed: dict[str, str] = {}

    @property
    def n(self) -> int:
        """Traces drawn, whatever became of them."""
        return len(self._samples)

    @property
    def share(self) -> float:
        """β: the leader's share of all weight; 0 without a leader."""
        tally = self._vote.tally
        return tally.lead_weight / sum(tally.counts.values()) if tally.leader is not None else 0.0

    @property
    def sure(self) -> bool:
        """Do those vote whose agreement counts: traces at the bar, or, where there can be none, all?"""
        return bool(self._tiers[0].samples) or self.bar is None

    @property
    def p_lead(self) -> float:
        """Posterior that the leader is the mode, its weights scaled so that all traces together are as many votes."""
        tally = self._vote.tally
        if tally.leader is None:
            return p_lead(0.0, 0.0)
        scale = tally.valid / sum(tally.counts.values())
        return p_lead(tally.lead_weight * scale, tally.runner_up_weight * scale)

    @property
    def _vote(self) -> _Vote:
        """The best kind of vote there is anything in: at the bar, with a confidence, any."""
        return next((tier for tier in self._tiers if tier.samples), self._tiers[-1])

    def add(self, drawn: Sequence[Sample]) -> None:
        """Further traces, in order."""
        for sample in drawn:
            self._samples.append(sample)
            self._count(sample)

    def set_bar(self, keep: float) -> float | None:
        """The bar that ``keep`` percent of the traces so far reach, and their vote under it.

        None where no trace has a confidence that can be used.
        """
        known = [c for sample in self._samples if not sample.aborted and (c := _confidence(sample)) is not None]
        self.bar, self._set = percentile(known, 100.0 - keep) if known else None, True
        self._tiers = _empty()
        for sample in self._samples:
            self._count(sample)
        return self.bar

    def solution(self, reason: StopReason, next_value: float = 0.0) -> Solution:
        vote, facts = self._vote, self._facts()
        leader = vote.tally.leader
        if leader is None:
            unanswered = reason if reason is StopReason.EXHAUSTED else StopReason.HOPELESS
            return Solution(None, None, unanswered, confidence=0.0, votes=0, next_value=next_value, facts=facts)
        own = [sample for sample in vote.samples if sample.answer == leader]
        best = max(own, key=lambda sample: _confidence(sample) or 0.0)
        return Solution(leader, best, reason, self.p_lead, len(own), next_value, facts)

    def _count(self, sample: Sample) -> None:
        if sample.aborted or sample.answer is None:
            return
        whole, known, kept = reversed(self._tiers)
        confidence = _confidence(sample)
        whole.add(sample, 1.0)
        if confidence is not None:
            known.add(sample, max(confidence, _LEAST))
            if self.bar is not None and confidence >= self.bar:
                kept.add(sample, max(confidence, _LEAST))

    def _facts(self) -> dict[str, Fact]:
        cut = [sample for sample in self._samples if sample.finish_reason == "cut"]
        whole = [sample for sample in self._samples if not sample.aborted]
        facts: dict[str, Fact] = {
            "bar": self.bar,
            "cut": float(len(cut)),
            "cut tokens": float(sum(sample.completion_tokens for sample in cut)),
            "consensus": self.share,
        }
        if whole:
            facts["mean tokens uncut"] = sum(sample.completion_tokens for sample in whole) / len(whole)
        failed = dict(self.failed)
        unusable = Counter(why for sample in whole if (why := _unusable(sample)) is not None)
        if unusable:
            failed["traces"] = ", ".join(f"{count} {why}" for why, count in sorted(unusable.items()))
        if self._set and self.bar is None:
            failed["bar"] = "no warm-up trace has a confidence that can be used: nothing was cut, votes count alike"
        elif not self._set:
            failed["bar"] = "the market did not pay for the warm-up: nothing was cut"
        elif not self._tiers[0].samples and self._tiers[-1].samples:
            failed["vote"] = "no trace that reached the bar has an answer: those below it voted"
        if failed:
            facts["failed"] = "; ".join(f"{name}: {why}" for name, why in failed.items())
        return facts


class _Vote:
    """A weighted vote and the samples it is made of."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.samples: list[Sample] = []

    def add(self, sample: Sample, weight: float) -> None:
        self.tally.add(sample.answer, weight)
        self.samples.append(sample)


def _empty() -> tuple[_Vote, _Vote, _Vote]:
    """Votes of traces at the bar, of those with a confidence, of all that have an answer."""
    return _Vote(), _Vote(), _Vote()


def _confidence(sample: Sample) -> float | None:
    value = sample.min_group_confidence
    return value if value is not None and math.isfinite(value) else None


def _unusable(sample: Sample) -> str | None:
    """Why a whole trace's confidence cannot be used; None where it can."""
    if sample.min_group_confidence is None:
        return "without a confidence" if sample.completion_tokens else "empty"
    return None if math.isfinite(sample.min_group_confidence) else "whose confidence is not finite"


def percentile(values: Sequence[float], percent: float) -> float:
    """The ``percent``-th percentile (0 to 100) of finite values, between ranks by linear interpolation, as numpy's."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100.0
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    # No rounding may lift the bar above every trace it is made of.
    return min(ordered[high], ordered[low] + (ordered[high] - ordered[low]) * (place - low))
