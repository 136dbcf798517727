"""Rule verifiers: an answer against the reference, without a model.

Pure and instant. ``Sample.answer`` is canonical already; the reference goes through the same canonicaliser. An answer
that could not be parsed is wrong, score 0; a missing or unusable reference is an error verdict, never a 0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from fractions import Fraction

from pipeline.records import Item, Sample, Verdict
from verifiers.canonical import Canonical, as_number, canonical

TINY = Fraction(1, 10**12)
"""Absolute slack of a numeric comparison: a relative one alone allows none around a reference of 0."""

NO_REFERENCE = "no reference to compare with"
UNPARSED = "no answer was parsed"


class ReferenceRule(ABC):
    """A verifier that compares each sample's answer with the item's reference, one at a time."""

    name: str

    def __init__(self, canonicalise: Canonical = canonical) -> None:
        self._canonicalise = canonicalise

    @abstractmethod
    def compare(self, answer: str, reference: str) -> Verdict:
        """The verdict on two canonical answers."""

    def judge(self, answer: str | None, reference: str | None) -> Verdict:
        """The verdict on an answer as a sample holds it, and a reference as the dataset holds it."""
        gold = self._canonicalise(reference)
        if gold is None:
            return Verdict(self.name, error=NO_REFERENCE)
        given = self._canonicalise(answer)
        if given is None:
            return Verdict(self.name, score=0.0, detail=UNPARSED)
        return self.compare(given, gold)

    async def __call__(self, item: Item, samples: Sequence[Sample]) -> list[Verdict]:
        return [self.judge(sample.answer, item.reference) for sample in samples]


class ExactVerifier(ReferenceRule):
    """1 where the canonical forms are equal."""

    name = "exact"

    def compare(self, answer: str, reference: str) -> Verdict:
        return Verdict(self.name, score=float(answer == reference))


class NumericVerifier(ReferenceRule):
    """1 where answer and reference differ by at most ``tolerance`` · |reference| (or ``TINY``), computed exactly.

    An answer that is no number is wrong; a reference that is none is an error.
    """

    name = "numeric"

    def __init__(self, tolerance: float, canonicalise: Canonical = canonical) -> None:
        super().__init__(canonicalise)
        self._tolerance = Fraction(tolerance)

    def compare(self, answer: str, reference: str) -> Verdict:
        gold = as_number(reference)
        if gold is None:
            return Verdict(self.name, error=f"the reference {reference[:80]!r} is not a number; use compare: exact")
        given = as_number(answer)
        if given is None:
            return Verdict(self.name, score=0.0, detail="the answer is not a number")
        close = abs(given - gold) <= max(self._tolerance * abs(gold), TINY)
        return Verdict(self.name, score=float(close))
