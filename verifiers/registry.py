"""From a job's words to verifiers: the one place where kinds are looked up. Owns no state."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.errors import SpecError
from pipeline.records import Item, Sample
from pipeline.spec import AnswerSpec, VerifierSpec
from verifiers.canonical import Canonical, canonical_for
from verifiers.contract import Closable, Verifier
from verifiers.math_equal import MathVerifier
from verifiers.rules import ExactVerifier, NumericVerifier, ReferenceRule

MATH_SECONDS = 5.0
"""What a comparison of an answer with its reference may take; verifiers set their own ``timeout``."""


def make_verifier(spec: VerifierSpec, answer: AnswerSpec) -> Verifier:
    """The verifier ``spec`` names, reading answers and references as ``answer`` says."""
    return _make(spec.kind, canonical_for(answer), spec.tolerance, spec.timeout)


def make_compare(answer: AnswerSpec) -> Callable[[str | None, str | None], bool]:
    """Is this answer the reference? False where either is missing or cannot be compared.

    Raises:
        SpecError: ``compare: math``, which must not block its caller: use ``Correctness``.
    """
    rule = _make(answer.compare, canonical_for(answer), answer.tolerance, MATH_SECONDS)
    if not isinstance(rule, ReferenceRule):
        raise SpecError(f"answer.compare: {answer.compare!r} cannot be compared synchronously; use exact or numeric")
    return lambda given, reference: rule.judge(given, reference).score == 1.0


class Correctness:
    """Whether an answer meets its reference, for every ``compare``: what fills ``Answer.correct``."""

    def __init__(self, answer: AnswerSpec) -> None:
        self._rule = _make(answer.compare, canonical_for(answer), answer.tolerance, MATH_SECONDS)

    async def correct(self, answer: str | None, reference: str | None) -> bool | None:
        """True or False; an unparsed answer is False. None without a usable reference, or where nothing could tell.

        Raises:
            VerifierError: the process that compares mathematics cannot be started.
        """
        sample = Sample("", 0, prompt_key="", text="", answer=answer)
        (verdict,) = await self._rule(Item("", reference=reference), [sample])
        return None if verdict.score is None else verdict.score == 1.0

    async def close(self) -> None:
        """Let go of what the comparison holds. Idempotent."""
        if isinstance(self._rule, Closable):
            await self._rule.close()


def _make(
    kind: str, canonicalise: Canonical, tolerance: float, seconds: float
) -> ExactVerifier | NumericVerifier | MathVerifier:
    if kind == "exact":
        return ExactVerifier(canonicalise)
    if kind == "numeric":
        return NumericVerifier(tolerance, canonicalise)
    return MathVerifier(seconds, canonicalise)
