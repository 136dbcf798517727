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
from verifiers.contract import Verifier, checked
from verifiers.registry import Comparer, make_verifier


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
        self._verifiers: list[Verifier] = [checked(make_verifier(one, spec.answer)) for one in spec.verifiers]
        self._comparer = Comparer(spec.answer)

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
        correct = await self._comparer.correct(answer, item.reference)
        return Judgement(tuple(tuple(by_answer[sample.answer]) for sample in samples), correct)

    async def close(self) -> None:
        """End helper processes of the verifiers."""
        for verifier in self._verifiers:
            await close_verifier(verifier)
        await self._comparer.close()


async def close_verifier(verifier: Verifier) -> None:
    """Close a verifier that has something to close."""
    close = getattr(verifier, "close", None)
    if close is not None:
        await close()
