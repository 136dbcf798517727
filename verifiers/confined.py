"""What kinds that run a sample's program in the sandbox share: where the program is, its limits, one run a program."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence

from pipeline.errors import SpecError
from pipeline.records import Sample, Verdict
from verifiers.confined_spec import ConfinedSection
from verifiers.extract import last_code
from verifiers.sandbox import confine
from verifiers.sandbox.client import Sandbox
from verifiers.sandbox.limits import Limits

MAX_PROGRAM = 2**20
"""Characters; a longer one is no answer."""
MOST_SERVERS = 4
"""By default: checks are bursts beside a worker's engine."""
NO_PROGRAM = "no program was found"


def refuse_unconfined(spec: ConfinedSection) -> None:
    """Raises SpecError where this machine cannot confine programs and the job does not say ``unsafe``."""
    problem = None if spec.unsafe else confine.problem()
    if problem is not None:
        raise SpecError(
            f"verifiers: kind {spec.kind} cannot run on this machine: {problem}; "
            "`unsafe: true` runs programs without a sandbox"
        )


def sandbox_for(spec: ConfinedSection) -> Sandbox:
    """Servers for one verifier; none is started yet."""
    return Sandbox(spec.servers or min(MOST_SERVERS, len(os.sched_getaffinity(0))), spec.unsafe)


def limits_of(spec: ConfinedSection) -> Limits:
    """What one check may use."""
    return Limits(
        wall_seconds=spec.timeout,
        cpu_seconds=spec.processor_seconds,
        memory_mb=spec.memory_mb,
        processes=spec.processes,
        disk_mb=spec.disk_mb,
        output_kb=spec.max_output_kb,
    )


def program_of(spec: ConfinedSection, sample: Sample) -> str | None:
    """The program in a sample, as its section says where it is."""
    if spec.on == "answer":
        return sample.answer
    fenced = last_code(sample.text) if "```" in sample.text or "~~~" in sample.text else None
    return fenced or sample.text


def no_program(program: str | None) -> str | None:
    """Why this cannot be run, or None."""
    if program is None or not program.strip():
        return NO_PROGRAM
    return f"the program is longer than {MAX_PROGRAM} characters" if len(program) > MAX_PROGRAM else None


async def each_distinct(
    spec: ConfinedSection, samples: Sequence[Sample], judge: Callable[[str | None], Awaitable[Verdict]]
) -> list[Verdict]:
    """A verdict a sample; equal programs are judged once, different ones side by side. Raises what ``judge`` raises."""

    async def judged(program: str | None) -> Verdict:
        return await judge(program)

    programs = [program_of(spec, sample) for sample in samples]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = {program: group.create_task(judged(program)) for program in dict.fromkeys(programs)}
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [tasks[program].result() for program in programs]


def clean(text: str, characters: int) -> str:
    """A program's words as a file can hold them."""
    return text[:characters].encode("utf-8", "replace").decode()
