"""The ``verifiers`` part of a job file: one section class a kind, told apart by ``kind``.

Pydantic only: a job is validated without importing what checks it. Promises: an unknown kind is an error that lists the
kinds there are; kinds of third parties (``register_section``, or the entry-point group ``ponder.verifiers``) are read,
dumped and documented like our own. What a kind *does* is in ``verifiers``; here is what the user writes.

Every section says four things of itself (class attributes or properties; the safe answer is the default):
``needs_reference`` (it compares with the gold answer), ``by_answer`` (its verdict depends on the question and
``Sample.answer`` alone, so that equal answers are checked once), ``cheap`` (bounded and fast enough to run inside the
worker; all others run in the pool of verifier actors) and ``worst_tokens`` (what one check may cost the budget).
"""

from __future__ import annotations

import contextvars
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    Field,
    GetJsonSchemaHandler,
    SerializeAsAny,
    WrapValidator,
    field_validator,
    model_validator,
)

from pipeline.verifier_kinds import (
    VerifierSection,
    by_answer,
    is_cheap,
    kinds,
    needs_reference,
    register_section,
    section_of,
    select,
    worst_tokens,
)

MAX_NESTING = 8
"""Combinations inside combinations; a deeper one is a mistake, or an attack on the recursion limit."""


class _ReferenceSection(VerifierSection):
    needs_reference: ClassVar[Any] = True
    by_answer: ClassVar[Any] = True

    against: Literal["reference"] = "reference"


class ExactSpec(_ReferenceSection):
    """1 where answer and reference have one canonical form."""

    cheap: ClassVar[Any] = True

    kind: Literal["exact"] = "exact"


class NumericSpec(_ReferenceSection):
    """1 where answer and reference are close as numbers, or as quantities with units."""

    cheap: ClassVar[Any] = True

    kind: Literal["numeric"] = "numeric"
    tolerance: float = Field(1e-6, ge=0, allow_inf_nan=False, description="Relative tolerance")
    absolute: float = Field(0.0, ge=0, allow_inf_nan=False, description="Absolute tolerance, in the reference's unit")
    units: Literal["ignore", "convert", "require"] = Field(
        "ignore",
        description="ignore: numbers only; convert: 1.5 km is 1500 m, a missing unit is the reference's; require: a "
        "missing unit is wrong. Needs answer.extract boxed, regex, json or text: last_number drops units",
    )

    @property
    def by_answer(self) -> bool:
        # Canonical answers have lost their case, and MW is not mW: units are read from the text.
        return self.units == "ignore"


class ChoiceSpec(_ReferenceSection):
    """1 where the answer is the letter of the reference."""

    cheap: ClassVar[Any] = True

    kind: Literal["choice"] = "choice"
    choices: str | None = Field(None, min_length=1, description="The letters allowed; default: answer.choices")


class MathSpec(_ReferenceSection):
    """1 where math-verify finds answer and reference equal."""

    kind: Literal["math"] = "math"


class RegexSpec(VerifierSection):
    """1 where the pattern is found."""

    cheap: ClassVar[Any] = True

    kind: Literal["regex"] = "regex"
    pattern: str = Field(min_length=1, max_length=10_000, description="A pattern of the `regex` package")
    on: Literal["text", "answer"] = Field("text", description="What is searched: the completion, or the answer")
    whole: bool = Field(False, description="The pattern must match all of it, not a part")
    ignore_case: bool = False
    absent: bool = Field(False, description="Turn it round: 1 where the pattern is not found")
    timeout: float = Field(1.0, gt=0, allow_inf_nan=False, description="Seconds a search may take on one sample")

    @property
    def by_answer(self) -> bool:
        return self.on == "answer"

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        import regex  # type: ignore[import-untyped]

        try:
            regex.compile(value)
        except regex.error as error:
            raise ValueError(f"pattern {value!r} is not a regular expression: {error}") from None
        return value


class JsonSchemaSpec(VerifierSection):
    """1 where the completion holds JSON that meets a JSON Schema."""

    cheap: ClassVar[Any] = True

    kind: Literal["json_schema"] = "json_schema"
    definition: dict[str, Any] | bool = Field(description="The JSON Schema (draft 2020-12 unless it names another)")
    on: Literal["text", "answer"] = Field("text", description="Where the JSON is: the completion, or the answer")
    whole: bool = Field(False, description="All of it must be JSON; otherwise the last object in it is taken")

    @property
    def by_answer(self) -> bool:
        return self.on == "answer"

    @field_validator("definition")
    @classmethod
    def _is_schema(cls, value: dict[str, Any] | bool) -> dict[str, Any] | bool:
        from jsonschema import SchemaError  # type: ignore[import-untyped]
        from jsonschema.validators import validator_for  # type: ignore[import-untyped]

        try:
            validator_for(value).check_schema(value)
        except SchemaError as error:
            where = "/".join(str(part) for part in error.absolute_path) or "its top"
            raise ValueError(f"definition is no JSON Schema: at {where}: {error.message[:200]}") from None
        except RecursionError:
            raise ValueError("definition is nested too deeply to be checked") from None
        return value


