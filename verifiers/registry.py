"""From a job's words to verifiers: the one place where kinds are looked up.

Third parties add a kind with ``register(kind, Section, factory)``, in a module that the entry-point group
``ponder.verifiers`` names or that they import themselves; from then on a job names it like ours.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, cast

from pydantic import BaseModel

from pipeline.errors import SpecError
from pipeline.records import Item, Sample
from pipeline.spec import AnswerSpec
from pipeline.verifier_kinds import kinds, label_of, needs_reference, register_section
from pipeline.verifier_spec import (
    AllSpec,
    AnySpec,
    ChoiceSpec,
    ExactSpec,
    FunctionSpec,
    JsonSchemaSpec,
    MathSpec,
    NumericSpec,
    ReasoningGymSpec,
    RegexSpec,
    WeightedSpec,
)
from verifiers.canonical import Canonical, canonical_for
from verifiers.combine import AllVerifier, AnyVerifier, WeightedVerifier
from verifiers.contract import Closable, Verifier
from verifiers.extract import make_extractor
from verifiers.math_equal import MAX_CHARS, MathVerifier
from verifiers.rules import (
    NO_REFERENCE,
    ChoiceVerifier,
    ExactVerifier,
    NumericVerifier,
    QuantityVerifier,
    RawAnswer,
    ReferenceRule,
)

MATH_SECONDS = 5.0
"""What a comparison of an answer with its reference may take; verifiers set their own ``timeout``."""

Factory = Callable[[Any, AnswerSpec], Verifier]
"""Makes a verifier from its section and how the job reads answers. May raise SpecError."""
Check = Callable[[Any, Item, AnswerSpec], str | None]
"""Why a section's verifier cannot judge this row, or None. Instant: it is asked of every row beforehand."""


def register(kind: str, section: type[BaseModel], factory: Factory, check: Check | None = None) -> None:
    """Add a kind of verifier. ``section`` needs a field ``kind: Literal[kind]``; see ``pipeline.verifier_spec`` for
    what else a section may say of itself. ``check`` tells rows the verifier cannot judge before anything is spent.

    Raises:
        ValueError: another class has that kind.
    """
    register_section(kind, section)
    _FACTORIES[kind] = factory
    if check is not None:
        _CHECKS[kind] = check


def make_verifier(spec: BaseModel, answer: AnswerSpec) -> Verifier:
    """The verifier ``spec`` names, reading answers and references as ``answer`` says.

    Raises:
        SpecError: the kind has no factory, or the factory refuses.
    """
    kind = str(getattr(spec, "kind", ""))
    factory = _FACTORIES.get(kind)
    if factory is None:
        known = ", ".join(kinds())
        raise SpecError(f"verifiers: kind {kind!r} has no factory (kinds: {known}); import what registers it")
    return factory(spec, answer)


def checks_rows(spec: BaseModel) -> bool:
    """Is there anything ``check_reference`` could find?"""
    return str(getattr(spec, "kind", "")) in _CHECKS or needs_reference(spec)


def check_reference(spec: BaseModel, item: Item, answer: AnswerSpec | None = None) -> str | None:
    """Why this row cannot be judged by this verifier, as far as that can be known beforehand; None: it can."""
    answer = answer or AnswerSpec()
    check = _CHECKS.get(str(getattr(spec, "kind", "")))
    if check is not None:
        return check(spec, item, answer)
    if needs_reference(spec) and canonical_for(answer)(item.reference) is None:
        return NO_REFERENCE
    return None


def make_compare(answer: AnswerSpec) -> Callable[[str | None, str | None], bool]:
    """Is this answer the reference? False where either is missing or cannot be compared.

    Raises:
        SpecError: ``compare: math``, which must not block its caller: use ``Correctness``.
    """
    rule = _comparer(answer)
    if not isinstance(rule, ReferenceRule):
        raise SpecError(f"answer.compare: {answer.compare!r} cannot be compared synchronously; use exact or numeric")
    return lambda given, reference: rule.judge(given, reference).score == 1.0


class Correctness:
    """Whether an answer meets its reference, for every ``compare``: what fills ``Answer.correct``."""

    def __init__(self, answer: AnswerSpec) -> None:
        self._rule = _comparer(answer)

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


def _comparer(answer: AnswerSpec) -> ExactVerifier | NumericVerifier | MathVerifier:
    canonicalise = canonical_for(answer)
    if answer.compare == "exact":
        return ExactVerifier(canonicalise)
    if answer.compare == "numeric":
        return NumericVerifier(answer.tolerance, canonicalise)
    return MathVerifier(MATH_SECONDS, canonicalise)


def _raw(answer: AnswerSpec) -> RawAnswer:
    return RawAnswer(make_extractor(answer), canonical_for(answer))


def _exact(spec: ExactSpec, answer: AnswerSpec) -> ExactVerifier:
    return ExactVerifier(canonical_for(answer), spec.label)


