"""Which arm pays: budgeted Thompson sampling over what other questions taught.

An arm is a way to go on with a question that is not settled. A pull costs units of the budget all questions share and
has an outcome in [0, 1]: 1 where its answer is right and the one at hand was not, 0 the other way round, ½ where it
changes nothing; so its *gain* is 2 · outcome − 1. While one budget pays for all pulls, the arm to pull is the one of
the largest gain per unit: Xia et al. 2015 ("Thompson Sampling for Budgeted Multi-armed Bandits", arXiv:1505.00146,
Algorithm 1) draw both from their posteriors and pull the largest ratio; Badanidiyuru et al. 2013 ("Bandits with
Knapsacks", arXiv:1305.2545) show why a ratio, whatever the budget. Arms after the first are in order of theirs, each
with its rate of gain against the first's: a budget that has bought the best rate everywhere goes on with the next, as
the greedy solution of a multiple-choice knapsack does, so nothing here needs to know how large it is.

Where we differ: gains may be negative, so posteriors are normal, with the mean and spread seen; a cost is known soon
and taken at its mean; a context is a bucket of difficulty, whose prior is what all buckets taught together. Decisions
are made side by side, before their outcomes are known: drawing makes them differ. Pure; random only through ``rng``.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from budgets.experience import Experience, Lesson
from pipeline.errors import SpecError

PRIOR_GAIN = 0.1
"""Before anything is known an arm is tried rather than left out."""
PRIOR_STRENGTH = 4.0
"""The prior counts as so many outcomes: a handful, so that a small dataset learns something too."""
PRIOR_VARIANCE = 0.05
"""Of an outcome: one in five changes anything."""
_EDGES = (0.0, 0.5, 0.75)
_LEAST_COST = 1e-9
_LEAST_RATE = 1e-3
"""An arm that is not believed to gain anything bids next to nothing; not nothing, so that bids keep their order."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Arms in the order to try them. ``rates``: gain per unit against the first arm's, in (0, 1].

    The first ``worth`` (>= 1) are believed to gain something. ``compared``: the first two are both asked, to learn.
    """

    arms: tuple[str, ...]
    rates: tuple[float, ...]
    worth: int
    compared: bool = False

    def said(self) -> str:
        """As it is kept (``Session.decide``)."""
        rates = [float(f"{rate:.4g}") for rate in self.rates]
        return json.dumps({"arms": self.arms, "rates": rates, "worth": self.worth, "compared": self.compared})


def heard(text: str, names: Sequence[str]) -> Choice:
    """A choice as it was kept. Arms it does not know come last, arms that are gone are left out: a run may be selected
    again by another strategy, whose arms are others."""
    try:
        raw = json.loads(text)
        rates = {str(arm): float(rate) for arm, rate in zip(raw["arms"], raw["rates"], strict=True)}
        worth, compared = int(raw["worth"]), bool(raw["compared"])
        sound = all(0.0 < rate <= 1.0 for rate in rates.values())
    except (ValueError, TypeError, KeyError):
        rates, worth, compared, sound = {}, 1, False, False
    if not sound:
        rates = {}
    kept = [arm for arm in rates if arm in names]
    arms = (*kept, *(name for name in names if name not in kept))
    worth = sum(arm in names for arm in list(rates)[:worth])
    every = tuple(rates.get(arm, _LEAST_RATE) for arm in arms)
    return Choice(arms, (1.0, *every[1:]), max(1, worth), compared and len(kept) > 1)


def bucket_of(votes: int, drawn: int) -> str:
    """How difficult a question looks by its first samples: the share that gave the answer ahead, by where it begins.

    Raises:
        SpecError: not 0 <= votes <= drawn.
    """
    if not 0 <= votes <= drawn:
        raise SpecError(f"votes is {votes!r} of {drawn!r} samples: it must lie between 0 and these")
    share = votes / drawn if drawn else 0.0
    return f"{max(edge for edge in _EDGES if edge <= share):g}"


def subject_of(bucket: str) -> str:
    """What lessons of a bucket are filed under."""
    return f"adaptive/{bucket}"


def choose(known: Experience, bucket: str, costs: Mapping[str, float], rng: random.Random, draw: bool = True) -> Choice:
    """Order the arms by gain per unit, as drawn from what is known; ``draw`` False: at their means.

    ``costs``: arm → units a pull is expected to cost before any was seen.

    Raises:
        SpecError: there is no arm, or a cost is negative or not finite.
    """
    if not costs:
        raise SpecError("there is no arm to choose from")
    gains, prices = {}, {}
    for arm, cost in costs.items():
        if not 0.0 <= cost < math.inf:
            raise SpecError(f"the cost of arm {arm} is {cost!r}: it must be a finite number >= 0")
        believed = belief(known, bucket, arm, cost)
        # One number an arm, whatever is known: what is known of one arm must not change what is drawn for another.
        noise = rng.gauss(0.0, 1.0)
        gains[arm] = believed.gain + (noise * believed.spread if draw else 0.0)
        prices[arm] = max(believed.cost, _LEAST_COST)
    worth = sorted((arm for arm in gains if gains[arm] > 0.0), key=lambda arm: -gains[arm] / prices[arm])
    rest = sorted((arm for arm in gains if gains[arm] <= 0.0), key=lambda arm: -gains[arm])
    best = gains[worth[0]] / prices[worth[0]] if worth else 0.0
    rates = [max(_LEAST_RATE, gains[arm] / prices[arm] / best) for arm in worth] + [_LEAST_RATE] * len(rest)
    return Choice((*worth, *rest), (1.0, *rates[1:]), max(1, len(worth)))


def compare(names: Sequence[str], rng: random.Random) -> Choice:
    """Two of at least two arms, each as likely as any, to be asked one after the other; the others after them."""
    order = rng.sample(names, len(names))
    return Choice(tuple(order), (1.0,) * len(order), 2, compared=True)


@dataclass(frozen=True, slots=True)
class Belief:
    """What is believed of an arm: mean ``gain`` in [−1, 1], how sure (``spread``, one standard deviation), ``cost``."""

    gain: float
    spread: float
    cost: float


def belief(known: Experience, bucket: str, arm: str, cost: float) -> Belief:
    """The posterior of an arm in a bucket; ``cost`` is what it is expected to cost before any lesson."""
    everywhere = Lesson()
    for edge in _EDGES:
        everywhere += known.get((subject_of(f"{edge:g}"), arm), Lesson())
    first = _updated(Belief(0.5 + PRIOR_GAIN / 2.0, math.sqrt(PRIOR_VARIANCE), cost), everywhere)
    # What all buckets taught counts as the prior of each, and no more than a prior does.
    prior = Belief(first.gain, math.sqrt(PRIOR_VARIANCE), first.cost)
    found = _updated(prior, known.get((subject_of(bucket), arm), Lesson()))
    return Belief(2.0 * found.gain - 1.0, 2.0 * found.spread, found.cost)


def _updated(prior: Belief, lesson: Lesson) -> Belief:
    """A belief about outcomes (not gains) after ``lesson``."""
    weight = PRIOR_STRENGTH + lesson.count
    mean = (PRIOR_STRENGTH * prior.gain + lesson.reward) / weight
    seen = max(0.0, lesson.squares - lesson.count * lesson.mean**2)
    variance = (PRIOR_STRENGTH * prior.spread**2 + seen) / weight
    return Belief(mean, math.sqrt(variance / weight), (PRIOR_STRENGTH * prior.cost + lesson.cost) / weight)
