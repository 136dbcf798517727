"""Arms in turn: sample i of a vote comes from arm i mod k of those that still work.

Owns which arms a question has lost, and why. Draws through the session it is given; what an arm that the engine refuses
had drawn beside others is in the journal, and is found again when they are asked one by one.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.errors import BudgetDenied, RequestRejected
from pipeline.records import Item, Sample
from strategies.arms import PLAIN_ARM, Arm
from strategies.base import PLAIN, Draw, Session


class Rotation:
    """The arms of one question. Without any there is one: as the job says."""

    def __init__(self, arms: Sequence[Arm], item: Item) -> None:
        self._item = item
        self._arms = list(arms) or [PLAIN_ARM]
        self._alone = not arms
        self._draws: dict[str, Draw] = {}
        self._turn = 0
        self.failed: dict[str, str] = {}
        """Arm → why the engine, or its template, would not have it."""
        self.drawn: list[tuple[str, Sample]] = []
        """What came back, with the arm it came from."""

    @property
    def draw(self) -> Draw:
        """How the next sample is asked for, as far as that can be told: for what it is expected to cost."""
        try:
            return self._draw_of(self._arms[self._turn % len(self._arms)])
        except RequestRejected:
            return PLAIN

    async def sample(self, session: Session, n: int, value: float) -> list[Sample]:
        """Up to ``n`` further samples, from each arm in its turn.

        Raises:
            BudgetDenied: the market pays for none of them.
            RequestRejected: no arm is left.
        """
        if n > 1:
            turns = [self._arms[(self._turn + step) % len(self._arms)] for step in range(n)]
            try:
                return self._keep(turns, await session.sample_each([self._draw_of(arm) for arm in turns], value=value))
            except RequestRejected:
                if self._alone:
                    raise
        found: list[Sample] = []
        while len(found) < n:
            arm = self._arms[self._turn % len(self._arms)]
            try:
                found += self._keep([arm], await session.sample_each([self._draw_of(arm)], value=value))
            except RequestRejected as refused:
                if self._alone:
                    raise
                self.failed[arm.name] = str(refused)
                self._arms.remove(arm)
                if not self._arms:
                    raise
            except BudgetDenied:
                if found:
                    break
                raise
        return found

    def agreement(self, answer: str | None) -> dict[str, float]:
        """By arm: the share of its samples that gave ``answer``."""
        found: dict[str, list[bool]] = {}
        for name, sample in self.drawn:
            found.setdefault(name, []).append(sample.answer == answer and not sample.aborted)
        return {name: sum(votes) / len(votes) for name, votes in found.items()}

    def _keep(self, turns: Sequence[Arm], drawn: list[Sample]) -> list[Sample]:
        self._turn += len(drawn)
        self.drawn += [(arm.name, sample) for arm, sample in zip(turns, drawn, strict=False)]
        return drawn

    def _draw_of(self, arm: Arm) -> Draw:
        if arm.name not in self._draws:
            self._draws[arm.name] = arm.draw(self._item)
        return self._draws[arm.name]