def _numeric(spec: NumericSpec, answer: AnswerSpec) -> NumericVerifier | QuantityVerifier:
    if spec.units == "ignore":
        return NumericVerifier(spec.tolerance, canonical_for(answer), spec.absolute, spec.label)
    return QuantityVerifier(spec.tolerance, _raw(answer), spec.absolute, spec.units == "require", spec.label)


def _choice(spec: ChoiceSpec, answer: AnswerSpec) -> ChoiceVerifier:
    choices = spec.choices or answer.choices
    canonicalise: Canonical = canonical_for(AnswerSpec(extract="choice", choices=choices))
    return ChoiceVerifier(choices, canonicalise, spec.label)


def _math(spec: MathSpec, answer: AnswerSpec) -> MathVerifier:
    return MathVerifier(spec.timeout, canonical_for(answer), name=spec.label)


def _regex(spec: RegexSpec, answer: AnswerSpec) -> Verifier:
    from verifiers.patterns import RegexVerifier

    return RegexVerifier(spec)


def _json_schema(spec: JsonSchemaSpec, answer: AnswerSpec) -> Verifier:
    from verifiers.json_schema import JsonSchemaVerifier

    return JsonSchemaVerifier(spec)


def _reasoning_gym(spec: ReasoningGymSpec, answer: AnswerSpec) -> Verifier:
    from verifiers.gym import ReasoningGymVerifier

    return ReasoningGymVerifier(spec, _raw(answer))


def _function(spec: FunctionSpec, answer: AnswerSpec) -> Verifier:
    from verifiers.function import FunctionVerifier

    return FunctionVerifier(spec)


def _programs(spec: Any, answer: AnswerSpec) -> Verifier:
    # By name: the sandbox loads only where a job runs programs.
    return cast(Verifier, importlib.import_module("verifiers.programs").make_programs(spec))


def _behaviour(spec: Any, answer: AnswerSpec) -> Verifier:
    return cast(Verifier, importlib.import_module("verifiers.behaviour").make_behaviour(spec))


def _parts(spec: AllSpec | AnySpec | WeightedSpec, answer: AnswerSpec) -> list[Verifier]:
    return [make_verifier(part, answer) for part in spec.of]


def _all(spec: AllSpec, answer: AnswerSpec) -> AllVerifier:
    return AllVerifier(spec.label, _parts(spec, answer), spec.timeout)


def _any(spec: AnySpec, answer: AnswerSpec) -> AnyVerifier:
    return AnyVerifier(spec.label, _parts(spec, answer), spec.timeout)


def _weighted(spec: WeightedSpec, answer: AnswerSpec) -> WeightedVerifier:
    return WeightedVerifier(spec.label, _parts(spec, answer), spec.weights, spec.timeout)


def _check_rule(spec: Any, item: Item, answer: AnswerSpec) -> str | None:
    rule = make_verifier(spec, answer)
    assert isinstance(rule, ReferenceRule | QuantityVerifier)
    return rule.problem(item.reference)


def _check_math(spec: MathSpec, item: Item, answer: AnswerSpec) -> str | None:
    gold = canonical_for(answer)(item.reference)
    if gold is None:
        return NO_REFERENCE
    return f"the reference is longer than {MAX_CHARS} characters" if len(item.reference or "") > MAX_CHARS else None


def _check_gym(spec: ReasoningGymSpec, item: Item, answer: AnswerSpec) -> str | None:
    from verifiers.gym import ReasoningGymVerifier

    return ReasoningGymVerifier(spec, _raw(answer)).problem(item)


def _check_parts(spec: AllSpec | AnySpec | WeightedSpec, item: Item, answer: AnswerSpec) -> str | None:
    for part in spec.of:
        problem = check_reference(part, item, answer)
        if problem is not None:
            return f"{label_of(part)}: {problem}"
    return None


def _check_row(spec: Any, item: Item, answer: AnswerSpec) -> str | None:
    """Of the kinds that run programs: each says it of its own rows."""
    return cast(str | None, importlib.import_module(f"verifiers.{spec.kind}").check_item(spec, item))


_FACTORIES: dict[str, Factory] = {
    "exact": _exact,
    "numeric": _numeric,
    "choice": _choice,
    "math": _math,
    "regex": _regex,
    "json_schema": _json_schema,
    "reasoning_gym": _reasoning_gym,
    "function": _function,
    "all": _all,
    "any": _any,
    "weighted": _weighted,
    "programs": _programs,
    "behaviour": _behaviour,
}
_CHECKS: dict[str, Check] = {
    "exact": _check_rule,
    "numeric": _check_rule,
    "choice": _check_rule,
    "math": _check_math,
    "reasoning_gym": _check_gym,
    "all": _check_parts,
    "any": _check_parts,
    "weighted": _check_parts,
    "programs": _check_row,
    "behaviour": _check_row,
}
