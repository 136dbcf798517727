"""The worker actor: a Ray shell around ``Station``. Owns an engine a model; dies with any of them."""

from __future__ import annotations

import gc
from typing import Any

import ray

from actors.embedder import Embedder
from actors.engines.fleet import Fleet
from actors.session import no_embedder
from actors.station import Station
from actors.verifier import VerifierPool
from budgets.messages import Reply, WorkerReport
from pipeline.budget_spec import cost_model
from pipeline.records import Shard
from pipeline.spec import JobSpec
from pipeline.store import Store

COLLECT_AFTER = (50_000, 20, 50)
"""Allocations before the cyclic collector looks. Ten thousand open questions are millions of live objects: with
Python's own 700, a third of a worker's processor time went into walking them."""


def collect_seldom() -> None:
    """Let this process look for cyclic garbage less often."""
    gc.set_threshold(*COLLECT_AFTER)


class WorkerActor:
    """One life of a worker. ``life`` names it in journals, grants and attempts."""

    def __init__(self, spec: JobSpec, life: str) -> None:
        from actors.guardian import guard

        collect_seldom()
        # Before the engine: its processes must never be without a guardian.
        self._guardian = guard()
        self._spec, self._life = spec, life
        self._fleet: Fleet | None = None
        self._embedder: Embedder | None = None
        self._station: Station | None = None

    async def start(self) -> str:
        """Load the models. Returns the life's name once the engines are warm. Raises EngineError, SpecError."""
        if self._spec.strategy.embeds:
            self._embedder = Embedder()
        self._fleet = await Fleet.start(self._spec)
        return self._life

    async def run(self, shards: list[Shard], allocator: Any, verifiers: list[Any]) -> None:
        """Work until the allocator says the run is done. Any error ends this life."""
        assert self._fleet is not None, "start() comes first"

        async def sync(report: WorkerReport) -> Reply:
            reply: Reply = await allocator.sync.remote(report)
            return reply

        pool = VerifierPool(self._spec, verifiers)
        station = Station(
            self._spec,
            {shard.shard_id: shard for shard in shards},
            self._fleet,
            Store.open(self._spec.output),
            pool,
            self._life,
            cost_model(self._spec.budget),
            self._embedder.embed if self._embedder is not None else no_embedder,
        )
        self._station = station
        try:
            await station.run(sync)
        finally:
            await pool.close()
            await self._fleet.close()
            if self._embedder is not None:
                self._embedder.close()

    async def stop(self) -> None:
        """Stop soon: ``run`` then returns with everything paid in the journal."""
        if self._station is not None:
            self._station.stop()


def start_worker(spec: JobSpec, life: str) -> Any:
    """A worker actor with the job's resources. ``max_restarts`` is 0: a new life is the driver's decision."""
    from actors.engines.vllm_engine import is_cpu_build

    gpus = spec.cluster.gpus_per_worker
    if gpus is None:
        spans = [model.tensor_parallel for model in spec.asked.values() if model.engine == "vllm"]
        gpus = 0 if is_cpu_build() else sum(spans)
    actor = ray.remote(WorkerActor)
    return actor.options(
        num_cpus=spec.cluster.cpus_per_worker, num_gpus=gpus, max_restarts=0, max_task_retries=0, max_concurrency=16
    ).remote(spec, life)
