"""Rule verifiers: an answer against the reference, without a model.

Pure and instant. ``Sample.answer`` is canonical already; the reference goes through the same canonicaliser. An answer
that could not be parsed is wrong, score 0; a missing or unusable reference is an error verdict, never a 0, and
``problem`` tells it beforehand. ``RawAnswer`` is for the few checks that need an answer as it was written.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from fractions import Fraction

from pipeline.records import Item, Sample, Verdict
from verifiers.canonical import Canonical, as_number, canonical
from verifiers.extract import Extractor
from verifiers.units import Quantity, as_quantity, same

TINY = Fraction(1, 10**12)
"""Absolute slack of a numeric comparison: a relative one alone allows none around a reference of 0."""

NO_REFERENCE = "no reference to compare with"
UNPARSED = "no answer was parsed"


class RawAnswer:
    """An answer as the completion spells it: canonical forms have lost case and format."""

    def __init__(self, extract: Extractor | None = None, canonicalise: Canonical = canonical) -> None:
        self._extract, self._canonicalise = extract, canonicalise

    def of(self, sample: Sample) -> str | None:
        """As written, where the text still yields this very answer; else ``Sample.answer``."""
        if self._extract is None or sample.answer is None or not sample.text:
            return sample.answer
        raw = self._extract(sample.text)
        return raw if self._canonicalise(raw) == sample.answer else sample.answer


class ReferenceRule(ABC):
    """A verifier that compares each sample's answer with the item's reference, one at a time."""

    name: str

    def __init__(self, canonicalise: Canonical = canonical, name: str | None = None) -> None:
        self._canonicalise = canonicalise
        self.name = name or self.name

    def problem(self, reference: str | None) -> str | None:
        """Why nothing can be compared with this reference, or None."""
        gold = self._canonicalise(reference)
        return NO_REFERENCE if gold is None else self.misfit(gold)

    def misfit(self, reference: str) -> str | None:
        """Why this canonical reference cannot be compared with, or None."""
        return None

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
        misfit = self.misfit(gold)
        return self.compare(given, gold) if misfit is None else Verdict(self.name, error=misfit)

    async def __call__(self, item: Item, samples: Sequence[Sample]) -> list[Verdict]:
        return [self.judge(sample.answer, item.reference) for sample in samples]


class ExactVerifier(ReferenceRule):
    """1 where the canonical forms are equal."""

    name = "exact"

    def compare(self, answer: str, reference: str) -> Verdict:
        return Verdict(self.name, score=float(answer == reference))


class ChoiceVerifier(ReferenceRule):
    """1 where the answer is the letter of the reference. A letter in brackets is that letter, whatever its case."""

    name = "choice"

    def __init__(self, choices: str, canonicalise: Canonical = canonical, name: str | None = None) -> None:
        super().__init__(canonicalise, name)
        self._choices = choices

    def misfit(self, reference: str) -> str | None:
        if reference.casefold() in self._choices.casefold() and len(reference) == 1:
            return None
        return f"the reference {reference[:80]!r} is not one of the choices {self._choices}; mend choices"

    def compare(self, answer: str, reference: str) -> Verdict:
        return Verdict(self.name, score=float(answer.casefold() == reference.casefold()))


class NumericVerifier(ReferenceRule):
    """1 where answer and reference differ by at most ``tolerance`` · |reference|, ``absolute`` or ``TINY``, computed
    exactly.

    An answer that is no number is wrong; a reference that is none is an error.
    """

    name = "numeric"

    def __init__(
        self, tolerance: float, canonicalise: Canonical = canonical, absolute: float = 0.0, name: str | None = None
    ) -> None:
        super().__init__(canonicalise, name)
        self._tolerance = Fraction(tolerance)
        self._absolute = max(Fraction(absolute), TINY)

    def misfit(self, reference: str) -> str | None:
        if as_number(reference) is not None:
            return None
        return f"the reference {reference[:80]!r} is not a number; use compare: exact"

    def compare(self, answer: str, reference: str) -> Verdict:
        gold, given = as_number(reference), as_number(answer)
        assert gold is not None, "misfit() comes first"
        if given is None:
            return Verdict(self.name, score=0.0, detail="the answer is not a number")
        close = abs(given - gold) <= max(self._tolerance * abs(gold), self._absolute)
        return Verdict(self.name, score=float(close))


class QuantityVerifier:
    """1 where answer and reference are one quantity; see ``units.same`` for what a missing unit means."""

    def __init__(
        self, tolerance: float, raw: RawAnswer, absolute: float = 0.0, require: bool = False, name: str = "numeric"
    ) -> None:
        self.name = name
        self._raw, self._require = raw, require
        self._tolerance, self._absolute = Fraction(tolerance), max(Fraction(absolute), TINY)

    def problem(self, reference: str | None) -> str | None:
        """Why nothing can be compared with this reference, or None."""
        if reference is None or not reference.strip():
            return NO_REFERENCE
        if _quantity(reference) is None:
            return f"the reference {reference[:80]!r} is not a number with a unit; use kind exact"
        return None

    async def __call__(self, item: Item, samples: Sequence[Sample]) -> list[Verdict]:
        gold = _quantity(item.reference or "")
        if gold is None:
            return [Verdict(self.name, error=self.problem(item.reference) or NO_REFERENCE) for _ in samples]
        return [self._judge(self._raw.of(sample), gold) for sample in samples]

    def _judge(self, answer: str | None, gold: Quantity) -> Verdict:
        if answer is None:
            return Verdict(self.name, score=0.0, detail=UNPARSED)
        given = _quantity(answer)
        if given is None:
            return Verdict(self.name, score=0.0, detail="the answer is not a number with a unit")
        if same(given, gold, self._tolerance, self._absolute, self._require):
            return Verdict(self.name, score=1.0)
        unlike = given.unit is not None and gold.unit is not None and given.dimension != gold.dimension
        return Verdict(self.name, score=0.0, detail="another kind of quantity" if unlike else None)


def _quantity(text: str) -> Quantity | None:
    """As written, or out of its wrappers: only what is wrapped goes through ``canonical``, which folds case."""
    return as_quantity(text) or as_quantity(canonical(text) or "")
