"""A worker's money and what waits for it: desk, wallet and price, by the worker's part of ``budgets.messages``.

Promises: live workers (``actors.dispatch``) and replayed ones (``actors.virtual``) ask, pay, give back and report by
this one piece of code. No engine, no clock, no tasks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic

from actors.desk import Desk, W
from budgets.messages import Reply, WorkerReport
from budgets.wallet import Wallet


class Till(Generic[W]):
    """Samples are started from it, best bid first, each with its worst case reserved."""

    def __init__(self) -> None:
        self.desk: Desk[W] = Desk()
        self.wallet = Wallet()
        self.price = 0.0

    def apply(self, reply: Reply) -> None:
        """Take grants, price and refusals from the allocator."""
        self.wallet.acknowledge(reply.acked_settlements)
        for grant in reply.grants:
            self.wallet.add(grant)
        self.price = reply.price
        if reply.dry:
            self.desk.deny_all()
        elif reply.deny_below > 0:
            self.desk.deny_below(reply.deny_below)

    def start(self, lanes: Iterable[str] | None = None) -> W | None:
        """The best ask that bids at least the price and can be paid, paid; ``lanes``: those with room, None: all."""
        ask = self.desk.take(self.wallet.free, self.price, lanes)
        if ask is not None:
            self.wallet.reserve(ask.worst)
        return ask

    def report(self, worker: str, seq: int, running: int, idle: int) -> WorkerReport:
        """What is asked and held, by a worker with so many samples running and slots idle; shards are left out.

        Gives back first what idles here and is missing elsewhere: all but what the idle slots can start, and all of it
        where nothing runs and nothing can start.
        """
        stuck = not running and not self.desk.startable(self.wallet.free, self.price)
        worst = self.desk.largest_worst
        self.wallet.take_settlements(0 if stuck else worst * idle)
        return WorkerReport(
            worker=worker,
            seq=seq,
            acked_grants=self.wallet.held_grants,
            settlements=self.wallet.settlements,
            spent=self.wallet.spent,
            free=self.wallet.free,
            demand=self.desk.demand(),
            smallest_worst=self.desk.smallest_worst,
            worst=worst,
            inflight=running,
            capacity=idle,
        )
