"""What can be said of strategies that answered the same questions: intervals, paired tests, baselines, cost to reach.

Pure: arrays in, numbers out. Promises: one set of resampled questions serves every interval, so that differences and
frontiers stay paired; the same seed gives the same numbers; a difference that is not there is not called one (tests are
two-sided, p is never 0). Intervals are 95%, percentile bootstrap over questions (Efron 1979); p values are not
corrected for how many comparisons are looked at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from budgets.votes import p_lead
from pipeline.replay_intervals import LARGE, RESAMPLES, Interval

FLIPS = 9_999
"""Sign flips of a permutation test: the smallest p it can give is 1 / 10,000."""
_CHUNK = 1 << 22
_CLOSE = 1e-9
"""Sums in another order differ in the last digits: closer than this they are equal."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Measured:
    """What one strategy gave at one budget, a number a question; arrays of one comparison align.

    ``correct`` in [0, 1] (a mean over repeats where there are several); ``generation`` and ``verification``: tokens.
    """

    correct: Floats
    generation: Floats
    verification: Floats
    samples: Floats

    @property
    def tokens(self) -> Floats:
        """All that a question cost."""
        return self.generation + self.verification


class Mean(NamedTuple):
    """A mean over questions and its 95% interval."""

    mean: float
    interval: Interval


class Difference(NamedTuple):
    """Mean of the other less the first, question by question. ``test``: ``mcnemar`` (exact) or ``sign flips``."""

    mean: float
    interval: Interval
    p: float
    test: str


class Reach(NamedTuple):
    """What a question costs at an accuracy; None: not reached, at either end of the interval too.

    ``at_most``: the cheapest budget reached it already, so it may cost less. ``reached``: share of resampled question
    sets on which it is reached at all.
    """

    cost: float | None
    interval: tuple[float | None, float | None]
    at_most: bool
    reached: float


