"""The allocator actor: a Ray shell around ``budgets.market.Market``.

Holds no truth of its own: a market is rebuilt from journal and commits whenever one is started, so an allocator that
dies ends the workers' lives, not the run.
"""

from __future__ import annotations

import time
from typing import Any

import ray

from actors.recovery import restore_market
from budgets.cost import TOKENS, CostModel
from budgets.market import Market
from budgets.messages import MarketStatus, Reply, WorkerReport
from budgets.pacing import Pace
from pipeline.records import Shard
from pipeline.spending import spent_by_life
from pipeline.store import Store

# The pace is looked at this often: reading the market's books costs a little for every worker.
_PACE_SECONDS = 0.25


class AllocatorActor:
    """One market for one run. ``budget`` is in units of ``cost``; ``seconds``: how long it may take, if limited."""

    def __init__(self, url: str, budget: int, shards: list[Shard], cost: CostModel, seconds: float | None) -> None:
        self._store, self._cost = Store.open(url), cost
        self._market: Market = restore_market(self._store, budget, shards, cost)
        self._samples: dict[str, int] = {}
        self._slots: dict[str, int] = {}
        self._worst = 0
        now = time.monotonic()
        self._pace = None if seconds is None else Pace(now, now + seconds)
        self._paced_at = now

    def sync(self, report: WorkerReport) -> Reply:
        """A worker's report; answered with grants, leases and the price."""
        self._samples[report.worker] = report.samples
        self._slots[report.worker] = report.inflight + report.capacity if report.inflight else 0
        self._worst = max(self._worst, report.worst)
        self._keep_pace()
        return self._market.sync(report)

    def worker_lost(self, life: str) -> None:
        """A life ended without settling: what the journal proves is spent, the rest returns."""
        proven = spent_by_life(self._store, self._cost)
        self._market.worker_lost(life, proven.get(life, 0))
        self._slots.pop(life, None)

    def status(self) -> tuple[MarketStatus, int]:
        """Where the market stands, and how many samples all lives of this driver have drawn."""
        return self._market.snapshot(), sum(self._samples.values())

    def _keep_pace(self) -> None:
        now = time.monotonic()
        if self._pace is None or now - self._paced_at < _PACE_SECONDS:
            return
        self._paced_at = now
        market = self._market.snapshot()
        self._pace.seen(now, market.spent, sum(self._samples.values()), sum(self._slots.values()))
        unanswered = market.items - market.finished_items
        allowance = self._pace.allowance(now, unanswered, market.reserved, self._worst)
        if allowance.expired:
            self._market.expire()
        elif allowance.units is not None:
            time_binds = allowance.units < market.budget - market.spent
            self._market.pace(allowance.units + allowance.returning, hurry=time_binds)


def start_allocator(
    url: str, budget: int, shards: list[Shard], cost: CostModel = TOKENS, seconds: float | None = None
) -> Any:
    """The run's allocator actor. ``seconds`` until the deadline, if there is one."""
    actor = ray.remote(AllocatorActor)
    return actor.options(num_cpus=0, max_restarts=0, max_task_retries=0).remote(url, budget, shards, cost, seconds)
