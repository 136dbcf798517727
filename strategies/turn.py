"""The session of a question as one of several arms sees it.

An arm is a strategy of its own that may know nothing of the others: samples that were drawn before, by whomever, are
handed out to it again from the first one on, so that what two arms ask alike is paid once. Its draws are completed by
the arm's own way to ask, its bids are scaled and capped, and what it decides and teaches is filed under its name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from budgets.experience import Experience
from pipeline.errors import BudgetDenied
from pipeline.records import Sample, Verdict
from strategies.base import PLAIN, Draw, Session
from strategies.wrapped import Wrapped

Pool = dict[Draw, list[Sample]]
"""What was drawn of a question so far, by how it was asked, in sample-index order."""


class Turn(Wrapped):
    """A session over ``pool``, which it adds to. ``asked`` fills in what a draw leaves open.

    ``scale`` multiplies bids and ``opening`` caps them. ``drawn``: what was handed out, in order; ``paid``: what was
    not there before; ``denied``: the bid for a sample that the market refused last.
    """

    def __init__(
        self, session: Session, name: str, pool: Pool, asked: Draw, opening: float, scale: float = 1.0
    ) -> None:
        super().__init__(session)
        self._name, self._pool, self._asked, self.opening, self._scale = name, pool, asked, opening, scale
        self._next: Counter[Draw] = Counter()
        self.drawn: list[Sample] = []
        self.paid: list[tuple[Draw, Sample]] = []
        self.denied: float | None = None

    def expected_tokens(self, draw: Draw = PLAIN, *, check: str | None = None) -> float:
        return super().expected_tokens(self._of(draw), check=check)

    async def sample_each(self, draws: Sequence[Draw], *, value: float) -> list[Sample]:
        asked = [self._of(draw) for draw in draws]
        ahead = self._next.copy()
        found: list[Sample | None] = []
        for draw in asked:
            known = self._pool.get(draw, ())
            found.append(known[ahead[draw]] if ahead[draw] < len(known) else None)
            ahead[draw] += 1
        missing = [draw for draw, one in zip(asked, found, strict=True) if one is None]
        fresh: list[Sample] = []
        if missing:
            bid = min(value * self._scale, self.opening)
            try:
                fresh = await super().sample_each(missing, value=bid)
            except BudgetDenied:
                self.denied = bid
                if found[0] is None:
                    raise
        for draw, paid in zip(missing, fresh, strict=False):
            self._pool.setdefault(draw, []).append(paid)
            self.paid.append((draw, paid))
        left, handed = iter(fresh), list[Sample]()
        for draw, known_one in zip(asked, found, strict=True):
            sample = known_one if known_one is not None else next(left, None)
            if sample is None:
                break
            self._next[draw] += 1
            handed.append(sample)
        self.drawn += handed
        return handed

    async def verify(
        self, samples: Sequence[Sample], verifier: str, *, value: float, given: Sequence[str] = ()
    ) -> list[Verdict]:
        return await super().verify(samples, verifier, value=min(value * self._scale, self.opening), given=given)

    async def decide(self, name: str, choose: Callable[[Experience], str]) -> str:
        return await super().decide(f"{self._name}/{name}", lambda known: choose(self._own(known)))

    def learn(self, name: str, option: str, reward: float, cost: float) -> None:
        super().learn(f"{self._name}/{name}", option, reward, cost)

    def cost(self) -> float:
        """Units that what it paid for is expected to have cost."""
        return sum(self._session.expected_tokens(draw) for draw, _ in self.paid)

    def _own(self, known: Experience) -> Experience:
        """What was taught under this arm's name, as the arm called it."""
        mine = f"{self._name}/"
        return {
            (name.removeprefix(mine), option): lesson
            for (name, option), lesson in known.items()
            if name.startswith(mine)
        }

    def _of(self, draw: Draw) -> Draw:
        own = self._asked
        return replace(
            draw,
            prompt=own.prompt if draw.prompt is None else draw.prompt,
            temperature=own.temperature if draw.temperature is None else draw.temperature,
            top_p=own.top_p if draw.top_p is None else draw.top_p,
            min_p=own.min_p if draw.min_p is None else draw.min_p,
            model=draw.model or own.model,
        )
