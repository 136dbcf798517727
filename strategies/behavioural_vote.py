"""A vote of programs by what they do: one cluster of equal behaviour is one answer.

Clustering (Li et al. 2022, "Competition-Level Code Generation with AlphaCode", §4.6): candidates that gave the same
outputs on the same inputs are taken for one program, and a member of the largest cluster is the answer. CodeT (Chen et
al. 2022, "CodeT: Code Generation with Generated Tests", §2.2, dual execution agreement): the model writes tests too;
solutions that pass the same tests are a set, which scores |solutions| × |tests|.

How: the vote of ``strategies.self_consistency``, with its bids, stopping rules and arms, over what a verifier of kind
``behaviour`` tells of each sample instead of over its answer. A program that fails on all inputs does not vote. In
CodeT a vote weighs the share of tests that its program passed; members of a set passed the same, so the set's weight
is its score over the number of tests.

Inputs are a column of the job (``generate: nothing``), or the model is asked for assertions beside the first samples
(*inputs*: the calls in them are the inputs; *tests*: CodeT). That is one bid, worth what a second sample is; where the
market will not pay, the question is answered with what there is. Where nothing is told of a program (no inputs, none of
the model's words can be run, a sandbox lost), programs with one text are one cluster. ``Solution.facts`` says which.

Where we differ: AlphaCode draws a member at random, here the first in sample-index order stands; the code that CodeT's
authors published takes the root of |solutions|, the paper, and this, do not. Duplicate tests count once. What the model
thinks of its samples weighs votes unless ``vote.evidence`` is *votes*, as in any vote here.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from budgets.value import voting_value
from budgets.votes import Tally, p_lead
from pipeline.errors import BudgetDenied, RequestRejected, SpecError
from pipeline.records import Item, Sample, Verdict
from strategies.assertions import asking, assertions, calls
from strategies.base import Draw, Fact, Session, Solution
from strategies.self_consistency import SelfConsistency
from strategies.wrapped import Wrapped

Generate = Literal["nothing", "inputs", "tests"]
Place = tuple[str, int]
"""A sample by prompt key and index."""


@dataclass(frozen=True)
class BehaviouralVote:
    """See the module. ``generations`` replies are asked for, and of each the first ``per_generation`` assertions kept
    (5 in CodeT's code, of 100 replies). ``template`` None: ``strategies.assertions.TEMPLATE``."""

    vote: SelfConsistency = field(default_factory=SelfConsistency)
    verifier: str = "behaviour"
    generate: Generate = "nothing"
    generations: int = 4
    per_generation: int = 5
    temperature: float | None = None
    max_tokens: int | None = None
    model: str = ""
    template: str | None = None

    def __post_init__(self) -> None:
        if self.generate not in get_args(Generate):
            raise SpecError(f"generate is {self.generate!r}: choose one of {', '.join(get_args(Generate))}")
        if self.vote.verifier is not None:
            raise SpecError(f"vote.verifier is {self.vote.verifier!r}: leave it out, the vote is by behaviour")

    @property
    def minimum(self) -> int:
        return self.vote.minimum

    @property
    def maximum(self) -> int:
        return self.vote.maximum + (0 if self.generate == "nothing" else self.generations)

    def unstopped(self) -> BehaviouralVote:
        """The same over a vote that draws its maximum."""
        return dataclasses.replace(self, vote=self.vote.unstopped())

    async def solve(self, item: Item, session: Session) -> Solution:
        watched = _Watched(self, item, session)
        vote = self.vote
        if self.generate == "tests":
            # Passing what a model wrote verifies nothing: no score settles the question.
            vote = dataclasses.replace(vote, verifier=self.verifier, verify="weigh", pass_score=math.inf)
        return watched.solution(await vote.solve(item, watched))


class _Watched(Wrapped):
    """The question's session as the vote sees it: a sample's answer is what its program does."""

    def __init__(self, rule: BehaviouralVote, item: Item, session: Session) -> None:
        super().__init__(session)
        self._rule, self._item = rule, item
        self._drawn: dict[Place, Sample] = {}
        self._told: dict[Place, Verdict] = {}
        self._given: tuple[str, ...] | None = None if rule.generate != "nothing" else ()
        self._refused: BudgetDenied | None = None
        """The market's word on the tests: without them there is no vote to go on with."""
        self._facts: dict[str, Fact] = {}

    async def sample_each(self, draws: Sequence[Draw], *, value: float) -> list[Sample]:
        if self._refused is not None:
            raise self._refused
        drawn = await super().sample_each(draws, value=value)
        self._drawn |= {_place(sample): sample for sample in drawn}
        able = [sample for sample in drawn if _able(sample)]
        if self._given is None and able:
            self._given = await self._generated()
        try:
            verdicts = await self._session.verify(able, self._rule.verifier, value=value, given=self._given or ())
        except BudgetDenied as denied:
            self._refused = denied
            verdicts = [Verdict(self._rule.verifier, error=str(denied)) for _ in able]
        self._told |= {_place(sample): verdict for sample, verdict in zip(able, verdicts, strict=True)}
        return [dataclasses.replace(sample, answer=self._cluster(sample)) for sample in drawn]

    async def verify(
        self, samples: Sequence[Sample], verifier: str, *, value: float, given: Sequence[str] = ()
    ) -> list[Verdict]:
        """What was told of them when they were drawn."""
        return [self._told[_place(sample)] for sample in samples]

    def solution(self, voted: Solution) -> Solution:
        """The vote's solution with the program itself for its answer."""
        facts = {**self._all_facts(), **voted.facts}
        if voted.best is not None:
            best = self._drawn[_place(voted.best)]
            return dataclasses.replace(voted, answer=best.answer, best=best, facts=facts)
        tally = Tally()
        for sample in self._drawn.values():
            tally.add(sample.answer if _able(sample) else None)
        if tally.leader is None:
            return dataclasses.replace(voted, facts=facts)
        # Every program failed on every input, or the inputs were nonsense: nobody can tell which.
        best = next(one for one in self._drawn.values() if _able(one) and one.answer == tally.leader)
        facts["fallback"] = "no program did anything but fail: the most frequent text"
        return dataclasses.replace(
            voted, answer=tally.leader, best=best, confidence=0.0, votes=int(tally.lead_weight), facts=facts
        )

    async def _generated(self) -> tuple[str, ...]:
        """What the model would have the programs run on."""
        rule = self._rule
        try:
            prompt = asking(rule.template, self._item, rule.per_generation)
            draw = Draw(prompt=prompt, temperature=rule.temperature, max_tokens=rule.max_tokens, model=rule.model)
            replies = await self._session.sample_each([draw] * rule.generations, value=self._bid(draw))
        except BudgetDenied as denied:
            self._refused = denied
            self._facts["failed"] = f"{rule.generate}: {denied}"
            return ()
        except RequestRejected as error:
            self._facts["failed"] = f"{rule.generate}: {error}"
            return ()
        found = [assertions(prompt, reply.text, rule.per_generation) for reply in replies if not reply.aborted]
        written = [assertion for each in found for assertion in each]
        if rule.generate == "inputs":
            written = [call for assertion in written for call in calls(assertion)]
        self._facts["unusable"] = float(len(replies) - sum(map(bool, found)))
        return tuple(dict.fromkeys(written))

    def _bid(self, draw: Draw) -> float:
        """All replies together are worth what a second sample is: without them there is no vote at all."""
        tokens = self._session.expected_tokens(draw) * self._rule.generations
        return voting_value(p_lead(1.0, 0.0), len(self._drawn), tokens, self._item.stakes, self._rule.vote.alpha)

    def _cluster(self, sample: Sample) -> str | None:
        """What the sample votes for; None: it does not vote."""
        verdict = self._told.get(_place(sample))
        if verdict is None:
            return None
        if _described(verdict):
            return verdict.detail if verdict.score else None
        # Beside programs of which something is known, one of which nothing is cannot be placed.
        return None if any(map(_described, self._told.values())) else f"text {sample.answer}"

    def _all_facts(self) -> dict[str, Fact]:
        told = list(self._told.values())
        facts = dict(self._facts)
        facts["behaviours"] = float(len({verdict.detail for verdict in told if _described(verdict) and verdict.score}))
        facts["fell"] = float(sum(_described(verdict) and not verdict.score for verdict in told))
        if self._rule.generate != "nothing":
            facts["given"] = float(len(self._given or ()))
        unknown = Counter(verdict.error or "nothing was told" for verdict in told if not _described(verdict))
        if unknown:
            [(why, count)] = unknown.most_common(1)
            facts["unknown"] = f"{sum(unknown.values())} of {len(told)}, {count} × {why}"
        return facts


def _able(sample: Sample) -> bool:
    """Can it be the answer? It came to its end, and has one."""
    return not sample.aborted and sample.answer is not None


def _described(verdict: Verdict) -> bool:
    return verdict.score is not None and verdict.detail is not None


def _place(sample: Sample) -> Place:
    return sample.prompt_key, sample.sample_index
