"""Aggregation in place of a contested vote: a model reads the candidates and chooses, or writes, the answer.

First a vote (``strategies.self_consistency``). Where it is sure enough, or unanimous, it stands and nothing more is
spent. Else its samples are the candidates of one of four methods:

- *usc*: universal self-consistency (Chen et al. 2023, arXiv:2311.17311, §3): one prompt with the responses (8 in the
  paper), asked greedily for the most consistent one.
- *genselect*: GenSelect (Moshkov et al. 2025, arXiv:2504.16891, §4; Toshniwal et al. 2025): the best of up to 16
  solutions by index, 8 selections over other orders, voted. Full texts, cut, where they use summaries.
- *rsa*: recursive self-aggregation (Venkatraman et al. 2025, arXiv:2509.26626, §3): a population of N = 16; in each of
  T = 10 steps, of which the first is the sampling, N new ones from random subsets of K = 4; then a vote. Where we
  differ: a slot whose aggregation is cut or has no answer keeps its candidate, and a unanimous population ends it.
- *set*: one new answer written from all candidates (SSA, Qi et al. 2025, arXiv:2506.09014; AggLM, Zhao et al. 2025,
  arXiv:2509.06870).

Every call is a bid, stakes × (1 − P_lead) / calls like it so far ^ alpha / its tokens, the candidates' included; none
is guaranteed. What cannot be used (cut, no index that was offered, no answer, refused by the engine) is ignored and
named in ``Solution.facts``. The vote's answer stands wherever an aggregation does not clearly say otherwise: without
any usable word, and on a tie. ``facts`` hold both answers and what the aggregation cost, so that they can be compared.
"""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from budgets.value import voting_value
from budgets.votes import Tally, p_lead
from pipeline.errors import BudgetDenied, RequestRejected, SpecError
from pipeline.records import Item, Sample
from strategies import candidates as prompts
from strategies.base import Draw, Fact, Session, Solution
from strategies.self_consistency import SelfConsistency
from strategies.wrapped import Recorder

Method = Literal["usc", "genselect", "rsa", "set"]
TEMPLATES: dict[str, str] = {
    "usc": prompts.USC,
    "genselect": prompts.GENSELECT,
    "rsa": prompts.RSA,
    "set": prompts.SET,
}
_MOST_REASONS = 4
"""So many reasons are told in the facts; the others are counted."""


@dataclass(frozen=True)
class Aggregate:
    """See the module. ``candidates``: most in one prompt of usc, genselect and set. ``template`` None: the method's."""

    vote: SelfConsistency = field(default_factory=lambda: SelfConsistency(max_samples=16))
    method: Method = "genselect"
    contested_below: float = 0.95
    candidates: int = 16
    candidate_chars: int = 3000
    selections: int = 8
    population: int = 16
    subset: int = 4
    steps: int = 10
    temperature: float | None = None
    max_tokens: int | None = None
    model: str = ""
    template: str | None = None

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise SpecError(f"method is {self.method!r}: choose one of {', '.join(get_args(Method))}")

    @property
    def minimum(self) -> int:
        return self.vote.minimum

    @property
    def maximum(self) -> int:
        return self.vote.maximum + calls_of(self.method, self.selections, self.population, self.steps)

    def unstopped(self) -> Aggregate:
        """The same over a vote that draws its maximum."""
        return dataclasses.replace(self, vote=self.vote.unstopped())

    async def solve(self, item: Item, session: Session) -> Solution:
        recorder = Recorder(session)
        vote = await self.vote.solve(item, recorder)
        able = [sample for sample in recorder.drawn if not sample.aborted and sample.answer is not None]
        contested = vote.confidence < self.contested_below and len({sample.answer for sample in able}) > 1
        if vote.answer is None or not contested:
            return dataclasses.replace(vote, facts={"contested": 0.0, "vote_answer": vote.answer})
        call = _Calls(self, item, session, 1.0 - vote.confidence, able)
        if self.method == "rsa":
            word = await self._recursive(call, able)
        elif self.method == "set":
            word = await self._written(call, able)
        else:
            word = await self._selected(call, able)
        return self._solution(vote, word, call, able)

    async def _selected(self, call: _Calls, able: Sequence[Sample]) -> list[Sample]:
        """The candidates chosen by index, a choice a selection."""
        picked: list[Sample] = []
        selections = 1 if self.method == "usc" else self.selections
        for left in range(selections, 0, -1):
            tally = sorted(Counter(sample.answer for sample in picked).values(), reverse=True)
            if tally and tally[0] - sum(tally[1:2]) > left:
                break
            # Another order each time: a model's liking for a place must not become a liking for an answer.
            order = call.rng.sample(able, min(self.candidates, len(able)))
            if self.method == "usc":
                order.sort(key=_index)
            [reply] = await call.ask([order]) or [None]
            if call.ended:
                break
            index = prompts.chosen(reply.text, self.method, len(order)) if reply is not None else None
            if index is not None:
                picked.append(order[index])
            elif reply is not None:
                call.ignore("it names no candidate that was shown")
        return picked

    async def _written(self, call: _Calls, able: Sequence[Sample]) -> list[Sample]:
        """One new answer from all that fit."""
        order = sorted(call.rng.sample(able, min(self.candidates, len(able))), key=_index)
        replies = await call.ask([order])
        return [reply for reply in replies if reply is not None and call.answered(reply)]

    async def _recursive(self, call: _Calls, able: Sequence[Sample]) -> list[Sample]:
        """The last population, or nothing where no step could be taken."""
        population = sorted(call.rng.sample(able, min(self.population, len(able))), key=_index)
        size, moved = len(population), False
        for _ in range(self.steps - 1):
            tally = Counter(sample.answer for sample in population)
            if len(tally) == 1:
                break
            best = [count for _, count in tally.most_common(2)]
            call.stake = 1.0 - p_lead(best[0], best[1])
            subsets = [call.rng.sample(population, min(self.subset, size)) for _ in range(size)]
            replies = await call.ask(subsets)
            fresh = list(population)
            for slot, reply in enumerate(replies):
                if reply is not None and call.answered(reply):
                    fresh[slot], moved = reply, True
            population = fresh
            if call.ended:
                break
        return population if moved else []

    def _solution(self, vote: Solution, word: Sequence[Sample], call: _Calls, able: Sequence[Sample]) -> Solution:
        tally = Tally()
        for sample in word:
            tally.add(sample.answer)
        counts = tally.counts
        answer = tally.leader
        if answer is not None and counts.get(vote.answer or "", 0.0) == tally.lead_weight:
            answer = vote.answer
        facts: dict[str, Fact] = {
            "contested": 1.0,
            "method": self.method,
            "vote_answer": vote.answer,
            "vote_confidence": vote.confidence,
            "aggregate_answer": answer,
            "changed": float(answer is not None and answer != vote.answer),
            "aggregations": float(len(call.replies)),
            "aggregate_tokens": float(sum(reply.billed_tokens for reply in call.replies)),
        }
        if call.ignored:
            facts["ignored"] = _told(call.ignored)
        if call.failed:
            facts["failed"] = f"{self.method}: {call.failed}"
        next_value = max(vote.next_value, call.refused)
        if answer is None or answer == vote.answer:
            return dataclasses.replace(vote, next_value=next_value, facts=facts)
        best = next(sample for sample in word if sample.answer == answer)
        sure = p_lead(tally.lead_weight, tally.runner_up_weight)
        votes = sum(sample.answer == answer for sample in able)
        return Solution(answer, best, vote.stop_reason, sure, votes, next_value=next_value, facts=facts)


