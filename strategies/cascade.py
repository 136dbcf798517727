"""A cascade: a small model first, a larger one for what stays contested.

FrugalGPT (Chen et al. 2023, arXiv:2305.05176, §3, "LLM cascade") asks models in the order of their price until a score
says that an answer is reliable. Yue et al. (2023, "Large Language Model Cascades with Mixture of Thoughts
Representations for Cost-efficient Reasoning", arXiv:2310.03094, §2, vote-based decision making) take the consistency of
the weak model's own samples for the score: 20 samples, and the question moves on where too few agree; what the stronger
model then says is the answer. Their mixture of thoughts is ``templates``, in turn.

Here a stage is a self-consistency vote (``strategies.self_consistency``) by one model: it keeps the question once its
vote is settled, and passes it on at its cap or once the vote, going on as it went, would not settle. Where we differ:
votes stop adaptively; every sample is a bid, a stage's first one at stakes × (1 − P) / E[tokens of that model], with P
what the stages before are sure of, and none after it more than that; earlier votes may count on (``carry``).

With ``learn_threshold`` the confidence at which a stage is believed is learnt while the run goes
(``budgets.thresholds``): a seeded few of the questions that would stay go on all the same, and each question that went
on teaches whether the next model agreed. A larger model's answer, once it is paid for, is the answer.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from budgets.curve import HIGHEST
from budgets.evidence import AUTO, Evidence
from budgets.stopping import FixedN, StoppingRule
from budgets.thresholds import NEVER, bucket_of, choose_threshold, seen
from budgets.value import DEFAULT_ALPHA, voting_value
from budgets.votes import p_lead
from pipeline.errors import RequestRejected
from pipeline.records import Item, Sample, StopReason
from strategies.arms import Arm
from strategies.base import Draw, Fact, Session, Solution
from strategies.self_consistency import SelfConsistency
from strategies.window import Window


@dataclass(frozen=True)
class Stage:
    """One model of a cascade; 20 samples are Yue et al.'s.

    ``rule`` None: the posterior of the leader at ``confidence``. ``carry``: what one of its votes still counts for
    against one of the stage that answers. Their paper's own rule is ``AdaptiveConsistency("majority", τ)`` with
    ``min_samples`` = ``max_samples``, and ``carry`` 0.
    """

    model: str = ""
    min_samples: int = 1
    max_samples: int = 20
    confidence: float = 0.95
    rule: StoppingRule | None = None
    temperature: float | None = None
    templates: tuple[str, ...] = ()
    carry: float = 0.0

    @property
    def name(self) -> str:
        """What facts call its model."""
        return self.model or "model"

    @property
    def draw(self) -> Draw:
        """How it asks, templates apart."""
        return Draw(model=self.model, temperature=self.temperature)

    def arms(self) -> tuple[Arm, ...]:
        """Its ways to ask, in turn."""
        templates: Sequence[str | None] = self.templates or (None,)
        return tuple(
            Arm(f"{self.name} {at + 1}" if self.templates else self.name, template, self.temperature, model=self.model)
            for at, template in enumerate(templates)
        )


@dataclass(frozen=True)
class Cascade:
    """Stages in the order they are asked, the cheapest model first.

    ``learn_threshold``: whether a stage's word is taken is learnt, starting from its ``confidence``, so that at most
    ``tolerance`` of its questions would be answered otherwise by the next stage; ``audit_fraction`` of those that would
    stay ask the next stage. ``always``: every stage is asked to its cap, as an audit of the run wants it.
    """

    stages: tuple[Stage, ...]
    evidence: Evidence = AUTO
    alpha: float = DEFAULT_ALPHA
    learn_threshold: bool = False
    audit_fraction: float = 0.05
    tolerance: float = 0.05
    always: bool = False

    @property
    def minimum(self) -> int:
        return self.stages[0].min_samples

    @property
    def maximum(self) -> int:
        return sum(stage.max_samples for stage in self.stages)

    def unstopped(self) -> Cascade:
        """The same cascade, all stages asked to their caps."""
        return dataclasses.replace(self, always=True)

    async def solve(self, item: Item, session: Session) -> Solution:
        return await _Climb(self, item, session).solve()

    def voting(self, at: int) -> SelfConsistency:
        """The vote of a stage."""
        stage, last = self.stages[at], at == len(self.stages) - 1
        # A flat vote of the last stage is given up by the market alone; of the others, to the next stage.
        prune = stage.rule is None and not last and not self.always
        return SelfConsistency(
            min_samples=stage.min_samples,
            max_samples=stage.max_samples,
            confidence=stage.confidence,
            rule=FixedN(stage.max_samples) if self.always else stage.rule,
            evidence=self.evidence,
            alpha=self.alpha,
            prune="forecast" if prune else "price",
            arms=stage.arms(),
        )


@dataclass
class _Ran:
    """A stage that was asked: what it found, and in which samples.

    ``denied``: the bid that the market refused. ``accepted``: its word was good enough.
    """

    at: int
    stage: Stage
    found: Solution
    samples: list[Sample]
    denied: float | None = None
    accepted: bool = False


@dataclass
class _Climb:
    """One question on its way up."""

    config: Cascade
    item: Item
    session: Session
    ran: list[_Ran] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    facts: dict[str, Fact] = field(default_factory=dict)
    teaching: bool = False
    """The last stage's word was good enough; the next one is asked all the same, to learn from it."""

    async def solve(self) -> Solution:
        refusal: RequestRejected | None = None
        for at, stage in enumerate(self.config.stages):
            window = Window(self.session, self._opening(stage))
            voting = self.config.voting(at)
            if not self._asked:  # the guarantee is the first stage's, whoever redeems it
                voting = dataclasses.replace(voting, min_samples=min(voting.min_samples, self.config.minimum))
            try:
                found = await voting.solve(self.item, window)
            except RequestRejected as refused:
                refusal = refused
                self.failed.append(f"{stage.name}: {refused}")
                if not window.drawn:
                    continue
                found = self._counted(window.drawn)
            if "failed" in found.facts:
                self.failed.append(str(found.facts["failed"]))
            self.ran.append(ran := _Ran(at, stage, found, window.drawn, window.denied))
            self._teach()
            if ran.denied is not None or self.teaching or not await self._goes_on(ran):
                break
        if refusal is not None and not self._asked:
            raise refusal
        return self._solution()

    @property
    def _asked(self) -> bool:
        return any(ran.samples or ran.denied is not None for ran in self.ran)

    @property
    def _standing(self) -> _Ran | None:
        """The latest stage that has an answer; one asked to learn from and not paid to its end says nothing."""
        heard = self.ran[:-1] if self.teaching and self.ran[-1].denied is not None else self.ran
        return next((ran for ran in reversed(heard) if ran.found.answer is not None), None)

    def _opening(self, stage: Stage) -> float:
        """The bid for a stage's first sample."""
        if not self._asked:
            return math.inf
        if self.teaching:
            # As the run's audit bids: a random few teach nothing unless they are paid whatever they look like.
            return HIGHEST
        standing = self._standing
        sure = standing.found.confidence if standing else 0.0
        return voting_value(sure, 1, self.session.expected_tokens(stage.draw), stakes=self.item.stakes)

    async def _goes_on(self, ran: _Ran) -> bool:
        config, at, found = self.config, ran.at, ran.found
        if at == len(config.stages) - 1:
            return False
        if config.always or found.answer is None:
            return True
        ran.accepted = found.stop_reason is StopReason.SETTLED
        if config.learn_threshold:
            ran.accepted = await self._believed(at, found)
            self.teaching = ran.accepted and _chosen(self.session.rng, at, config.audit_fraction)
        return self.teaching or not ran.accepted

    async def _believed(self, at: int, found: Solution) -> bool:
        """Is the stage's answer taken, by what other questions taught?"""
        config, subject, start = self.config, _subject(at), self.config.stages[at].confidence
        self.session.learn(seen(subject), bucket_of(found.confidence, start), 1.0, 0.0)
        chosen = await self.session.decide(
            subject, lambda known: _said(choose_threshold(known, subject, start, config.tolerance))
        )
        self.facts[f"threshold {at + 1}"] = chosen
        return found.confidence >= _heard(chosen)

    def _teach(self) -> None:
        """Where a stage went on and the next one came to a word of its own: did it agree?"""
        if not self.config.learn_threshold or len(self.ran) < 2:
            return
        before, after = self.ran[-2:]
        if before.found.answer is None or after.found.answer is None or after.denied is not None:
            return
        cost = len(after.samples) * self.session.expected_tokens(after.stage.draw)
        bucket = bucket_of(before.found.confidence, before.stage.confidence)
        self.session.learn(_subject(before.at), bucket, float(before.found.answer == after.found.answer), cost)

    def _counted(self, samples: Sequence[Sample]) -> Solution:
        """What the samples of a stage say that was refused in mid-vote."""
        tally = self.config.evidence.tally()
        for sample in samples:
            tally.add_sample(sample)
        if tally.leader is None:
            return Solution(None, None, StopReason.HOPELESS, 0.0, 0)
        lead = p_lead(tally.lead_weight, tally.runner_up_weight)
        return Solution(
            tally.leader, _best(tally.leader, samples), StopReason.CAPPED, lead, round(tally.plain[tally.leader])
        )

    def _solution(self) -> Solution:
        final, last = self._standing, self.ran[-1]
        facts = {**self.facts, "stages": float(len(self.ran))}
        if self.failed:
            facts["failed"] = "; ".join(self.failed)
        if self.teaching:
            facts["asked to learn"] = last.stage.name
        answering = final or last
        reason, next_value = StopReason.SETTLED if answering.accepted else answering.found.stop_reason, 0.0
        if last.denied is not None and not self.teaching:
            reason, next_value = last.found.stop_reason if last.samples else StopReason.EXHAUSTED, last.denied
        solution = last.found
        if final is not None:
            facts["answered by"] = final.stage.name
            solution = self._with_carried(final)
        return dataclasses.replace(solution, stop_reason=reason, next_value=next_value, facts=facts)

    def _with_carried(self, final: _Ran) -> Solution:
        """The answering stage's word; where earlier votes count on, that of both together."""
        voted = [ran for ran in self.ran if ran.found.answer is not None and (ran is final or ran.stage.carry > 0.0)]
        if len(voted) == 1:
            return final.found
        weights: dict[str, float] = {}
        # The answering stage first: it wins a tie.
        for ran in reversed(voted):
            tally = self.config.evidence.tally()
            for sample in ran.samples:
                tally.add_sample(sample)
            for answer, weight in tally.counts.items():
                share = 1.0 if ran is final else ran.stage.carry
                weights[answer] = weights.get(answer, 0.0) + share * weight
        answer = max(weights, key=lambda each: weights[each])
        rival = max((weight for each, weight in weights.items() if each != answer), default=0.0)
        samples = [sample for ran in reversed(voted) for sample in ran.samples]
        votes = sum(sample.answer == answer and not sample.aborted for sample in samples)
        confidence = p_lead(weights[answer], rival)
        return dataclasses.replace(
            final.found, answer=answer, best=_best(answer, samples), confidence=confidence, votes=votes
        )


def _subject(at: int) -> str:
    return f"cascade/{at + 1}"


def _said(threshold: float) -> str:
    return "never" if threshold == NEVER else f"{threshold:g}"


def _heard(choice: str) -> float:
    return NEVER if choice == "never" else float(choice)


def _chosen(rng: random.Random, at: int, fraction: float) -> bool:
    """Is this question one of the few that go on from stage ``at`` to teach? Each stage throws a die of its own."""
    return [rng.random() for _ in range(at + 1)][-1] < fraction


def _best(answer: str, samples: Sequence[Sample]) -> Sample:
    return next(sample for sample in samples if sample.answer == answer and not sample.aborted)
