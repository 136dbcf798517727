"""Samples of one worker: wanted, paid for, generated, journalled.

Plain asyncio: no Ray. Invariants:

- a sample, or a check that costs, is dispatched only after its worst case was reserved in the wallet, and only the
  best bid of those whose engine has a free slot; an engine that is full keeps nothing of another's waiting
- a sample reaches the journal whether or not its question still wants it
- from the deadline on nothing starts, and what runs is cut

Owns the till and what runs in the engines, one a model. Knows no shard's questions: ``landed`` is told of every sample.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator

from actors.desk import Ask, Check
from actors.engines.base import Completion, Request
from actors.life import Life
from actors.siblings import completion_of
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
    """Keeps the engines' slots full with the best bids that the wallet can pay."""

    def __init__(self, life: Life, landed: Callable[[int, Sample], None]) -> None:
        self._life, self._fleet, self._landed = life, life.fleet, landed
        self._extract = make_extractor(life.spec.answer)
        self._canonical = canonical_for(life.spec.answer)
        self._running: dict[str, Ask | Check] = {}
        self._generating: dict[asyncio.Task[None], str] = {}
        self._started = 0
        self._halted = False
        self._hurry = False
        self.expired = False
        self.till = Till[Ask | Check]()
        self.samples = 0
        """Samples that landed so far."""
        self._costs: defaultdict[str, ExpectedTokens] = defaultdict(ExpectedTokens)
        """By model: units a sample of this worker cost so far."""
        self._taken: Counter[str] = Counter()
        """By model: slots in use."""

    def prior(self, model: str) -> float:
        """Units a sample is expected to cost, by what this worker's samples of that model cost so far.

        Of a further model nothing is known at first: its samples are taken to be as long as the main model's. The worst
        case in their place would outbid nobody, and so nothing would ever be learnt.
        """
        cost, most = self._life.cost, self._life.spec.sampling.max_tokens
        worst = cost.worst(0, most)
        main = self._costs[""].mean(worst)
        return self._costs[model].mean(main * cost.worst(0, most, model) / worst) if model else main

    @property
    def inflight(self) -> int:
        """Samples running."""
        return len(self._running)

    @property
    def idle_slots(self) -> int:
        """Samples the engines could start now."""
        return sum(map(self._room, self._fleet.models))

    @property
    def useful_slots(self) -> int:
        """Those of the idle slots that what waits at the desk could take; all of them where nothing waits."""
        waiting = self.till.desk.waiting
        return sum(map(self._room, waiting)) if waiting else self.idle_slots

    def submit(self, ask: Ask | Check) -> None:
        """Put a wanted sample, or a check that costs, on the desk."""
        if self.expired:
            ask.paid.set_exception(BudgetDenied(math.inf))
            return
        self.till.desk.add(ask, _lane(ask))
        if self._room(_lane(ask)) > 0:
            asyncio.get_running_loop().call_soon(self.pump)

    def cancel(self, request_id: str) -> None:
        """Cut a running sample; it comes back as aborted."""
        ask = self._running.get(request_id)
        if isinstance(ask, Ask):
            self._fleet.engine(ask.draw.model).cancel(request_id)

    def ahead(self, model: str) -> int:
        """How many samples of a model one question may draw before it needs them: its share of slots that would idle.

        None unless time is scarcer than tokens: what is drawn ahead and then not needed is paid for all the same.
        """
        if not self._hurry or self.expired or self._halted:
            return 0
        spare = self._room(model) - self.till.desk.waiting.get(model, 0)
        return max(0, min(_AHEAD_MOST, spare // (self._taken[model] + 1)))

    def apply(self, reply: Reply) -> None:
        """Take grants, price and refusals from the allocator."""
        self.till.apply(reply)
        self._hurry = reply.hurry
        if reply.expired:
            self._expire()

    def pump(self) -> None:
        """Start the best bids, at the price or above it, while slots and money last."""
        while not self._halted and (lanes := self._open()):
            ask = self.till.start(lanes)
            if ask is None:
                if not lanes.isdisjoint(self.till.desk.waiting):
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
            self._taken[_lane(ask)] += 1
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
        lanes = {_place(ask): _lane(ask) for ask in asks if _place(ask) not in running}
        free = Counter({model: self._room(model) for model in self._fleet.models})
        left = []
        for place, lane in reversed(lanes.items()):
            free[lane] -= 1
            if free[lane] < 0:
                left.append(place)
        return left[::-1]

    def waiting(self) -> Iterator[tuple[int, str]]:
        """As many questions as ``queued`` has, one by one and in no order: for a count that may stop early."""
        if self._halted or self.expired:
            return
        seen = {_place(ask) for ask in self._running.values()}
        free = {model: self._room(model) for model in self._fleet.models}
        for ask in self.till.desk:
            if ask.bid < self.till.price or ask.ahead or ask.paid.done() or (place := _place(ask)) in seen:
                continue
            seen.add(place)
            lane = _lane(ask)
            if free.get(lane, 0) > 0:
                free[lane] -= 1
            else:
                yield place

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
            self.cancel(request_id)

    def _room(self, lane: str) -> int:
        """Slots of a model that are free; none of one that is not loaded."""
        if lane not in self._fleet.models:
            return 0
        return max(0, self._fleet.engine(lane).capacity - self._taken[lane])

    def _open(self) -> set[str]:
        """Models that could start a sample now.

        Until one sample has landed, only one runs: it fills the prefix cache for all that share its beginning.

        Meant to spare prompts that share a beginning from being computed side by side. What it saves is not shown: two
        noisy runs of the example job drew 1,473 samples without it and 1,500 with it from 60,000 tokens.
        """
        return {
            model
            for model in self._fleet.models
            if self._room(model) > 0 and (self._costs[model].count > 0 or not self._taken[model])
        }

    def _release(self, ask: Ask | Check) -> None:
        del self._running[ask.request_id]
        self._taken[_lane(ask)] -= 1

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
            self._release(ask)
            if not ask.paid.done():
                ask.paid.set_exception(BudgetDenied(math.inf))
            asyncio.get_running_loop().call_soon(self.pump)

    async def _generate(self, ask: Ask) -> None:
        began = time.monotonic()
        request = _request(ask)
        try:
            if ask.found is not None:
                completion = completion_of(ask.found, ask.draw.prefix)
            else:
                completion = await self._fleet.engine(ask.draw.model).generate(request)
        except RequestRejected as error:
            self.till.wallet.settle(ask.worst, 0)
            self._release(ask)
            if not ask.paid.done():
                ask.paid.set_exception(error)
            self.pump()
            return
        sample = self._sample(ask, completion, time.monotonic() - began)
        used = self._life.cost.of(sample)
        self.till.wallet.settle(ask.worst, used)
        self._release(ask)
        self.samples += 1
        self._costs[ask.draw.model].add(used)
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
        cached = completion.cached_prompt_tokens
        if ask.found is None:
            cached = max(cached, min(ask.warm, completion.prompt_tokens))
        return Sample(
            item_id=ask.item.item_id,
            sample_index=ask.sample_index,
            prompt_key=ask.prompt_key,
            text=text,
            answer=None if cut else self._canonical(self._extract(text)),
            prompt_tokens=completion.prompt_tokens,
            cached_prompt_tokens=cached,
            completion_tokens=completion.completion_tokens,
            mean_logprob=completion.mean_logprob,
            min_group_confidence=completion.min_group_confidence,
            finish_reason=self._end(ask) if aborted else completion.finish_reason,
            attempt=ask.attempt,
            seconds=seconds,
            writer=self._life.name,
            model=ask.draw.model,
            origin=ask.found.origin if ask.found is not None else "",
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
        group=draw.group,
    )


def _place(ask: Ask | Check) -> tuple[int, str]:
    return ask.shard_id, ask.item.item_id


def _lane(ask: Ask | Check) -> str:
    """Whose slot it takes: its model's; a check takes one of the main model's."""
    return ask.draw.model if isinstance(ask, Ask) else ""
