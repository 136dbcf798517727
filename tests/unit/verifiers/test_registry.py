"""Kinds as a job names them: ours, nested ones, and a third party's."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

import pytest

from pipeline import verifier_kinds
from pipeline.errors import SpecError
from pipeline.records import Item, Sample, Verdict
from pipeline.spec import AnswerSpec, JobSpec, parse
from pipeline.verifier_kinds import VerifierSection, by_answer, is_cheap, needs_reference
from tests.factories import make_spec
from verifiers import registry
from verifiers.registry import check_reference, make_verifier, register


def of(*verifiers: Any, **dataset: Any) -> list[Any]:
    return list(make_spec(verifiers=list(verifiers), dataset={"reference": "gold", **dataset}).verifiers)


NESTED = {
    "kind": "all",
    "name": "both",
    "of": [{"kind": "exact"}, {"kind": "weighted", "of": [{"kind": "regex", "pattern": "a"}], "weights": [2]}],
}


def test_a_job_survives_being_written_and_read() -> None:
    spec = make_spec(verifiers=[NESTED, {"kind": "numeric", "units": "convert"}], dataset={"reference": "gold"})
    dumped = spec.model_dump(mode="json")
    assert dumped["verifiers"][0]["of"][1]["of"][0]["pattern"] == "a"
    assert parse(dumped) == spec


@pytest.mark.parametrize(
    ("verifier", "error"),
    [
        ({"kind": "nope"}, "unknown verifier kind 'nope'; choose one of: all, any, behaviour, choice, exact"),
        ({}, "a verifier needs a kind, one of: all"),
        (5, "a verifier is a mapping"),
        ({"kind": "exact", "colour": 1}, "verifiers.0.colour: unknown field"),
        ({"kind": "numeric", "tolerance": -1}, "verifiers.0.tolerance"),
        ({"kind": "regex", "pattern": "("}, "is not a regular expression"),
        ({"kind": "json_schema", "definition": {"type": "strin"}}, "definition is no JSON Schema: at type"),
        ({"kind": "function", "function": "no_colon"}, "verifiers.0.function"),
        ({"kind": "all", "of": []}, "verifiers.0.of"),
        ({"kind": "all", "of": [{"kind": "regex", "pattern": "("}]}, "verifiers.0.of.0.pattern"),
        ({"kind": "weighted", "of": [{"kind": "exact"}], "weights": [1, 2]}, r"one a part expected \(1\), got 2"),
        ({"kind": "weighted", "of": [{"kind": "exact"}], "weights": [0]}, "sum must be above 0"),
        ({"kind": "weighted", "of": [{"kind": "exact"}], "weights": [float("nan")]}, "verifiers.0.weights"),
    ],
)
def test_a_wrong_verifier_is_told(verifier: Any, error: str) -> None:
    with pytest.raises(SpecError, match=error):
        of(verifier)


def test_endless_nesting_is_told() -> None:
    nested: dict[str, Any] = {"kind": "exact"}
    for _ in range(50):
        nested = {"kind": "all", "of": [nested]}
    with pytest.raises(SpecError, match="nested more than"):
        of(nested)


def test_two_verifiers_of_one_name_are_told() -> None:
    with pytest.raises(SpecError, match="two verifiers are called 'exact'"):
        of({"kind": "exact"}, {"kind": "exact"})
    assert len(of({"kind": "exact"}, {"kind": "exact", "name": "other"})) == 2


def test_only_what_compares_needs_a_reference() -> None:
    regex = {"kind": "regex", "pattern": "a"}
    assert len(of(regex, reference=None)) == 1
    with pytest.raises(SpecError, match=r"\(kind any\): set dataset.reference"):
        of({"kind": "any", "of": [regex, {"kind": "exact"}]}, reference=None)


def test_what_kinds_say_of_themselves() -> None:
    specs = of(
        NESTED,
        {"kind": "exact"},
        {"kind": "math"},
        {"kind": "numeric", "units": "convert"},
        {"kind": "function", "function": "a:b"},
        {"kind": "any", "of": [{"kind": "exact"}, {"kind": "math"}]},
    )
    assert [is_cheap(spec) for spec in specs] == [True, True, False, True, False, False]
    assert [by_answer(spec) for spec in specs] == [False, True, True, False, False, True]
    assert [needs_reference(spec) for spec in specs] == [True, True, True, True, False, True]


@pytest.mark.parametrize(
    ("verifier", "reference", "problem"),
    [
        ({"kind": "exact"}, None, "no reference to compare with"),
        ({"kind": "exact"}, "x", None),
        ({"kind": "numeric"}, "x", "the reference 'x' is not a number"),
        ({"kind": "numeric"}, "1/2", None),
        ({"kind": "choice"}, "Z", "the reference 'Z' is not one of the choices ABCDE"),
        ({"kind": "choice"}, "(b)", None),
        ({"kind": "math"}, "x" * 5_000, "the reference is longer than 4000 characters"),
        ({"kind": "regex", "pattern": "a"}, None, None),
        ({"kind": "any", "of": [{"kind": "exact"}, {"kind": "numeric"}]}, "x", "numeric: the reference 'x' is not"),
    ],
)
def test_references_are_checked_beforehand(verifier: Any, reference: str | None, problem: str | None) -> None:
    (spec,) = of(verifier)
    found = check_reference(spec, Item("q", reference=reference), AnswerSpec())
    assert found is None if problem is None else (found or "").startswith(problem)


class LengthSpec(VerifierSection):
    """A third party's kind."""

    cheap: ClassVar[Any] = True

    kind: Literal["length"] = "length"
    limit: int = 10


