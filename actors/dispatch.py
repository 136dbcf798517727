"""Samples of one worker: wanted, paid for, generated, journalled.

Plain asyncio: no Ray. Invariants:

- a sample, or a check that costs, is dispatched only after its worst case was reserved in the wallet, and only the
  best bid is dispatched
- a sample reaches the journal whether or not its question still wants it
- from the deadline on nothing starts, and what runs is cut

Owns the till and what runs in the engine. Knows no shard's questions: ``landed`` is told of every sample.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Collection

from actors.desk import Ask, Check
from actors.engines.base import Completion, Request
from actors.life import Life
from actors.till import Till
from budgets.messages import Reply
from budgets.value import ExpectedTokens
from pipeline.errors import BudgetDenied, RequestRejected
from pipeline.records import CUT, Sample
from verifiers.canonical import canonical_for
from verifiers.extract import make_extractor

# How long aborted samples may take to come back with what they cost.
_ABORT_SECONDS = 5.0
# Samples of one question drawn ahead of need: past these few the vote has mostly stopped before they are looked at.
_AHEAD_MOST = 8


class Dispatch:
    """Keeps the engine's slots full with the best bids that the wallet can pay."""

    def __init__(self, life: Life, landed: Callable[[int, Sample], None]) -> None:
        self._life, self._engine, self._landed = life, life.engine, landed
        self._extract = make_extractor(life.spec.answer)
        self._canonical = canonical_for(life.spec.answer)
        self._running: dict[str, Ask | Check] = {}
        self._generating: dict[asyncio.Task[None], str] = {}
        self._started = 0
        self._halted = False
        self._hurry = False
        self.expired = False
        self.till = Till[Ask | Check]()
        self.costs = ExpectedTokens()
        """Units a sample of this worker cost so far."""

    def prior(self, model: str) -> float:
        """Units a sample is expected to cost, by what this worker's samples of that model cost so far."""
        worst = self._life.cost.worst(0, self._life.spec.sampling.max_tokens)
        return self.costs.mean(worst)

    @property
    def inflight(self) -> int:
        """Samples running."""
        return len(self._running)

    @property
    def idle_slots(self) -> int:
        """Samples the engine could start now."""
        return max(0, self._engine.capacity - len(self._running))

    def submit(self, ask: Ask | Check) -> None:
        """Put a wanted sample, or a check that costs, on the desk."""
        if self.expired:
            ask.paid.set_exception(BudgetDenied(math.inf))
            return
        self.till.desk.add(ask)
        if self.idle_slots > 0:
            asyncio.get_running_loop().call_soon(self.pump)

    def cancel(self, request_id: str) -> None:
        """Cut a running sample; it comes back as aborted."""
        self._engine.cancel(request_id)

    def ahead(self) -> int:
        """How many samples one question may draw before it needs them: its share of slots that would stand idle.

        None unless time is scarcer than tokens: what is drawn ahead and then not needed is paid for all the same.
        """
        if not self._hurry or self.expired or self._halted:
            return 0
        spare = self.idle_slots - len(self.till.desk)
        return max(0, min(_AHEAD_MOST, spare // (len(self._running) + 1)))

    def apply(self, reply: Reply) -> None:
        """Take grants, price and refusals from the allocator."""
        self.till.apply(reply)
        self._hurry = reply.hurry
        if reply.expired:
            self._expire()

    def pump(self) -> None:
        """Start the best bids, at the price or above it, while slots and money last."""
        while self.idle_slots > 0 and not self._halted and not self._warming():
            ask = self.till.start()
            if ask is None:
                if self.till.desk:
                    self._life.tasks.wake.set()
                return
            self._started += 1
            if isinstance(ask, Check):
                ask.request_id = f"{self._life.name}/check/{self._started}"
                work = self._check(ask)
            else:
                ask.request_id = f"{self._life.name}/{ask.item.item_id}/{ask.prompt_key}/{ask.sample_index}"
                work = self._generate(ask)
            self._running[ask.request_id] = ask
            generating = self._life.tasks.spawn(work)
            self._generating[generating] = ask.request_id
            generating.add_done_callback(self._generating.pop)

    def halt(self) -> None:
        """Start nothing more; what is cut from now on was interrupted, not cut by a strategy."""
        self._halted = True

    def queued(self) -> list[tuple[int, str]]:
        """Questions (shard id, item id) that wait for a slot, not for money, with nothing in the engine; best last.

        As many of the best as slots are free now are left out. Empty once nothing starts any more.
        """
        if self._halted or self.expired:
            return []
        running = {_place(ask) for ask in self._running.values()}
        asks = [ask for ask in self.till.desk if ask.bid >= self.till.price and not ask.paid.done() and not ask.ahead]
        asks.sort(key=lambda ask: ask.bid)
        places = [place for place in dict.fromkeys(map(_place, asks)) if place not in running]
        return places[: max(0, len(places) - self.idle_slots)]

    def interrupt(self, places: Collection[tuple[int, str]]) -> None:
        """Cut what runs for these questions: the run does it, not their strategy."""
        for request_id, ask in self._running.items():
            if _place(ask) in places:
                ask.interrupted = True
                self._cut(request_id)

    async def gone(self, places: Collection[tuple[int, str]]) -> None:
        """Return when nothing runs for these questions."""
        while self._generating and any(_place(ask) in places for ask in self._running.values()):
            await asyncio.wait(self._generating, return_when=asyncio.FIRST_COMPLETED)

    async def put_down(self) -> None:
        """The life ends, however it does: abort what runs, as interrupted, and wait for what it cost."""
        self.halt()
        for request_id in list(self._running):
            self._cut(request_id)
        if self._generating:
            await asyncio.wait(self._generating, timeout=_ABORT_SECONDS)

    def _expire(self) -> None:
        self.expired = True
        self.till.desk.deny_all()
        for request_id in list(self._running):
            self._cut(request_id)

    def _cut(self, request_id: str) -> None:
        if isinstance(self._running[request_id], Check):
            for task, running in self._generating.items():
                if running == request_id:
                    task.cancel()
        else:
            self._engine.cancel(request_id)

    def _warming(self) -> bool:
        """Until one sample has landed, only one runs: it fills the prefix cache for all that share its beginning.

        Meant to spare prompts that share a beginning from being computed side by side. What it saves is not shown: two
        noisy runs of the example job drew 1,473 samples without it and 1,500 with it from 60,000 tokens.
        """
        return self.costs.count == 0 and bool(self._running)

    async def _check(self, ask: Check) -> None:
        """Make a check that was paid for. Cut, nobody knows what it had cost: its worst is spent and journalled."""
        used = ask.worst
        try:
            verdicts = await ask.run()
            used = sum(map(self._life.cost.of_verdict, verdicts))
            if not ask.paid.done():
                ask.paid.set_result(verdicts)
        finally:
            self.till.wallet.settle(ask.worst, used)
            del self._running[ask.request_id]
            if not ask.paid.done():
                ask.paid.set_exception(BudgetDenied(math.inf))
            asyncio.get_running_loop().call_soon(self.pump)

    async def _generate(self, ask: Ask) -> None:
        began = time.monotonic()
        request = _request(ask)
        try:
            completion = await self._engine.generate(request)
        except RequestRejected as error:
            self.till.wallet.settle(ask.worst, 0)
            del self._running[ask.request_id]
            if not ask.paid.done():
                ask.paid.set_exception(error)
            self.pump()
            return
        sample = self._sample(ask, completion, time.monotonic() - began)
        used = self._life.cost.of(sample)
        self.till.wallet.settle(ask.worst, used)
        del self._running[ask.request_id]
        self.costs.add(used)
        self._life.log.add(ask.shard_id, sample)
        self._landed(ask.shard_id, sample)
        if not ask.paid.done():
            if self.expired and sample.aborted:
                ask.paid.set_exception(BudgetDenied(math.inf))
            else:
                ask.paid.set_result(sample)
        # The question's next ask, if any, must be at the desk before the slot is given away.
        asyncio.get_running_loop().call_soon(self.pump)

    def _sample(self, ask: Ask, completion: Completion, seconds: float) -> Sample:
        aborted = completion.finish_reason == "abort"
        cut = completion.finish_reason in CUT
        text = ask.draw.prefix + completion.text
        return Sample(
            item_id=ask.item.item_id,
            sample_index=ask.sample_index,
            prompt_key=ask.prompt_key,
            text=text,
            answer=None if cut else self._canonical(self._extract(text)),
            prompt_tokens=completion.prompt_tokens,
            cached_prompt_tokens=completion.cached_prompt_tokens,
            completion_tokens=completion.completion_tokens,
            mean_logprob=completion.mean_logprob,
            min_group_confidence=completion.min_group_confidence,
            finish_reason=self._end(ask) if aborted else completion.finish_reason,
            attempt=ask.attempt,
            seconds=seconds,
            writer=self._life.name,
            model=ask.draw.model,
        )

    def _end(self, ask: Ask) -> str:
        """Why a sample was cut: the run did it, or the strategy; only what a strategy cut keeps its place in a vote."""
        return "interrupted" if self._halted or self.expired or ask.ahead or ask.interrupted else "abort"


def _request(ask: Ask) -> Request:
    draw = ask.draw
    assert draw.temperature is not None, "a session resolves the temperature"
    return Request(
        request_id=ask.request_id,
        prompt=ask.prompt,
        temperature=draw.temperature,
        sample_index=ask.sample_index,
        item_id=ask.item.item_id,
        top_p=draw.top_p,
        min_p=draw.min_p,
        max_tokens=draw.max_tokens,
        cut_below=draw.cut_below,
    )


def _place(ask: Ask | Check) -> tuple[int, str]:
    return ask.shard_id, ask.item.item_id
