"""The vote of all samples of a question together, whichever arm asked for them.

A sample counts for what samples of its model cost, as far as its evidence goes. One that is no answer to the question
(a beginning, a reply about candidates) does not vote; an arm that asks in ways of its own is heard by its solution.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from budgets.evidence import Evidence
from budgets.votes import p_lead
from pipeline.records import Sample
from strategies.base import Draw, Solution
from strategies.turn import Pool


@dataclass(frozen=True)
class Together:
    """Who leads, with what weight, and the next one's; None where nothing votes. ``standing``: samples that say so."""

    leader: str | None
    weight: float
    rival: float
    standing: tuple[Sample, ...]

    def over(self, found: Solution) -> Solution:
        """``found`` with the leader for its answer."""
        return dataclasses.replace(
            found,
            answer=self.leader,
            best=self.standing[0],
            confidence=p_lead(self.weight, self.rival),
            votes=len(self.standing),
        )


def together(
    pool: Pool,
    prompts: Collection[str | None],
    solutions: Sequence[Solution],
    prices: Mapping[str, float],
    evidence: Evidence,
) -> Together:
    """Count all of ``pool`` that was asked by one of ``prompts`` (None: the question's own), and ``solutions`` whose
    samples were not. ``prices``: by model, what one of its samples counts for; default 1."""
    weights: dict[str, float] = {}
    voting: list[Sample] = []
    for draw, drawn in pool.items():
        if not _answers(draw, prompts):
            continue
        tally = evidence.tally()
        for sample in drawn:
            tally.add_sample(sample)
        for answer, count in tally.counts.items():
            weights[answer] = weights.get(answer, 0.0) + prices.get(draw.model, 1.0) * count
        voting += [sample for sample in drawn if sample.answer is not None and not sample.aborted]
    counted = {(sample.prompt_key, sample.sample_index) for sample in voting}
    for found in solutions:
        best = found.best
        if best is not None and found.answer is not None and (best.prompt_key, best.sample_index) not in counted:
            worth = prices.get(best.model, 1.0) * max(1, found.votes)
            weights[found.answer] = weights.get(found.answer, 0.0) + worth
            voting.append(dataclasses.replace(best, answer=found.answer))
    if not weights:
        return Together(None, 0.0, 0.0, ())
    leader = max(weights, key=lambda answer: weights[answer])
    rival = max((weight for answer, weight in weights.items() if answer != leader), default=0.0)
    return Together(leader, weights[leader], rival, tuple(one for one in voting if one.answer == leader))


def agreement(samples: Iterable[Sample]) -> tuple[int, int]:
    """Samples that gave the answer most of them gave, and all of them; what a verifier said is no matter here."""
    answers = [None if sample.aborted else sample.answer for sample in samples]
    counts = [answers.count(answer) for answer in set(answers) if answer is not None]
    return max(counts, default=0), len(answers)


def _answers(draw: Draw, prompts: Collection[str | None]) -> bool:
    return draw.prompt in prompts and draw.max_tokens is None and not draw.prefix
