"""Scoring of a finished question: verdicts of its samples and whether its answer is correct.

The ``Judge`` interface is what a worker sees; ``RuleJudge`` does the work in whatever process it lives in (a verifier
actor in a run, the test's own process in a unit test).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.records import Item, Sample, Verdict
from pipeline.spec import JobSpec
from verifiers.contract import Closable, Verifier, checked
from verifiers.registry import Correctness, make_verifier

# A whole question's check; single comparisons have their own, shorter limits.
_BATCH_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Judgement:
    """``verdicts[i]`` are those of sample ``i``; ``correct`` is None where there is no reference."""

    verdicts: tuple[tuple[Verdict, ...], ...]
    correct: bool | None


class Judge(Protocol):
    """Scores one finished question. Never raises for what a verifier does: that is an error verdict."""

    async def judge(self, item: Item, samples: Sequence[Sample], answer: str | None) -> Judgement: ...


class RuleJudge:
    """Runs the job's verifiers over a question's samples, each distinct answer once."""

    def __init__(self, spec: JobSpec) -> None:
        self._verifiers: list[Verifier] = [
            checked(make_verifier(one, spec.answer), _BATCH_SECONDS) for one in spec.verifiers
        ]
        self._correctness = Correctness(spec.answer)

    async def judge(self, item: Item, samples: Sequence[Sample], answer: str | None) -> Judgement:
        """See ``Judge``."""
        distinct: dict[str | None, Sample] = {}
        for sample in samples:
            distinct.setdefault(sample.answer, sample)
        by_answer: dict[str | None, list[Verdict]] = {known: [] for known in distinct}
        for verifier in self._verifiers:
            verdicts = await verifier(item, list(distinct.values()))
            for known, verdict in zip(distinct, verdicts, strict=True):
                by_answer[known].append(verdict)
        correct = await self._correctness.correct(answer, item.reference)
        return Judgement(tuple(tuple(by_answer[sample.answer]) for sample in samples), correct)

    async def close(self) -> None:
        """End helper processes of the verifiers."""
        for closing in (*self._verifiers, self._correctness):
            if isinstance(closing, Closable):
                await closing.close()
