"""Fits how strongly confidence should weigh votes, from a few samples known to be right or wrong.

The rows come from a pilot with references, or from audited questions. Only differences within a question are used, as
in the vote itself: how sure the model is of easy and of hard questions says nothing about which answer to believe.
Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from budgets.evidence import DEFAULT_STRENGTHS, Evidence
from pipeline.errors import SpecError

PRIOR_SPREAD = 0.5
"""Standard deviation of the prior, as a share of the strength one starts from: within a factor of about two of it."""
_STRONGEST = 16.0
"""The fit looks no further than so many times the strength it starts from."""
_HALVINGS = 60
_WIDEST = 1e6
"""Nats: a wider gap between two scores is a broken number, and would overflow the sums."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """One sample whose answer is known to be right or wrong; ``score`` as ``Evidence.score`` gives it."""

    item_id: str
    score: float | None
    right: bool


def calibrate(rows: Iterable[Labelled], start: Evidence | None = None) -> Evidence:
    """``start`` (default: auto) with its strength fitted to ``rows``: the posterior mode under a normal prior there.

    Of a right and a wrong sample of one question with scores x and y, the right one is told with probability
    w / (w + v) = logistic(strength · (x − y)), w and v being the weights ``Evidence`` gives them (the pairwise model
    of Bradley and Terry 1952, a conditional logistic regression with one parameter). Each question counts once,
    however many pairs it has. Rows without a finite score, and questions all right or all wrong, say nothing; without
    any other row the strength stays where it started. O(right × wrong) a question and step.

    The fit is the strength at which weights are honest odds. It is a cautious choice: on the recorded arithmetic
    samples it gives 2.0 and 2.5 on two folds, where 8 and more win most accuracy at few votes. The prior is weak: a few
    questions with both kinds of answers move the strength by about one ``PRIOR_SPREAD``.

    Raises:
        SpecError: ``start`` is of kind votes, or its strength is 0: there is nothing to fit.
    """
    start = start or Evidence()
    prior = start.strength if start.strength is not None else DEFAULT_STRENGTHS.get(start.kind, 0.0)
    if prior <= 0.0:
        raise SpecError(
            f"calibrate: evidence of kind {start.kind!r} and strength {prior!r} weighs nothing; nothing to fit"
        )
    pairs = _differences(rows)
    low, high = 0.0, _STRONGEST * prior
    if not pairs or _slope(high, pairs, prior) >= 0.0:
        return replace(start, strength=high if pairs else prior)
    if _slope(low, pairs, prior) <= 0.0:
        return replace(start, strength=0.0)
    # The log-posterior is strictly concave: its slope has one zero.
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        if _slope(middle, pairs, prior) > 0.0:
            low = middle
        else:
            high = middle
    return replace(start, strength=0.5 * (low + high))


def _differences(rows: Iterable[Labelled]) -> list[list[float]]:
    """Score of a right less that of a wrong sample: all pairs of each question that has both."""

    def gap(x: float, y: float) -> float:
        return max(-_WIDEST, min(_WIDEST, x - y))

    questions: dict[str, tuple[list[float], list[float]]] = {}
    for row in rows:
        if row.score is not None and math.isfinite(row.score):
            right, wrong = questions.setdefault(row.item_id, ([], []))
            (right if row.right else wrong).append(row.score)
    return [[gap(x, y) for x in right for y in wrong] for right, wrong in questions.values() if right and wrong]


def _slope(strength: float, pairs: list[list[float]], prior: float) -> float:
    """Derivative of the log-posterior in the strength."""
    likelihood = sum(math.fsum(d * _logistic(-strength * d) for d in each) / len(each) for each in pairs)
    return likelihood - (strength - prior) / (PRIOR_SPREAD * prior) ** 2


def _logistic(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0.0 else math.exp(max(-700.0, x)) / (1.0 + math.exp(max(-700.0, x)))
