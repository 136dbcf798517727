"""Verifiers made of verifiers: ``all``, ``any`` and ``weighted``.

A part that gave no score is unknown, and what unknown parts cannot change is decided (Kleene's three values, with
graded scores in between): ``all`` is 0 beside a 0, ``any`` is 1 beside a 1, whatever failed; anything else that rests
on an unknown part is an error. ``all`` and ``any`` run their parts in order and ask later ones only about samples that
are still open, so put the cheap ones first. Tokens are those of the parts that ran.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence

from pipeline.records import Item, Sample, Verdict
from verifiers.contract import Checked, Closable, Verifier, checked

MAX_DETAIL = 300


class Combination(ABC):
    """Runs ``parts`` in order and joins their verdicts. Each part is held to the contract by itself."""

    def __init__(self, name: str, parts: Sequence[Verifier], seconds: float) -> None:
        self.name = name
        self._parts: list[Checked] = [checked(part, seconds) for part in parts]

    @abstractmethod
    def decided(self, verdicts: Sequence[Verdict]) -> bool:
        """Can no further part change the score?"""

    @abstractmethod
    def join(self, verdicts: Sequence[Verdict]) -> float | None:
        """The score of these parts, in order; None where it rests on one that gave none."""

    async def __call__(self, item: Item, samples: Sequence[Sample]) -> list[Verdict]:
        said: list[list[Verdict]] = [[] for _ in samples]
        for part in self._parts:
            asked = [index for index in range(len(samples)) if not self.decided(said[index])]
            if not asked:
                break
            verdicts = await part(item, [samples[index] for index in asked])
            for index, verdict in zip(asked, verdicts, strict=True):
                said[index].append(verdict)
        return [self._verdict(verdicts) for verdicts in said]

    @property
    def stuck(self) -> bool:
        """Does a part ask to be replaced with its process?"""
        return any(part.stuck for part in self._parts)

    async def close(self) -> None:
        """Close all parts. Idempotent where theirs is."""
        await asyncio.gather(*(part.close() for part in self._parts if isinstance(part, Closable)))

    def _verdict(self, verdicts: Sequence[Verdict]) -> Verdict:
        score, tokens = self.join(verdicts), sum(verdict.tokens for verdict in verdicts)
        if score is None:
            failed = next(verdict for verdict in verdicts if verdict.score is None)
            return Verdict(self.name, error=f"{failed.verifier}: {failed.error}", tokens=tokens)
        detail = ", ".join(f"{v.verifier} {'?' if v.score is None else f'{v.score:g}'}" for v in verdicts)
        return Verdict(self.name, score=score, tokens=tokens, detail=detail[:MAX_DETAIL])


class AllVerifier(Combination):
    """The lowest score of the parts."""

    def decided(self, verdicts: Sequence[Verdict]) -> bool:
        return any(verdict.score == 0 for verdict in verdicts)

    def join(self, verdicts: Sequence[Verdict]) -> float | None:
        scores = [verdict.score for verdict in verdicts if verdict.score is not None]
        if 0 in scores:
            return 0.0
        return float(min(scores)) if len(scores) == len(verdicts) else None


class AnyVerifier(Combination):
    """The highest score of the parts."""

    def decided(self, verdicts: Sequence[Verdict]) -> bool:
        return any(verdict.score == 1 for verdict in verdicts)

    def join(self, verdicts: Sequence[Verdict]) -> float | None:
        scores = [verdict.score for verdict in verdicts if verdict.score is not None]
        if 1 in scores:
            return 1.0
        return float(max(scores)) if len(scores) == len(verdicts) else None


class WeightedVerifier(Combination):
    """The weighted mean of the parts. A part of weight 0 is run, told of, and does not count."""

    def __init__(self, name: str, parts: Sequence[Verifier], weights: Sequence[float], seconds: float) -> None:
        super().__init__(name, parts, seconds)
        largest = max(weights)
        # Divided first: a sum of huge weights would not be finite, one of tiny products would be 0.
        self._weights = [weight / largest for weight in weights]

    def decided(self, verdicts: Sequence[Verdict]) -> bool:
        return False

    def join(self, verdicts: Sequence[Verdict]) -> float | None:
        total = 0.0
        for weight, verdict in zip(self._weights, verdicts, strict=True):
            if weight > 0:
                if verdict.score is None:
                    return None
                total += weight * verdict.score
        return min(1.0, total / sum(self._weights))
