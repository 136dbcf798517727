"""Which of a question's scored samples is its answer? One pure function a rule; each cites its paper.

Candidates are scored samples that have an answer, in sample-index order; a score is a finite number in [0, 1]. Every
rule returns a ``Pick``. Equal claims are told apart by votes, then by order, so that a pass/fail score, where most
samples tie, does not hand the answer to whatever was drawn first (the papers assume scores without ties). Rules that
draw lots take one uniform number ``u`` in [0, 1) instead of a generator: the caller owns randomness. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from budgets.votes import p_lead
from pipeline.errors import SpecError

SOFTNESS = 0.03
"""λ of ``soft``; the paper gives none. On the recorded arithmetic samples 0.1 lost 1.5 to 3 points to a plain vote from
8 samples on; 0.03 was above it at 4 and 8 and level after that (``tests.benchmarks.best_of_n``)."""
PESSIMISM = 0.03
"""β of ``pessimistic``; the paper tunes it to the reward's error, of which we know nothing. Measured as ``SOFTNESS``;
with 0.1 more than a quarter of what a perfect score finds among 32 samples was lost again."""
SHRINK = 0.75
"""q of ``majority_of_the_bests``: the paper's (§4.3); Bickel & Sakov (2008) find no difference from 0.5 to 0.75."""
_SAME = 1e-12
"""Two distances between distributions that differ by less are equal up to rounding."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One sample that may be chosen."""

    answer: str
    score: float


@dataclass(frozen=True, slots=True)
class Pick:
    """``place`` of the candidate that stands for the answer; ``confidence`` in [0, 1] in the rule's own terms."""

    place: int
    confidence: float


def argmax(candidates: Sequence[Candidate]) -> Pick:
    """Best-of-N: the sample with the highest score (Nakano et al. 2021, "WebGPT"; Cobbe et al. 2021).

    Its confidence is that score.
    """
    place = _best(candidates, range(len(candidates)))
    return Pick(place, candidates[place].score)


def weighted(candidates: Sequence[Candidate]) -> Pick:
    """Best-of-N weighted: the answer whose samples' scores sum highest.

    Li et al. 2023, "Making Language Models Better Reasoners with Step-Aware Verifier"; Snell et al. 2024,
    "Scaling LLM Test-Time Compute Optimally". Its confidence is ``p_lead`` of the two largest sums.
    """
    sums: dict[str, float] = {}
    for one in candidates:
        sums[one.answer] = sums.get(one.answer, 0.0) + one.score
    answer = _leader(candidates, sums)
    rival = max((total for other, total in sums.items() if other != answer), default=0.0)
    return Pick(_best_of(candidates, answer), p_lead(sums[answer], rival))


def soft(candidates: Sequence[Candidate], u: float, softness: float = SOFTNESS) -> Pick:
    """Soft best-of-N: a sample drawn with probability ∝ exp(score / λ), λ = ``softness`` > 0.

    Verdun et al. 2025, "Soft Best-of-n Sampling for Model Alignment" (arXiv:2505.03156). Towards 0 it is
    ``argmax``, towards infinity a sample of the model. Its confidence is the score of the sample.
    """
    _positive("softness", softness)
    highest = max(one.score for one in candidates)
    return _drawn(candidates, [math.exp((one.score - highest) / softness) for one in candidates], u)


def pessimistic(candidates: Sequence[Candidate], u: float, pessimism: float = PESSIMISM) -> Pick:
    """InferenceTimePessimism: a sample of the χ²-regularised policy, whose weights are relu((score − λ) / β).

    Huang et al. 2025, "Is Best-of-N the Best of Them?" (arXiv:2503.21878); β = ``pessimism`` > 0, λ makes
    the weights' mean 1. The paper gets there by rejection over the N samples and, where all are rejected, takes one
    sample more; we draw from the weights themselves, which is the distribution of what is accepted and costs nothing.
    A lead over all others of N·β in score makes it ``argmax``; above that range in β nobody is ruled out. Its
    confidence is the score of the sample.
    """
    _positive("pessimism", pessimism)
    scores = [one.score for one in candidates]
    threshold = chi_squared_threshold(scores, pessimism)
    return _drawn(candidates, [max(0.0, score - threshold) for score in scores], u)


