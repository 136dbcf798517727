"""Which arm pays: budgeted Thompson sampling over what other questions taught.

An arm is a way to go on with a question that is not settled. A pull costs units of the budget all questions share and
has an outcome in [0, 1]: 1 where its answer is right and the one at hand was not, 0 the other way round, ½ where it
changes nothing; so its *gain* is 2 · outcome − 1. Xia et al. 2015 ("Thompson Sampling for Budgeted Multi-armed
Bandits", arXiv:1505.00146, Algorithm 1) draw gain and cost of each arm from their posteriors and pull the largest
ratio, which is right while one budget is all that limits the pulls. Here questions are limited too. Badanidiyuru et al.
2013 ("Bandits with Knapsacks", arXiv:1305.2545) then pull by gain less what the cost is worth at the resources' prices.
A strategy does not know what is left of the budget, so a unit is taken to be worth ``PRICE`` of the best ratio known,
and the market does the rest: arms after the first are tried where the first did not settle the question, and each bids
in proportion to its ratio.

Where we differ: gains may be negative, so posteriors are normal, with the mean and spread seen; a cost is known soon
and taken at its mean; a context is a bucket of difficulty, whose prior is what all buckets taught together. Decisions
are made side by side, before their outcomes are known: drawing makes them differ. Pure; random only through ``rng``.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from budgets.experience import Experience, Lesson
from pipeline.errors import SpecError

PRIOR_GAIN = 0.1
"""Before anything is known an arm is tried rather than left out."""
PRIOR_STRENGTH = 4.0
"""The prior counts as so many outcomes: a handful, so that a small dataset learns something too."""
PRIOR_VARIANCE = 0.05
"""Of an outcome: one in five changes anything."""
PRICE = 0.5
"""Of the best rate of gain, what a unit is taken to be worth: all of it in a tight budget, nothing in an ample one."""
ENOUGH = 40
"""Lessons after which comparing is no longer the rule. On 360 recorded questions 40 and 100 did alike, 0 worse."""
LEAST = 4
"""Lessons of an arm in a bucket before it may cut a probe short."""
SPLIT = "0.5"
_EDGES = (0.0, 0.5, 0.75)
_LEAST_COST = 1e-9
_LEAST_RATE = 1e-3
"""An arm that is not believed to gain anything bids next to nothing; not nothing, so that bids keep their order."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Arms in the order to try them. ``rates``: gain per unit against the first arm's, in (0, 1].

    The first ``worth`` (>= 1) may well gain something: their mean gain and one spread are above 0. ``compared``: the
    first two are both asked, to learn.
    """

    arms: tuple[str, ...]
    rates: tuple[float, ...]
    worth: int
    compared: bool = False

    def said(self) -> str:
        """As it is kept (``Session.decide``)."""
        rates = [float(f"{rate:.4g}") for rate in self.rates]
        return json.dumps({"arms": self.arms, "rates": rates, "worth": self.worth, "compared": self.compared})


@dataclass(frozen=True, slots=True)
class Start:
    """What is decided before a question's first sample. ``compares``: two arms are; ``appeal``: see there."""

    compares: bool = False
    appeal: Mapping[str, float] = field(default_factory=dict)

    def appeal_of(self, votes: int, drawn: int) -> float:
        """Of arms, to a question whose samples agree so; 0 where nothing is known."""
        return self.appeal.get(bucket_of(votes, drawn), 0.0)

    def said(self) -> str:
        """As it is kept."""
        return json.dumps({"compares": self.compares, "appeal": numbers_said(self.appeal)})

    @staticmethod
    def heard(text: str) -> Start:
        """A start as it was kept; nothing where it cannot be read."""
        try:
            raw = json.loads(text)
            return Start(bool(raw["compares"]), numbers_heard(raw["appeal"]))
        except (ValueError, TypeError, KeyError):
            return Start()


def numbers_said(numbers: Mapping[str, float]) -> str:
    """Named numbers as they are kept."""
    return json.dumps({name: float(f"{number:.4g}") for name, number in numbers.items()})


def numbers_heard(text: str) -> dict[str, float]:
    """Named numbers > 0 as they were kept; none where they cannot be read."""
    try:
        found = {str(name): float(number) for name, number in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError):
        return {}
    return {name: number for name, number in found.items() if 0.0 < number < math.inf}


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


