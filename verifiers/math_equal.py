"""Mathematical equality by math-verify, bounded in time.

SymPy can compute without end, so it runs in ``child_pool``'s processes. Promises: a comparison ends within its time and
the next one meets a healthy child; SymPy is never imported here; the children die with this process, however it dies.

A ``ComparerPool`` and a ``MathVerifier`` belong to the event loop that first uses them; ``close`` them before it ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.records import Item, Sample, Verdict
from verifiers.canonical import Canonical, canonical
from verifiers.child_pool import CHILDREN, RECYCLE_AFTER, START_SECONDS, ChildPool, ExchangeFailed, script
from verifiers.rules import NO_REFERENCE, UNPARSED

__all__ = ["CHILD", "MAX_CHARS", "RECYCLE_AFTER", "ComparerPool", "Comparison", "MathVerifier"]

CHILD = script("math_child.py")
MAX_CHARS = 4_000
"""Longer expressions are refused unread: no final answer needs them, and parsers are not linear."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Whether two expressions are equal, or None with the ``error`` that kept us from knowing."""

    equal: bool | None = None
    error: str | None = None


class ComparerPool(ChildPool):
    """Children that compare mathematics. ``command`` starts one that speaks the protocol of ``math_child``."""

    def __init__(
        self, size: int = CHILDREN, command: Sequence[str] = CHILD, start_seconds: float = START_SECONDS
    ) -> None:
        super().__init__(command, "math verifier", "comparison", size, start_seconds)

    async def compare(self, answer: str, reference: str, seconds: float) -> Comparison:
        """Compare in a child, for at most ``seconds`` of wall-clock once it is this comparison's turn.

        Raises:
            VerifierError: no child can be started, or the pool is closed.
        """
        try:
            heard = await self.exchange({"answer": answer, "reference": reference, "seconds": seconds}, seconds)
        except ExchangeFailed as failed:
            return Comparison(error=str(failed))
        return Comparison(heard.get("equal"), heard.get("error"))


class MathVerifier:
    """1 where math-verify finds answer and reference equal; equal canonical forms need no child."""

    def __init__(
        self,
        seconds: float,
        canonicalise: Canonical = canonical,
        pool: ComparerPool | None = None,
        name: str = "math",
    ) -> None:
        self.name = name
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
