"""Adaptive: look at the first samples, then go on by the arm that pays for questions like this one.

A few plain samples, the *probe*, end the easy questions: a vote that settles (or a sample that passes ``verifier``)
costs no arm. How far the probe agrees with itself says how difficult the rest are (Damani et al. 2024, "Learning How
Hard to Think", arXiv:2410.04707, and Snell et al. 2024, arXiv:2408.03314, §3.2, choose by difficulty too, by trained
predictors or oracle bins). Which arm then pays is a bandit's business (``budgets.bandit``): arms are asked in
the order of what they gain per unit of the budget, each bidding in proportion, until the question is settled or
outbid. What one learns the whole dataset knows. An arm is a strategy with its own way to ask; probe samples count for
every arm that asks alike (``strategies.turn``). Where an arm is known to gain more by the unit than the probe's next
sample would, the probe ends early; without a verifier that takes a dearer model, for agreement alone gives nobody a
claim over the probe.

What is an outcome, when no reference may be looked at?

- With ``verifier``: the score of the arm's answer less that of the probe's, or a pass of any of its samples, where
  checks are free. Every question teaches.
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
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from budgets.bandit import (
    Choice,
    Start,
    appeal,
    bucket_of,
    choose,
    compare,
    exploring,
    heard,
    numbers_heard,
    numbers_said,
    subject_of,
)
from budgets.evidence import AUTO, Evidence
from budgets.experience import Experience
from budgets.stopping import FixedN
from budgets.value import DEFAULT_ALPHA, voting_value
from pipeline.errors import BudgetDenied, EngineError, RequestRejected, SpecError, StrategyError
from pipeline.records import Item, Sample, StopReason
from strategies.arms import PLAIN_ARM, Arm
from strategies.base import Auditable, Draw, Fact, Session, Solution, Strategy
from strategies.self_consistency import SelfConsistency
from strategies.together import Together, agreement, together
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

    def probing(self, samples: int) -> SelfConsistency:
        """The vote the question begins with."""
        return SelfConsistency(
            max_samples=samples,
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
    prices: Mapping[str, float] = field(default_factory=dict)
    """By model: what one of its samples counts for where all are counted together."""
    prompts: set[str | None] = field(default_factory=lambda: {None})
    """What is asked in the question's place by an arm as such, None: the question itself."""
    refusal: RequestRejected | None = None

    async def solve(self) -> Solution:
        config = self.config
        start = await self._start()
        probe = await self._probed(start)
        if probe is not None and not config.always and (probe.over or probe.turn.denied is not None):
            return self._solution(probe)
        choice = await self._choice(probe, start)
        opening = self._opening(probe, start)
        by_name = {one.name: one for one in config.candidates}
        arms: list[_Ran] = []
        for place, (name, rate) in enumerate(zip(choice.arms, choice.rates, strict=True)):
            if self._enough(arms, choice, place, opening * rate):
                break
            ran = await self._pull(by_name[name], opening * rate, rate)
            if ran is not None:
                arms.append(ran)
                await self._look_at(ran, probe)
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

    async def _start(self) -> Start:
        """What is decided of a question before its first sample."""
        config = self.config
        if config.always:
            return Start()

        def pick(known: Experience) -> str:
            several = len(config.candidates) > 1
            if config.verifier is None and several and self.session.rng.random() < exploring(known, config.explore):
                return Start(compares=True).said()
            costs, plain = self._costs(), _USUAL_SAMPLES * self._price(PLAIN_ARM)
            # Where agreement is all there is to go by, an arm no dearer than the probe has no claim over it.
            among = [arm for arm, cost in costs.items() if config.verifier is not None or cost > plain]
            return Start(appeal=appeal(known, costs, among)).said()

        return Start.heard(await self.session.decide("adaptive/start", pick))

    async def _probed(self, start: Start) -> _Ran | None:
        """The probe, up to its end or to where an arm is worth more than its next sample."""
        config = self.config
        for n in range(1 if start.appeal else config.probe, config.probe + 1):
            self.ran.clear()
            # Samples that are there are handed out again: only the last one is drawn.
            probe = await self._ask("probe", PLAIN_ARM, config.probing(n), math.inf, 1.0)
            if probe is None or probe.over or probe.turn.denied is not None:
                return probe
            if start.appeal_of(*agreement(probe.turn.drawn)) * self._split() > self._next_worth(probe):
                return probe
        return probe

    def _split(self) -> float:
        """What a split question's next sample is worth after a whole probe, per sample."""
        return voting_value(0.5, self.config.probe, 1.0, alpha=self.config.alpha)

    def _next_worth(self, probe: _Ran) -> float:
        sure = 0.0 if probe.found.answer is None else min(1.0, probe.found.confidence)
        return voting_value(sure, len(probe.turn.drawn), 1.0, alpha=self.config.alpha)

    def _costs(self) -> dict[str, float]:
        return {one.name: _USUAL_SAMPLES * self._price(one.arm) for one in self.config.candidates}

    async def _choice(self, probe: _Ran | None, start: Start) -> Choice:
        config, names = self.config, [one.name for one in self.config.candidates]
        votes, drawn = agreement(probe.turn.drawn if probe else ())
        bucket = self.facts["difficulty"] = bucket_of(votes, drawn)
        if config.always:
            return Choice(tuple(names), (1.0,) * len(names), len(names))
        rng = self.session.rng

        def pick(known: Experience) -> str:
            # The first number said whether arms are compared: which, another one says.
            rng.random()
            if start.compares:
                return compare(names, rng).said()
            # Where comparisons teach, the others need not be left to chance.
            return choose(known, bucket, self._costs(), rng, draw=config.verifier is not None).said()

        return heard(await self.session.decide(subject_of(bucket), pick), names)

    def _price(self, arm: Arm) -> float:
        return self.session.expected_tokens(Draw(model=arm.model))

    def _opening(self, probe: _Ran | None, start: Start) -> float:
        """What the best arm bids at first: per unit, as much as one more sample of the probe."""
        if probe is None or not probe.turn.drawn:
            return math.inf
        worth = max(self._next_worth(probe), start.appeal_of(*agreement(probe.turn.drawn)) * self._split())
        return self.item.stakes * worth / self.session.expected_tokens()

    async def _pull(self, one: Candidate, opening: float, rate: float) -> _Ran | None:
        strategy = one.strategy
        if self.config.always and isinstance(strategy, Auditable):
            strategy = strategy.unstopped()
        # A dear sample bids by the unit what a cheap one does: it is asked because it gains in proportion.
        return await self._ask(one.name, one.arm, strategy, opening, rate)

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

    async def _look_at(self, ran: _Ran, probe: _Ran | None) -> None:
        """Have an arm's answer judged, and teach what came of it. Where checks are free, a sample it passed over may
        pass: an arm that does not look at the verifier need not know which."""
        config, found = self.config, ran.found
        if config.verifier is None or not ran.turn.paid:
            return
        free = self.session.expected_tokens(check=config.verifier) <= self.session.expected_tokens()
        able = [sample for sample in ran.turn.drawn if sample.answer is not None and not sample.aborted]
        asked = [*([found.best] if found.best is not None else []), *(able if free else [])]
        scores = await self._scores(asked, ran.turn.opening)
        if scores is None:
            return
        passed = next((at for at, one in enumerate(scores) if one is not None and one >= config.pass_score), None)
        if passed is not None:
            best, score = asked[passed], scores[passed]
            votes = sum(sample.answer == best.answer for sample in able)
            ran.found = Solution(best.answer, best, StopReason.VERIFIED, 1.0, votes, facts=found.facts)
        else:
            score = scores[0] if found.best is not None else 0.0
            if found.stop_reason is StopReason.SETTLED:
                ran.found = dataclasses.replace(found, stop_reason=StopReason.CAPPED)
        ran.score = score
        before = await self._score_of(probe, ran.turn.opening)
        if score is not None and before is not None:
            self._learn(ran, score, before)

    async def _score_of(self, probe: _Ran | None, value: float) -> float | None:
        """What the verifier says of the probe's answer, the one at hand; 0 where there is none, None: not known."""
        if probe is None or probe.found.best is None:
            return 0.0
        if probe.score is None:
            [probe.score] = await self._scores([probe.found.best], value) or [None]
        return probe.score

    async def _scores(self, samples: Sequence[Sample], value: float) -> list[float | None] | None:
        """What the verifier says; None where the market will not pay for it."""
        assert self.config.verifier is not None, "nobody to ask"
        if not samples:
            return []
        try:
            verdicts = await self.session.verify(samples, self.config.verifier, value=value)
        except BudgetDenied:
            return None
        return [verdict.score for verdict in verdicts]

    def _compare(self, arms: Sequence[_Ran], probe: _Ran | None) -> None:
        """Two arms were asked: which of them, and was the probe, of one mind with all samples together?"""
        if len(arms) < 2 or any(not ran.turn.drawn for ran in arms):
            return
        leader = self._together().leader
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

        def weigh(known: Experience) -> str:
            plain = self.session.expected_tokens()
            return numbers_said({model: self.session.expected_tokens(Draw(model=model)) / plain for model in models})

        self.prices = numbers_heard(await self.session.decide("adaptive/weights", weigh))

    def _best(self, arms: Sequence[_Ran]) -> _Ran | None:
        """The arm whose word is the answer: what passed, the best judged, what settled, else the vote of all."""
        heard_from = [ran for ran in arms if ran.found.answer is not None]
        if not heard_from:
            return arms[-1] if arms and not any(ran.found.answer for ran in self.ran) else None
        if any(ran.score is not None for ran in heard_from):
            return max(heard_from, key=lambda ran: -1.0 if ran.score is None else ran.score)
        if len(heard_from) == 1:
            return heard_from[0]
        joint = self._together()
        backing = next((ran for ran in reversed(heard_from) if ran.found.answer == joint.leader), None)
        if backing is not None or joint.leader is None:
            return backing or heard_from[-1]
        last = heard_from[-1]
        return dataclasses.replace(last, name="all", found=joint.over(last.found))

    def _together(self) -> Together:
        solutions = [ran.found for ran in self.ran]
        return together(self.pool, self.prompts, solutions, self.prices, self.config.evidence)

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
            return dataclasses.replace(found, stop_reason=reason, next_value=max(refused), facts=facts)
        return dataclasses.replace(found, next_value=0.0, facts=facts)


def _told(failed: dict[str, str]) -> str:
    return "; ".join(f"{name}: {why}" for name, why in failed.items())
