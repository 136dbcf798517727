"""A session that remembers what was drawn through it: how one strategy builds on the samples of another.

Passes everything on unchanged, so that a strategy inside sees the session it would have seen.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from budgets.experience import Experience
from pipeline.records import Sample, Verdict
from strategies.base import PLAIN, Draw, Session


class Recorder:
    """``strategies.base.Session`` over another one. ``drawn``: what came through it, in the order it was handed out."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.drawn: list[Sample] = []

    @property
    def rng(self) -> random.Random:
        return self._session.rng

    def expected_tokens(self, draw: Draw = PLAIN, *, check: str | None = None) -> float:
        return self._session.expected_tokens(draw, check=check)

    async def sample(self, n: int = 1, *, value: float, draw: Draw = PLAIN) -> list[Sample]:
        drawn = await self._session.sample(n, value=value, draw=draw)
        self.drawn += drawn
        return drawn

    async def sample_each(self, draws: Sequence[Draw], *, value: float) -> list[Sample]:
        drawn = await self._session.sample_each(draws, value=value)
        self.drawn += drawn
        return drawn

    async def verify(self, samples: Sequence[Sample], verifier: str, *, value: float) -> list[Verdict]:
        return await self._session.verify(samples, verifier, value=value)

    async def embed(self, texts: Sequence[str]) -> list[tuple[float, ...]]:
        return await self._session.embed(texts)

    async def decide(self, name: str, choose: Callable[[Experience], str]) -> str:
        return await self._session.decide(name, choose)

    def learn(self, name: str, option: str, reward: float, cost: float) -> None:
        self._session.learn(name, option, reward, cost)

    def cancel(self) -> None:
        self._session.cancel()
