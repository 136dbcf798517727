"""Verifier actors, and the judge a worker talks to.

Cheap checks run in the worker. The others run in actors, so that one that hangs or crashes takes no engine with it:
``VerifierActor`` is a Ray shell around ``Bench``, ``RayMembers`` one around its handles, and ``CheckPool`` does the
rest. The job's first actors are the driver's; each worker may add more while checks queue, up to
``cluster.max_verifiers`` in the whole run: they have names, so that workers share them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import re
import time
from collections.abc import Sequence
from typing import Any

import ray

from actors.judge import CHECK_SECONDS, Bench, BenchStats, Column, Judgement, Panel, check_seconds, column, local_column
from actors.verifier_pool import CheckPool, MemberDied, ProcessDied, Request
from pipeline.errors import PonderError, VerifierError
from pipeline.records import Item, Sample, Verdict
from pipeline.spec import JobSpec
from pipeline.verifier_kinds import is_cheap, label_of
from verifiers.contract import MAX_ERROR
from verifiers.pool_policy import Member, PoolLimits, PoolStats

CORRECTNESS = -1
"""The position under which an actor judges an answer's correctness, where that takes a process of its own."""
GRACE_SECONDS = 30.0
"""What a call may take beyond its verifier's own limit before its actor is ended."""
REVIVE_SECONDS = 60.0
"""How long Ray may take to bring an actor back before it is done without."""
PING_SECONDS = 0.05
"""First wait between two pings of an actor that is being restarted; doubled up to a second."""
SECRETS = re.compile(r"AWS_|RAY_\w*TOKEN")
"""Environment an actor drops: what it runs needs neither the object store nor the cluster."""


class VerifierActor:
    """Runs checks, many at once. Ray starts it again when it dies."""

    def __init__(self, spec: JobSpec) -> None:
        from actors.guardian import guard

        self._guardian = guard()
        scrub_environment()
        self._bench = Bench(spec, _in_pool(spec))

    async def check(self, requests: list[Request]) -> list[list[Verdict]]:
        """One list of verdicts a request."""
        if self._bench.stuck:
            # Threads that hang can only be ended with their process. Not an orderly exit: that is not restarted.
            os._exit(1)
        return list(await asyncio.gather(*map(self._one, requests)))

    async def ping(self) -> None:
        """Returns once the actor is there."""

    async def stats(self) -> BenchStats:
        """What this life of the actor did."""
        return self._bench.stats

    async def _one(self, request: Request) -> list[Verdict]:
        if request.index != CORRECTNESS:
            return await self._bench.check(request.index, request.item, request.samples)
        verdicts = []
        for sample in request.samples:
            correct = await self._bench.correct(sample.answer, request.item.reference)
            error = "nothing could tell" if correct is None else None
            verdicts.append(Verdict("correct", None if correct is None else float(correct), error))
        return verdicts


class VerifierPool:
    """The ``Judge`` a worker holds. Belongs to the event loop that first uses it."""

    def __init__(self, spec: JobSpec, actors: Sequence[Any], limits: PoolLimits | None = None) -> None:
        """``actors``: those of ``start_verifiers``. Raises SpecError where a cheap verifier cannot be made."""
        self._spec = spec
        pooled = _in_pool(spec)
        local = [index for index in range(len(spec.verifiers)) if index not in pooled]
        self._bench = Bench(spec, local)
        self._limits = limits or limits_of(spec)
        longest = max((CHECK_SECONDS, *(check_seconds(spec, index) for index in pooled))) + GRACE_SECONDS
        self._pool = CheckPool(RayMembers(spec, actors), list(range(len(actors))), self._limits, longest)
        self._panel = Panel(
            [
                self._column(index) if index in pooled else local_column(spec, index, self._bench)
                for index in range(len(spec.verifiers))
            ]
        )

    async def judge(self, item: Item, samples: Sequence[Sample], answer: str | None) -> Judgement:
        """See ``actors.judge.Judge``."""
        verdicts, correct = await asyncio.gather(self._panel.finish(item, samples), self._correct(item, answer))
        return Judgement(tuple(verdicts), correct)

    async def check(
        self, item: Item, samples: Sequence[Sample], verifier: str, seen: Sequence[Sample] = ()
    ) -> list[Verdict]:
        """See ``actors.judge.Judge``."""
        return await self._panel.check(item, samples, verifier, seen)

    def stats(self) -> PoolStats:
        """This worker's view of the pool: queue, batches, waits, deaths."""
        return self._pool.stats()

    def local_stats(self) -> BenchStats:
        """What was checked inside this worker."""
        return self._bench.stats

    async def close(self) -> None:
        """End the helper processes of cheap verifiers and stop asking the pool. Idempotent."""
        await self._pool.close()
        await self._bench.close()

    async def _correct(self, item: Item, answer: str | None) -> bool | None:
        if self._spec.answer.compare != "math" or item.reference is None or answer is None:
            return await self._bench.correct(answer, item.reference)
        sample = Sample(item.item_id, 0, prompt_key="", text="", answer=answer)
        try:
            (verdict,) = await self._pool.check(Request(CORRECTNESS, item, (sample,)))
        except PonderError:
            return None
        return None if verdict.score is None else verdict.score == 1.0

    def _column(self, index: int) -> Column:
        name = label_of(self._spec.verifiers[index])

        async def run(item: Item, samples: Sequence[Sample]) -> list[Verdict]:
            size = self._limits.batch_samples
            cut = [tuple(samples[start : start + size]) for start in range(0, len(samples), size)]
            parts = await asyncio.gather(*(self._check(name, Request(index, item, part)) for part in cut))
            return [verdict for part in parts for verdict in part]

        return column(self._spec, index, run)

    async def _check(self, name: str, request: Request, suspect: bool = False) -> list[Verdict]:
        """Verdicts, whatever happens. Samples that killed their process together are halved until the killer is alone:
        the others get their verdict."""
        try:
            return await self._pool.check(request, suspect)
        except ProcessDied as died:
            if len(request.samples) == 1:
                return [Verdict(name, error=str(died)[:MAX_ERROR])]
        except VerifierError as error:
            return [Verdict(name, error=str(error)[:MAX_ERROR]) for _ in request.samples]
        middle = len(request.samples) // 2
        halves = (request.samples[:middle], request.samples[middle:])
        parts = [dataclasses.replace(request, samples=half) for half in halves]
        first, second = await asyncio.gather(*(self._check(name, part, suspect=True) for part in parts))
        return [*first, *second]