class _Calls:
    """The calls of one question: prompts, bids, and what became of them. ``ended``: no more will be paid or taken."""

    def __init__(self, rule: Aggregate, item: Item, session: Session, stake: float, able: Sequence[Sample]) -> None:
        self._rule, self._item, self._session = rule, item, session
        self._able = able
        self.stake = stake
        self.rng: random.Random = session.rng
        self.replies: list[Sample] = []
        self.ignored: Counter[str] = Counter()
        self.failed = ""
        self.refused = 0.0
        self.ended = False

    async def ask(self, groups: Sequence[Sequence[Sample]]) -> list[Sample | None]:
        """The reply over each group of candidates; None where it was cut. Fewer where not all were paid for."""
        rule = self._rule
        value = self._bid(groups)
        try:
            draws = [
                Draw(
                    prompt=self._prompt(group),
                    temperature=0.0 if rule.method == "usc" and rule.temperature is None else rule.temperature,
                    max_tokens=rule.max_tokens,
                    model=rule.model,
                )
                for group in groups
            ]
            replies = await self._session.sample_each(draws, value=value)
        except BudgetDenied:
            self.ended, self.refused = True, value
            return []
        except RequestRejected as error:
            self.ended, self.failed = True, str(error)
            return []
        if len(replies) < len(groups):
            self.ended, self.refused = True, value
        self.replies += replies
        return [reply if self._whole(reply) else None for reply in replies]

    def ignore(self, why: str) -> None:
        self.ignored[why] += 1

    def answered(self, reply: Sample) -> bool:
        """Whether a reply can stand for an answer; said in the facts where it cannot."""
        if reply.answer is None:
            self.ignore("it has no answer")
        return reply.answer is not None

    def _whole(self, reply: Sample) -> bool:
        if reply.aborted:
            self.ignore("it was cut")
        return not reply.aborted

    def _prompt(self, group: Sequence[Sample]) -> str:
        rule = self._rule
        template = rule.template if rule.template is not None else TEMPLATES[rule.method]
        texts = [sample.text for sample in group]
        return prompts.prompt_with(template, self._item, texts, rule.candidate_chars, self.rng)

    def _bid(self, groups: Sequence[Sequence[Sample]]) -> float:
        """One call's: what is at stake, shared by the calls made side by side and fading with those before it."""
        rule = self._rule
        tokens = self._session.expected_tokens(Draw(model=rule.model))
        # Candidates in the prompt are tokens not cached; what one costs is known from having drawn it.
        written = sum(sample.completion_tokens for sample in self._able)
        letters = sum(len(sample.text) for sample in self._able)
        shown = sum(min(len(sample.text), rule.candidate_chars) for group in groups for sample in group) / len(groups)
        if written and letters:
            tokens *= 1.0 + shown / (letters / len(self._able))
        round_ = len(self.replies) // len(groups) + 1
        stakes = self._item.stakes / len(groups)
        return voting_value(1.0 - self.stake, round_, tokens, stakes=stakes, alpha=rule.vote.alpha)


def calls_of(method: str, selections: int, population: int, steps: int) -> int:
    """The most calls a method makes for one question."""
    return {"usc": 1, "set": 1, "genselect": selections, "rsa": population * (steps - 1)}[method]


def _index(sample: Sample) -> int:
    return sample.sample_index


def _told(reasons: Counter[str]) -> str:
    told = [f"{count} × {why}" for why, count in reasons.most_common(_MOST_REASONS)]
    return "; ".join(told)
