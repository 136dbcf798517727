"""Self-consistency with adaptive stopping, several arms, and a verifier beside the vote.

Vote over sampled answers (Wang et al. 2023, arXiv:2203.11171), one sample at a time, until a stopping rule is content;
by default until the leader's posterior of being the mode reaches ``confidence`` (Adaptive-Consistency, Aggarwal et al.
2023, arXiv:2305.11860, §3, Beta form, threshold 0.95, at most 40 samples). Votes are counted in sample-index order,
whatever finishes first. With ``arms`` (templates, temperatures) sample i comes from arm i mod k.

With a verifier (``verifier``, ``strategies.vote``): a sample that passes settles the question; one that failed does not
vote; graded scores may weigh votes. Checks that are free are made of every sample. Checks that cost are bought for the
answer ahead, when that bids more than another sample does (``budgets.checking``), or before the question would stop.
Where every answer failed there is none: a label that is known to be wrong is worse than no label.

Where we differ from the papers: votes are weighted by the model's own confidence where it is known
(``budgets.evidence``), and each further sample is a bid on the run's market, so a question also stops when others offer
more.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

from budgets.checking import checking_value
from budgets.evidence import AUTO, Evidence
from budgets.stopping import AdaptiveConsistency, FixedN, StoppingRule, is_hopeless
from budgets.value import DEFAULT_ALPHA, voting_value
from budgets.votes import p_lead
from pipeline.errors import BudgetDenied, SpecError
from pipeline.records import Item, StopReason
from strategies.arms import Arm
from strategies.base import Fact, Session, Solution
from strategies.rotation import Rotation
from strategies.vote import Judging, Vote


@dataclass(frozen=True)
class SelfConsistency:
    """Vote until settled, verified, hopeless, capped or outbid. Numbers of samples and the confidence are the paper's.

    ``rule`` None is Adaptive-Consistency's Beta form at ``confidence``. ``evidence`` says what a vote is worth and
    ``alpha`` how fast a flat vote is given up (``budgets.value.voting_value``). ``prune`` is who gives up a question
    that stays flat: *price*, the market alone, once others offer more; *forecast*, the question too, once its vote,
    going on as it went, would not reach ``confidence`` within ``max_samples``. ``verify`` is what a score does to a
    vote (``strategies.vote.Vote``); a score of ``pass_score`` settles the question.
    """

    min_samples: int = 1
    max_samples: int = 40
    confidence: float = 0.95
    rule: StoppingRule | None = None
    evidence: Evidence = AUTO
    alpha: float = DEFAULT_ALPHA
    prune: Literal["price", "forecast"] = "price"
    arms: tuple[Arm, ...] = ()
    verifier: str | None = None
    verify: Judging = "pass"
    pass_score: float = 1.0

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
        """The same vote over ``max_samples`` samples, whatever it looks like on the way; a pass still settles it."""
        return dataclasses.replace(self, rule=FixedN(self.max_samples), prune="price")

    async def solve(self, item: Item, session: Session) -> Solution:
        return await _Question(self, item, session).solve()


class _Question:
    """One question on its way."""

    def __init__(self, config: SelfConsistency, item: Item, session: Session) -> None:
        self._config, self._item, self._session = config, item, session
        self._rule = config.rule if config.rule is not None else AdaptiveConsistency("beta", config.confidence)
        self._arms = Rotation(config.arms, item)
        self._vote = Vote(config.evidence, config.verify if config.verifier else None, config.pass_score)
        self._free = config.verifier is not None and not self._check_tokens()
        self._asking = config.verifier is not None
        """False once the market would not pay for a check: the vote goes on without."""

    async def solve(self) -> Solution:
        config, vote = self._config, self._vote
        while vote.n < config.max_samples:
            need = config.min_samples - vote.n
            if need <= 0:
                reason = await self._end()
                if reason is not None:
                    return self._solution(reason)
            value = math.inf if need > 0 else self._bid()
            try:
                drawn = await self._arms.sample(self._session, max(1, need), value)
            except BudgetDenied:
                flat = is_hopeless(vote.tally, config.confidence, config.max_samples)
                return self._solution(StopReason.HOPELESS if flat else StopReason.EXHAUSTED, self._bid())
            for sample in drawn:
                vote.add(sample)
            if self._free:
                await self._check(answer=None, value=value)
        return self._solution(await self._end() or StopReason.CAPPED)

    async def _end(self) -> StopReason | None:
        """Why the question is over now; None where it goes on."""
        config, vote = self._config, self._vote
        while vote.passed is None:
            stops = self._rule.should_stop(vote.tally)
            if not await self._checked_leader(stops or vote.n >= config.max_samples):
                break
        if vote.passed is not None:
            return StopReason.VERIFIED
        if stops:
            return _content(self._rule)
        hopeless = config.prune == "forecast" and is_hopeless(vote.tally, config.confidence, config.max_samples)
        return StopReason.HOPELESS if hopeless else None

    async def _checked_leader(self, last: bool) -> bool:
        """Buy a check of the answer ahead where that is worth it; True where it changed what is known."""
        vote, leader = self._vote, self._vote.tally.leader
        if not self._asking or self._free or leader is None or not vote.unjudged(leader):
            return False
        if any(sample.answer == leader for sample in vote.judged()):
            return False
        value = checking_value(vote.tally, self._check_tokens(), self._item.stakes)
        return (last or value >= self._bid()) and await self._check(leader, value)

    async def _check(self, answer: str | None, value: float) -> bool:
        """Have samples judged: all that vote, or the first that stands for ``answer``. False: not paid for."""
        assert self._config.verifier is not None, "nobody to ask"
        samples = self._vote.unjudged(answer)[: None if answer is None else 1]
        if not samples or not self._asking:
            return False
        try:
            verdicts = await self._session.verify(samples, self._config.verifier, value=value)
        except BudgetDenied:
            self._asking = False
            return False
        self._vote.judge(samples, verdicts)
        return True

    def _check_tokens(self) -> float:
        session, draw = self._session, self._arms.draw
        return session.expected_tokens(draw, check=self._config.verifier) - session.expected_tokens(draw)

    def _bid(self) -> float:
        tally = self._vote.tally
        tokens = self._session.expected_tokens(self._arms.draw)
        lead = p_lead(tally.lead_weight, tally.runner_up_weight)
        return voting_value(lead, self._vote.n, tokens, stakes=self._item.stakes, alpha=self._config.alpha)

    def _solution(self, reason: StopReason, next_value: float = 0.0) -> Solution:
        vote, facts = self._vote, self._facts()
        if vote.passed is not None:
            assert vote.passed.answer is not None, "what does not parse is not judged"
            votes = vote.votes(vote.passed.answer)
            return Solution(vote.passed.answer, vote.passed, StopReason.VERIFIED, 1.0, votes, facts=facts)
        leader = vote.tally.leader
        if leader is None:
            # Without money it is exhausted; else nothing parsed, or nothing that parsed stood, in all samples allowed.
            unanswered = reason if reason is StopReason.EXHAUSTED else StopReason.HOPELESS
            return Solution(None, None, unanswered, confidence=0.0, votes=0, next_value=next_value, facts=facts)
        return Solution(
            answer=leader,
            best=vote.best(leader),
            stop_reason=reason,
            confidence=p_lead(vote.tally.lead_weight, vote.tally.runner_up_weight),
            votes=vote.votes(leader),
            next_value=next_value,
            facts=facts,
        )

    def _facts(self) -> dict[str, Fact]:
        facts: dict[str, Fact] = {}
        if self._arms.failed:
            facts["failed"] = "; ".join(f"{name}: {why}" for name, why in self._arms.failed.items())
        if self._config.verifier and self._vote.failed:
            facts["rejected"] = "every answer failed its check"
        if self._config.arms:
            passed = self._vote.passed
            answer = passed.answer if passed is not None else self._vote.tally.leader
            facts |= {f"agree {name}": share for name, share in self._arms.agreement(answer).items()}
        return facts


def _content(rule: StoppingRule) -> StopReason:
    """A fixed number is a cap and no finding about the vote."""
    return StopReason.CAPPED if isinstance(rule, FixedN) else StopReason.SETTLED
