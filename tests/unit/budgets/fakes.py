"""A tiny deterministic cluster: workers that follow ``budgets.messages`` over a network that may misbehave."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from budgets.curve import DemandCurve, Pairs
from budgets.market import Market
from budgets.messages import Borrowed, Lent, Loan, Reply, ShardState, WorkerReport
from budgets.votes import Tally
from budgets.wallet import Wallet
from tests.unit.budgets.fake_world import EXPECTED, FakeItem, Guests, LocalShard, Question, World


class FakeWorker:
    """One worker life."""

    def __init__(self, life: str, world: World, rng: random.Random, slots: int = 4, window: int = 6) -> None:
        self.life, self.world, self.rng, self.slots, self.window = life, world, rng, slots, window
        self.wallet = Wallet()
        self.seq = self.applied = 0
        self.price = 0.0
        self.shards: dict[int, LocalShard] = {}
        self.waiting: dict[str, Question] = {}
        self.running: dict[str, Question] = {}
        self.done = self.reset = False
        self.to_lend: dict[str, int] = {}
        self.lent: dict[str, Lent] = {}
        self.lent_items: dict[str, tuple[str, ...]] = {}
        self.was_lent: set[str] = set()
        self.borrowed: dict[str, Guests] = {}

    @property
    def working_on(self) -> set[str]:
        """Questions this life may draw samples for."""
        return set(self.waiting) | set(self.running)

    def step(self) -> None:
        for name in list(self.running):
            if self.rng.random() < 0.5:
                self._land(self.running.pop(name))
        self._admit()
        for loan_id, count in list(self.to_lend.items()):
            if self.rng.random() < 0.5:
                del self.to_lend[loan_id]
                self._withdraw(loan_id, count)
        for question in sorted(self.waiting.values(), key=lambda q: (-q.bid, q.item.item_id)):
            startable = len(self.running) < self.slots and question.bid >= self.price
            if startable and self.wallet.reserve(question.item.worst):
                self.running[question.item.item_id] = self.waiting.pop(question.item.item_id)
        keep = min(sum(q.item.worst for q in self.waiting.values() if q.bid >= self.price), 20)
        self.wallet.take_settlements(keep if self.running else 0)

    def report(self) -> WorkerReport:
        self.seq += 1
        worsts = [q.item.worst for q in self.waiting.values()]
        curve = DemandCurve()
        for question in self.waiting.values():
            curve.add(question.bid, question.item.worst)
        backlog = sum(len(s.todo) + len(s.open) for s in self.shards.values())
        return WorkerReport(
            worker=self.life,
            seq=self.seq,
            acked_grants=self.wallet.held_grants,
            settlements=self.wallet.settlements,
            spent=self.wallet.spent,
            free=self.wallet.free,
            demand=curve.to_pairs(),
            smallest_worst=min(worsts, default=0),
            worst=max(worsts, default=0),
            inflight=len(self.running),
            capacity=self.slots - len(self.running),
            shards=tuple(self._state(shard) for shard in self.shards.values()),
            wants_shards=1 if backlog < self.window else 0,
            lendable=max(0, len(self._lendable()) - (self.slots - len(self.running))),
            borrows=0 if self.waiting else max(0, self.slots - max(len(self.running), self._unlent(backlog))),
            lent=tuple(self.lent.values()),
            borrowed=tuple(Borrowed(loan_id, held.returned) for loan_id, held in self.borrowed.items()),
        )

    def _unlent(self, backlog: int) -> int:
        return backlog - sum(len(items) for items in self.lent_items.values())

    def _lendable(self) -> list[Question]:
        return [q for q in self.waiting.values() if q.bid >= self.price and q.item.item_id in self._lending_of()]

    def _lending_of(self) -> dict[str, int]:
        """Own questions that were not lent yet, and their shards."""
        return {name: s for s, shard in self.shards.items() for name in shard.open if name not in self.was_lent}

    def _withdraw(self, loan_id: str, count: int) -> None:
        shard_of = self._lending_of()
        names = [question.item.item_id for question in self._lendable()]
        shard_id = shard_of[names[0]] if names else 0
        names = [name for name in names if shard_of[name] == shard_id][:count]
        for name in names:
            del self.waiting[name]
        self.was_lent.update(names)
        self.world.lent.update(names)
        self.lent_items[loan_id] = tuple(names)
        self.lent[loan_id] = Lent(loan_id, shard_id, tuple(names))

    def _host(self, loan: Loan) -> None:
        held = self.borrowed[loan.loan_id] = Guests(loan, set(loan.items), loan.dropped)
        items = {item.item_id: item for item in self.world.shards[loan.shard_id]}
        for name in loan.items:
            question = self._replay(items[name])
            if question.settled or question.bid < loan.min_value:
                held.open.discard(name)
            else:
                self.waiting[name] = question
        held.returned = not held.open

    def _loans(self, reply: Reply) -> None:
        for request in reply.lend:
            if request.loan_id not in self.lent:
                self.to_lend.setdefault(request.loan_id, request.count)
        asked = {request.loan_id for request in reply.lend}
        for loan_id, lent in self.lent.items():
            if loan_id not in asked and lent.items:
                self.lent[loan_id] = Lent(loan_id, lent.shard_id, None)
        for loan_id in reply.back:
            if loan_id in self.lent:
                self._resume(self.lent.pop(loan_id))
        for loan in reply.borrow:
            if loan.loan_id not in self.borrowed:
                self._host(loan)
            elif loan.dropped:
                self._drop(self.borrowed[loan.loan_id])
        named = {loan.loan_id for loan in reply.borrow}
        for loan_id, held in list(self.borrowed.items()):
            if loan_id not in named:
                assert held.returned, "the market forgot a loan that is out"
                del self.borrowed[loan_id]

    def _resume(self, lent: Lent) -> None:
        for name in self.lent_items.pop(lent.loan_id):
            shard = self.shards[lent.shard_id]
            question = shard.open[name] = self._replay(shard.open[name].item)
            if not question.settled and question.bid < shard.lease.min_value:
                self._close(question, question.bid)
            else:
                self._go_on(question)

    def _drop(self, held: Guests) -> None:
        for name in list(held.open):
            self.waiting.pop(name, None)
            question = self.running.pop(name, None)
            if question is not None:  # what was cut is paid for, and nobody's choice
                self.wallet.settle(question.item.worst, 0)
        held.open.clear()
        held.returned = True

    def _replay(self, item: FakeItem) -> Question:
        question = Question(item, Tally())
        for answer, _ in self.world.journal.get(item.item_id, []):
            question.tally.add(answer)
        return question

    def apply(self, reply: Reply) -> None:
        if reply.seq <= self.applied:
            return
        self.applied = reply.seq
        if reply.reset:
            self.reset = True
            return
        self.wallet.acknowledge(reply.acked_settlements)
        for grant in reply.grants:
            self.wallet.add(grant)
        for shard_id in reply.acked_commits:
            if shard_id in self.shards and self.shards[shard_id].committed:
                del self.shards[shard_id]
        for lease in reply.open_shards:
            held = self.shards.get(lease.shard_id)
            if held is None or held.lease.generation < lease.generation:
                self.shards[lease.shard_id] = LocalShard(lease, list(self.world.shards[lease.shard_id]))
        self.price, self.done = reply.price, reply.done
        self._loans(reply)
        for name, question in list(self.waiting.items()):
            if reply.dry or question.bid < reply.deny_below:
                del self.waiting[name]
                if not any(name in held.open for held in self.borrowed.values()):
                    self.world.denied.add(name)
                self._close(question, question.bid)

    def _land(self, question: Question) -> None:
        samples = self.world.journal.setdefault(question.item.item_id, [])
        answer, tokens = question.item.draw(len(samples))
        samples.append((answer, tokens))
        if any(question.item.item_id in held.open for held in self.borrowed.values()):
            self.world.drawn_elsewhere.add(question.item.item_id)
        self.world.proven[self.life] = self.world.proven.get(self.life, 0) + tokens
        self.wallet.settle(question.item.worst, tokens)
        question.tally.add(answer)
        self._go_on(question)

    def _admit(self) -> None:
        room = self.window - sum(len(shard.open) for shard in self.shards.values())
        for shard in self.shards.values():
            while shard.todo and room > 0:
                item = shard.todo.pop(0)
                question = self._replay(item)
                shard.open[item.item_id] = question
                room -= 1
                if not question.settled and question.bid < shard.lease.min_value:
                    self._close(question, question.bid)
                else:
                    self._go_on(question)
                room += item.item_id not in shard.open
            if not shard.todo and not shard.open and not shard.committed:
                self._commit(shard)

    def _go_on(self, question: Question) -> None:
        if question.settled:
            self._close(question, None)
        else:
            self.waiting[question.item.item_id] = question

    def _close(self, question: Question, parked: float | None) -> None:
        for held in self.borrowed.values():
            if question.item.item_id in held.open:
                held.open.discard(question.item.item_id)
                held.returned = not held.open
                return
        question.parked = parked
        for shard in self.shards.values():
            if shard.open.pop(question.item.item_id, None):
                shard.closed[question.item.item_id] = question

    def _commit(self, shard: LocalShard) -> None:
        shard.committed = True
        key = (shard.lease.shard_id, shard.lease.generation)
        if key not in self.world.commits:  # the first writer wins
            self.world.commits[key] = {name: q.tally.leader for name, q in sorted(shard.closed.items())}
            self.world.states[key] = self._state(shard)

    def _state(self, shard: LocalShard) -> ShardState:
        key = (shard.lease.shard_id, shard.lease.generation)
        if shard.committed and key in self.world.states:
            return self.world.states[key]
        paid = sum(tokens for name in shard.closed for _, tokens in self.world.journal.get(name, []))
        parked: Pairs = ()
        if shard.committed:
            curve = DemandCurve()
            for question in shard.closed.values():
                if question.parked is not None:
                    curve.add(question.parked, EXPECTED)
            parked = curve.to_pairs()
        return ShardState(*key, len(shard.open), len(shard.closed), paid, shard.committed, parked)


@dataclass
class Faults:
    loss: float = 0.0
    repeat: float = 0.0
    late: float = 0.0
    death: float = 0.0
    deaths: int = 0
    restarts: int = 0


def run(
    world: World,
    budget: int,
    workers: int,
    seed: int,
    faults: Faults | None = None,
    market: Market | None = None,
    window: int = 6,
    each_round: Callable[[Market, int], None] = lambda market, number: None,
):
    """Drive a run to its end; the market then. Fails if it does not end, or if two work on one question at once.

    ``each_round`` is called with the living market and the number of the round.
    """
    rng = random.Random(seed)
    faults = faults or Faults()
    market = market or Market(budget, world.spent, world.sizes, world.latest())
    lives = 0
    crew: list[FakeWorker] = []
    network: list[tuple[str, WorkerReport | Reply]] = []

    def hire() -> None:
        nonlocal lives
        lives += 1
        crew.append(FakeWorker(f"w{seed}-{lives}", world, rng, window=window))

    def lose(worker: FakeWorker) -> None:
        crew.remove(worker)
        market.worker_lost(worker.life, world.proven.get(worker.life, 0))
        hire()

    def send(to: str, message: WorkerReport | Reply) -> None:
        if rng.random() >= faults.loss:
            network.extend([(to, message)] * (2 if rng.random() < faults.repeat else 1))

    for _ in range(workers):
        hire()
    for number in range(20_000):
        each_round(market, number)
        if market.done:
            assert market.ledger.reserved == 0
            return market
        for worker in list(crew):
            worker.step()
            send("market", worker.report())
        rng.shuffle(network)
        kept = [message for message in network if rng.random() < faults.late]
        due = [message for message in network if message not in kept] if faults.late else network
        network = kept
        while due:
            to, message = due.pop()
            if isinstance(message, WorkerReport):
                reply = market.sync(message)
                if rng.random() < faults.late:
                    send(message.worker, reply)
                else:
                    due.append((message.worker, reply))
                continue
            for worker in list(crew):
                if worker.life == to:
                    worker.apply(message)
                    if worker.reset:
                        lose(worker)
        if faults.deaths and rng.random() < faults.death:
            faults.deaths -= 1
            lose(rng.choice(crew))
        if faults.restarts and rng.random() < faults.death:
            faults.restarts -= 1
            market = Market(budget, world.spent, world.sizes, world.latest())
            for life in range(1, lives + 1):
                market.worker_lost(f"w{seed}-{life}", world.proven.get(f"w{seed}-{life}", 0))
            crew.clear()
            for _ in range(workers):
                hire()
        held = Counter(name for worker in crew for name in worker.working_on)
        assert max(held.values(), default=0) <= 1, f"two workers draw for one question: {held.most_common(1)}"
        assert market.ledger.spent + market.ledger.reserved <= budget
        assert world.spent <= budget
    raise AssertionError(f"the run did not end: {market.snapshot()}")
