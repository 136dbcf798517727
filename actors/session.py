"""A question's session: the journal first, then the desk.

Keeps the strategy's promise of determinism: samples are handed out in index order and numbered by the session alone,
so that a strategy re-executed over the same journal sees the same samples at the same points. Where slots would stand
idle and time is short, the next samples are drawn ahead of need; they are handed out in their turn, and those still
running when the question ends are cut.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from actors.desk import Ask
from actors.engines.base import Prompt
from budgets.cost import CostModel
from budgets.value import ExpectedTokens
from pipeline.errors import BudgetDenied
from pipeline.records import Item, Sample
from pipeline.spec import JobSpec


def prompt_key(spec: JobSpec, prompt: Prompt, temperature: float) -> str:
    """Hash of everything that shapes a sample: the prompt as the model sees it, the model, and how it is sampled."""
    asked = {
        "prompt": prompt.text,
        "model": [spec.model.name, spec.model.revision, spec.model.tokenizer, spec.model.dtype],
        "sampling": spec.sampling.model_dump() | {"temperature": temperature},
    }
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


@dataclass
class Terms:
    """What a session needs of the worker it runs in; the worker is behind these callables and nothing else."""

    spec: JobSpec
    cost: CostModel
    submit: Callable[[Ask], None]
    cancel: Callable[[str], None]
    prior_tokens: Callable[[], float]
    ahead: Callable[[], int] = lambda: 0
    """How many samples may be drawn before they are needed."""


@dataclass
class QuestionSession:
    """The ``Session`` of one question. ``journal`` maps (prompt_key, sample_index) to samples already paid for."""

    item: Item
    prompt: Prompt
    shard_id: int
    terms: Terms
    journal: Mapping[tuple[str, int], Sample]
    min_value: float = 0.0
    attempt: int = 0
    most: int = 0
    """No sample past this many is drawn ahead."""
    drawn: list[Sample] = field(default_factory=list)
    price: float = 0.0
    _cost: ExpectedTokens = field(default_factory=ExpectedTokens)
    _next: dict[str, int] = field(default_factory=dict)
    _open: list[Ask] = field(default_factory=list)
    _ahead: dict[tuple[str, int], Ask] = field(default_factory=dict)

    @property
    def rng(self) -> random.Random:
        """Randomness that depends on the run's seed and the item alone."""
        return random.Random(f"{self.terms.spec.seed}/{self.item.item_id}")

    @property
    def expected_tokens(self) -> float:
        """See ``budgets.value.ExpectedTokens``."""
        return self._cost.mean(self.terms.prior_tokens())

    async def sample(self, n: int = 1, *, value: float, temperature: float | None = None) -> list[Sample]:
        """See ``strategies.base.Session.sample``."""
        heat = self.terms.spec.sampling.temperature if temperature is None else temperature
        key = prompt_key(self.terms.spec, self.prompt, heat)
        indices = self._indices(key, n)
        found: list[Sample | None] = [self.journal.get((key, index)) for index in indices]
        missing = [i for i, sample in enumerate(found) if sample is None]
        if missing and value < self.min_value:
            raise BudgetDenied(self.min_value)
        asks = {i: self._needed(key, indices[i], heat, value) for i in missing}
        self._open = list(asks.values())
        if missing and math.isfinite(value):
            self._draw_ahead(key, indices[-1] + 1, heat, value)
        denied: BudgetDenied | None = None
        try:
            results = await asyncio.gather(*(ask.paid for ask in self._open), return_exceptions=True)
        finally:
            self._give_up()
        for i, result in zip(asks, results, strict=True):
            if isinstance(result, BudgetDenied):
                denied = result
            elif isinstance(result, BaseException):
                raise result
            else:
                found[i] = result
        samples = []
        for sample in found:
            if sample is None:
                break
            samples.append(sample)
        if denied is not None:
            self.price = denied.price
            if not samples:
                raise denied
        if samples:
            self._next[key] = samples[-1].sample_index + 1
        self.drawn.extend(samples)
        for sample in samples:
            self._cost.add(self.terms.cost.of(sample))
        return samples

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

    def _indices(self, key: str, n: int) -> list[int]:
        """The next ``n`` sample indices; those cut by an interruption of the run are passed over, nobody chose to."""
        indices: list[int] = []
        index = self._next.get(key, 0)
        while len(indices) < n:
            known = self.journal.get((key, index))
            if known is None or known.finish_reason != "interrupted":
                indices.append(index)
            index += 1
        return indices

    def _needed(self, key: str, index: int, temperature: float, value: float) -> Ask:
        """The ask for a sample that is needed now; one drawn ahead that already runs serves."""
        early = self._ahead.pop((key, index), None)
        if early is not None:
            failed = early.paid.done() and (early.paid.cancelled() or early.paid.exception() is not None)
            if early.request_id and not failed:
                early.ahead = False
                return early
            early.paid.cancel()
        ask = self._ask(key, index, temperature, value)
        self.terms.submit(ask)
        return ask

    def _draw_ahead(self, key: str, start: int, temperature: float, value: float) -> None:
        for step in range(self.terms.ahead()):
            index = start + step
            if index >= self.most or (key, index) in self.journal or (key, index) in self._ahead:
                continue
            # Each is less likely to be needed than the one before it.
            ask = self._ask(key, index, temperature, value * 0.5 ** (step + 1))
            ask.ahead = True
            # A refusal of what nobody needs yet is nobody's to handle.
            ask.paid.add_done_callback(lambda paid: paid.cancelled() or paid.exception())
            self._ahead[(key, index)] = ask
            self.terms.submit(ask)

    def _ask(self, key: str, index: int, temperature: float, value: float) -> Ask:
        worst = self.terms.cost.worst(len(self.prompt.token_ids), self.terms.spec.sampling.max_tokens)
        future: asyncio.Future[Sample] = asyncio.get_running_loop().create_future()
        return Ask(
            bid=value,
            worst=worst,
            item=self.item,
            shard_id=self.shard_id,
            sample_index=index,
            prompt=self.prompt,
            prompt_key=key,
            temperature=temperature,
            attempt=self.attempt,
            paid=future,
        )

    def _give_up(self) -> None:
        """The strategy went away in mid-call: withdraw what waits, abort what runs. Nothing to do otherwise."""
        for ask in self._open:
            # Cancelling a gather cancels what it waits for: a cancelled future is a sample nobody wants any more.
            if ask.request_id and (ask.paid.cancelled() or not ask.paid.done()):
                self.terms.cancel(ask.request_id)
            ask.paid.cancel()
        self._open = []
