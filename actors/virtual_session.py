"""A question's session over recorded samples: ``strategies.base.Session`` without an event loop.

A strategy awaits nothing but ``sample``, so its coroutine is driven by hand: ``send`` runs it until it asks for
samples nobody has paid for, and again once each of them was drawn or refused. What was paid for before (``paid``) is
handed out at once, as a live session does from its journal; a session whose whole pool is paid for never waits.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Coroutine, Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from budgets.experience import Experience, Lesson, Subject, outcome
from budgets.value import ExpectedTokens
from pipeline.errors import BudgetDenied, EngineError, RequestRejected
from pipeline.recording import Columns
from pipeline.records import Item, Sample, Verdict
from strategies.base import PLAIN, Draw, Solution, Strategy

_KEY = "recorded"


class _Suspended:
    """Hands control back to whoever drives the coroutine."""

    def __await__(self) -> Generator[None, None, None]:
        yield


_SUSPENDED = _Suspended()


class VirtualAsk:
    """One wanted sample at the desk (``actors.desk.Wanted``); it is its own ticket."""

    __slots__ = ("bid", "place", "refused", "session", "used", "worst")

    def __init__(self, bid: float, worst: int, session: VirtualSession, place: int) -> None:
        self.bid, self.worst, self.session, self.place = bid, worst, session, place
        self.used: int | None = None
        self.refused: BudgetDenied | None = None

    @property
    def paid(self) -> VirtualAsk:
        return self

    @property
    def tokens(self) -> int | None:
        """Completion tokens of the sample it will get; None where they were not recorded."""
        return self.session.tokens_at(self.place)

    def done(self) -> bool:
        """True once it was drawn or refused."""
        return self.used is not None or self.refused is not None

    def set_exception(self, exception: BudgetDenied, /) -> None:
        """The market will not pay."""
        self.refused = exception
        self.session.told()

    def land(self, used: int) -> None:
        """The sample is there and cost ``used`` units."""
        self.used = used
        self.session.told()


@dataclass(frozen=True, slots=True)
class Terms:
    """What sessions share. ``cost``: units of the budget for a sample of so many tokens; ``worst``: its largest value.

    ``submit`` takes an ask to the desk; ``ready`` is told of a session whose asks are all answered; ``costs`` is what
    the worker's samples cost so far.
    """

    cost: Callable[[int], int]
    worst: int
    seed: int
    costs: ExpectedTokens
    submit: Callable[[VirtualAsk], None]
    ready: Callable[[VirtualSession], None]
    lessons: dict[Subject, Lesson] = field(default_factory=dict)
    """What questions taught so far; one worker's own."""


