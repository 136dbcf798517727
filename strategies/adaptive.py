"""Adaptive: look at the first samples, then go on by the arm that pays for questions like this one.

A few plain samples, the *probe*, end the easy questions: a vote that settles (or a sample that passes ``verifier``)
costs no arm. How far the probe agrees with itself says how difficult the rest are (Damani et al. 2024, "Learning How
Hard to Think", arXiv:2410.04707, and Snell et al. 2024, arXiv:2408.03314, §3.2, choose by difficulty too, by trained
predictors or oracle bins). Which arm then pays is a bandit's business (``budgets.bandit``): arms are asked in
the order of what they gain per unit of the budget, each bidding in proportion, until the question is settled or
outbid. What one learns the whole dataset knows. An arm is a strategy with its own way to ask; probe samples count for
every arm that asks alike (``strategies.turn``).

What is an outcome, when no reference may be looked at?

- With ``verifier``: the score of the arm's answer less that of the probe's. Every question teaches.
- Without: a seeded ``explore`` of the questions, more of the first, asks two arms, chosen at random; an
  outcome is whether an arm's answer, and the probe's, is the leader of all samples of the question together, each
  counted by what samples of its model cost. The leader is the answer too: these samples are not spent to learn alone.

The second is agreement and not truth. An arm that is wrong with confidence is taken for right where nothing contradicts
it often enough; one whose strength is to choose a rare answer is taken for wrong; where answers cannot be compared
nothing is learnt. Name a verifier where there is one.

An arm that fails (its model or prompt is refused, its strategy breaks) is named in ``facts`` and the next one is asked.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from budgets.bandit import Choice, bucket_of, choose, compare, exploring, heard, subject_of
from budgets.evidence import AUTO, Evidence
from budgets.experience import Experience
from budgets.stopping import FixedN
from budgets.value import DEFAULT_ALPHA, voting_value
from budgets.votes import p_lead
from pipeline.errors import BudgetDenied, EngineError, RequestRejected, SpecError, StrategyError
from pipeline.records import Item, Sample, StopReason
from strategies.arms import PLAIN_ARM, Arm
from strategies.base import Auditable, Draw, Fact, Session, Solution, Strategy
from strategies.self_consistency import SelfConsistency
from strategies.turn import Pool, Turn

_USUAL_SAMPLES = 4.0
"""What an arm draws of a question before that is known; the same for all, so that at first prices tell them apart."""


@dataclass(frozen=True)
class Candidate:
    """One arm: how it asks, and the strategy that does."""

    arm: Arm
    strategy: Strategy

    @property
    def name(self) -> str:
        return self.arm.name


@dataclass(frozen=True)
class Adaptive:
    """A probe of at most ``probe`` plain samples, then ``candidates`` in the order the bandit gives.

    ``explore``: share of questions that compare two arms, where no ``verifier`` tells; a score of ``pass_score`` ends a
    question. ``always``: the probe and every arm go to their ends, as an audit of the run wants it.
    """

    candidates: tuple[Candidate, ...]
    probe: int = 4
    confidence: float = 0.95
    explore: float = 0.1
    evidence: Evidence = AUTO
    alpha: float = DEFAULT_ALPHA
    verifier: str | None = None
    pass_score: float = 1.0
    always: bool = False

    def __post_init__(self) -> None:
        names = [one.name for one in self.candidates]
        if not names or len(set(names)) < len(names):
            raise SpecError(f"arms are {names!r}: there must be at least one, each with a name of its own")

    @property
    def minimum(self) -> int:
        return 1

    @property
    def maximum(self) -> int:
        return self.probe + sum(one.strategy.maximum for one in self.candidates)

    def unstopped(self) -> Adaptive:
        """The same arms, all asked to their ends."""
        return dataclasses.replace(self, always=True)

    async def solve(self, item: Item, session: Session) -> Solution:
        return await _Question(self, item, session).solve()

    def probing(self) -> SelfConsistency:
        """The vote the question begins with."""
        return SelfConsistency(
            max_samples=self.probe,
            confidence=self.confidence,
            rule=FixedN(self.probe) if self.always else None,
            evidence=self.evidence,
            alpha=self.alpha,
            verifier=self.verifier,
            pass_score=self.pass_score,
        )


@dataclass
class _Ran:
    """An arm, or the probe, that was asked, and what it found. ``score``: what the verifier says of its answer."""

    name: str
    found: Solution
    turn: Turn
    score: float | None = None

    @property
    def over(self) -> bool:
        """Does its word end the question?"""
        return self.found.stop_reason in (StopReason.SETTLED, StopReason.VERIFIED) and self.turn.denied is None


@dataclass
class _Question:
    """One question on its way."""

    config: Adaptive
    item: Item
    session: Session
    pool: Pool = field(default_factory=dict)
    ran: list[_Ran] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Fact] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    """By model: what one of its samples counts for where all are counted together."""
    prompts: set[str | None] = field(default_factory=lambda: {None})
    """What is asked in the question's place by an arm as such, None: the question itself."""
    refusal: RequestRejected | None = None

    async def solve(self) -> Solution:
        config = self.config
        probe = await self._ask("probe", PLAIN_ARM, config.probing(), math.inf, 1.0)
        if probe is not None and not config.always and (probe.over or probe.turn.denied is not None):
            return self._solution(probe)
        choice = await self._choice(probe)
        opening = self._opening(probe)
        by_name = {one.name: one for one in config.candidates}
        arms: list[_Ran] = []
        for place, (name, rate) in enumerate(zip(choice.arms, choice.rates, strict=True)):
            if self._enough(arms, choice, place, opening * rate):
                break
            ran = await self._pull(by_name[name], opening * rate, rate)
            if ran is not None:
                arms.append(ran)
                await self._look_at(ran, probe, choice)
        if len(self.pool) > 1:
            await self._weigh()
        if choice.compared:
            self._compare(arms[:2], probe)
        return self._solution(self._best(arms) or probe)

    def _enough(self, arms: Sequence[_Ran], choice: Choice, place: int, opening: float) -> bool:
        """Is no further arm asked?"""
        if self.config.always or not arms:
            return False
        if choice.compared:
            return len(arms) == 2
        last = arms[-1]
        outbid = last.turn.denied is not None and last.turn.denied >= opening
        return last.over or outbid or place >= choice.worth

    async def _choice(self, probe: _Ran | None) -> Choice:
        config, names = self.config, [one.name for one in self.config.candidates]
        votes, drawn = _agreement(probe.turn.drawn if probe else ())
        bucket = self.facts["difficulty"] = bucket_of(votes, drawn)
        if config.always:
            return Choice(tuple(names), (1.0,) * len(names), len(names))
        rng = self.session.rng

        def pick(known: Experience) -> str:
            if config.verifier is None and len(names) > 1 and rng.random() < exploring(known, config.explore):
                return compare(names, rng).said()
            # Where comparisons teach, the others need not be left to chance.
            costs = {one.name: _USUAL_SAMPLES * self._price(one.arm) for one in config.candidates}
            return choose(known, bucket, costs, rng, draw=config.verifier is not None).said()

        return heard(await self.session.decide(subject_of(bucket), pick), names)

    def _price(self, arm: Arm) -> float:
        return self.session.expected_tokens(Draw(model=arm.model))

    def _opening(self, probe: _Ran | None) -> float:
        """What the best arm bids at first: per unit, as much as one more sample of the probe."""
        if probe is None or not probe.turn.drawn:
            return math.inf
        tokens = self.session.expected_tokens()
        sure, n = min(1.0, probe.found.confidence), len(probe.turn.drawn)
        if probe.found.answer is None:
            sure = 0.0
        return voting_value(sure, n, tokens, stakes=self.item.stakes, alpha=self.config.alpha)

    async def _pull(self, one: Candidate, opening: float, rate: float) -> _Ran | None:
        strategy = one.strategy
        if self.config.always and isinstance(strategy, Auditable):
            strategy = strategy.unstopped()
        # A dear sample bids by the unit what a cheap one does: it is asked because it gains in proportion.
        scale = rate
        return await self._ask(one.name, one.arm, strategy, opening, scale)

    async def _ask(self, name: str, arm: Arm, strategy: Strategy, opening: float, scale: float) -> _Ran | None:
        """Run one strategy on the question; None, and the reason kept, where it fails."""
        try:
            draw = arm.draw(self.item)
            self.prompts.add(draw.prompt)
            turn = Turn(self.session, name, self.pool, draw, opening, scale)
            ran = _Ran(name, await strategy.solve(self.item, turn), turn)
        except RequestRejected as error:
            self.refusal = error
            self.failed[name] = str(error)
            return None
        except (StrategyError, SpecError, EngineError) as error:
            self.failed[name] = str(error)
            return None
        if "failed" in ran.found.facts:
            self.failed[name] = str(ran.found.facts["failed"])
        self.ran.append(ran)
        return ran

    async def _look_at(self, ran: _Ran, probe: _Ran | None, choice: Choice) -> None:
        """Have an arm's answer judged, and teach what came of it."""
        config, found = self.config, ran.found
        if config.verifier is None or not ran.turn.paid:
            return
        if found.best is not None:
            try:
                [verdict] = await self.session.verify([found.best], config.verifier, value=math.inf)
            except BudgetDenied:
                return
            ran.score = verdict.score
            if ran.score is not None and ran.score >= config.pass_score:
                ran.found = dataclasses.replace(found, stop_reason=StopReason.VERIFIED, confidence=1.0)
            elif found.stop_reason is StopReason.SETTLED:
                ran.found = dataclasses.replace(found, stop_reason=StopReason.CAPPED)
        before = await self._score_of(probe)
        after = ran.score if found.best is not None else 0.0
        if after is not None:
            self._learn(ran, after, before)

    async def _score_of(self, probe: _Ran | None) -> float:
        """What the verifier said of the probe's answer, which is the one at hand; 0 where there is none."""
        if probe is None or probe.found.best is None or self.config.verifier is None:
            return 0.0
        if probe.score is None:
            try:
                [verdict] = await self.session.verify([probe.found.best], self.config.verifier, value=math.inf)
            except BudgetDenied:
                return 0.0
            probe.score = verdict.score
        return probe.score or 0.0

    def _compare(self, arms: Sequence[_Ran], probe: _Ran | None) -> None:
        """Two arms were asked: which of them, and was the probe, of one mind with all samples together?"""
        if len(arms) < 2 or any(not ran.turn.drawn for ran in arms):
            return
        leader = self._together()[0]
        if leader is None:
            return
        before = float(probe is not None and probe.found.answer == leader)
        for ran in arms:
            if ran.turn.paid:
                self._learn(ran, float(ran.found.answer == leader), before)

    def _learn(self, ran: _Ran, after: float, before: float) -> None:
        bucket = str(self.facts["difficulty"])
        reward = min(1.0, max(0.0, (1.0 + after - before) / 2.0))
        self.session.learn(subject_of(bucket), ran.name, reward, ran.turn.cost())

    async def _weigh(self) -> None:
        """What samples count for: as much as those of their model cost. Kept, for what is expected to cost changes."""
        models = sorted({draw.model for draw in self.pool})

        def prices(known: Experience) -> str:
            plain = self.session.expected_tokens()
            return json.dumps(
                {one: float(f"{self.session.expected_tokens(Draw(model=one)) / plain:.4g}") for one in models}
            )

        self.weights = _weights(await self.session.decide("adaptive/weights", prices))

    def _together(self) -> tuple[str | None, float, float]:
        """The leader of all samples drawn, its weight and the next one's."""
        weights: dict[str, float] = {}
        counted: set[tuple[str, int]] = set()
        for draw, drawn in self.pool.items():
            if not _answers(draw, self.prompts):
                continue
            weight = self.weights.get(draw.model, 1.0)
            counted |= {(sample.prompt_key, sample.sample_index) for sample in drawn}
            tally = self.config.evidence.tally()
            for sample in drawn:
                tally.add_sample(sample)
            for answer, count in tally.counts.items():
                weights[answer] = weights.get(answer, 0.0) + weight * count
        for ran in self.ran:
            # An arm that asks in ways of its own is heard by its answer alone.
            best = ran.found.best
            if best is not None and best.answer and (best.prompt_key, best.sample_index) not in counted:
                worth = self.weights.get(best.model, 1.0) * max(1, ran.found.votes)
                weights[best.answer] = weights.get(best.answer, 0.0) + worth
        if not weights:
            return None, 0.0, 0.0
        first = max(weights, key=lambda answer: weights[answer])
        return first, weights[first], max((w for answer, w in weights.items() if answer != first), default=0.0)

    def _best(self, arms: Sequence[_Ran]) -> _Ran | None:
        """The arm whose word is the answer: what passed, the best judged, what settled, else the vote of all."""
        heard_from = [ran for ran in arms if ran.found.answer is not None]
        if not heard_from:
            return arms[-1] if arms and not any(ran.found.answer for ran in self.ran) else None
        if any(ran.score is not None for ran in heard_from):
            return max(heard_from, key=lambda ran: -1.0 if ran.score is None else ran.score)
        if len(heard_from) == 1:
            return heard_from[0]
        leader, weight, rival = self._together()
        backing = next((ran for ran in reversed(heard_from) if ran.found.answer == leader), None)
        if backing is not None:
            return backing
        last = heard_from[-1]
        if leader is None:
            return last
        samples = [sample for drawn in self.pool.values() for sample in drawn]
        standing = [sample for sample in samples if sample.answer == leader and not sample.aborted]
        found = dataclasses.replace(
            last.found, answer=leader, best=standing[0], confidence=p_lead(weight, rival), votes=len(standing)
        )
        return dataclasses.replace(last, name="all", found=found)

    def _solution(self, final: _Ran | None) -> Solution:
        if final is None:
            if self.refusal is not None:
                raise self.refusal
            raise StrategyError("every arm failed: " + _told(self.failed))
        facts = {**final.found.facts, **self.facts, "answered by": final.name}
        facts["arms"] = ", ".join(ran.name for ran in self.ran)
        if self.failed:
            facts["failed"] = _told(self.failed)
        refused = [ran.turn.denied for ran in self.ran if ran.turn.denied is not None]
        found = final.found
        if refused and found.stop_reason not in (StopReason.SETTLED, StopReason.VERIFIED):
            reason = StopReason.HOPELESS if found.stop_reason is StopReason.HOPELESS else StopReason.EXHAUSTED
            return dataclasses.replace(found, stop_reason=reason, next_value=_finite(max(refused)), facts=facts)
        return dataclasses.replace(found, next_value=0.0, facts=facts)


def _agreement(samples: Iterable[Sample]) -> tuple[int, int]:
    """Samples that gave the answer most of them gave, and all of them; what a verifier said is no matter here."""
    answers = [None if sample.aborted else sample.answer for sample in samples]
    counts = [answers.count(answer) for answer in set(answers) if answer is not None]
    return max(counts, default=0), len(answers)


def _answers(draw: Draw, prompts: set[str | None]) -> bool:
    """Is such a sample an answer to the question, and no beginning of one, nor what a strategy asked about answers?"""
    return draw.prompt in prompts and draw.max_tokens is None and not draw.prefix


def _weights(text: str) -> dict[str, float]:
    """Weights as they were kept, what is none left out."""
    try:
        raw = json.loads(text)
        return {str(model): float(weight) for model, weight in raw.items() if 0.0 < float(weight) < math.inf}
    except (ValueError, TypeError, AttributeError):
        return {}


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0


def _told(failed: dict[str, str]) -> str:
    return "; ".join(f"{name}: {why}" for name, why in failed.items())
