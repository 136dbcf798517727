"""What questions teach each other: rewards and costs by option, summed over the dataset.

What to make of them is a strategy's (``strategies.base.Session.decide``). Sums, so that shards' lessons are added up in
any order. A shard's lessons are told whole by whoever holds it and kept in its commit, so each outcome counts once,
whoever asks its question again. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
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

    def __sub__(self, other: Lesson) -> Lesson:
        """What is left without ``other``, which was added before. Sums of fractions are rounded, never below 0."""
        return Lesson(
            self.count - other.count,
            max(0.0, self.reward - other.reward),
            max(0.0, self.squares - other.squares),
            max(0.0, self.cost - other.cost),
        )


Subject = tuple[str, str]
"""What a lesson is about: the name of a decision and one of its options."""

Experience = Mapping[Subject, Lesson]
"""What is known so far; a subject nobody has met is missing."""

Lessons = tuple[tuple[Subject, Lesson], ...]
"""The same as it is sent and stored."""


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


class Register:
    """What every shard taught, and the sum of it. A shard's lessons replace those it was known for before."""

    def __init__(self) -> None:
        self._by_shard: dict[int, Lessons] = {}
        self._sum: dict[Subject, Lesson] = {}

    def put(self, shard_id: int, lessons: Lessons) -> None:
        """All that a shard's questions taught so far."""
        before = self._by_shard.get(shard_id, ())
        if lessons == before:
            return
        self._sum = without(total([self._sum, dict(lessons)]), before)
        if lessons:
            self._by_shard[shard_id] = lessons
        else:
            del self._by_shard[shard_id]

    def beside(self, shard_ids: Iterable[int]) -> Lessons:
        """What all shards but these taught."""
        left = self._sum
        for shard_id in shard_ids:
            left = without(left, self._by_shard.get(shard_id, ()))
        return tuple(left.items())


def without(known: dict[Subject, Lesson], part: Lessons) -> dict[Subject, Lesson]:
    """``known`` less ``part``, which was added before; a subject nothing is left of is forgotten."""
    if not part:
        return known
    left = known | {subject: known[subject] - lesson for subject, lesson in part}
    return {subject: lesson for subject, lesson in left.items() if lesson.count}
