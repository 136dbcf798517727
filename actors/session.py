"""A question's session: the journal first, then the desk.

Keeps the strategy's promise of determinism: samples are handed out in index order and numbered by the session alone,
so that a strategy re-executed over the same journal sees the same samples at the same points. Where slots would stand
idle and time is short, the next samples are drawn ahead of need; they are handed out in their turn, and those still
running when the question ends are cut.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from actors.checks import Checks, CheckTerms, with_verdict
from actors.desk import Ask
from actors.judge import said_by
from actors.siblings import charged_prompt
from actors.ways import Prepare, Way, Ways
from budgets.cost import CostModel
from budgets.experience import Experience, Lesson, Subject, outcome
from budgets.value import ExpectedTokens
from pipeline.errors import BudgetDenied, EngineError
from pipeline.records import Item, Sample, Verdict
from pipeline.spec import JobSpec
from strategies.base import PLAIN, Draw

Key = tuple[str, int]
"""A sample of a question: prompt key and sample index."""
Embed = Callable[[Sequence[str]], Awaitable[list[tuple[float, ...]]]]


async def no_embedder(texts: Sequence[str]) -> list[tuple[float, ...]]:
    """Raises EngineError: nobody asked for an embedder."""
    raise EngineError("this worker embeds no texts")


@dataclass
class Terms:
    """What a session needs of the worker it runs in; the worker is behind these callables and nothing else."""

    spec: JobSpec
    cost: CostModel
    submit: Callable[[Ask], None]
    cancel: Callable[[str], None]
    prior_tokens: Callable[[str], float]
    """Units a sample is expected to cost before the question has any of its own; by model."""
    prepare: Prepare
    checks: CheckTerms
    writer: str = ""
    ahead: Callable[[str], int] = lambda model: 0
    """How many samples of a model may be drawn before they are needed."""
    experience: Callable[[], Experience] = dict
    decided: Callable[[int, str, str, str], None] = lambda shard_id, item_id, name, choice: None
    """Make a decision durable, soon: shard id, item id, name, choice."""
    embed: Embed = no_embedder


@dataclass
class QuestionSession:
    """The ``Session`` of one question. ``journal`` maps (prompt_key, sample_index) to samples already paid for."""

    item: Item
    shard_id: int
    terms: Terms
    journal: Mapping[Key, Sample]
    min_value: float = 0.0
    attempt: int = 0
    most: int = 0
    """No sample past this many is drawn ahead."""
    decisions: dict[str, str] = field(default_factory=dict)
    """What was decided of this question before, by name."""
    shared: Mapping[Key, Sample] = field(default_factory=dict)
    """Samples that other runs generated; they are bid for and paid like any other."""
    drawn: list[Sample] = field(default_factory=list)
    lessons: dict[Subject, Lesson] = field(default_factory=dict)
    """What it has to teach the others, once it has its outcome."""
    price: float = 0.0
    _costs: dict[str, ExpectedTokens] = field(default_factory=dict)
    _next: dict[str, int] = field(default_factory=dict)
    _open: list[Ask] = field(default_factory=list)
    _ahead: dict[Key, Ask] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._ways = Ways(self.terms.spec, self.item, self.terms.prepare)
        self._checks = Checks(self.item, self.shard_id, self.terms.checks, self.terms.writer)

    @property
    def rng(self) -> random.Random:
        """Randomness that depends on the run's seed and the item alone."""
        return random.Random(f"{self.terms.spec.seed}/{self.item.item_id}")

    def expected_tokens(self, draw: Draw = PLAIN, *, check: str | None = None) -> float:
        """See ``budgets.value.ExpectedTokens``; samples of one model are taken to be alike."""
        generating = self._cost_of(draw.model).mean(self.terms.prior_tokens(draw.model))
        return generating if check is None else generating + self._checks.expected(check)

    async def sample(self, n: int = 1, *, value: float, draw: Draw = PLAIN) -> list[Sample]:
        """See ``strategies.base.Session.sample``."""
        return await self.sample_each([draw] * n, value=value)

    async def sample_each(self, draws: Sequence[Draw], *, value: float) -> list[Sample]:
        """See ``strategies.base.Session.sample_each``."""
        ways = [self._ways.of(draw) for draw in draws]
        indices = self._indices(ways)
        found: list[Sample | None] = [
            self.journal.get((way.key, index)) for way, index in zip(ways, indices, strict=True)
        ]
        missing = [at for at, sample in enumerate(found) if sample is None]
        # What is paid for is handed out at any price: a strategy that is re-executed finds what it found before.
        denied = BudgetDenied(self.min_value) if missing and value < self.min_value else None
        asks = {at: self._needed(ways[at], indices[at], value) for at in missing if denied is None}
        self._open += asks.values()
        # A begun completion is continued once or twice: no further one is worth drawing ahead of need.
        if asks and math.isfinite(value) and len(set(ways)) == 1 and not ways[-1].draw.prefix:
            self._draw_ahead(ways[-1], indices[-1] + 1, value)
        try:
            results = await asyncio.gather(*(ask.paid for ask in asks.values()), return_exceptions=True)
        finally:
            self._give_up(list(asks.values()))
        for at, result in zip(asks, results, strict=True):
            if isinstance(result, BudgetDenied):
                denied = result
            elif isinstance(result, BaseException):
                raise result
            else:
                found[at] = result
        samples = []
        for sample in found:
            if sample is None:
                break
            samples.append(sample)
        if denied is not None:
            self.price = denied.price
            if not samples:
                raise denied
        for way, index in zip(ways[: len(samples)], indices, strict=False):
            self._next[way.key] = index + 1
        self.drawn.extend(samples)
        for sample in samples:
            self._cost_of(sample.model).add(self.terms.cost.of(sample))
        return samples

    async def verify(
        self, samples: Sequence[Sample], verifier: str, *, value: float, given: Sequence[str] = ()
    ) -> list[Verdict]:
        """See ``strategies.base.Session.verify``."""
        own = {(sample.prompt_key, sample.sample_index): sample for sample in self.drawn}
        named = [own.get((sample.prompt_key, sample.sample_index), sample) for sample in samples]
        try:
            verdicts = await self._checks.verify(named, verifier, value, self.drawn, given)
        except BudgetDenied as denied:
            self.price = denied.price
            raise
        said = {(s.prompt_key, s.sample_index): verdict for s, verdict in zip(samples, verdicts, strict=True)}
        for at, sample in enumerate(self.drawn):
            verdict = said.get((sample.prompt_key, sample.sample_index))
            if verdict is not None:
                self.drawn[at] = with_verdict(sample, verdict)
        return verdicts

    def mark(self, samples: Sequence[Sample], verdict: Verdict) -> None:
        """Put ``verdict`` where nothing was said of these samples by its verifier; it is not journalled."""
        keys = {(sample.prompt_key, sample.sample_index) for sample in samples}
        for at, sample in enumerate(self.drawn):
            if (sample.prompt_key, sample.sample_index) in keys and said_by(sample, verdict.verifier) is None:
                self.drawn[at] = with_verdict(sample, verdict)

    async def embed(self, texts: Sequence[str]) -> list[tuple[float, ...]]:
        """See ``strategies.base.Session.embed``."""
        return await self.terms.embed(texts)

    async def decide(self, name: str, choose: Callable[[Experience], str]) -> str:
        """See ``strategies.base.Session.decide``."""
        if name not in self.decisions:
            self.decisions[name] = choose(self.terms.experience())
            self.terms.decided(self.shard_id, self.item.item_id, name, self.decisions[name])
        return self.decisions[name]

    def learn(self, name: str, option: str, reward: float, cost: float) -> None:
        """See ``strategies.base.Session.learn``."""
        self.lessons[(name, option)] = outcome(reward, cost)

    async def finish(self) -> None:
        """The question has its outcome: withdraw what was asked for ahead of need, cut what runs, wait for its cost."""
        ahead, self._ahead = list(self._ahead.values()), {}
        for ask in ahead:
            if not ask.request_id:
                ask.paid.cancel()
            elif not ask.paid.done():
                self.terms.cancel(ask.request_id)
        await asyncio.gather(*(ask.paid for ask in ahead if ask.request_id), return_exceptions=True)

    def cancel(self) -> None:
        """Abort what is in flight; asks still waiting at the desk are withdrawn by the awaiting call."""
        for ask in self._open:
            if ask.request_id and not ask.paid.done():
                self.terms.cancel(ask.request_id)

    def _cost_of(self, model: str) -> ExpectedTokens:
        return self._costs.setdefault(model, ExpectedTokens())

    def _indices(self, ways: Sequence[Way]) -> list[int]:
        """The next sample index of each way; those an interruption of the run cut are passed over: nobody chose it."""
        ahead: Counter[str] = Counter()
        indices: list[int] = []
        for way in ways:
            index = self._next.get(way.key, 0) if way.key not in ahead else ahead[way.key]
            while (known := self.journal.get((way.key, index))) is not None and known.finish_reason == "interrupted":
                index += 1
            indices.append(index)
            ahead[way.key] = index + 1
        return indices

    def _needed(self, way: Way, index: int, value: float) -> Ask:
        """The ask for a sample that is needed now; one drawn ahead that already runs serves."""
        early = self._ahead.pop((way.key, index), None)
        if early is not None:
            failed = early.paid.done() and (early.paid.cancelled() or early.paid.exception() is not None)
            if early.request_id and not failed:
                early.ahead = False
                return early
            early.paid.cancel()
        ask = self._ask(way, index, value)
        self.terms.submit(ask)
        return ask

    def _draw_ahead(self, way: Way, start: int, value: float) -> None:
        for step in range(self.terms.ahead(way.draw.model)):
            place = (way.key, start + step)
            if place[1] >= self.most or place in self.journal or place in self._ahead:
                continue
            # Each is less likely to be needed than the one before it.
            ask = self._ask(way, place[1], value * 0.5 ** (step + 1))
            ask.ahead = True
            # A refusal of what nobody needs yet is nobody's to handle.
            ask.paid.add_done_callback(lambda paid: paid.cancelled() or paid.exception())
            self._ahead[place] = ask
            self.terms.submit(ask)

    def _ask(self, way: Way, index: int, value: float) -> Ask:
        future: asyncio.Future[Sample] = asyncio.get_running_loop().create_future()
        return Ask(
            bid=value,
            worst=self.terms.cost.worst(len(way.prompt.token_ids), way.max_tokens, way.draw.model),
            item=self.item,
            shard_id=self.shard_id,
            sample_index=index,
            prompt=way.prompt,
            prompt_key=way.key,
            draw=way.draw,
            attempt=self.attempt,
            paid=future,
            found=self.shared.get((way.key, index)),
            warm=self._charged_prompt(way.key, index),
        )

    def _charged_prompt(self, key: str, index: int) -> int:
        """Tokens of a way's prompt that count as cached, since they were charged with samples of other runs."""
        served = [sample for (asked, at), sample in self.shared.items() if asked == key and at < index]
        generated = any(asked == key and not sample.origin for (asked, _), sample in self.journal.items())
        return charged_prompt(served, generated) if served else 0

    def _give_up(self, asks: Sequence[Ask]) -> None:
        """The strategy went away in mid-call: withdraw what waits, abort what runs. Nothing to do otherwise."""
        for ask in asks:
            # Cancelling a gather cancels what it waits for: a cancelled future is a sample nobody wants any more.
            if ask.request_id and (ask.paid.cancelled() or not ask.paid.done()):
                self.terms.cancel(ask.request_id)
            ask.paid.cancel()
        gone = set(map(id, asks))
        self._open = [ask for ask in self._open if id(ask) not in gone]
