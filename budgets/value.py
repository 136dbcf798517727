"""What one more sample is worth: the bid of a question, as expected gain per token.

Promises: bids of different questions compare, because each is divided by the tokens *this* question's samples cost;
every bid is a number >= 0 or +inf, never NaN. One function a kind of evidence: ``voting_value`` for votes,
``success_value`` for pass/fail checks, ``frontier_value`` for a search's own score; a verifier's scores are in
``budgets.pandora``. Each is stakes × expected gain / expected tokens, so that questions of different kinds can share a
market. Pure.
"""

from __future__ import annotations

import math

from pipeline.errors import SpecError

DEFAULT_ALPHA = 0.5
"""Measured on the recorded arithmetic samples: 0 loses 4 points on plain votes at 3 samples; ½ and 1 are alike within
the spread from 3 on (weighted 50.1 and 49.6 at 5, 50.2 and 50.3 at 8) and ½ is better at 2 (47.1 and 45.4). The price
of ½: a 10:10 split still outbids a 2:0, so at 8 samples next to no question is settled, and with 1 a fifth are. Choose
1 where settled questions matter more than accuracy."""
PRIOR_STRENGTH = 2.0
"""The dataset's mean length counts as this many own samples: lengths within a question vary less than between them."""


def voting_value(
    p_lead: float, n: int, expected_tokens: float, stakes: float = 1.0, alpha: float = DEFAULT_ALPHA
) -> float:
    """Bid for sample ``n + 1`` of a voted question: stakes × (1 − P_lead) / n^alpha / E[tokens] (value per token).

    Least-certain-first over one queue, with the uncertainty of a question that stays flat fading as n grows, so that
    hopeless questions are priced out. ``n`` counts all samples paid for; at 0 the bid is +inf: a question's minimum
    comes before anything, whatever the stakes.

    Raises:
        SpecError: p_lead outside [0, 1], n negative, expected_tokens not positive, stakes or alpha negative or NaN.
    """
    check_stakes(stakes)
    if not 0.0 <= p_lead <= 1.0:
        raise SpecError(f"p_lead is {p_lead!r}: it must be a probability in [0, 1]")
    if n < 0:
        raise SpecError(f"n is {n!r}: the number of samples must be >= 0")
    check_tokens(expected_tokens)
    if not 0.0 <= alpha < math.inf:
        raise SpecError(f"alpha is {alpha!r}: it must be a finite number >= 0")
    if n == 0:
        return math.inf
    return float(stakes * (1.0 - p_lead) / n**alpha / expected_tokens)


def success_value(
    failures: int, expected_tokens: float, stakes: float = 1.0, prior_passes: float = 1.0, prior_failures: float = 1.0
) -> float:
    """Bid for one more try at a question checked as pass or fail, none of whose ``failures`` tries passed yet.

    The pass rate has a Beta(a, b) prior (``prior_passes``, ``prior_failures``), so after k failures the next try
    passes with probability a / (a + b + k): the bid is stakes × that / E[tokens]. The value falls with every failure,
    the monotone case of optimal stopping, so looking one try ahead is optimal and the bid is the question's Gittins
    index. Questions whose tries keep failing fall behind fresh ones. After the first pass there is nothing to buy:
    stop, do not bid.

    Raises:
        SpecError: failures negative, a prior count not positive, expected_tokens not positive, stakes malformed.
    """
    check_stakes(stakes)
    check_tokens(expected_tokens)
    if failures < 0:
        raise SpecError(f"failures is {failures!r}: the number of failed tries must be >= 0")
    for name, count in (("prior_passes", prior_passes), ("prior_failures", prior_failures)):
        if not 0.0 < count < math.inf:
            raise SpecError(f"{name} is {count!r}: a count of the Beta prior must be a finite number > 0")
    return stakes * prior_passes / (prior_passes + prior_failures + failures) / expected_tokens


def frontier_value(score: float, expected_tokens: float, stakes: float = 1.0) -> float:
    """Bid of a search for expanding its best node: stakes × score / E[tokens], the score being the search's own.

    ``score`` in [0, 1] is what one expansion is expected to gain; the search must keep it on that scale, since it
    is held against other questions' probabilities.

    Raises:
        SpecError: score outside [0, 1], expected_tokens not positive, stakes malformed.
    """
    check_stakes(stakes)
    check_tokens(expected_tokens)
    if not 0.0 <= score <= 1.0:
        raise SpecError(f"score is {score!r}: a search's score must be a number in [0, 1]")
    return stakes * score / expected_tokens


def check_tokens(expected_tokens: float) -> None:
    """Raise SpecError unless ``expected_tokens`` is a finite number > 0."""
    if not 0.0 < expected_tokens < math.inf:
        raise SpecError(f"expected_tokens is {expected_tokens!r}: it must be a finite number > 0")


def check_stakes(stakes: float) -> None:
    """Raise SpecError unless ``stakes`` is a finite number >= 0."""
    if not 0.0 <= stakes < math.inf:
        raise SpecError(f"stakes is {stakes!r}: it must be a finite number >= 0; mend the stakes column of this row")


class ExpectedTokens:
    """Running estimate of the tokens one sample costs, shrunk towards a prior mean.

    With k own samples of mean m and a prior mean p: (strength · p + k · m) / (strength + k), the posterior mean under
    a prior worth ``strength`` samples. A question keeps one (its prior is the dataset's mean so far), the dataset
    keeps one over all its samples (its prior is the worst case, ``max_tokens``).
    """

    __slots__ = ("_count", "_strength", "_total")

    def __init__(self, strength: float = PRIOR_STRENGTH) -> None:
        if not 0.0 < strength < math.inf:
            raise SpecError(f"strength is {strength!r}: it must be a finite number > 0")
        self._strength = strength
        self._count = 0
        self._total = 0

    @property
    def count(self) -> int:
        """Samples counted."""
        return self._count

    def add(self, tokens: int) -> None:
        """Count one paid sample of ``tokens`` >= 0 (aborted ones included: they are what a sample may cost)."""
        if tokens < 0:
            raise SpecError(f"tokens is {tokens!r}: a sample costs >= 0 tokens")
        self._count += 1
        self._total += tokens

    def mean(self, prior: float) -> float:
        """Expected tokens of the next sample; at least 1, so that a bid can be divided by it."""
        if not 0.0 < prior < math.inf:
            raise SpecError(f"prior is {prior!r}: the prior mean of tokens must be a finite number > 0")
        return max(1.0, (self._strength * prior + self._total) / (self._strength + self._count))