class VirtualSession:
    """The session of question ``number`` of ``columns``; its samples come in the order of ``rows``."""

    def __init__(
        self, columns: Columns, number: int, rows: list[int], terms: Terms, paid: int = 0, min_value: float = 0.0
    ) -> None:
        self.item = Item(columns.item_ids[number], prompt="", reference=columns.references[number])
        self.number = number
        self.drawn = 0
        """Samples handed to the strategy."""
        self.tokens = 0
        """Completion tokens of those."""
        self.spent = 0
        """Units of the budget they cost."""
        self._columns, self._rows, self._terms = columns, rows, terms
        self._paid, self._min_value = paid, min_value
        self._waiting = 0
        self._cost = ExpectedTokens()
        self._decisions: dict[str, str] = {}
        self._taught: dict[Subject, Lesson] = {}
        self._solving: Coroutine[Any, Any, Solution] | None = None

    @property
    def pool(self) -> int:
        """Samples recorded of this question."""
        return len(self._rows)

    @property
    def rng(self) -> random.Random:
        """Randomness that depends on the seed and the item alone."""
        return random.Random(f"{self._terms.seed}/{self.item.item_id}")

    def expected_tokens(self, draw: Draw = PLAIN, *, check: str | None = None) -> float:
        """See ``budgets.value.ExpectedTokens``; in units of the budget. What was recorded is checked for nothing."""
        return self._cost.mean(self._terms.costs.mean(self._terms.worst))

    def go_on(self, strategy: Strategy) -> Solution | None:
        """Run the strategy until it has to wait (None) or has its solution. Raises whatever the strategy raises."""
        if self._solving is None:
            self._solving = strategy.solve(self.item, self)
        try:
            self._solving.send(None)
        except StopIteration as end:
            # Session and coroutine hold each other: let go, so that neither waits for the garbage collector.
            self._solving = None
            for subject, lesson in self._taught.items():
                self._terms.lessons[subject] = self._terms.lessons.get(subject, Lesson()) + lesson
            solution: Solution = end.value
            return solution
        return None

    async def sample(self, n: int = 1, *, value: float, draw: Draw = PLAIN) -> list[Sample]:
        """See ``strategies.base.Session.sample``. A question that has drawn its whole pool is refused at any price.

        Whatever the temperature: what was recorded is all there is. Raises RequestRejected for what is asked otherwise.
        """
        _refuse_other(draw)
        first = self.drawn
        stop = min(first + n, len(self._rows))
        if first >= stop:
            raise BudgetDenied(math.inf)
        if stop > self._paid:
            if value < self._min_value:
                raise BudgetDenied(self._min_value)
            asks = [VirtualAsk(value, self._terms.worst, self, place) for place in range(max(first, self._paid), stop)]
            self._waiting = len(asks)
            for ask in asks:
                self._terms.submit(ask)
            await _SUSPENDED
            # Alike in bid and worst case, asks are served in order: those that were refused are the last ones.
            refused = next((ask.refused for ask in asks if ask.refused is not None), None)
            stop -= sum(ask.refused is not None for ask in asks)
            self._paid = max(self._paid, stop)
            if refused is not None and stop == first:
                raise refused
        return [self._draw() for _ in range(first, stop)]

    async def sample_each(self, draws: Sequence[Draw], *, value: float) -> list[Sample]:
        """See ``strategies.base.Session.sample_each``: all draws are the recording's one."""
        for draw in draws:
            _refuse_other(draw)
        return await self.sample(len(draws), value=value, draw=draws[0])

    async def verify(self, samples: Sequence[Sample], verifier: str, *, value: float) -> list[Verdict]:
        """The recorded scores, whatever the verifier's name."""
        return [
            replace(one.verdicts[0], verifier=verifier) if one.verdicts else Verdict(verifier, error="nothing recorded")
            for one in samples
        ]

    async def embed(self, texts: Sequence[str]) -> list[tuple[float, ...]]:
        """Nothing to embed: texts are not replayed. Raises EngineError."""
        raise EngineError("a replay embeds no texts")

    async def decide(self, name: str, choose: Callable[[Experience], str]) -> str:
        """See ``strategies.base.Session.decide``."""
        if name not in self._decisions:
            self._decisions[name] = choose(self._terms.lessons)
        return self._decisions[name]

    def learn(self, name: str, option: str, reward: float, cost: float) -> None:
        """See ``strategies.base.Session.learn``."""
        self._taught[(name, option)] = outcome(reward, cost)

    def cancel(self) -> None:
        """Nothing to do: a recorded sample is there whole."""

    def told(self) -> None:
        """One ask was answered."""
        self._waiting -= 1
        if not self._waiting:
            self._terms.ready(self)

    def tokens_at(self, place: int) -> int | None:
        """Completion tokens of the question's sample number ``place`` in the order of drawing; None: not recorded."""
        tokens = self._columns.tokens
        return None if tokens is None else int(tokens.item(self._rows[place]))

    def _draw(self) -> Sample:
        columns, row = self._columns, self._rows[self.drawn]
        code = columns.answer.item(row)
        tokens = 0 if columns.tokens is None else columns.tokens.item(row)
        used = self._terms.cost(tokens)
        self._cost.add(used)
        self.drawn += 1
        self.tokens += tokens
        self.spent += used
        return Sample(
            item_id=self.item.item_id,
            sample_index=columns.sample_index.item(row),
            prompt_key=_KEY,
            text="",
            answer=columns.answers[code] if code >= 0 else None,
            completion_tokens=tokens,
            mean_logprob=None if columns.mean_logprob is None else columns.mean_logprob.item(row),
            min_group_confidence=None if columns.confidence is None else columns.confidence.item(row),
            verdicts=() if columns.score is None else (Verdict("recorded", columns.score.item(row)),),
        )


def _refuse_other(draw: Draw) -> None:
    if draw.prompt is not None or draw.prefix or draw.model:
        raise RequestRejected("the recording holds answers to the question as it stands, from one model")
    if draw.cut_below is not None or draw.group is not None:
        raise RequestRejected("the recording holds whole samples, whose confidences are not measured anew")
