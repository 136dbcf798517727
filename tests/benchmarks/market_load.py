"""How much one allocator can take: bids decided a second, and reports answered a second.

    python -m tests.benchmarks.market_load [--workers 1000] [--seconds 3] [--ray] [--json]

- *bids*: the pure market's work on one core for every bid of a run: summed into a demand curve, put on the desk,
  cleared at a price, and taken or refused. Target: at least 100,000 a second, so that policy is no bottleneck.
- *reports*: ``Market.sync`` in process, over a crew of workers each with 64 slots, a full desk and eight shards.
  A worker reports about once a second, so this is how many workers one allocator carries. Target: 1,000 workers.
- with ``--ray``: the same reports to a market in a Ray actor, many callers at once; starts a local Ray.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from typing import Any

from actors.desk import Desk
from budgets.curve import DemandCurve
from budgets.market import Market
from budgets.messages import Reply, ShardState, WorkerReport
from budgets.wallet import Wallet
from pipeline.errors import BudgetDenied

TARGET_BIDS = 100_000
TARGET_REPORTS = 1_000
SLOTS = 64
SHARDS = 8
SHARD_SIZE = 256
WORST = 512
_DESK = 2048
"""Asks that wait at once: the default of ``cluster.max_open_questions``."""


class Ticket:
    """An ask that nobody waits for."""

    __slots__ = ("bid", "refused", "worst")

    def __init__(self, bid: float, worst: int) -> None:
        self.bid, self.worst, self.refused = bid, worst, False

    @property
    def paid(self) -> Ticket:
        return self

    def done(self) -> bool:
        return self.refused

    def set_exception(self, exception: BudgetDenied, /) -> None:
        self.refused = True


def draw_bids(count: int, seed: int) -> list[float]:
    """Bids as a run makes them: spread over a few octaves."""
    rng = random.Random(seed)
    return [rng.random() ** 3 / rng.randint(50, 500) for _ in range(count)]


def bids_a_second(seconds: float) -> float:
    """Desk, curve and clearing over full desks: half of every desk is bought, the other half refused."""
    bids = draw_bids(_DESK, 0)
    decided, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        desk: Desk[Ticket] = Desk()
        for bid in bids:
            desk.add(Ticket(bid, WORST))
        price = DemandCurve.from_pairs(desk.demand()).price_for(_DESK // 2 * WORST)
        wallet = Wallet()
        while (ask := desk.take(10**9, price)) is not None:
            wallet.reserve(0)
            decided += ask.worst == WORST
        decided += desk.deny_below(float("inf"))
    return decided / (time.perf_counter() - began)


class Crew:
    """Workers that hold full shards and settle what they were granted: their next report is always new."""

    def __init__(self, workers: int) -> None:
        self.shards = dict.fromkeys(range(workers * SHARDS), SHARD_SIZE)
        self._curves = []
        for seed in range(16):
            curve = DemandCurve()
            for bid in draw_bids(_DESK, seed):
                curve.add(bid, WORST)
            self._curves.append(curve.to_pairs())
        self._reports: dict[str, WorkerReport] = {}
        self._wallets = {f"w{number}": Wallet() for number in range(workers)}
        self._replies: dict[str, Reply] = {}
        self.names = list(self._wallets)

    @property
    def budget(self) -> int:
        """Enough to go on for ever."""
        return 10**15

    def report(self, name: str) -> WorkerReport:
        """The next report of a worker."""
        wallet, reply = self._wallets[name], self._replies.get(name)
        before = self._reports.get(name)
        states: tuple[ShardState, ...] = ()
        if reply is not None:
            wallet.acknowledge(reply.acked_settlements)
            for grant in reply.grants:
                wallet.add(grant)
            while wallet.reserve(WORST):
                wallet.settle(WORST, WORST // 4)
            wallet.take_settlements(0)
            states = tuple(
                ShardState(lease.shard_id, lease.generation, open=SHARD_SIZE, finished=0, finished_tokens=0)
                for lease in reply.open_shards
            )
        seq = before.seq + 1 if before else 1
        found = WorkerReport(
            worker=name,
            seq=seq,
            acked_grants=wallet.held_grants,
            settlements=wallet.settlements,
            spent=wallet.spent,
            free=wallet.free,
            demand=self._curves[seq % len(self._curves)],
            smallest_worst=WORST,
            worst=WORST,
            inflight=SLOTS // 2,
            capacity=SLOTS // 2,
            shards=states,
            wants_shards=SHARDS - len(states),
        )
        self._reports[name] = found
        return found

    def hear(self, name: str, reply: Reply) -> None:
        """Take an answer."""
        self._replies[name] = reply


def reports_a_second(workers: int, seconds: float) -> float:
    """``Market.sync`` alone: making reports is the workers' part and not counted."""
    crew = Crew(workers)
    market = Market(crew.budget, 0, crew.shards)
    for name in crew.names:  # everybody is known and holds shards before anything is timed
        crew.hear(name, market.sync(crew.report(name)))
    spent, count = 0.0, 0
    while spent < seconds:
        name = crew.names[count % workers]
        report = crew.report(name)
        began = time.perf_counter()
        reply = market.sync(report)
        spent += time.perf_counter() - began
        crew.hear(name, reply)
        count += 1
    return count / spent


def reports_a_second_by_ray(workers: int, seconds: float) -> float:
    """The same to an actor like the allocator's, with as many calls under way as there are workers, up to 100."""
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")

    @ray.remote(num_cpus=0)
    class Allocator:
        def __init__(self, budget: int, shards: dict[int, int]) -> None:
            self._market = Market(budget, 0, shards)

        def sync(self, report: WorkerReport) -> Reply:
            return self._market.sync(report)

    crew = Crew(workers)
    actor: Any = Allocator.remote(crew.budget, crew.shards)
    for name in crew.names:
        crew.hear(name, ray.get(actor.sync.remote(crew.report(name))))
    under_way: dict[Any, str] = {}
    waiting, count, began = list(crew.names), 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        while waiting and len(under_way) < 100:
            name = waiting.pop(0)
            under_way[actor.sync.remote(crew.report(name))] = name
        ready, _ = ray.wait(list(under_way), num_returns=1)
        for one in ready:
            name = under_way.pop(one)
            crew.hear(name, ray.get(one))
            waiting.append(name)
            count += 1
    rate = count / (time.perf_counter() - began)
    ray.shutdown()
    return rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--ray", action="store_true", help="measure a real actor too; starts a local Ray")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    result: dict[str, float | int | None] = {
        "workers": arguments.workers,
        "bids_a_second": bids_a_second(arguments.seconds),
        "target_bids_a_second": TARGET_BIDS,
        "reports_a_second": reports_a_second(arguments.workers, arguments.seconds),
        "reports_a_second_by_ray": None,
        "target_reports_a_second": TARGET_REPORTS,
    }
    if arguments.ray:
        result["reports_a_second_by_ray"] = reports_a_second_by_ray(arguments.workers, arguments.seconds)
    if arguments.json:
        print(json.dumps(result))
        return
    print(f"bids decided: {result['bids_a_second']:,.0f} a second and core; target {TARGET_BIDS:,}")
    print(
        f"reports answered in process: {result['reports_a_second']:,.0f} a second over {arguments.workers} workers; "
        f"target {TARGET_REPORTS:,}"
    )
    if result["reports_a_second_by_ray"] is not None:
        print(f"reports answered by a Ray actor: {result['reports_a_second_by_ray']:,.0f} a second")


if __name__ == "__main__":
    main()
