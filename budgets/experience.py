"""What questions teach each other: rewards and costs by option, summed over the dataset.

Values only; what to make of them is a strategy's (``strategies.base.Session.decide``). Sums, so that workers add theirs
up in any order and the allocator forgets nobody. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.errors import StrategyError


@dataclass(frozen=True, slots=True)
class Lesson:
    """``count`` outcomes of one option: summed ``reward`` (each in [0, 1]), its ``squares``, and ``cost`` in units."""

    count: int = 0
    reward: float = 0.0
    squares: float = 0.0
    cost: float = 0.0

    @property
    def mean(self) -> float:
        """Mean reward; 0 before the first."""
        return self.reward / self.count if self.count else 0.0

    @property
    def mean_cost(self) -> float:
        """Mean cost; 0 before the first."""
        return self.cost / self.count if self.count else 0.0

    def __add__(self, other: Lesson) -> Lesson:
        return Lesson(
            self.count + other.count,
            self.reward + other.reward,
            self.squares + other.squares,
            self.cost + other.cost,
        )


Subject = tuple[str, str]
"""What a lesson is about: the name of a decision and one of its options."""

Experience = Mapping[Subject, Lesson]
"""What is known so far; a subject nobody has met is missing."""


def outcome(reward: float, cost: float) -> Lesson:
    """One outcome as a lesson.

    Raises:
        StrategyError: ``reward`` is NaN or outside [0, 1], or ``cost`` is negative or not finite.
    """
    if not 0.0 <= reward <= 1.0:
        raise StrategyError(f"a lesson's reward is {reward!r}: it must lie in [0, 1]")
    if not 0.0 <= cost < math.inf:
        raise StrategyError(f"a lesson's cost is {cost!r}: it must be a finite number >= 0")
    return Lesson(1, reward, reward * reward, cost)


def total(parts: Sequence[Experience]) -> dict[Subject, Lesson]:
    """All of ``parts`` together."""
    found: dict[Subject, Lesson] = {}
    for part in parts:
        for subject, lesson in part.items():
            found[subject] = found.get(subject, Lesson()) + lesson
    return found
