"""A tiny deterministic cluster: workers that follow ``budgets.messages`` over a network that may misbehave."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from budgets.curve import DemandCurve, Pairs
from budgets.market import Market
from budgets.messages import Commit, Reply, ShardLease, ShardState, WorkerReport
from budgets.stopping import AdaptiveConsistency
from budgets.value import voting_value
from budgets.votes import Tally
from budgets.wallet import Wallet

EXPECTED = 12
RULE = AdaptiveConsistency()


@dataclass(frozen=True)
class FakeItem:
    """``sure``: chance that a sample gives the right answer; ``worst``: most tokens a sample takes."""

    item_id: str
    sure: float
    worst: int = 20
    cap: int = 12

    def draw(self, index: int) -> tuple[str, int]:
        rng = random.Random(f"{self.item_id}/{index}")
        answer = "right" if rng.random() < self.sure else rng.choice("xyz")
        return answer, rng.randint(1, self.worst)


@dataclass
class World:
    """What outlives processes: the plan, the journal and the commits."""

    shards: dict[int, list[FakeItem]]
    journal: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    proven: dict[str, int] = field(default_factory=dict)
    commits: dict[tuple[int, int], dict[str, str | None]] = field(default_factory=dict)
    states: dict[tuple[int, int], ShardState] = field(default_factory=dict)
    denied: set[str] = field(default_factory=set)

    @property
    def sizes(self) -> dict[int, int]:
        return {shard_id: len(items) for shard_id, items in self.shards.items()}

    @property
    def spent(self) -> int:
        return sum(tokens for samples in self.journal.values() for _, tokens in samples)

    def latest(self) -> dict[int, Commit]:
        """The commits as a restarting allocator reads them."""
        found: dict[int, Commit] = {}
        for (shard_id, generation), state in sorted(self.states.items()):
            found[shard_id] = Commit(generation, state.finished_tokens, state.parked)
        return found


@dataclass
class Question:
    item: FakeItem
    tally: Tally
    parked: float | None = None

    @property
    def bid(self) -> float:
        return voting_value(self.tally.p_lead, self.tally.n, EXPECTED)

    @property
    def settled(self) -> bool:
        return self.tally.n >= self.item.cap or RULE.should_stop(self.tally)


@dataclass
class LocalShard:
    lease: ShardLease
    todo: list[FakeItem]
    open: dict[str, Question] = field(default_factory=dict)
    closed: dict[str, Question] = field(default_factory=dict)
    committed: bool = False


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

    def step(self) -> None:
        for name in list(self.running):
            if self.rng.random() < 0.5:
                self._land(self.running.pop(name))
        self._admit()
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
        )

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
        for name, question in list(self.waiting.items()):
            if reply.dry or question.bid < reply.deny_below:
                del self.waiting[name]
                self.world.denied.add(name)
                self._close(question, question.bid)

    def _land(self, question: Question) -> None:
        samples = self.world.journal.setdefault(question.item.item_id, [])
        answer, tokens = question.item.draw(len(samples))
        samples.append((answer, tokens))
        self.world.proven[self.life] = self.world.proven.get(self.life, 0) + tokens
        self.wallet.settle(question.item.worst, tokens)
        question.tally.add(answer)
        self._go_on(question)

    def _admit(self) -> None:
        room = self.window - sum(len(shard.open) for shard in self.shards.values())
        for shard in self.shards.values():
            while shard.todo and room > 0:
                item = shard.todo.pop(0)
                question = Question(item, Tally())
                for answer, _ in self.world.journal.get(item.item_id, []):
                    question.tally.add(answer)
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


def run(world: World, budget: int, workers: int, seed: int, faults: Faults | None = None, market: Market | None = None):
    """Drive a run to its end; the market then. Fails if it does not end."""
    rng = random.Random(seed)
    faults = faults or Faults()
    market = market or Market(budget, world.spent, world.sizes, world.latest())
    lives = 0
    crew: list[FakeWorker] = []
    network: list[tuple[str, WorkerReport | Reply]] = []

    def hire() -> None:
        nonlocal lives
        lives += 1
        crew.append(FakeWorker(f"w{seed}-{lives}", world, rng))

    def lose(worker: FakeWorker) -> None:
        crew.remove(worker)
        market.worker_lost(worker.life, world.proven.get(worker.life, 0))
        hire()

    def send(to: str, message: WorkerReport | Reply) -> None:
        if rng.random() >= faults.loss:
            network.extend([(to, message)] * (2 if rng.random() < faults.repeat else 1))

    for _ in range(workers):
        hire()
    for _ in range(20_000):
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
        assert market.ledger.spent + market.ledger.reserved <= budget
        assert world.spent <= budget
    raise AssertionError(f"the run did not end: {market.snapshot()}")
