"""Votes, and how sure they make us: the evidence every budget decision about a voted question rests on.

Promises: a ``Tally`` is O(1) to extend and to read, holds one number per distinct answer, and never the samples
themselves; ``p_lead`` is exact for whole votes and accurate to about 1e-12 for weighted ones. ``Standing`` is all that
stopping rules and bids may read of any tally, plain or weighted. Pure: no clock, no I/O.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Protocol

from budgets.fraction import beta_fraction
from pipeline.errors import SpecError

_EXACT_UP_TO = 1000
"""Whole votes up to this total use exact integer sums, weighted ones a power series; beyond, the continued fraction is
as accurate and faster."""
_LOG_2 = math.log(2.0)
_EPSILON = 1e-15
_MAX_TERMS = 10_000
_SIMPSON_STEPS = 160
_SIMPSON_SIGMAS = 9.0
"""The integral runs this many standard deviations either side of the leader's mean: what is left out is < 1e-9."""


class Standing(Protocol):
    """How a vote stands: what stopping rules and bids read, alike for plain and weighted votes."""

    @property
    def leader(self) -> str | None:
        """The answer ahead, or None where nothing parsed yet."""
        ...

    @property
    def lead_weight(self) -> float:
        """Evidence for the leader; 0 without one."""
        ...

    @property
    def runner_up_weight(self) -> float:
        """Evidence for the best other answer; 0 without one."""
        ...

    @property
    def n(self) -> int:
        """All samples added, those that did not parse included."""
        ...

    @property
    def valid(self) -> int:
        """Samples that parsed to an answer."""
        ...

    @property
    def streak(self) -> int:
        """How many latest samples in a row gave one and the same parsed answer."""
        ...

    @property
    def counts(self) -> Mapping[str, float]:
        """Answer to evidence, in order of first appearance."""
        ...


class Ranking:
    """The two best answers of a running vote; ``Tally`` and ``budgets.evidence.WeightedTally`` keep them up to date."""

    __slots__ = ("_lead", "_leader", "_runner_up")

    def __init__(self) -> None:
        self._leader: str | None = None
        self._lead = 0.0
        self._runner_up = 0.0

    @property
    def leader(self) -> str | None:
        """The answer ahead, or None where nothing parsed yet."""
        return self._leader

    @property
    def lead_weight(self) -> float:
        """Evidence for the leader; 0 without one."""
        return self._lead

    @property
    def runner_up_weight(self) -> float:
        """Evidence for the best other answer; 0 without one."""
        return self._runner_up

    @property
    def p_lead(self) -> float:
        """``p_lead`` of the two best answers; 0.5 while nothing is known."""
        return p_lead(self._lead, self._runner_up)


class Tally(Ranking):
    """Running vote of one question. Mutable but tiny: one float per distinct answer.

    The leader under ties is the answer that reached its count first, in order of addition. ``streak`` is how many of
    the latest samples in a row gave the same parsed answer: what window rules need of the order.
    """

    __slots__ = ("_counts", "_last", "_n", "_streak", "_valid")

    def __init__(self) -> None:
        super().__init__()
        self._counts: dict[str, float] = {}
        self._n = 0
        self._valid = 0
        self._last: str | None = None
        self._streak = 0

    def add(self, answer: str | None, weight: float = 1.0) -> None:
        """Count one sample. ``answer`` None (nothing parsed) counts in ``n`` only.

        Raises:
            SpecError: ``weight`` is NaN, infinite or negative.
        """
        if not (0.0 <= weight < math.inf):
            raise SpecError(f"weight of a vote is {weight!r}: it must be a finite number >= 0; mend the weighting")
        self._n += 1
        if answer is None:
            self._last, self._streak = None, 0
            return
        self._valid += 1
        self._streak = self._streak + 1 if answer == self._last else 1
        self._last = answer
        count = self._counts[answer] = self._counts.get(answer, 0.0) + weight
        if answer == self._leader:
            self._lead = count
        elif self._leader is None or count > self._lead:
            # The old leader is second now: nothing else can exceed what led until this sample.
            self._leader, self._lead, self._runner_up = answer, count, self._lead
        else:
            self._runner_up = max(self._runner_up, count)

    @property
    def n(self) -> int:
        """All samples added, those that did not parse included."""
        return self._n

    @property
    def valid(self) -> int:
        """Samples that parsed to an answer."""
        return self._valid

    @property
    def streak(self) -> int:
        """How many latest samples in a row gave one and the same parsed answer."""
        return self._streak

    @property
    def counts(self) -> Mapping[str, float]:
        """Read-only view: answer to weight, in order of first appearance."""
        return MappingProxyType(self._counts)


