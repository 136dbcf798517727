"""What a worker and the allocator say to each other: values only, a few hundred numbers at most, never rows.

Both sides are *level-triggered*: a message says how things stand, not what changed, so a lost, duplicated, late or
reordered message does no harm. The worker's part:

1. A worker *life* has a unique id, one ``Wallet``, and numbers its reports 1, 2, 3 … Every report is complete.
2. It applies a reply only if ``reply.seq`` is larger than the last one applied; in this order: ``reset``,
   ``acked_settlements``, ``grants``, ``acked_commits``, ``open_shards``, ``price``, refusals.
3. ``acked_grants`` is ``Wallet.held_grants`` and ``settlements`` is ``Wallet.settlements``: repeated until acked.
4. Waiting requests start best bid first from the wallet, where bid >= ``price`` and the worst case fits; one that does
   not fit does not block the next. With nothing in flight and nothing it can start, a worker gives back all free
   tokens (``take_settlements(0)``) before it reports: what idles in a wallet is missing elsewhere.
5. ``deny_below`` and ``dry`` refuse requests that wait when the reply is applied; they set nothing for the future.
6. A committed shard is repeated, with ``committed=True``, until ``acked_commits`` names it; an ack for a shard that is
   not committed here is an older generation's and means nothing. Then every lease not held yet is opened; one of a
   newer generation replaces the one held.
7. A worker that dies is named to the market by the driver (``worker_lost``), never by itself.
8. Loans of open questions, at the end of a run. Lender: a loan in ``lend`` that is not known here begins; questions
   with nothing in the engine are withdrawn, their samples made durable, and the loan is reported in ``lent``, with its
   items for as long as ``lend`` names it. Once ``back`` names it, the questions go on from the journal; then it is
   reported no more. Lent questions stay ``open``. Borrower: a loan in ``borrow`` that is not known here begins, and
   ``borrowed`` reports it until ``borrow`` no longer names it. It is returned once nothing of it runs and its samples
   are durable; a ``dropped`` one is cut and returned at once, one that was never known too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from budgets.curve import Pairs
from budgets.experience import Lessons
from budgets.ledger import Grant, Settlement


@dataclass(frozen=True, slots=True)
class ShardState:
    """How one leased shard stands at its worker.

    ``open``: questions admitted and not closed. ``finished``: questions closed, of all the shard's.
    ``finished_tokens``: all tokens ever paid for those, earlier generations and what the journal holds included.
    ``parked``, sent with ``committed``: value of the next sample (per token) × its expected tokens, of the questions
    that were refused. ``lessons``: what the closed questions taught, summed by subject; the market only passes it on.
    """

    shard_id: int
    generation: int
    open: int
    finished: int
    finished_tokens: int
    committed: bool = False
    parked: Pairs = ()
    lessons: Lessons = ()


LOAN_ITEMS = 64
"""Questions a loan holds at most, so that a message stays small."""


@dataclass(frozen=True, slots=True)
class Lent:
    """A loan its lender has withdrawn questions for; ``items`` is empty where it found none.

    ``items`` is None once the market knows them.
    """

    loan_id: str
    shard_id: int
    items: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Borrowed:
    """A loan its borrower knows of. ``returned``: nothing of it runs there, and what was paid is durable."""

    loan_id: str
    returned: bool


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """How a worker stands. Token counts are worst cases unless said otherwise.

    ``spent``: tokens used over this life (``Wallet.spent``); ``free``: ``Wallet.free`` after closing grants.
    ``demand``: curve of the waiting requests; ``smallest_worst`` and ``worst``: the smallest and the largest worst case
    among them (0: none waits). ``inflight``: samples running; ``capacity``: free engine slots. ``wants_shards``: how
    many more shards it would open now, those in ``shards`` not counted. ``lendable``: questions that could
    go on elsewhere: they wait, bid at least the price, and are more than the free slots take; ``borrows``: slots it has
    nothing for. Both 0 where loans are not spoken.
    """

    worker: str
    seq: int
    acked_grants: tuple[str, ...] = ()
    settlements: tuple[Settlement, ...] = ()
    spent: int = 0
    free: int = 0
    demand: Pairs = ()
    smallest_worst: int = 0
    worst: int = 0
    inflight: int = 0
    capacity: int = 0
    shards: tuple[ShardState, ...] = ()
    wants_shards: int = 0
    samples: int = 0
    """Samples drawn over this life: reported to people, not used by the market."""
    lendable: int = 0
    borrows: int = 0
    lent: tuple[Lent, ...] = ()
    borrowed: tuple[Borrowed, ...] = ()


@dataclass(frozen=True, slots=True)
class ShardLease:
    """A shard a worker is to work on. From generation 1 on, only questions whose next sample is worth at least
    ``min_value`` (per token) continue; the others keep their answer."""

    shard_id: int
    generation: int
    min_value: float


@dataclass(frozen=True, slots=True)
class LoanRequest:
    """A worker is asked to withdraw up to ``count`` questions."""

    loan_id: str
    count: int


@dataclass(frozen=True, slots=True)
class Loan:
    """Questions of another worker's shard to go on with; ``items`` is empty once the borrower has reported the loan.

    ``dropped``: cut what runs; the shard is leased to nobody until the loan is reported returned.
    """

    loan_id: str
    shard_id: int
    generation: int
    min_value: float
    items: tuple[str, ...]
    dropped: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """The allocator's answer to report ``seq``.

    ``grants``: all not acknowledged yet. ``open_shards``: all shards leased to this worker and not committed.
    ``reset``: this life is unknown (it was declared lost, or the allocator restarted): abort and journal what runs,
    drop shards and wallet, begin a new life. ``done``: the run is over. ``hurry``: time runs out before tokens do and
    no shard is left to open, so slots that idle may draw ahead. ``expired``: the deadline has come: cut what runs,
    refuse what waits and whatever is asked for later, and answer every question with what it has. ``lend``, ``borrow``
    and ``back`` are all loans that concern this worker: to be made, to be worked on, and over.
    """

    seq: int
    acked_settlements: tuple[str, ...] = ()
    grants: tuple[Grant, ...] = ()
    price: float = 0.0
    deny_below: float = 0.0
    dry: bool = False
    open_shards: tuple[ShardLease, ...] = ()
    acked_commits: tuple[int, ...] = ()
    done: bool = False
    reset: bool = False
    hurry: bool = False
    expired: bool = False
    lend: tuple[LoanRequest, ...] = ()
    borrow: tuple[Loan, ...] = ()
    back: tuple[str, ...] = ()
    lessons: Lessons = ()
    """What all shards but those in ``open_shards`` taught."""


@dataclass(frozen=True, slots=True)
class Commit:
    """What a shard's commit object says to the market: used to rebuild it."""

    generation: int
    finished_tokens: int
    parked: Pairs = field(default=())
    lessons: Lessons = ()


@dataclass(frozen=True, slots=True)
class MarketStatus:
    """Where the market stands. ``spent`` includes what workers reported used and have not settled."""

    budget: int
    spent: int
    reserved: int
    price: float
    shards_open: int
    shards_committed: int
    shards_total: int
    finished_items: int
    items: int
    done: bool
    expired: bool = False


Commits = Mapping[int, Commit]
"""Committed shards by id, each at its highest generation."""