class Length:
    def __init__(self, spec: LengthSpec) -> None:
        self.name, self._limit = spec.label, spec.limit

    async def __call__(self, item: Item, samples: Sequence[Sample]) -> list[Verdict]:
        return [Verdict(self.name, float(len(sample.text) <= self._limit)) for sample in samples]


@pytest.fixture
def length() -> Iterator[None]:
    register("length", LengthSpec, lambda spec, answer: Length(spec), lambda spec, item, answer: "never fits")
    yield
    del verifier_kinds._SECTIONS["length"]
    del registry._FACTORIES["length"]
    del registry._CHECKS["length"]


@pytest.mark.usefixtures("length")
async def test_a_third_partys_kind_is_like_ours() -> None:
    spec = make_spec(verifiers=[{"kind": "all", "of": [{"kind": "length", "limit": 3}]}])
    assert parse(spec.model_dump(mode="json")) == spec
    assert is_cheap(spec.verifiers[0])
    verdicts = await make_verifier(spec.verifiers[0], AnswerSpec())(
        Item("q"), [Sample("q", 0, "k", "abc"), Sample("q", 1, "k", "abcd")]
    )
    assert [verdict.score for verdict in verdicts] == [1.0, 0.0]
    assert check_reference(spec.verifiers[0], Item("q")) == "length: never fits"
    documented = JobSpec.model_json_schema()["properties"]["verifiers"]["items"]["anyOf"]
    assert [each["title"] for each in documented if "title" in each] == ["BehaviourSpec", "LengthSpec", "ProgramsSpec"]
    with pytest.raises(SpecError, match=r"verifiers\.0\.limit"):
        of({"kind": "length", "limit": "x"})


@pytest.mark.usefixtures("length")
def test_a_kind_belongs_to_one_class() -> None:
    class Other(VerifierSection):
        kind: Literal["length"] = "length"

    with pytest.raises(ValueError, match="'length' is taken by"):
        register("length", Other, lambda spec, answer: Length(spec))
    with pytest.raises(ValueError, match="'exact' is taken by"):
        register("exact", Other, lambda spec, answer: Length(spec))


def test_a_laptop_validates_without_what_checks() -> None:
    program = (
        "import sys; from pipeline.spec import parse\n"
        "parse({'dataset': {'path': 'q.jsonl', 'reference': 'g'}, 'budget': {'tokens': 5}, 'output': 'x',"
        " 'verifiers': [{'kind': 'math'}, {'kind': 'reasoning_gym'}, {'kind': 'function', 'function': 'a:b'}]})\n"
        "print([m for m in ('torch', 'ray', 'vllm', 'sympy', 'math_verify', 'reasoning_gym') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
