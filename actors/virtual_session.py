"""A question's session over recorded samples: ``strategies.base.Session`` without an event loop.

A strategy awaits nothing but ``sample``, so its coroutine is driven by hand: ``send`` runs it until it asks for
samples nobody has paid for, and again once each of them was drawn or refused. What was paid for before (``paid``) is
handed out at once, as a live session does from its journal; a session whose whole pool is paid for never waits.
Checks that cost are asked for and paid in the same way (``actors.virtual_checks``).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Coroutine, Generator, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from actors.virtual_checks import Checking
from budgets.experience import Experience, Lesson, Subject, outcome
from budgets.value import ExpectedTokens
from pipeline.errors import BudgetDenied, EngineError, RequestRejected
from pipeline.recording import Columns
from pipeline.records import Item, Sample, Verdict
from strategies.base import PLAIN, Draw, Solution, Strategy

_KEY = "recorded"

Paid = tuple[str, Hashable]
"""A check that was paid for: the verifier's name, and what it checked (``Said.key``)."""


class _Suspended:
    """Hands control back to whoever drives the coroutine."""

    def __await__(self) -> Generator[None, None, None]:
        yield


_SUSPENDED = _Suspended()


class VirtualAsk:
    """One wanted sample, or a ``check`` of some, at the desk (``actors.desk.Wanted``); it is its own ticket.

    ``tokens`` it takes, None where they were not recorded; ``cost`` in units of the budget.
    """

    __slots__ = ("bid", "check", "cost", "refused", "session", "tokens", "used", "worst")

    def __init__(
        self, bid: float, worst: int, session: VirtualSession, tokens: int | None, cost: int, check: bool = False
    ) -> None:
        self.bid, self.worst, self.session, self.check = bid, worst, session, check
        self.tokens, self.cost = tokens, cost
        self.used: int | None = None
        self.refused: BudgetDenied | None = None

    @property
    def paid(self) -> VirtualAsk:
        return self

    def done(self) -> bool:
        """True once it was drawn or refused."""
        return self.used is not None or self.refused is not None

    def set_exception(self, exception: BudgetDenied, /) -> None:
        """The market will not pay."""
        self.refused = exception
        self.session.told()

    def land(self, used: int) -> None:
        """What was asked for is there and cost ``used`` units."""
        self.used = used
        self.session.told()


def refuse_other(draw: Draw) -> None:
    """Whatever the temperature: what was recorded is all there is. Raises RequestRejected for what it cannot be."""
    if draw.prompt is not None or draw.prefix or draw.model:
        raise RequestRejected("the recording holds answers to the question as it stands, from one model")
    if draw.cut_below is not None or draw.group is not None:
        raise RequestRejected("the recording holds whole samples, whose confidences are not measured anew")


@dataclass(frozen=True, slots=True)
class Terms:
    """What sessions share. ``cost``: units of the budget for a sample of so many tokens; ``worst``: its largest value.

    ``submit`` takes an ask to the desk; ``ready`` is told of a session whose asks are all answered; ``costs`` is what
    the worker's samples cost so far; ``experience`` what all questions taught.
    """

    cost: Callable[[int], int]
    worst: int
    seed: int
    costs: ExpectedTokens
    submit: Callable[[VirtualAsk], None]
    ready: Callable[[VirtualSession], None]
    experience: Callable[[], Experience] = dict
    checking: Checking = field(default_factory=Checking)
    asked: Callable[[Draw], None] = refuse_other
    """Raises for what the recording cannot answer."""


