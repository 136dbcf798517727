"""Best-of-N on a verifier's scores as Pandora's box: when is the best score found worth keeping?

Each sample is a closed box: opening it costs tokens and shows a score X. Weitzman (1979, "Optimal Search for the Best
Alternative", Econometrica 47) opens the box of highest reservation value z, the root of E[(X − z)+] = cost, and stops
once the best score found is at least every z that is left. Kalayci et al. (2025, "Optimal Stopping vs Best-of-N for
Inference Time Optimization") do so for language models, learning the scores' distribution from those seen.

Here the distribution is a ``NormalScores`` (from ``ScorePosterior``, few samples) or an ``EmpiricalScores`` (many
samples, or another data set's). On the market both views are one: a question's bid is stakes × E[(X − best)+] /
E[tokens], and it is at least the price exactly where the best score is at most the reservation value of the cost
price × E[tokens] / stakes. Pure.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Protocol

from budgets.value import check_stakes, check_tokens
from pipeline.errors import SpecError

PRIOR_MEAN = 0.5
PRIOR_SPREAD = 0.3
"""Before any score: all of [0, 1] is likely (a uniform score has standard deviation 0.29)."""
PRIOR_SAMPLES = 2.0
"""The prior counts as this many scores: two equal scores alone must not end a search."""
_HALVINGS = 100
_SQRT_2 = math.sqrt(2.0)
_DENSITY_AT_0 = 1.0 / math.sqrt(2.0 * math.pi)


class Scores(Protocol):
    """A distribution of scores, as far as the index needs it."""

    def gain_over(self, best: float) -> float:
        """E[(X − best)+], >= 0: falls in ``best``, and never faster than ``best`` rises."""
        ...

    def reservation_value(self, cost: float) -> float:
        """The z with E[(X − z)+] = cost, for a finite cost >= 0 in units of score."""
        ...


@dataclass(frozen=True, slots=True)
class NormalScores:
    """Scores about ``mean`` with standard deviation ``spread`` >= 0."""

    mean: float
    spread: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.mean):
            raise SpecError(f"mean is {self.mean!r}: the mean of scores must be a finite number")
        if not 0.0 <= self.spread < math.inf:
            raise SpecError(f"spread is {self.spread!r}: the standard deviation must be a finite number >= 0")

    def gain_over(self, best: float) -> float:
        """Expected improvement in closed form: spread · (φ(u) − u · (1 − Φ(u))), u = (best − mean) / spread."""
        if self.spread == 0.0:
            return max(0.0, self.mean - best)
        u = (best - self.mean) / self.spread
        return max(0.0, self.spread * (_DENSITY_AT_0 * math.exp(-0.5 * u * u) - 0.5 * u * math.erfc(u / _SQRT_2)))

    def reservation_value(self, cost: float) -> float:
        """By bisection, to the last digits; infinite at cost 0, where the tail always holds a better score."""
        _check_cost(cost)
        if self.spread == 0.0:
            return self.mean - cost
        if cost == 0.0:
            return math.inf
        # E[(X − z)+] >= mean − z puts the root above mean − cost; the tail beyond 40 deviations is below any double.
        low, high = self.mean - cost, self.mean + 40.0 * self.spread
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            if self.gain_over(middle) > cost:
                low = middle
            else:
                high = middle
        return 0.5 * (low + high)


@dataclass(frozen=True, slots=True)
class EmpiricalScores:
    """Each of ``scores`` (one at least) is as likely as the others. Sorted once; O(log n) a question."""

    scores: tuple[float, ...]
    _tails: tuple[float, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.scores:
            raise SpecError("scores is empty: an empirical distribution needs one score at least")
        if not all(math.isfinite(score) for score in self.scores):
            raise SpecError("scores holds NaN or infinity: every score must be a finite number")
        ordered = tuple(sorted(self.scores))
        tails = [0.0]
        for score in reversed(ordered):
            tails.append(tails[-1] + score)
        object.__setattr__(self, "scores", ordered)
        object.__setattr__(self, "_tails", tuple(reversed(tails)))

    def gain_over(self, best: float) -> float:
        """Mean over all scores of what each has above ``best``."""
        below = bisect_right(self.scores, best)
        above = len(self.scores) - below
        return max(0.0, (self._tails[below] - above * best) / len(self.scores))

    def reservation_value(self, cost: float) -> float:
        """In closed form: E[(X − z)+] is linear between scores. The largest score at cost 0."""
        _check_cost(cost)
        if cost == 0.0:
            return self.scores[-1]
        total, low, high = cost * len(self.scores), 0, len(self.scores)
        # Find how many scores lie at or below z: the first i at whose score the gain is no more than the cost.
        while low < high:
            i = (low + high) // 2
            if self.gain_over(self.scores[i]) > cost:
                low = i + 1
            else:
                high = i
        return (self._tails[low] - total) / (len(self.scores) - low)


class ScorePosterior:
    """What a question's scores so far, and a prior, say of its next score. Mutable but tiny: three numbers.

    The prior counts as ``samples`` scores of that mean and spread, and the whole is taken for a normal distribution
    (the predictive Student t has heavier tails; with a prior of two scores the difference is small). A question
    starts from the data set's mean and spread where they are known.
    """

    __slots__ = ("_best", "_count", "_mean", "_prior", "_samples", "_squares")

    def __init__(self, mean: float = PRIOR_MEAN, spread: float = PRIOR_SPREAD, samples: float = PRIOR_SAMPLES) -> None:
        if not 0.0 < samples < math.inf:
            raise SpecError(f"samples is {samples!r}: the weight of the prior must be a finite number > 0")
        self._prior = NormalScores(mean, spread)
        self._samples = samples
        self._count = 0
        self._mean = 0.0
        self._squares = 0.0
        self._best: float | None = None

    @property
    def best(self) -> float | None:
        """The best score seen; None before the first."""
        return self._best

    @property
    def count(self) -> int:
        """Scores seen."""
        return self._count

    def add(self, score: float) -> None:
        """Count one score in [0, 1]. Leave out samples whose verdict carries an error: they showed no score.

        Raises:
            SpecError: ``score`` is NaN or outside [0, 1].
        """
        if not 0.0 <= score <= 1.0:
            raise SpecError(f"score is {score!r}: a verifier's score must be a number in [0, 1]")
        self._count += 1
        away = score - self._mean
        self._mean += away / self._count
        self._squares += away * (score - self._mean)
        self._best = score if self._best is None else max(self._best, score)

    def scores(self) -> NormalScores:
        """The distribution of the next score."""
        prior, strength, k = self._prior, self._samples, self._count
        weight = strength + k
        mean = (strength * prior.mean + k * self._mean) / weight
        between = strength * k / weight * (self._mean - prior.mean) ** 2
        variance = (strength * prior.spread**2 + self._squares + between) / weight
        return NormalScores(mean, math.sqrt(variance))


def best_of_value(best: float | None, scores: Scores, expected_tokens: float, stakes: float = 1.0) -> float:
    """Bid for one more scored sample: stakes × E[(X − best)+] / E[tokens] (value per token).

    ``best`` is the highest score so far, in [0, 1]; None (no sample yet) bids +inf: a question's minimum comes before
    anything. Scores end at 1, so no gain beyond 1 − best is counted, whatever the distribution's tail says.

    Raises:
        SpecError: best outside [0, 1], expected_tokens not positive, stakes malformed.
    """
    check_stakes(stakes)
    check_tokens(expected_tokens)
    if best is None:
        return math.inf
    if not 0.0 <= best <= 1.0:
        raise SpecError(f"best is {best!r}: a score must be a number in [0, 1]")
    return stakes * min(scores.gain_over(best), 1.0 - best) / expected_tokens


def _check_cost(cost: float) -> None:
    if not 0.0 <= cost < math.inf:
        raise SpecError(f"cost is {cost!r}: it must be a finite number >= 0, in units of score")
