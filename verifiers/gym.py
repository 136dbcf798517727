"""reasoning_gym's own scores, for rows of its datasets.

A row carries the task's metadata as its payload (see ``pipeline.gym``); the entry a scorer wants is put together from
it, the prompt and the reference. Scorers run in a child process: some hand the answer to SymPy, which evaluates
strings. The child has no credentials and is bounded in time and memory; it is **not** confined in what it can read.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Sequence
from typing import Any

from pipeline.records import Item, Sample, Verdict
from pipeline.verifier_spec import ReasoningGymSpec
from verifiers.child_pool import ChildPool, ExchangeFailed, script
from verifiers.rules import UNPARSED, RawAnswer

MAX_CHARS = 4_000
"""Longer answers are refused unread: no task's answer needs them."""


class ReasoningGymVerifier:
    """The task's ``score_answer`` of the answer as written, cut to [0, 1]."""

    def __init__(self, spec: ReasoningGymSpec, raw: RawAnswer, pool: ChildPool | None = None) -> None:
        self.name = spec.label
        self._spec, self._raw = spec, raw
        self._pool = pool or ChildPool((*script("rule_child.py"), "reasoning_gym"), "reasoning_gym verifier", size=1)

    def problem(self, item: Item) -> str | None:
        """Why this row cannot be scored, or None."""
        metadata = _metadata(item)
        if metadata is None:
            return "the row's payload is no metadata of a reasoning_gym task; read the dataset as reasoning_gym:TASK"
        if self._task(metadata) is None:
            return "the row's metadata names no reasoning_gym task; set task"
        return None

    async def __call__(self, item: Item, samples: Sequence[Sample]) -> list[Verdict]:
        answers = [self._raw.of(sample) for sample in samples]
        distinct = list(dict.fromkeys(answers))
        judged = await asyncio.gather(*(self._judge(item, answer) for answer in distinct))
        verdicts = dict(zip(distinct, judged, strict=True))
        return [verdicts[answer] for answer in answers]

    async def close(self) -> None:
        """End the child. Idempotent."""
        await self._pool.close()

    def _task(self, metadata: dict[str, Any]) -> str | None:
        task = self._spec.task or metadata.get("source_dataset")
        return task if isinstance(task, str) else None

    async def _judge(self, item: Item, answer: str | None) -> Verdict:
        problem = self.problem(item)
        if problem is not None:
            return Verdict(self.name, error=problem)
        if answer is None:
            return Verdict(self.name, score=0.0, detail=UNPARSED)
        if len(answer) > MAX_CHARS:
            return Verdict(self.name, error=f"longer than {MAX_CHARS} characters: not scored")
        metadata = _metadata(item) or {}
        entry = {"question": item.prompt or "", "answer": item.reference, "metadata": metadata}
        request = {"task": self._task(metadata), "answer": answer, "entry": entry, "seconds": self._spec.timeout}
        try:
            heard = await self._pool.exchange(request, self._spec.timeout)
        except ExchangeFailed as failed:
            return Verdict(self.name, error=str(failed))
        score = heard.get("score")
        if not isinstance(score, float) or not math.isfinite(score):
            return Verdict(self.name, error=str(heard.get("error") or f"the scorer said {score!r}"))
        return Verdict(self.name, score=min(1.0, max(0.0, score)))


def _metadata(item: Item) -> dict[str, Any] | None:
    try:
        metadata = json.loads(item.payload)
    except (ValueError, RecursionError):
        return None
    return metadata if isinstance(metadata, dict) else None