class VirtualSession:
    """The session of question ``number`` of ``columns``; its samples come in the order of ``rows``."""

    def __init__(
        self,
        columns: Columns,
        number: int,
        rows: list[int],
        terms: Terms,
        paid: int = 0,
        min_value: float = 0.0,
        checked: set[Paid] | None = None,
        decisions: dict[str, str] | None = None,
    ) -> None:
        """``checked``: the checks that are paid for; added to. None: all are."""
        self.item = Item(columns.item_ids[number], prompt="", reference=columns.references[number])
        self.number = number
        self.drawn = 0
        """Samples handed to the strategy."""
        self.tokens = 0
        """Completion tokens of those."""
        self.verification = 0
        """Tokens of the checks that were made."""
        self.spent = 0
        """Units of the budget that samples and checks cost."""
        self._columns, self._rows, self._terms = columns, rows, terms
        self._paid, self._min_value = paid, min_value
        self._waiting = 0
        self._cost = ExpectedTokens()
        self._paid_checks = checked
        self._checked: set[Paid] = set()
        self._check_costs: dict[str, ExpectedTokens] = {}
        self.decisions = dict(decisions or {})
        """What was decided of this question, by name."""
        self.lessons: dict[Subject, Lesson] = {}
        """What it has to teach the others, once it is answered."""
        self._solving: Coroutine[Any, Any, Solution] | None = None

    @property
    def pool(self) -> int:
        """Samples recorded of this question."""
        return len(self._rows)

    @property
    def checked(self) -> set[Paid]:
        """Checks that cost and were paid for, in this session and before; empty where all are taken to be."""
        return self._paid_checks or set()

    @property
    def rng(self) -> random.Random:
        """Randomness that depends on the seed and the item alone."""
        return random.Random(f"{self._terms.seed}/{self.item.item_id}")

    def expected_tokens(self, draw: Draw = PLAIN, *, check: str | None = None) -> float:
        """See ``budgets.value.ExpectedTokens``; in units of the budget."""
        generating = self._cost.mean(self._terms.costs.mean(self._terms.worst))
        worst = 0 if check is None else self._terms.checking.worst(check)
        return generating + self._check_costs.get(check or "", ExpectedTokens()).mean(worst) if worst else generating

    def go_on(self, strategy: Strategy) -> Solution | None:
        """Run the strategy until it has to wait (None) or has its solution. Raises whatever the strategy raises."""
        if self._solving is None:
            self._solving = strategy.solve(self.item, self)
        try:
            self._solving.send(None)
        except StopIteration as end:
            # Session and coroutine hold each other: let go, so that neither waits for the garbage collector.
            self._solving = None
            solution: Solution = end.value
            return solution
        return None

    async def sample(self, n: int = 1, *, value: float, draw: Draw = PLAIN) -> list[Sample]:
        """See ``strategies.base.Session.sample``. A question that has drawn its whole pool is refused at any price."""
        self._terms.asked(draw)
        first = self.drawn
        stop = min(first + n, len(self._rows))
        if first >= stop:
            raise BudgetDenied(math.inf)
        if stop > self._paid and value < self._min_value:
            # What is paid for is handed out at any price.
            stop = max(first, self._paid)
            if stop == first:
                raise BudgetDenied(self._min_value)
        if stop > self._paid:
            asks = [self._ask(value, place) for place in range(max(first, self._paid), stop)]
            await self._answered(asks)
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
            self._terms.asked(draw)
        return await self.sample(len(draws), value=value, draw=draws[0])

    async def verify(
        self, samples: Sequence[Sample], verifier: str, *, value: float, given: Sequence[str] = ()
    ) -> list[Verdict]:
        """See ``strategies.base.Session.verify``; what is said and what it costs is by ``Terms.checking``."""
        checking, paid = self._terms.checking, self._paid_checks
        said = [checking.says(self._columns, self.number, self._row_of(one), verifier, given) for one in samples]
        fresh = {one.key: one.verdict for one in reversed(said) if (verifier, one.key) not in self._checked}
        unpaid = [] if paid is None else [verdict for key, verdict in fresh.items() if (verifier, key) not in paid]
        tokens = sum(verdict.tokens for verdict in unpaid)
        worst = checking.worst(verifier)
        if worst and unpaid:
            ask = VirtualAsk(value, worst * len(unpaid), self, tokens, checking.cost(tokens), check=True)
            await self._answered([ask])
            if ask.refused is not None:
                raise ask.refused
            assert paid is not None, "what is unpaid can be paid"
            paid.update((verifier, key) for key in fresh)
        for key, verdict in fresh.items():
            self._checked.add((verifier, key))
            self.verification += verdict.tokens
            self.spent += checking.cost(verdict.tokens)
            self._check_costs.setdefault(verifier, ExpectedTokens()).add(checking.cost(verdict.tokens))
        verdicts = []
        for one in said:
            # Of samples checked as one, the first carries the cost, the first time.
            verdicts.append(one.verdict if fresh.pop(one.key, None) is not None else replace(one.verdict, tokens=0))
        return verdicts

    async def embed(self, texts: Sequence[str]) -> list[tuple[float, ...]]:
        """Nothing to embed: texts are not replayed. Raises EngineError."""
        raise EngineError("a replay embeds no texts")

    async def decide(self, name: str, choose: Callable[[Experience], str]) -> str:
        """See ``strategies.base.Session.decide``."""
        if name not in self.decisions:
            self.decisions[name] = choose(self._terms.experience())
        return self.decisions[name]

    def learn(self, name: str, option: str, reward: float, cost: float) -> None:
        """See ``strategies.base.Session.learn``."""
        self.lessons[(name, option)] = outcome(reward, cost)

    def cancel(self) -> None:
        """Nothing to do: a recorded sample is there whole."""

    def told(self) -> None:
        """One ask was answered."""
        self._waiting -= 1
        if not self._waiting:
            self._terms.ready(self)

    def _ask(self, value: float, place: int) -> VirtualAsk:
        """For the question's sample number ``place`` in the order of drawing."""
        tokens = None if self._columns.tokens is None else int(self._columns.tokens.item(self._rows[place]))
        return VirtualAsk(value, self._terms.worst, self, tokens, self._terms.cost(tokens or 0))

    async def _answered(self, asks: Sequence[VirtualAsk]) -> None:
        """Put them on the desk and wait until each was served or refused."""
        self._waiting = len(asks)
        for ask in asks:
            self._terms.submit(ask)
        await _SUSPENDED

    def _row_of(self, sample: Sample) -> int:
        row = self._columns.row_of(self.number, sample.sample_index)
        assert row is not None, "a replayed sample was recorded"
        return row

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