class Resamples:
    """Means of any per-question numbers over ``RESAMPLES`` sets of questions drawn with replacement, always the same.

    From ``LARGE`` questions on the bootstrap's limit takes its place: normal means with the questions' covariance.
    """

    def __init__(self, questions: int, seed: int) -> None:
        """``questions`` >= 1."""
        self._questions, self._seed = questions, seed

    def means(self, *columns: Floats) -> Floats:
        """``RESAMPLES`` × columns: the mean of each column on each set of questions."""
        table, count = np.stack(columns, axis=1), self._questions
        rng = np.random.default_rng(self._seed)
        if count >= LARGE:
            return _normal_means(table, rng)
        step = max(1, _CHUNK // count)
        found = []
        for done in range(0, RESAMPLES, step):
            size = min(step, RESAMPLES - done)
            chosen = rng.integers(0, count, (size, count)) + np.arange(size)[:, None] * count
            found.append(np.bincount(chosen.ravel(), minlength=size * count).reshape(size, count) @ table / count)
        return np.concatenate(found)

    def mean(self, column: Floats) -> Mean:
        """One column's mean."""
        return Mean(float(column.mean()), _interval(self.means(column)[:, 0]))

    def difference(self, first: Floats, other: Floats) -> Difference:
        """``other`` against ``first`` on the same questions, both in [0, 1]."""
        apart = other - first
        p, test = paired_p(apart, self._seed)
        return Difference(float(apart.mean()), _interval(self.means(apart)[:, 0]), p, test)

    def reach(self, correct: Sequence[Floats], costs: Sequence[Floats], accuracy: float) -> Reach:
        """What one strategy needs to reach ``accuracy``; both by its budgets. See ``cost_to_reach``."""
        many = len(costs)
        cost = cost_to_reach([float(one.mean()) for one in costs], [float(one.mean()) for one in correct], accuracy)
        means = self.means(*costs, *correct)
        found = np.array([cost_to_reach(row[:many], row[many:], accuracy).amount for row in means])
        # The interval's ends are costs that were met: between a cost and infinity there is nothing to interpolate.
        low, high = (_finite(float(end)) for end in np.quantile(found, [0.025, 0.975], method="nearest"))
        return Reach(_finite(cost.amount), (low, high), cost.at_most, float(np.isfinite(found).mean()))


class Cost(NamedTuple):
    """What a question costs, infinite where an accuracy is not reached; see ``Reach.at_most``."""

    amount: float
    at_most: bool


def cost_to_reach(costs: Sequence[float] | Floats, accuracy: Sequence[float] | Floats, wanted: float) -> Cost:
    """Read off the monotone frontier: the best accuracy at a cost or below, straight between measured points.

    Nothing is read beyond what was measured: not below the cheapest point, not above the best.
    """
    order = np.lexsort((-np.asarray(accuracy), np.asarray(costs)))
    cost, best = np.asarray(costs, dtype=float)[order], np.maximum.accumulate(np.asarray(accuracy, dtype=float)[order])
    there = np.flatnonzero(best >= wanted - _CLOSE)
    if not len(there):
        return Cost(math.inf, False)
    at = int(there[0])
    if at == 0:
        return Cost(float(cost[0]), True)
    share = min(1.0, (wanted - best[at - 1]) / (best[at] - best[at - 1]))
    return Cost(float(cost[at - 1] + share * (cost[at] - cost[at - 1])), False)


def paired_p(apart: Floats, seed: int) -> tuple[float, str]:
    """Two-sided p that paired differences are no more than chance, and the test's name.

    Were there no difference, the sign of each question's would be a coin's. Where all are -1, 0 or 1 that is counted
    exactly (McNemar 1947, the exact binomial form); else by random flips, the observed one counted in (Phipson and
    Smyth 2010), and from ``LARGE`` questions on by their normal limit.
    """
    if np.isin(apart, (-1.0, 0.0, 1.0)).all():
        return mcnemar(int((apart > 0).sum()), int((apart < 0).sum())), "mcnemar"
    differing = apart[np.abs(apart) > _CLOSE]
    observed = abs(float(differing.sum()))
    if len(differing) >= LARGE:
        return max(math.erfc(observed / math.sqrt(2.0 * float((differing**2).sum()))), 5e-324), "sign flips"
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // max(1, len(differing)))
    beyond = 0
    for done in range(0, FLIPS, step):
        signs = rng.integers(0, 2, (min(step, FLIPS - done), len(differing))) * 2.0 - 1.0
        beyond += int((np.abs(signs @ differing) >= observed - _CLOSE).sum())
    return (1 + beyond) / (1 + FLIPS), "sign flips"


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided p of so many questions gained and lost: each is a fair coin's under no difference."""
    fewer, total = min(gained, lost), gained + lost
    # p_lead(a, b) is P(Binomial(a + b + 1, 1/2) <= a).
    return 1.0 if 2 * fewer >= total else min(1.0, 2.0 * p_lead(fewer, total - fewer - 1))


def best_of(scores: Floats, k: int) -> Floats:
    """By question: the expected best of ``k`` of its samples; ``scores``: questions × samples, in [0, 1].

    Where scores are 0 or 1 this is the unbiased pass@k, 1 − C(n − c, k) / C(n, k) (Chen et al. 2021, "Evaluating Large
    Language Models Trained on Code", eq. 1); it is the mean over all choices of k without replacement either way.

    Raises:
        ValueError: not 1 <= k <= samples.
    """
    many = scores.shape[1]
    if not 1 <= k <= many:
        raise ValueError(f"the best of {k} cannot be told from {many} samples")
    # The i-th smallest is the best of a choice when the other k - 1 are among the i - 1 below it.
    weights = np.array([math.comb(below, k - 1) / math.comb(many, k) for below in range(many)])
    found: Floats = np.sort(scores, axis=1) @ weights
    return found


def doublings(most: int) -> list[int]:
    """1, 2, 4, … up to ``most``, and ``most`` itself."""
    return sorted({1 << power for power in range(most.bit_length())} | {most}) if most else []


def _normal_means(table: Floats, rng: np.random.Generator) -> Floats:
    count = len(table)
    covariance = np.atleast_2d(np.cov(table, rowvar=False, bias=True)) / count
    return rng.multivariate_normal(table.mean(axis=0), covariance, RESAMPLES, method="eigh")


def _interval(values: Floats) -> Interval:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