class RayMembers:
    """The pool's members: actors by their number. See ``actors.verifier_pool.Members``."""

    def __init__(self, spec: JobSpec, actors: Sequence[Any]) -> None:
        self._spec = spec
        self._actors: dict[Member, Any] = dict(enumerate(actors))

    async def call(self, member: Member, requests: Sequence[Request]) -> list[list[Verdict]]:
        try:
            verdicts: list[list[Verdict]] = await self._actors[member].check.remote(list(requests))
        except ray.exceptions.RayActorError as died:
            raise MemberDied(str(died).splitlines()[0]) from None
        except ray.exceptions.RayTaskError as raised:
            raise VerifierError(str(raised.cause)) from None
        return verdicts

    async def end(self, member: Member) -> None:
        ray.kill(self._actors[member], no_restart=False)

    async def revive(self, member: Member) -> bool:
        deadline, pause = time.monotonic() + REVIVE_SECONDS, PING_SECONDS
        while time.monotonic() < deadline:
            try:
                await asyncio.wait_for(self._actors[member].ping.remote(), REVIVE_SECONDS)
                return True
            except ray.exceptions.RayActorError as died:
                if getattr(died, "actor_init_failed", False):
                    break
                await asyncio.sleep(pause)
                pause = min(1.0, 2 * pause)
            except TimeoutError:
                break
        return False

    async def start(self) -> Member | None:
        number = next(one for one in range(len(self._actors) + 1) if one not in self._actors)
        # In the job's own namespace: workers that want the same number get the same actor.
        self._actors[number] = _actor(self._spec, name=f"ponder-verifier-{number}", get_if_exists=True)
        if await self.revive(number):
            return number
        del self._actors[number]
        return None

    async def dismiss(self, member: Member) -> None:
        # The last handle ends the actor, once its calls are done; another worker that still asks it asks elsewhere.
        self._actors.pop(member, None)


def start_verifiers(spec: JobSpec) -> list[Any]:
    """The job's verifier actors; none where all checks run in the workers. They take no CPU slot of Ray's: their work
    is bursts of milliseconds."""
    if not _in_pool(spec) and spec.answer.compare != "math":
        return []
    return [_actor(spec) for _ in range(spec.cluster.verifiers)]


def limits_of(spec: JobSpec) -> PoolLimits:
    """The pool's limits under this job's cluster."""
    return PoolLimits(least=spec.cluster.verifiers, most=_most(spec))


def scrub_environment() -> None:
    """Take the object store's keys and the cluster's token out of this process's environment, for what it starts.

    Ray has read its token by then. The environment the process was started with stays readable under ``/proc`` to
    processes of the same user: what runs a candidate's code needs a sandbox that hides ``/proc`` as well.
    """
    for name in [name for name in os.environ if SECRETS.match(name)]:
        del os.environ[name]


def _actor(spec: JobSpec, **options: Any) -> Any:
    actor = ray.remote(VerifierActor)
    handle = actor.options(num_cpus=0, max_restarts=-1, max_task_retries=0, max_concurrency=256, **options)
    return handle.remote(spec)


def _in_pool(spec: JobSpec) -> list[int]:
    return [index for index, one in enumerate(spec.verifiers) if not is_cheap(one)]


def _most(spec: JobSpec) -> int:
    return spec.cluster.max_verifiers or spec.cluster.verifiers