def chi_squared_threshold(scores: Sequence[float], beta: float) -> float:
    """The λ with mean(relu((score − λ) / β)) = 1 (Huang et al. 2025, ComputeNorm): exact, in O(n log n)."""
    total, threshold = 0.0, 0.0
    falling = sorted(scores, reverse=True)
    for kept, score in enumerate(falling, start=1):
        # With the ``kept`` highest above λ: their sum − kept · λ = n · β. Right once the next one is not above it.
        total += score
        threshold = (total - len(falling) * beta) / kept
        if kept == len(falling) or falling[kept] <= threshold:
            break
    return threshold


def majority_of_the_bests(candidates: Sequence[Candidate]) -> Pick:
    """Majority of the bests: the answer that best-of-m gives most often over bootstraps of m of the n candidates.

    Rakhsha et al. 2025, "Majority of the Bests: Improving Best-of-N via Bootstrapping" (arXiv:2511.18630, NeurIPS),
    §4, with the paper's closed form for infinitely many bootstraps (appendix B) and ``subsample_size`` for m. Its
    confidence is the share of bootstraps that give the answer.
    """
    shares = best_of_shares(candidates, subsample_size(candidates))
    answer = _leader(candidates, shares)
    return Pick(_best_of(candidates, answer), min(1.0, shares[answer]))


def subsample_size(candidates: Sequence[Candidate]) -> int:
    """The m the paper takes (§4.3, after Bickel & Sakov 2008).

    Of ⌊q^j · n⌋, j = 0, 1, …, the one whose distribution of answers is nearest, in L1, to that of the next smaller
    one: a larger m is nearer to best-of-n but badly estimated, and where the estimate is good it does not hang on m.
    The largest where several are equally near, as in Bickel & Sakov.
    """
    n = len(candidates)
    sizes: list[int] = []
    reach = float(n)
    while reach >= 1.0:
        if not sizes or int(reach) < sizes[-1]:
            sizes.append(int(reach))
        reach *= SHRINK
    shares = [best_of_shares(candidates, size) for size in sizes]
    best, least = sizes[0], math.inf
    for size, here, below in zip(sizes, shares, shares[1:], strict=False):
        distance = math.fsum(abs(here[answer] - below[answer]) for answer in here)
        if distance < least - _SAME:
            best, least = size, distance
    return best


def best_of_shares(candidates: Sequence[Candidate], m: int) -> dict[str, float]:
    """Probability by answer that it is the best of ``m`` candidates drawn with replacement (appendix B).

    The k-th lowest of n wins with (k/n)^m − ((k−1)/n)^m; candidates of equal score share what they win together.
    """
    n = len(candidates)
    shares = dict.fromkeys((one.answer for one in candidates), 0.0)
    below = 0
    for _, tied in groupby(sorted(candidates, key=_score), key=_score):
        group = list(tied)
        wins = ((below + len(group)) / n) ** m - (below / n) ** m
        for one in group:
            shares[one.answer] += wins / len(group)
        below += len(group)
    return shares


def votes_of(answers: Sequence[str]) -> dict[str, int]:
    """Answers by votes, in order of first appearance."""
    counts: dict[str, int] = {}
    for answer in answers:
        counts[answer] = counts.get(answer, 0) + 1
    return counts


def _score(one: Candidate) -> float:
    return one.score


def _leader(candidates: Sequence[Candidate], claims: Mapping[str, float]) -> str:
    """The answer with the largest claim; among equal ones that with most votes, then the first."""
    votes = votes_of([one.answer for one in candidates])
    return max(votes, key=lambda answer: (claims[answer], votes[answer]))


def _best_of(candidates: Sequence[Candidate], answer: str) -> int:
    return _best(candidates, [place for place, one in enumerate(candidates) if one.answer == answer])


def _best(candidates: Sequence[Candidate], places: Sequence[int]) -> int:
    votes = votes_of([one.answer for one in candidates])
    return max(places, key=lambda place: (candidates[place].score, votes[candidates[place].answer]))


def _drawn(candidates: Sequence[Candidate], weights: Sequence[float], u: float) -> Pick:
    """The candidate at the share ``u`` of all weights (one of them positive), in order."""
    total, reached = math.fsum(weights), 0.0
    place = max(range(len(weights)), key=weights.__getitem__)
    for at, weight in enumerate(weights):
        reached += weight
        if weight > 0.0 and reached > u * total:
            place = at
            break
    return Pick(place, candidates[place].score)


def _positive(name: str, value: float) -> None:
    if not 0.0 < value < math.inf:
        raise SpecError(f"{name} is {value!r}: it must be a finite number > 0")
