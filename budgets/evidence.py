"""What a vote is worth: samples the model itself was surer of count for more than the others.

``Evidence`` is the setting, ``WeightedTally`` the running vote under it; the tally is read like a plain one
(``budgets.votes.Standing``), so every stopping rule and bid works on it unchanged. A sample's score x is a number that
grows with the model's confidence; its raw weight is w = exp(strength · x), its odds of being right up to a factor that
its question's other samples share (the fit in ``budgets.calibration`` is the matching likelihood).

Promises
- Weights are scaled without looking at other questions or at samples to come: the same samples in index order give the
  same evidence. All evidence together never exceeds the number of votes, so weighting alone makes no vote certain.
- A score that is missing, NaN or infinite makes a plain vote of weight 1; without any score this is the plain tally.
- The weighting fades: evidence = (1 − λ) · votes + λ · weighted votes, λ = fade / (fade + votes). Weights say most
  where votes are few; a constant weight was measured to lose up to 1.3 points at 40 samples.
- A sample costs O(distinct answers). Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

from budgets.votes import Ranking, Tally
from pipeline.errors import SpecError
from pipeline.records import Sample

Kind = Literal["auto", "votes", "sum_logprob", "mean_logprob", "group_confidence", "within_question"]

DEFAULT_STRENGTHS: dict[str, float] = {
    "auto": 8.0,
    "mean_logprob": 8.0,
    "within_question": 8.0,
    "sum_logprob": 0.5,
    "group_confidence": 1.0,
}
"""Per nat (a token, for the means). Mean 8, fade 10: best on fold 0 of the recorded arithmetic samples, +1.7 points on
the other fold at 5 samples; fold 1's own choice (sum 1.0, fade 20) lost 1.2 on fold 0 at 40."""
DEFAULT_FADE = 10.0
"""Votes at which weighted and plain votes count half each. Measured with the strengths: fixed 40 stays at 50.3%."""
CERTAIN_VOTES = 1.0
"""The scale starts as if so many votes of log-probability 0 had been seen: see ``WeightedTally``."""
_LEAST = 1e-9
"""No vote is worth less than this before scaling, so that a vote of hopeless scores still has a leader."""
_TIE = 1e-9
"""A rival must lead by more than this share: sums in another order differ in the last digits."""
_WITHIN = ("group_confidence", "within_question")


@dataclass(frozen=True, slots=True)
class Evidence:
    """How votes are weighted.

    *votes*: all alike. *mean_logprob*: x is the mean log-probability of the chosen tokens (nats a token).
    *sum_logprob*: x is that of the whole sequence, mean × tokens; right for answers of like length only, for it takes
    every longer answer for a less likely one. *within_question*: x as for the mean, but only differences within the
    question count (CISC, Taubenfeld et al. 2025, "Confidence Improves Self-Consistency in LLMs", §3: softmax over a
    question's samples at temperature 1 / strength). *group_confidence*: the same on DeepConf's lowest group confidence
    (Fu et al. 2025, §3.1). *auto*: ``mean_logprob``, which is plain votes where no log-probabilities were recorded.

    ``strength`` >= 0 and ``fade`` > 0 (infinity: never) are the measured defaults where None.
    """

    kind: Kind = "auto"
    strength: float | None = None
    fade: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise SpecError(f"evidence: kind is {self.kind!r}: choose one of {', '.join(get_args(Kind))}")
        if self.strength is not None and not 0.0 <= self.strength < math.inf:
            raise SpecError(f"evidence: strength is {self.strength!r}: it must be a finite number >= 0")
        if self.fade is not None and not self.fade > 0.0:
            raise SpecError(f"evidence: fade is {self.fade!r}: it must be a number of votes > 0")

    def score(self, sample: Sample) -> float | None:
        """The number x this kind of evidence reads from a sample; None where it is missing or not finite."""
        if self.kind == "votes":
            return None
        value = sample.min_group_confidence if self.kind == "group_confidence" else sample.mean_logprob
        if value is not None and self.kind == "sum_logprob":
            value *= sample.completion_tokens
        return value if value is not None and math.isfinite(value) else None

    def tally(self) -> WeightedTally:
        """An empty tally of one question."""
        return WeightedTally(self)


AUTO = Evidence()
"""The default of every strategy that votes."""