def p_lead(v1: float, v2: float) -> float:
    """Posterior that the leader with ``v1`` votes beats the runner-up with ``v2`` head to head; in [0, 1].

    Mass above 1/2 of Beta(v1+1, v2+1), a uniform prior (Aggarwal et al. 2023, "Let's Sample Step by Step", §3, Beta
    form). For whole votes it equals P(Binomial(v1+v2+1, 1/2) <= v1), which needs no quadrature; for weighted votes it
    is the regularised incomplete beta function I_1/2(v2+1, v1+1).

    Raises:
        SpecError: a weight is NaN, infinite or negative.
    """
    if not (0.0 <= v1 < math.inf and 0.0 <= v2 < math.inf):
        raise SpecError(f"votes are {v1!r} and {v2!r}: both must be finite numbers >= 0; mend the weighting")
    if v1 + v2 <= _EXACT_UP_TO and v1 == int(v1) and v2 == int(v2):
        return _p_lead_whole(int(v1), int(v2))
    return _p_lead_weighted(v1, v2)


@lru_cache(maxsize=1 << 14)
def _p_lead_weighted(v1: float, v2: float) -> float:
    """Cached because a rule and the bid ask for the same two weights after each sample."""
    return _beta_half(v2 + 1.0, v1 + 1.0)


@lru_cache(maxsize=1 << 16)
def _p_lead_whole(v1: int, v2: int) -> float:
    trials = v1 + v2 + 1
    term = total = 1
    for k in range(1, v1 + 1):
        term = term * (trials - k + 1) // k
        total += term
    return total / (1 << trials)


def _beta_half(a: float, b: float) -> float:
    """I_x(a, b) at x = 1/2 for a, b >= 1. Both forms converge fast where a > b; the mirror image serves the rest."""
    if a < b:
        return 1.0 - _beta_half(b, a)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) - (a + b) * _LOG_2
    if a + b <= _EXACT_UP_TO:
        # All terms are positive, so nothing cancels; each costs a fifth of a step of the fraction (DLMF 8.17.8).
        total = term = 1.0
        top, bottom = a + b, a + 1.0
        while term > total * _EPSILON:
            term *= 0.5 * top / bottom
            total += term
            top += 1.0
            bottom += 1.0
        return math.exp(log_front - math.log(a)) * total
    # x < (a + 1) / (a + b + 2) is what convergence needs (Numerical Recipes, §6.4); at x = 1/2 that is a >= b.
    return math.exp(log_front - math.log(a)) * beta_fraction(0.5, a, b, _EPSILON, _MAX_TERMS)


def p_mode(counts: tuple[float, ...]) -> float:
    """Posterior that the largest of ``counts`` (votes >= 0 of three or more answers) is the mode of all of them.

    The mass of Dirichlet(counts + 1) where the leader is largest (Aggarwal et al. 2023, §3, Dirichlet form). A
    Dirichlet draw is independent gamma draws scaled to sum 1, so this is one integral over the leader's gamma
    density of the product of the rivals' distribution functions; a fixed Simpson rule gives about six digits.
    """
    return _p_mode(tuple(sorted(counts, reverse=True)))


@lru_cache(maxsize=1 << 14)
def _p_mode(counts: tuple[float, ...]) -> float:
    shape = counts[0] + 1.0
    spread = _SIMPSON_SIGMAS * math.sqrt(shape)
    low, high = max(0.0, shape - spread), shape + spread + _SIMPSON_SIGMAS
    step = (high - low) / _SIMPSON_STEPS
    total = 0.0
    for i in range(_SIMPSON_STEPS + 1):
        x = low + i * step
        if x <= 0.0:
            continue
        height = math.exp((shape - 1.0) * math.log(x) - x - math.lgamma(shape))
        for rival in counts[1:]:
            height *= _gamma_below(rival + 1.0, x)
        total += height * (1 if i in (0, _SIMPSON_STEPS) else 4 if i % 2 else 2)
    return min(1.0, total * step / 3.0)


def _gamma_below(a: float, x: float) -> float:
    """P(a, x), the regularised lower incomplete gamma function, by its power series (DLMF 8.11.4): x > 0, a >= 1."""
    log_front = a * math.log(x) - x - math.lgamma(a + 1.0)
    term = total = 1.0
    for k in range(1, _MAX_TERMS):
        term *= x / (a + k)
        total += term
        if term < total * _EPSILON:
            break
    return min(1.0, math.exp(log_front + math.log(total)))
