"""What outlives the processes of a tiny cluster, and what a worker of it keeps of its shards."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from budgets.messages import Commit, Loan, ShardLease, ShardState
from budgets.stopping import AdaptiveConsistency
from budgets.value import voting_value
from budgets.votes import Tally

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
    lent: set[str] = field(default_factory=set)
    """Questions that were ever lent, and of these, those somebody else drew a sample for."""
    drawn_elsewhere: set[str] = field(default_factory=set)

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


@dataclass
class Guests:
    """A loan at its borrower. ``open``: names of questions still worked on."""

    loan: Loan
    open: set[str]
    returned: bool = False