class WeightedTally(Ranking):
    """Running vote of one question under an ``Evidence``; a ``Standing``. ``plain`` counts the same votes as one each.

    The raw weights w of the k scored votes so far are scaled in one of two ways; with either, all together weigh at
    most k.

    - Log-probabilities have a natural end, 0, where w = 1: the model is certain. A vote weighs
      w · (c + k) / (c + Σw), the running mean of a question that began with c = ``CERTAIN_VOTES`` votes of certainty.
      So a first vote of low probability weighs less than one, and the question asks for more; an ever unsure question
      regains its full count as votes come in. An anchor fitted to a data set did no better here and, set too low,
      made early votes certain.
    - Kinds that compare within the question only weigh w · Σw / Σw²: the shares of the softmax times Kish's effective
      number of votes, for one heavy and one light vote are not the two votes that softmax × k makes of them.

    The leader under ties is the answer that led before.
    """

    __slots__ = (
        "_counts", "_evidence", "_fade", "_plain", "_scored", "_shift", "_strength", "_sum", "_sum_squares",
        "_unscored", "_weights", "_within",
    )  # fmt: skip

    def __init__(self, evidence: Evidence) -> None:
        super().__init__()
        self._evidence = evidence
        self._within = evidence.kind in _WITHIN
        self._strength = _or(evidence.strength, DEFAULT_STRENGTHS.get(evidence.kind, 0.0))
        self._fade = _or(evidence.fade, DEFAULT_FADE)
        self._plain = Tally()
        self._weights: dict[str, float] = {}
        self._unscored: dict[str, float] = {}
        self._counts: dict[str, float] = {}
        self._scored = 0
        self._sum = 0.0
        self._sum_squares = 0.0
        self._shift = -math.inf

    def add_sample(self, sample: Sample, worth: float = 1.0) -> None:
        """Count one sample, in sample-index order. An aborted one counts in ``n`` and never votes."""
        if sample.aborted or sample.answer is None:
            self._plain.add(None)
        else:
            self.add(sample.answer, self._evidence.score(sample), worth)

    def add(self, answer: str | None, score: float | None = None, worth: float = 1.0) -> None:
        """Count one answer whose score is x; None, NaN or infinite is a plain vote of weight 1.

        ``worth`` in [0, 1] is what a verifier leaves of the vote: all its evidence is multiplied by it.
        """
        plain = self._plain
        plain.add(answer, worth)
        if answer is None:
            return
        if score is None or not math.isfinite(score) or self._evidence.kind == "votes":
            self._unscored[answer] = self._unscored.get(answer, 0.0) + worth
        else:
            self._weigh(answer, self._strength * score, worth)
        if self._scored:
            self._rank()
        else:
            self._leader, self._lead, self._runner_up = plain.leader, plain.lead_weight, plain.runner_up_weight

    def _weigh(self, answer: str, exponent: float, worth: float) -> None:
        if not self._within:
            # A log-probability above 0 is rounding, or no log-probability: certain is as far as it goes.
            weight = max(_LEAST, math.exp(min(0.0, exponent)))
        else:
            if exponent > self._shift:
                self._rescale(math.exp(max(-700.0, self._shift - exponent)) if self._scored else 0.0)
                self._shift = exponent
            weight = max(_LEAST, math.exp(max(-700.0, exponent - self._shift)))
        self._weights[answer] = self._weights.get(answer, 0.0) + worth * weight
        self._sum += weight
        self._sum_squares += weight * weight
        self._scored += 1

    def _rescale(self, factor: float) -> None:
        """A new largest score: weights are kept relative to it, so that no scale of scores overflows."""
        for answer in self._weights:
            self._weights[answer] *= factor
        self._sum *= factor
        self._sum_squares *= factor * factor

    def _rank(self) -> None:
        votes = self._plain.valid
        share = self._fade / (self._fade + votes) if self._fade < math.inf else 1.0
        if self._within:
            scale = share * self._sum / self._sum_squares
        else:
            scale = share * (CERTAIN_VOTES + self._scored) / (CERTAIN_VOTES + self._sum)
        counts, weights, unscored = self._counts, self._weights, self._unscored
        leader, best, second = self._leader, 0.0, 0.0
        first: str | None = None
        for answer, count in self._plain.counts.items():
            value = (1.0 - share) * count + scale * weights.get(answer, 0.0)
            if unscored:
                value += share * unscored.get(answer, 0.0)
            counts[answer] = value
            if value > best or first is None:
                first, best, second = answer, value, best
            elif value > second:
                second = value
        if leader is not None and first != leader and counts[leader] >= best * (1.0 - _TIE):
            first, best, second = leader, counts[leader], min(best, counts[leader])
        self._leader, self._lead, self._runner_up = first, best, second

    @property
    def n(self) -> int:
        """All samples added, those that did not parse included."""
        return self._plain.n

    @property
    def valid(self) -> int:
        """Samples that parsed to an answer."""
        return self._plain.valid

    @property
    def streak(self) -> int:
        """How many latest samples in a row gave one and the same parsed answer."""
        return self._plain.streak

    @property
    def counts(self) -> Mapping[str, float]:
        """Read-only view: answer to evidence, in order of first appearance."""
        return MappingProxyType(self._counts) if self._scored else self._plain.counts

    @property
    def plain(self) -> Mapping[str, float]:
        """Read-only view: answer to its votes, one each."""
        return self._plain.counts


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