_BUCKETS = tuple(f"{edge:g}" for edge in _EDGES)
_SUBJECTS = tuple(map(subject_of, _BUCKETS))


def choose(known: Experience, bucket: str, costs: Mapping[str, float], rng: random.Random, draw: bool = True) -> Choice:
    """Order the arms by gain per unit, as drawn from what is known; ``draw`` False: at their means.

    ``costs``: arm → units a pull is expected to cost before any was seen.

    Raises:
        SpecError: there is no arm, or a cost is negative or not finite.
    """
    if not costs:
        raise SpecError("there is no arm to choose from")
    gains, prices, may = {}, {}, {}
    for arm, cost in costs.items():
        if not 0.0 <= cost < math.inf:
            raise SpecError(f"the cost of arm {arm} is {cost!r}: it must be a finite number >= 0")
        believed = belief(known, bucket, arm, cost)
        # One number an arm, whatever is known: what is known of one arm must not change what is drawn for another.
        noise = rng.gauss(0.0, 1.0)
        gains[arm] = believed.gain + (noise * believed.spread if draw else 0.0)
        prices[arm] = max(believed.cost, _LEAST_COST)
        may[arm] = believed.gain + believed.spread > 0.0
    best = max((gains[arm] / prices[arm] for arm in gains), default=0.0)
    unit = PRICE * max(0.0, best)
    order = sorted(gains, key=lambda arm: (not may[arm], unit * prices[arm] - gains[arm]))
    rates = [max(_LEAST_RATE, gains[arm] / prices[arm] / best) if gains[arm] > 0.0 else _LEAST_RATE for arm in order]
    return Choice(tuple(order), (1.0, *rates[1:]), max(1, sum(may.values())))


def exploring(known: Experience, explore: float) -> float:
    """The share of questions that compare two arms now: all of the first, then ever fewer, and ``explore`` at last."""
    lessons = sum(lesson.count for (name, _), lesson in known.items() if name in _SUBJECTS)
    return max(explore, 1.0 - lessons / ENOUGH)


def appeal(known: Experience, costs: Mapping[str, float], among: Collection[str]) -> dict[str, float]:
    """Bucket → the best rate of gain of the arms ``among``, against the best of all arms where the vote is split.

    Of ``LEAST`` lessons alone: a question is not taken from its probe on a guess.
    """
    split = max((_rate(known, SPLIT, arm, cost) for arm, cost in costs.items()), default=0.0)
    if split <= 0.0:
        return {}
    rates = {b: max((_rate(known, b, arm, costs[arm]) for arm in among), default=0.0) for b in _BUCKETS}
    return {bucket: rate / split for bucket, rate in rates.items() if rate > 0.0}


def _rate(known: Experience, bucket: str, arm: str, cost: float) -> float:
    """Mean gain per unit; 0 before ``LEAST`` lessons."""
    if known.get((subject_of(bucket), arm), Lesson()).count < LEAST:
        return 0.0
    found = belief(known, bucket, arm, cost)
    return found.gain / max(found.cost, _LEAST_COST)


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
    for subject in _SUBJECTS:
        everywhere += known.get((subject, arm), Lesson())
    first = _updated((1.0 + PRIOR_GAIN) / 2.0, cost, everywhere)
    # What all buckets taught counts as the prior of each, and no more than a prior does.
    found = _updated(first.mean, first.cost, known.get((subject_of(bucket), arm), Lesson()))
    return Belief(2.0 * found.mean - 1.0, 2.0 * math.sqrt(found.variance), found.cost)


@dataclass(frozen=True, slots=True)
class _Outcomes:
    """Posterior of the mean outcome, which is in [0, 1], and mean cost."""

    mean: float
    variance: float
    cost: float


def _updated(mean: float, cost: float, lesson: Lesson) -> _Outcomes:
    """A prior of this mean outcome and cost after ``lesson``."""
    weight = PRIOR_STRENGTH + lesson.count
    seen = max(0.0, lesson.squares - lesson.count * lesson.mean**2)
    return _Outcomes(
        mean=(PRIOR_STRENGTH * mean + lesson.reward) / weight,
        variance=(PRIOR_STRENGTH * PRIOR_VARIANCE + seen) / weight**2,
        cost=(PRIOR_STRENGTH * cost + lesson.cost) / weight,
    )
