"""A session that hands out a script: for tests of strategies, without engine, desk or event loop of its own."""

from __future__ import annotations

import dataclasses
import hashlib
import random
from collections.abc import Callable, Sequence

from budgets.experience import Experience, Lesson, Subject, outcome
from pipeline.errors import BudgetDenied, RequestRejected
from pipeline.records import Sample, Verdict
from strategies.base import PLAIN, Draw
from tests.factories import make_sample

Script = Callable[[Draw, int], Sample | None]
"""The sample of a draw at an index; None: the market pays for no more of it."""


class FakeSession:
    """``strategies.base.Session`` over a script.

    ``script``: samples or answers of the plain draw in order, or a function of draw and index (it may raise
    RequestRejected); a list answers every draw from one stream. ``budget``: samples paid for, all draws together.
    ``score``: what a verifier says of a sample; a number, None (an error) or a Verdict. ``check_budget``: verdicts paid
    for. ``known``: lessons of other questions. Remembers ``drawn``, ``bids``, ``draws``, ``checked``, ``given`` (of
    every call of ``verify``) and ``taught``.
    """

    def __init__(
        self,
        script: Sequence[Sample | str | None] | Script,
        budget: int | None = None,
        score: Callable[[Sample, str], float | Verdict | None] = lambda sample, verifier: None,
        check_budget: int | None = None,
        known: Experience | None = None,
        vectors: Callable[[str], tuple[float, ...]] = lambda text: (1.0, 0.0),
        tokens: float = 10.0,
        seed: int = 0,
    ) -> None:
        self._script = script
        self._next: dict[str, int] = {}
        self.left, self.checks_left = budget, check_budget
        self._score, self._vectors, self._tokens, self._seed = score, vectors, tokens, seed
        self.known: Experience = known or {}
        self.decisions: dict[str, str] = {}
        self.drawn: list[Sample] = []
        self.bids: list[float] = []
        self.draws: list[Draw] = []
        self.checked: list[tuple[str, int]] = []
        self.taught: dict[Subject, Lesson] = {}
        self.given: list[tuple[str, ...]] = []
        self.said: dict[tuple[str, int, str, tuple[str, ...]], Verdict] = {}
        self.cancelled = 0

    @property
    def rng(self) -> random.Random:
        return random.Random(self._seed)

    def expected_tokens(self, draw: Draw = PLAIN, *, check: str | None = None) -> float:
        return self._tokens

    async def sample(self, n: int = 1, *, value: float, draw: Draw = PLAIN) -> list[Sample]:
        return await self.sample_each([draw] * n, value=value)

    async def sample_each(self, draws: Sequence[Draw], *, value: float) -> list[Sample]:
        self.bids.append(value)
        got: list[Sample] = []
        before = dict(self._next), self.left, list(self.draws)
        try:
            for draw in draws:
                sample = self._draw(draw)
                if sample is None:
                    break
                got.append(sample)
        except RequestRejected:
            # Whatever was drawn beside it is found again when it is asked for again.
            self._next, self.left, self.draws = before
            raise
        if draws and not got:
            raise BudgetDenied(1.0)
        self.drawn += got
        return got

    async def verify(
        self, samples: Sequence[Sample], verifier: str, *, value: float, given: Sequence[str] = ()
    ) -> list[Verdict]:
        verdicts = []
        self.given.append(tuple(given))
        for sample in samples:
            place = (sample.prompt_key, sample.sample_index, verifier, tuple(given))
            if place not in self.said:
                if self.checks_left is not None:
                    if self.checks_left == 0:
                        raise BudgetDenied(1.0)
                    self.checks_left -= 1
                self.checked.append(place[:2])
                score = self._score(sample, verifier)
                error = "the fake cannot tell" if score is None else None
                self.said[place] = score if isinstance(score, Verdict) else Verdict(verifier, score, error)
            verdicts.append(self.said[place])
        return verdicts

    async def embed(self, texts: Sequence[str]) -> list[tuple[float, ...]]:
        return [self._vectors(text) for text in texts]

    async def decide(self, name: str, choose: Callable[[Experience], str]) -> str:
        if name not in self.decisions:
            self.decisions[name] = choose(self.known)
        return self.decisions[name]

    def learn(self, name: str, option: str, reward: float, cost: float) -> None:
        self.taught[(name, option)] = outcome(reward, cost)

    def cancel(self) -> None:
        self.cancelled += 1

    def again(self) -> FakeSession:
        """The same question re-executed over what this one paid: a sample that was not drawn here is a failure."""
        paid = {(sample.prompt_key, sample.sample_index): sample for sample in self.drawn}

        def replayed(draw: Draw, index: int) -> Sample | None:
            return paid.get((key_of(draw), index))

        fresh = FakeSession(replayed, tokens=self._tokens, seed=self._seed, vectors=self._vectors)
        fresh.decisions, fresh.said, fresh.checks_left = dict(self.decisions), dict(self.said), 0
        return fresh

    def _draw(self, draw: Draw) -> Sample | None:
        key = key_of(draw)
        stream = key if callable(self._script) else ""
        index = self._next.get(stream, 0)
        if callable(self._script):
            # A refusal comes before anything is asked of the market.
            found = self._script(draw, index)
        else:
            found = self._script[index] if index < len(self._script) else None
            if index >= len(self._script):
                return None
            if not isinstance(found, Sample):
                found = make_sample(index=index, answer=found)
        if found is None or self.left == 0:
            return None
        self._next[stream] = index + 1
        self.left = None if self.left is None else self.left - 1
        self.draws.append(draw)
        if callable(self._script):
            found = dataclasses.replace(found, prompt_key=key, sample_index=index, model=draw.model)
        return found


def key_of(draw: Draw) -> str:
    """What samples of a draw are filed under, in a fake session with a function for its script."""
    return "k" if draw == PLAIN else hashlib.sha256(repr(draw).encode()).hexdigest()[:8]


def refusing(reason: str) -> Script:
    """A script of a draw that the engine does not take."""

    def refuse(draw: Draw, index: int) -> Sample | None:
        raise RequestRejected(reason)

    return refuse
