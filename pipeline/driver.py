"""The run, from a job to ``_SUCCESS.json``: start, resume, top-up and selection by another rule are this one function.

The driver plans, starts the actors, replaces workers that die, and closes the books. It decides nothing about budgets
(the allocator does) and touches no row (the workers do). Everything it knows is in the run directory, so killing it
loses at most what was in flight.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pipeline.budget_spec import budget_units, budget_use, cost_model, tokens_in, tokens_of
from pipeline.cluster import Cluster
from pipeline.deadline import resolve_deadline
from pipeline.errors import EngineError, PonderError, RunFailed
from pipeline.fingerprint import fingerprint_of
from pipeline.progress import Progress
from pipeline.readiness import refuse_unjudgeable, refuse_unready
from pipeline.records import Shard
from pipeline.reuse import refuse_unlike
from pipeline.source import plan_dataset
from pipeline.spec import JobSpec
from pipeline.status import RunStatus, status_of
from pipeline.store import Store

Listen = Callable[[Progress], None]

# How often the driver looks at its actors; it is on no hot path.
_POLL_SECONDS = 0.5
# How long workers may take to journal what they have when the run is interrupted.
_STOP_SECONDS = 15.0


@dataclass(frozen=True)
class Prepared:
    """A run directory that is ready to be worked on. ``complete``: nothing is left to do at this budget."""

    store: Store
    shards: list[Shard]
    complete: bool
    deadline: datetime | None = None
    warnings: tuple[str, ...] = ()

    def seconds_left(self) -> float | None:
        """Until the deadline; None where there is none."""
        return None if self.deadline is None else (self.deadline - datetime.now().astimezone()).total_seconds()


def run(spec: JobSpec, listen: Listen | None = None) -> RunStatus:
    """Start, resume or top up the run in ``spec.output``, or answer a finished one again by another strategy.

    Raises:
        UsageError: the job, its data or its output directory are wrong; nothing was spent.
        RunFailed: too many dead letters, or workers that cannot be kept alive; what was paid for is kept.
        StoreError: the run directory cannot be written; run the same command again.
        KeyboardInterrupt: interrupted; what was paid for is in the journal.
    """
    tell = listen or (lambda progress: None)
    tell(_progress("planning", spec))
    prepared = prepare(spec)
    if prepared.warnings:
        tell(replace(_progress("planning", spec), warnings=prepared.warnings))
    expired = False
    if not prepared.complete:
        crew = _Crew(spec, prepared, tell)
        try:
            crew.work()
        finally:
            crew.dismiss()
        expired = crew.expired
    status = close(spec, prepared.store, expired)
    tell(_progress("finishing", spec, status))
    failed = status.dead_lettered / max(1, status.items)
    if failed > spec.cluster.max_failed_fraction:
        raise RunFailed(
            f"{status.dead_lettered} of {status.items} rows failed, more than cluster.max_failed_fraction "
            f"({spec.cluster.max_failed_fraction:g}) allows; the reasons are in {spec.output}/dead_letter"
        )
    return status


def prepare(spec: JobSpec) -> Prepared:
    """Plan the data and open the run directory. Nothing is spent. Raises UsageError."""
    refuse_unready(spec)
    text = spec.budget.deadline
    deadline = None if text is None else resolve_deadline(text, datetime.now().astimezone())
    plan = plan_dataset(spec.dataset, spec.cluster.shard_size)
    store = Store.open(spec.output)
    # Rows are looked at before the first spending; what is planned has been.
    warnings = [] if store.planned() else refuse_unjudgeable(spec, plan.shards)
    job, fingerprint = spec.model_dump(mode="json"), fingerprint_of(spec, plan.fingerprint)
    refuse_unlike(spec, fingerprint, plan.shards)
    begin = store.begin(job, fingerprint)
    if not begin.resumed or not store.planned():
        store.write_plan(plan)
    # From here on the stored plan holds: another shard_size on resume changes nothing.
    shards = store.read_plan()
    summary, before = store.finished(), store.budget()
    store.set_budget(spec.budget)
    if begin.reselects:
        store.reselect(job, fingerprint)
        summary = None
    # What a deadline ended goes on under the next one; anything else that is finished needs new money.
    complete = summary is not None and budget_units(spec.budget) <= before and not summary.get("expired", False)
    if not complete:
        store.reopen()
    return Prepared(store, shards, complete, deadline, tuple(warnings))


def close(spec: JobSpec, store: Store, expired: bool = False) -> RunStatus:
    """Check that every input has one outcome, and say so durably. ``expired``: a deadline ended the run."""
    status = status_of(spec.output)
    if store.finished() is None:
        status = replace(status, state="finished")
        store.finish(status.as_json() | {"expired": expired})
    return status


class _Crew:
    """The actors of one driver life."""

    def __init__(self, spec: JobSpec, prepared: Prepared, tell: Listen) -> None:
        self._spec, self._store, self._shards, self._tell = spec, prepared.store, prepared.shards, tell
        self._prepared = prepared
        self.expired = False
        self._items = sum(shard.items for shard in prepared.shards)
        self._restarts = 0
        self._lives = 0
        self._crew = f"{int(time.time()):x}{os.getpid():x}"
        self._starting: dict[Any, tuple[Any, str]] = {}
        self._solving: dict[Any, tuple[Any, str]] = {}
        self._cluster = Cluster()
        self._rate = _Rate()

    def work(self) -> None:
        """Run until the allocator has nothing left to sell and every shard is committed."""
        import ray

        from actors.allocator import start_allocator
        from actors.verifier import start_verifiers

        self._tell(_progress("starting", self._spec, items=self._items))
        self._cluster.connect(self._spec.cluster.workers * self._spec.cluster.cpus_per_worker)
        self._allocator = start_allocator(
            self._spec.output,
            budget_units(self._spec.budget),
            self._shards,
            cost_model(self._spec.budget),
            self._prepared.seconds_left(),
        )
        self._verifiers = start_verifiers(self._spec)
        ray.get(self._allocator.status.remote())
        for _ in range(self._spec.cluster.workers):
            self._hire()
        try:
            while self._starting or self._solving:
                waiting = [*self._starting, *self._solving]
                ready, _ = ray.wait(waiting, timeout=_POLL_SECONDS)
                for reference in ready:
                    self._attend(reference)
                self._report()
        except KeyboardInterrupt:
            self._interrupt()
            raise

    def dismiss(self) -> None:
        """Leave the cluster; on a local one, take it down. Actors end with their driver."""
        self._cluster.close()

    def _hire(self) -> None:
        from actors.worker import start_worker

        life = f"{self._crew}-{self._lives}"
        self._lives += 1
        worker = start_worker(self._spec, life)
        self._starting[worker.start.remote()] = (worker, life)

    def _attend(self, reference: Any) -> None:
        import ray

        starting = reference in self._starting
        worker, life = (self._starting if starting else self._solving).pop(reference)
        try:
            ray.get(reference)
        except ray.exceptions.RayActorError as died:
            self._replace(life, str(died).splitlines()[0])
        except ray.exceptions.RayTaskError as raised:
            cause = raised.cause
            if isinstance(cause, EngineError) and not starting:
                ray.kill(worker)
                self._replace(life, str(cause))
            elif isinstance(cause, ray.exceptions.RayActorError):
                raise RunFailed("the allocator died; run the same command again to go on") from raised
            elif isinstance(cause, PonderError):
                raise cause from None
            else:
                raise RunFailed(f"worker {life} failed: {raised}") from raised
        else:
            if starting:
                self._solving[worker.run.remote(self._shards, self._allocator, self._verifiers)] = (worker, life)

    def _replace(self, life: str, why: str) -> None:
        """A worker died: make that durable, tell the market, and hire another while the job allows it."""
        import ray

        self._store.record_death(life)
        ray.get(self._allocator.worker_lost.remote(life))
        self._restarts += 1
        if self._restarts > self._spec.cluster.max_worker_restarts:
            raise RunFailed(
                f"workers died {self._restarts} times, more than cluster.max_worker_restarts "
                f"({self._spec.cluster.max_worker_restarts}); the last: {why}"
            )
        self._hire()

    def _interrupt(self) -> None:
        """Let the workers journal what they have."""
        import ray

        for worker, _ in self._solving.values():
            worker.stop.remote()
        ray.wait(list(self._solving), num_returns=len(self._solving), timeout=_STOP_SECONDS) if self._solving else None

    def _report(self) -> None:
        import ray

        market, samples = ray.get(self._allocator.status.remote())
        self.expired = market.expired
        self._rate.seen(time.monotonic(), market.spent)
        left = None
        if self._rate.units_per_second > 0 and self._solving:
            left = (market.budget - market.spent) / self._rate.units_per_second
        per_second = tokens_of(self._spec.budget, round(self._rate.units_per_second))
        phase = "starting" if self._starting and not self._solving else "solving"
        self._tell(
            Progress(
                phase=phase,
                items=self._items,
                finished=market.finished_items,
                samples=samples,
                tokens_spent=tokens_of(self._spec.budget, market.spent),
                tokens_budget=tokens_in(self._spec.budget),
                tokens_per_second=per_second,
                price=market.price,
                seconds_left=left,
                shards_committed=market.shards_committed,
                shards=len(self._shards),
                workers=len(self._solving),
                note=f"{self._restarts} worker restarts" if self._restarts else "",
                budget=budget_use(self._spec.budget, market.spent),
            )
        )


class _Rate:
    """Units of the budget a second over the last half minute."""

    _WINDOW = 30.0

    def __init__(self) -> None:
        self._seen: list[tuple[float, int]] = []
        self.units_per_second = 0.0

    def seen(self, now: float, spent: int) -> None:
        self._seen = [(at, units) for at, units in self._seen if now - at <= self._WINDOW] + [(now, spent)]
        (first, least), (last, most) = self._seen[0], self._seen[-1]
        self.units_per_second = (most - least) / (last - first) if last > first else 0.0


def _progress(phase: str, spec: JobSpec, status: RunStatus | None = None, items: int = 0) -> Progress:
    return Progress(
        phase=phase,
        items=status.items if status else items,
        finished=status.answered + status.dead_lettered if status else 0,
        samples=status.samples if status else 0,
        tokens_spent=status.tokens_spent if status else 0,
        tokens_budget=tokens_in(spec.budget),
        tokens_per_second=None,
        price=0.0,
        seconds_left=None,
        shards_committed=0,
        shards=0,
        workers=0,
        budget=(status.budget if status else None) or budget_use(spec.budget, 0),
    )
