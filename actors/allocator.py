"""The allocator actor: a Ray shell around ``budgets.market.Market``.

Holds no truth of its own: a market is rebuilt from journal and commits whenever one is started, so an allocator that
dies ends the workers' lives, not the run.
"""

from __future__ import annotations

from typing import Any

import ray

from actors.recovery import restore_market
from budgets.market import Market
from budgets.messages import MarketStatus, Reply, WorkerReport
from pipeline.records import Shard
from pipeline.store import Store


class AllocatorActor:
    """One market for one run."""

    def __init__(self, url: str, budget: int, shards: list[Shard]) -> None:
        self._store = Store.open(url)
        self._market: Market = restore_market(self._store, budget, shards)
        self._samples: dict[str, int] = {}

    def sync(self, report: WorkerReport) -> Reply:
        """A worker's report; answered with grants, leases and the price."""
        self._samples[report.worker] = report.samples
        return self._market.sync(report)

    def worker_lost(self, life: str) -> None:
        """A life ended without settling: what the journal proves is spent, the rest returns."""
        self._market.worker_lost(life, self._store.journal_spent().get(life, 0))

    def status(self) -> tuple[MarketStatus, int]:
        """Where the market stands, and how many samples all lives of this driver have drawn."""
        return self._market.snapshot(), sum(self._samples.values())


def start_allocator(url: str, budget: int, shards: list[Shard]) -> Any:
    """The run's allocator actor."""
    actor = ray.remote(AllocatorActor)
    return actor.options(num_cpus=0, max_restarts=0, max_task_retries=0).remote(url, budget, shards)
