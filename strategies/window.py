"""The session of a question as a strategy within a strategy sees it: bids are capped, and what came of them is kept.

Lets one strategy run another's whole course as a part of its own. Draws through the session it is given.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from budgets.experience import Experience
from pipeline.errors import BudgetDenied
from pipeline.records import Sample, Verdict
from strategies.base import PLAIN, Draw, Session


class Window:
    """A session in which no bid exceeds ``opening``.

    ``drawn``: what came back; ``denied``: the bid for a sample that the market refused last.
    """

    def __init__(self, session: Session, opening: float) -> None:
        self._session, self._opening = session, opening
        self.drawn: list[Sample] = []
        self.denied: float | None = None

    @property
    def rng(self) -> random.Random:
        return self._session.rng

    def expected_tokens(self, draw: Draw = PLAIN, *, check: str | None = None) -> float:
        return self._session.expected_tokens(draw, check=check)

    async def sample(self, n: int = 1, *, value: float, draw: Draw = PLAIN) -> list[Sample]:
        return await self.sample_each([draw] * n, value=value)

    async def sample_each(self, draws: Sequence[Draw], *, value: float) -> list[Sample]:
        bid = min(value, self._opening)
        try:
            drawn = await self._session.sample_each(draws, value=bid)
        except BudgetDenied:
            self.denied = bid
            raise
        self.drawn += drawn
        return drawn

    async def verify(self, samples: Sequence[Sample], verifier: str, *, value: float) -> list[Verdict]:
        return await self._session.verify(samples, verifier, value=min(value, self._opening))

    async def embed(self, texts: Sequence[str]) -> list[tuple[float, ...]]:
        return await self._session.embed(texts)

    async def decide(self, name: str, choose: Callable[[Experience], str]) -> str:
        return await self._session.decide(name, choose)

    def learn(self, name: str, option: str, reward: float, cost: float) -> None:
        self._session.learn(name, option, reward, cost)

    def cancel(self) -> None:
        self._session.cancel()
