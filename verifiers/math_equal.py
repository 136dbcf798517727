"""Mathematical equality by math-verify, bounded in time.

SymPy can compute without end, and inside one long multiplication neither a signal nor a thread stops it. So it runs in
child processes that are killed at the deadline and replaced. Promises: a comparison ends within its time and the next
one meets a healthy child; SymPy is never imported here; the children die with this process, however it dies.

A ``ComparerPool`` and a ``MathVerifier`` belong to the event loop that first uses them; ``close`` them before it ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import VerifierError
from pipeline.records import Item, Sample, Verdict
from verifiers.canonical import Canonical, canonical
from verifiers.rules import NO_REFERENCE, UNPARSED

CHILD = (sys.executable, "-P", str(Path(__file__).with_name("math_child.py")))
"""-P: the script's own folder must not shadow installed modules."""
CHILDREN = 2
START_SECONDS = 120.0
"""Importing SymPy takes about 2 s on an idle machine, and many times that on a crowded one."""
RECYCLE_AFTER = 2_000
"""Comparisons before a child is replaced: SymPy's caches grow."""
MAX_CHARS = 4_000
"""Longer expressions are refused unread: no final answer needs them, and parsers are not linear."""
KEPT_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR")
"""Completions are hostile and SymPy evaluates strings: a child is given no credentials."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Whether two expressions are equal, or None with the ``error`` that kept us from knowing."""

    equal: bool | None = None
    error: str | None = None


@dataclass(slots=True, eq=False)
class _Child:
    process: Process
    served: int = 0

    async def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """One exchange. Raises ConnectionError where the child is gone."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        await self.process.stdin.drain()
        self.served += 1
        return await self.hear()

    async def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        if not line:
            raise ConnectionResetError("the child ended")
        heard: dict[str, Any] = json.loads(line)
        return heard

    def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()

    async def end(self) -> None:
        """Kill it and wait until it and its pipes are gone. Not while an ``ask`` is waiting."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.kill()
        self.process.stdin.close()
        await self.process.wait()
        await self.process.stdout.read()
        with suppress(ConnectionError):
            await self.process.stdin.wait_closed()


class ComparerPool:
    """At most ``size`` children, started when needed, each doing one comparison at a time.

    ``command`` starts a child that speaks the protocol of ``math_child``.
    """

    def __init__(
        self, size: int = CHILDREN, command: Sequence[str] = CHILD, start_seconds: float = START_SECONDS
    ) -> None:
        self._command = tuple(command)
        self._start_seconds = start_seconds
        self._size = size
        self._turns = asyncio.Semaphore(size)
        self._idle: list[_Child] = []
        self._children: set[_Child] = set()
        self._closed = False

    @property
    def pids(self) -> frozenset[int]:
        """Process ids of the children now held."""
        return frozenset(child.process.pid for child in self._children)

    async def compare(self, answer: str, reference: str, seconds: float) -> Comparison:
        """Compare in a child, for at most ``seconds`` of wall-clock once it is this comparison's turn.

        Raises:
            VerifierError: no child can be started, or the pool is closed.
        """
        async with self._turns:
            child = await self._take()
            healthy = False
            try:
                async with asyncio.timeout(seconds):
                    heard = await child.ask({"answer": answer, "reference": reference, "seconds": seconds})
                healthy = True
            except TimeoutError:
                return Comparison(error=f"no result within {seconds:g} s")
            except (ConnectionError, ValueError):
                return Comparison(error="the comparison took its process down (memory or processor limit, or a crash)")
            finally:
                # Cancelled too: a child with an unread result would give it to the next question.
                if healthy and child.served < RECYCLE_AFTER and not self._closed:
                    self._idle.append(child)
                else:
                    await self._discard(child)
        return Comparison(heard.get("equal"), heard.get("error"))

    async def close(self) -> None:
        """Kill all children, comparisons in flight included, and wait until they are gone. Idempotent."""
        self._closed = True
        for child in self._children:
            child.kill()
        while self._idle:
            await self._discard(self._idle.pop())
        # Those in flight discard their own child; once every turn is ours, none is left.
        for _ in range(self._size):
            await self._turns.acquire()
        for _ in range(self._size):
            self._turns.release()

    async def _take(self) -> _Child:
        if self._closed:
            raise VerifierError("math verifier: used after close")
        while self._idle:
            child = self._idle.pop()
            if child.process.returncode is None:
                return child
            await self._discard(child)
        return await self._start()

    async def _start(self) -> _Child:
        environment = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=environment
            )
        except OSError as error:
            raise VerifierError(f"math verifier: cannot start {self._command[0]}: {error}") from error
        child = _Child(process)
        self._children.add(child)
        if self._closed:
            child.kill()
        ready = False
        try:
            async with asyncio.timeout(self._start_seconds):
                heard = await child.hear()
            if "failed" in heard:
                raise VerifierError(f"math verifier: math-verify cannot be loaded ({heard['failed']}); reinstall it")
            ready = True
        except TimeoutError:
            raise VerifierError(f"math verifier: its process was not ready after {self._start_seconds:g} s") from None
        except (ConnectionError, ValueError) as error:
            raise VerifierError(f"math verifier: its process ended before it was ready: {error}") from error
        finally:
            if not ready:
                await self._discard(child)
        return child

    async def _discard(self, child: _Child) -> None:
        child.kill()
        self._children.discard(child)
        await child.end()


class MathVerifier:
    """1 where math-verify finds answer and reference equal; equal canonical forms need no child."""

    name = "math"

    def __init__(self, seconds: float, canonicalise: Canonical = canonical, pool: ComparerPool | None = None) -> None:
        self._seconds = seconds
        self._canonicalise = canonicalise
        self._pool = pool or ComparerPool()

    async def judge(self, answer: str | None, reference: str | None) -> Verdict:
        """The verdict on an answer as a sample holds it, and a reference as the dataset holds it."""
        gold = self._canonicalise(reference)
        if gold is None or reference is None:
            return Verdict(self.name, error=NO_REFERENCE)
        given = self._canonicalise(answer)
        if given is None:
            return Verdict(self.name, score=0.0, detail=UNPARSED)
        if given == gold:
            return Verdict(self.name, score=1.0)
        if max(len(given), len(reference)) > MAX_CHARS:
            return Verdict(self.name, error=f"longer than {MAX_CHARS} characters: not compared")
        result = await self._pool.compare(given, reference, self._seconds)
        if result.equal is None:
            return Verdict(self.name, error=result.error or "no result")
        return Verdict(self.name, score=float(result.equal))

    async def __call__(self, item: Item, samples: Sequence[Sample]) -> list[Verdict]:
        # Votes repeat: each distinct answer is compared once.
        distinct = tuple(dict.fromkeys(sample.answer for sample in samples))
        try:
            async with asyncio.TaskGroup() as group:
                tasks = {answer: group.create_task(self.judge(answer, item.reference)) for answer in distinct}
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return [tasks[sample.answer].result() for sample in samples]

    async def close(self) -> None:
        """Kill the children. Idempotent."""
        await self._pool.close()
