"""A session over another one: what a strategy inside a strategy, or inside an audit, is given.

Passes everything on unchanged. Those that change something derive from it and say what: all samples come by way of
``sample_each``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from budgets.experience import Experience
from pipeline.records import Sample, Verdict
from strategies.base import PLAIN, Draw, Session


class Wrapped:
    """``strategies.base.Session`` over ``session``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @property
    def rng(self) -> random.Random:
        return self._session.rng

    def expected_tokens(self, draw: Draw = PLAIN, *, check: str | None = None) -> float:
        return self._session.expected_tokens(draw, check=check)

    async def sample(self, n: int = 1, *, value: float, draw: Draw = PLAIN) -> list[Sample]:
        return await self.sample_each([draw] * n, value=value)

    async def sample_each(self, draws: Sequence[Draw], *, value: float) -> list[Sample]:
        return await self._session.sample_each(draws, value=value)

    async def verify(
        self, samples: Sequence[Sample], verifier: str, *, value: float, given: Sequence[str] = ()
    ) -> list[Verdict]:
        return await self._session.verify(samples, verifier, value=value, given=given)

    async def embed(self, texts: Sequence[str]) -> list[tuple[float, ...]]:
        return await self._session.embed(texts)

    async def decide(self, name: str, choose: Callable[[Experience], str]) -> str:
        return await self._session.decide(name, choose)

    def learn(self, name: str, option: str, reward: float, cost: float) -> None:
        self._session.learn(name, option, reward, cost)

    def cancel(self) -> None:
        self._session.cancel()


class Recorder(Wrapped):
    """Remembers what was drawn: how one strategy builds on another's samples. ``drawn``: in the order handed out."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.drawn: list[Sample] = []

    async def sample_each(self, draws: Sequence[Draw], *, value: float) -> list[Sample]:
        drawn = await super().sample_each(draws, value=value)
        self.drawn += drawn
        return drawn
