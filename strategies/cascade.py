"""A cascade: a small model first, a larger one for what stays contested.

FrugalGPT (Chen et al. 2023, arXiv:2305.05176, §3) asks models in order of price until an answer is reliable; here the
reliability is the consistency of the cheap model's own samples (Yue et al. 2023, "Large Language Model Cascades with
Mixture of Thoughts Representations for Cost-efficient Reasoning", arXiv:2310.03094, §3: vote-based). Each stage votes
as ``self_consistency`` does; a question moves on when its stage's vote ends below the threshold: at the stage's cap,
or because it would stay flat.

Where we differ: stages are voted adaptively and every sample is a bid on the run's market; the step up bids too. With
``tolerance`` the threshold is learnt while the run goes (``budgets.thresholds``): questions that both models answered,
because they went on or because they are of the ``audit`` share, teach how often the dearer one agreed at which
confidence. What was paid for is used: where a dearer model was asked, its answer stands.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from budgets.evidence import AUTO, Evidence, WeightedTally
from budgets.stopping import AdaptiveConsistency, is_hopeless
from budgets.thresholds import accepts, bucket_of
from budgets.value import DEFAULT_ALPHA, voting_value
from budgets.votes import p_lead
from pipeline.errors import BudgetDenied, RequestRejected
from pipeline.records import Item, Sample, StopReason
from strategies.base import Draw, Fact, Session, Solution


@dataclass(frozen=True)
class Stage:
    """One model of the cascade. ``confidence``: from this posterior of its leader on, its answer stands."""

    model: str = ""
    min_samples: int = 1
    max_samples: int = 8
    confidence: float = 0.95


@dataclass(frozen=True)
class Cascade:
    """Stages in the order they are asked, the cheapest first.

    ``keep_votes`` in [0, 1]: what a vote of an earlier stage is worth in a later one; 0: each model speaks for itself.
    ``tolerance`` None: thresholds are those of the stages; else the share of answers that a dearer model may be
    expected to contradict. ``audit``: share of accepted questions that go on all the same, to teach.
    """

    stages: tuple[Stage, ...] = (Stage(),)
    keep_votes: float = 0.0
    tolerance: float | None = None
    audit: float = 0.02
    evidence: Evidence = AUTO
    alpha: float = DEFAULT_ALPHA

    @property
    def minimum(self) -> int:
        return self.stages[0].min_samples

    @property
    def maximum(self) -> int:
        return sum(stage.max_samples for stage in self.stages)

    async def solve(self, item: Item, session: Session) -> Solution:
        return await _Climb(self, item, session).solve()


class _Climb:
    """One question on its way up."""

    def __init__(self, config: Cascade, item: Item, session: Session) -> None:
        self._config, self._item, self._session = config, item, session
        self._samples: list[Sample] = []
        self._facts: dict[str, Fact] = {}
        self._audited = session.rng.random() < config.audit

    async def solve(self) -> Solution:
        stages, standing = self._config.stages, None
        came_from = 0
        for at, stage in enumerate(stages):
            last = at == len(stages) - 1
            try:
                found = await self._vote(stage, standing)
            except RequestRejected as refused:
                self._fail(stage, str(refused))
                if last and standing is None:
                    raise
                continue
            dry = found.stop_reason is StopReason.EXHAUSTED
            if standing is not None and not dry:
                self._teach(came_from, standing, found, stage)
            standing, came_from = _stronger(standing, found), at
            if last or dry or not await self._goes_on(at, standing):
                break
        assert standing is not None, "the last stage raises where none answers"
        return dataclasses.replace(standing, facts=self._facts)

    async def _vote(self, stage: Stage, before: Solution | None) -> Solution:
        rule = AdaptiveConsistency("beta", stage.confidence)
        tally, own, draw = self._tally(), 0, Draw(model=stage.model)
        while own < stage.max_samples:
            need = stage.min_samples - own
            if need <= 0 and (rule.should_stop(tally) or is_hopeless(tally, stage.confidence, stage.max_samples)):
                break
            value = math.inf if before is None and need > 0 else self._bid(tally, own, draw, before)
            try:
                drawn = await self._session.sample(max(1, need), value=value, draw=draw)
            except BudgetDenied:
                if own == 0 and before is not None:
                    # The market will not pay for the step up: what the stage before said stands.
                    return dataclasses.replace(before, stop_reason=StopReason.EXHAUSTED, next_value=value)
                return self._solution(tally, StopReason.EXHAUSTED, value)
            for sample in drawn:
                own += 1
                tally.add_sample(sample)
                self._samples.append(sample)
            self._facts["answered by"] = stage.model or "model"
        return self._solution(tally, StopReason.SETTLED if rule.should_stop(tally) else StopReason.CAPPED)

    def _tally(self) -> WeightedTally:
        """The votes of earlier stages, as far as they count."""
        tally = self._config.evidence.tally()
        if self._config.keep_votes > 0.0:
            for sample in self._samples:
                tally.add_sample(sample, self._config.keep_votes)
        return tally

    async def _goes_on(self, at: int, found: Solution) -> bool:
        """Is the next stage asked? Decided by the stage's threshold, or by what other questions taught."""
        tolerance = self._config.tolerance
        if tolerance is None:
            return found.stop_reason is not StopReason.SETTLED
        if found.answer is None:
            return True
        bucket, name = bucket_of(found.confidence), _subject(at)
        word = await self._session.decide(
            name, lambda known: "accept" if accepts(known, name, bucket, tolerance) else "go on"
        )
        if word == "accept" and self._audited:
            self._facts["audited"] = "asked the next model to learn whether it agrees"
        return word != "accept" or self._audited

    def _teach(self, at: int, before: Solution, after: Solution, stage: Stage) -> None:
        if self._config.tolerance is None or before.answer is None:
            return
        drawn = sum(sample.model == stage.model for sample in self._samples)
        cost = drawn * self._session.expected_tokens(Draw(model=stage.model))
        self._session.learn(_subject(at), bucket_of(before.confidence), float(after.answer == before.answer), cost)

    def _bid(self, tally: WeightedTally, own: int, draw: Draw, before: Solution | None) -> float:
        """A further sample of this stage; its first one bids what the stage before left open."""
        lead = p_lead(tally.lead_weight, tally.runner_up_weight)
        if own == 0 and before is not None:
            lead = before.confidence
        tokens, alpha = self._session.expected_tokens(draw), self._config.alpha
        return voting_value(lead, max(1, own), tokens, stakes=self._item.stakes, alpha=alpha)

    def _solution(self, tally: WeightedTally, reason: StopReason, next_value: float = 0.0) -> Solution:
        leader = tally.leader
        if leader is None:
            unanswered = reason if reason is StopReason.EXHAUSTED else StopReason.HOPELESS
            return Solution(None, None, unanswered, 0.0, 0, next_value)
        # The latest model that gave it stands for an answer.
        models = list(dict.fromkeys(sample.model for sample in self._samples))
        giving = [one for one in self._samples if one.answer == leader and not one.aborted]
        best = max(giving, key=lambda sample: models.index(sample.model))
        lead = p_lead(tally.lead_weight, tally.runner_up_weight)
        return Solution(leader, best, reason, lead, round(tally.plain[leader]), next_value)

    def _fail(self, stage: Stage, why: str) -> None:
        known, said = self._facts.get("failed"), f"{stage.model or 'model'}: {why}"
        self._facts["failed"] = said if known is None else f"{known}; {said}"


def _subject(at: int) -> str:
    return f"cascade {at + 1}"


def _stronger(before: Solution | None, after: Solution) -> Solution:
    """The later model's word; one that has no answer takes none back."""
    if before is None or after.answer is not None:
        return after
    return dataclasses.replace(before, stop_reason=after.stop_reason, next_value=after.next_value)