class ReasoningGymSpec(VerifierSection):
    """The score reasoning_gym's own ``score_answer`` gives, for rows of a ``reasoning_gym:TASK`` dataset."""

    kind: Literal["reasoning_gym"] = "reasoning_gym"
    task: str | None = Field(None, min_length=1, description="The task; default: the one the row's metadata names")
    timeout: float = Field(10.0, gt=0, allow_inf_nan=False, description="Seconds one score may take")


class FunctionSpec(VerifierSection):
    """A plain Python function, sync or async: ``(item, sample) -> float | bool``."""

    kind: Literal["function"] = "function"
    function: str = Field(
        pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$", description="package.module:name"
    )
    batch: bool = Field(False, description="The function takes (item, samples) and returns a list, one score a sample")
    timeout: float = Field(30.0, gt=0, allow_inf_nan=False, description="Seconds one call may take")


class _Combination(VerifierSection):
    of: list[VerifierSpec] = Field(min_length=1, description="The verifiers combined, run in this order")
    timeout: float = Field(120.0, gt=0, allow_inf_nan=False, description="Seconds all of them together may take")

    @property
    def needs_reference(self) -> bool:
        return any(needs_reference(part) for part in self.of)

    @property
    def by_answer(self) -> bool:
        return all(by_answer(part) for part in self.of)

    @property
    def cheap(self) -> bool:
        return all(is_cheap(part) for part in self.of)

    @property
    def worst_tokens(self) -> int:
        return sum(worst_tokens(part) for part in self.of)

    @field_validator("of", mode="before")
    @classmethod
    def _shallow(cls, value: Any) -> Any:
        if _depth(value) > MAX_NESTING:
            raise ValueError(f"combinations are nested more than {MAX_NESTING} deep; flatten them")
        return value


class AllSpec(_Combination):
    """The lowest score: 1 where every part says 1. A part that scores 0 decides, whatever failed beside it."""

    kind: Literal["all"] = "all"


class AnySpec(_Combination):
    """The highest score: 1 where some part says 1. A part that scores 1 decides, whatever failed beside it."""

    kind: Literal["any"] = "any"


class WeightedSpec(_Combination):
    """The weighted mean of the parts' scores; an error where a part of weight above 0 gave none."""

    kind: Literal["weighted"] = "weighted"
    weights: list[Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(description="One a part, not all 0")

    @model_validator(mode="after")
    def _one_weight_a_part(self) -> WeightedSpec:
        if len(self.weights) != len(self.of):
            raise ValueError(f"weights: one a part expected ({len(self.of)}), got {len(self.weights)}")
        if not 0 < sum(self.weights) < float("inf"):
            raise ValueError("weights: their sum must be above 0 and finite; give at least one part a weight")
        return self


class _Documented:
    """Adds the kinds that are not in the static union to the JSON Schema of a job."""

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        found = handler(schema)
        if _documenting.get():
            return found
        token = _documenting.set(True)
        try:
            later = [handler(section.__pydantic_core_schema__) for section in _others()]
        finally:
            _documenting.reset(token)
        return found if not later else {"anyOf": [found, *later]}


_documenting: contextvars.ContextVar[bool] = contextvars.ContextVar("documenting", default=False)

VerifierSpec = Annotated[
    SerializeAsAny[
        ExactSpec
        | NumericSpec
        | ChoiceSpec
        | MathSpec
        | RegexSpec
        | JsonSchemaSpec
        | ReasoningGymSpec
        | FunctionSpec
        | AllSpec
        | AnySpec
        | WeightedSpec
    ],
    Field(discriminator="kind"),
    WrapValidator(select),
    _Documented(),
]

OURS: tuple[type[VerifierSection], ...] = (
    ExactSpec,
    NumericSpec,
    ChoiceSpec,
    MathSpec,
    RegexSpec,
    JsonSchemaSpec,
    ReasoningGymSpec,
    FunctionSpec,
    AllSpec,
    AnySpec,
    WeightedSpec,
)


def _others() -> Iterator[type[BaseModel]]:
    for kind in kinds():
        section = section_of(kind)
        if section is not None and section not in OURS:
            yield section


def _depth(value: Any) -> int:
    """How many ``of`` lists are nested in ``value``, counted without recursion."""
    deepest, todo = 0, [(value, 1)]
    while todo:
        here, depth = todo.pop()
        if not isinstance(here, list):
            continue
        deepest = max(deepest, depth)
        if depth > MAX_NESTING:
            return depth
        todo += [(part.get("of"), depth + 1) for part in here if isinstance(part, dict)]
    return deepest


for _ours in OURS:
    register_section(_ours.model_fields["kind"].default, _ours)
for _section in (_Combination, AllSpec, AnySpec, WeightedSpec):
    _section.model_rebuild()
