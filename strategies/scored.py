"""A question's samples and their scores while it is open, and the solution they make. Part of best-of-N.

``Solution.votes`` are the samples that gave the answer, scored or not. ``Solution.confidence``: where a sample is
chosen (argmax, soft, pessimistic, and one that passed), its score; where answers compete, what the rule makes of them
(``budgets.selection``); of a plain vote, ``p_lead``. ``Solution.facts``: ``selected`` by what (a rule, *pass* or
*vote*), ``score`` of the sample that stands for the answer, ``scored`` (how many have a score), and ``unscored``, why
the last of the checked ones that have none has none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, assert_never

from budgets import selection as rules
from budgets.bounded import BetaScores
from budgets.pandora import ScorePosterior
from budgets.selection import Candidate, Pick
from budgets.votes import Tally
from pipeline.records import Sample, StopReason
from strategies.base import Fact, Solution

CONFIDENCE = "confidence"
"""The score that is no verifier's."""
Selection = Literal["argmax", "weighted", "soft", "pessimistic", "majority_of_the_bests"]
_SHOWN = 2.0
"""Before any sample: as if two had been drawn and both had shown a score."""


def confidence_of(sample: Sample) -> float | None:
    """exp(mean log-probability) in [0, 1]: the geometric mean of the chosen tokens' probabilities, 1 / perplexity.

    None where it was not recorded. A mean, so that a long answer is not taken for an unlikely one.
    """
    logprob = sample.mean_logprob
    if logprob is None or math.isnan(logprob):
        return None
    return math.exp(min(0.0, logprob))


class Scoreboard:
    """Mutable but small: the samples, a score or None each, and the posterior of the next score."""

    def __init__(self, prior_mean: float, prior_spread: float, prior_samples: float) -> None:
        self.samples: list[Sample] = []
        self._scores: list[float | None] = []
        self._posterior = ScorePosterior(prior_mean, prior_spread, prior_samples)
        self._unscored: str | None = None

    @property
    def n(self) -> int:
        """All samples paid for."""
        return len(self.samples)

    @property
    def gain(self) -> float:
        """What one more sample is expected to add to the best score, in [0, 1]."""
        best = self._posterior.best or 0.0
        shown = (_SHOWN + self._posterior.count) / (_SHOWN + self.n)
        scores = self._posterior.scores()
        return shown * BetaScores(scores.mean, scores.spread).gain_over(best)

    def add(self, sample: Sample) -> int:
        """Put a sample on the board; its place."""
        self.samples.append(sample)
        self._scores.append(None)
        return len(self.samples) - 1

    def is_candidate(self, place: int) -> bool:
        """Can this sample be the answer? It came to its end, and has one."""
        sample = self.samples[place]
        return not sample.aborted and sample.answer is not None

    def mark(self, place: int, score: float | None, error: str | None = None) -> None:
        """The score of a sample; what is no number in [0, 1] is none. Once a sample: a repeated one is left out."""
        if self._scores[place] is not None:
            return
        if score is None or not 0.0 <= score <= 1.0:
            self._unscored = error or ("no score" if score is None else f"score {score!r}")
            return
        self._scores[place] = score
        self._posterior.add(score)

    def first_at(self, score: float) -> int | None:
        """The first sample with this score or more."""
        return next((at for at, one in enumerate(self._scores) if one is not None and one >= score), None)

    def passed(self, place: int, reason: StopReason) -> Solution:
        """The solution that is one sample, because it passed."""
        return self._of(place, reason, self._scores[place] or 0.0, "pass", 0.0)

    def solution(
        self, selection: Selection, reason: StopReason, u: float, next_value: float, softness: float, pessimism: float
    ) -> Solution:
        """The solution by a rule over the scored samples; by a plain vote where nothing has a score."""
        scored = [place for place, score in enumerate(self._scores) if score is not None]
        if scored:
            candidates = [Candidate(self._answer(place), self._scores[place] or 0.0) for place in scored]
            pick = _pick(candidates, selection, u, softness, pessimism)
            return self._of(scored[pick.place], reason, pick.confidence, selection, next_value)
        tally = Tally()
        for place in range(self.n):
            tally.add(self.samples[place].answer if self.is_candidate(place) else None)
        if tally.leader is None:
            # Without money it is exhausted; else nothing parsed in all the samples wanted, and more would not parse.
            unanswered = reason if reason is StopReason.EXHAUSTED else StopReason.HOPELESS
            return Solution(None, None, unanswered, 0.0, 0, next_value, self._facts(None, None))
        first = next(at for at in range(self.n) if self.is_candidate(at) and self._answer(at) == tally.leader)
        return self._of(first, reason, tally.p_lead, "vote", next_value)

    def _of(self, place: int, reason: StopReason, confidence: float, selected: str, next_value: float) -> Solution:
        answer = self._answer(place)
        votes = sum(self.is_candidate(at) and self.samples[at].answer == answer for at in range(self.n))
        facts = self._facts(selected, self._scores[place])
        return Solution(answer, self.samples[place], reason, confidence, votes, next_value, facts)

    def _facts(self, selected: str | None, score: float | None) -> dict[str, Fact]:
        scored = float(self._posterior.count)
        facts: dict[str, Fact] = {"selected": selected, "score": score, "scored": scored}
        if self._unscored is not None:
            facts["unscored"] = self._unscored
        return facts

    def _answer(self, place: int) -> str:
        answer = self.samples[place].answer
        assert answer is not None, "only candidates are chosen"
        return answer


def _pick(candidates: Sequence[Candidate], selection: Selection, u: float, softness: float, pessimism: float) -> Pick:
    match selection:
        case "argmax":
            return rules.argmax(candidates)
        case "weighted":
            return rules.weighted(candidates)
        case "soft":
            return rules.soft(candidates, u, softness)
        case "pessimistic":
            return rules.pessimistic(candidates, u, pessimism)
        case "majority_of_the_bests":
            return rules.majority_of_the_bests(candidates)
        case _:
            assert_never(selection)
