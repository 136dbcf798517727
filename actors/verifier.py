"""The verifier actor: a Ray shell around ``RuleJudge``, and the pool a worker talks to.

Verifiers run outside the worker so that a comparison that hangs or crashes takes no engine with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import ray

from actors.judge import Judgement, RuleJudge
from pipeline.records import Item, Sample, Verdict
from pipeline.spec import JobSpec

# A verifier actor restarts by itself; a call that met its death is asked again this often, then it is an error.
_ATTEMPTS = 3


class VerifierActor:
    """Judges questions, many at once."""

    def __init__(self, spec: JobSpec) -> None:
        from actors.guardian import guard

        self._guardian = guard()
        self._judge = RuleJudge(spec)

    async def judge(self, item: Item, samples: Sequence[Sample], answer: str | None) -> Judgement:
        """See ``actors.judge.Judge``."""
        return await self._judge.judge(item, samples, answer)


class VerifierPool:
    """The ``Judge`` a worker holds: spreads questions over verifier actors by item, and bounds retries."""

    def __init__(self, spec: JobSpec, actors: Sequence[Any]) -> None:
        self._names = [verifier.kind for verifier in spec.verifiers]
        self._actors = list(actors)
        self._turn = 0

    async def judge(self, item: Item, samples: Sequence[Sample], answer: str | None) -> Judgement:
        """See ``actors.judge.Judge``. An actor that keeps dying on a question yields error verdicts."""
        error: Exception | None = None
        for _ in range(_ATTEMPTS):
            self._turn += 1
            actor = self._actors[self._turn % len(self._actors)]
            try:
                judgement: Judgement = await actor.judge.remote(item, list(samples), answer)
                return judgement
            except ray.exceptions.RayActorError as died:
                error = died
                await asyncio.sleep(0.1)
        verdicts = tuple(Verdict(name, error=f"verifier actor died: {error}") for name in self._names)
        return Judgement(tuple(verdicts for _ in samples), None)


def start_verifiers(spec: JobSpec) -> list[Any]:
    """The job's verifier actors. They take no CPU slot of Ray's: their work is bursts of milliseconds."""
    actor = ray.remote(VerifierActor)
    options = actor.options(num_cpus=0, max_restarts=-1, max_task_retries=0, max_concurrency=256)
    return [options.remote(spec) for _ in range(spec.cluster.verifiers)]
