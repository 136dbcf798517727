"""Rules and registry, by hand-worked tables."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.errors import SpecError
from pipeline.records import Item, Sample, Verdict
from pipeline.spec import AnswerSpec
from pipeline.verifier_spec import ChoiceSpec, ExactSpec, MathSpec, NumericSpec, VerifierSection
from verifiers.math_equal import MathVerifier
from verifiers.registry import Correctness, make_compare, make_verifier
from verifiers.rules import NO_REFERENCE, UNPARSED, ExactVerifier, NumericVerifier


def samples(*answers: str | None) -> list[Sample]:
    return [Sample("q", i, prompt_key="k", text="", answer=answer) for i, answer in enumerate(answers)]


async def test_exact_compares_canonical_forms_in_order() -> None:
    verdicts = await ExactVerifier()(Item("q", reference=r"\boxed{1,000}"), samples("1000", "1001", None, "1e3"))
    assert verdicts == [
        Verdict("exact", 1.0),
        Verdict("exact", 0.0),
        Verdict("exact", 0.0, detail=UNPARSED),
        Verdict("exact", 1.0),
    ]


@pytest.mark.parametrize("verifier", [ExactVerifier(), NumericVerifier(0.1)])
@pytest.mark.parametrize("reference", [None, "", " "])
async def test_without_a_reference_nothing_can_be_judged(verifier: Any, reference: str | None) -> None:
    verdicts = await verifier(Item("q", reference=reference), samples("1", None))
    assert verdicts == [Verdict(verifier.name, error=NO_REFERENCE)] * 2


@pytest.mark.parametrize(
    ("answer", "reference", "tolerance", "score"),
    [
        ("100.9", "100", 0.01, 1.0),
        ("101.1", "100", 0.01, 0.0),
        ("99", "100", 0.01, 1.0),
        ("0.3333333", "1/3", 1e-6, 1.0),
        ("0.333", "1/3", 1e-6, 0.0),
        ("-5", "5", 1e-6, 0.0),
        ("1e-13", "0", 1e-6, 1.0),
        ("1e-11", "0", 1e-6, 0.0),
        ("2", "2", 0.0, 1.0),
        ("1e99", "1e99", 0.0, 1.0),
        ("1e999999", "5", 0.1, 0.0),
        ("five", "5", 0.1, 0.0),
    ],
)
async def test_numeric(answer: str, reference: str, tolerance: float, score: float) -> None:
    (verdict,) = await NumericVerifier(tolerance)(Item("q", reference=reference), samples(answer))
    assert verdict.score == score


async def test_numeric_with_a_reference_that_is_no_number_is_an_error() -> None:
    (verdict,) = await NumericVerifier(0.1)(Item("q", reference="five"), samples("five"))
    assert verdict == Verdict("numeric", error="the reference 'five' is not a number; use compare: exact")


@pytest.mark.parametrize(
    ("spec", "made"), [(ExactSpec(), ExactVerifier), (NumericSpec(), NumericVerifier), (MathSpec(), MathVerifier)]
)
def test_registry_makes_each_kind(spec: VerifierSection, made: type) -> None:
    verifier = make_verifier(spec, AnswerSpec())
    assert isinstance(verifier, made)
    assert verifier.name == spec.kind
    assert make_verifier(spec.model_copy(update={"name": "mine"}), AnswerSpec()).name == "mine"


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [("B", "b", 1.0), ("(b)", "B", 1.0), ("A", "B", 0.0), ("AB", "B", 0.0), (None, "B", 0.0), ("B", "(B).", 1.0)],
)
async def test_choice(answer: str | None, reference: str, score: float) -> None:
    (verdict,) = await make_verifier(ChoiceSpec(), AnswerSpec())(Item("q", reference=reference), samples(answer))
    assert verdict.score == score


async def test_a_reference_that_is_no_choice_is_an_error() -> None:
    (verdict,) = await make_verifier(ChoiceSpec(choices="AB"), AnswerSpec())(Item("q", reference="C"), samples("C"))
    assert verdict.error == "the reference 'C' is not one of the choices AB; mend choices"


async def test_an_absolute_tolerance_adds_to_the_relative_one() -> None:
    rule = make_verifier(NumericSpec(tolerance=0.0, absolute=0.5), AnswerSpec())
    verdicts = await rule(Item("q", reference="10"), samples("10.5", "10.51"))
    assert [verdict.score for verdict in verdicts] == [1.0, 0.0]


async def test_a_verifier_reads_answers_as_the_job_says() -> None:
    code = make_verifier(ExactSpec(), AnswerSpec(extract="code"))
    verdicts = await code(Item("q", reference="X = 1\n"), samples("X = 1", "x = 1"))
    assert [verdict.score for verdict in verdicts] == [1.0, 0.0]
    numeric = make_verifier(NumericSpec(tolerance=0.5), AnswerSpec())
    verdicts = await numeric(Item("q", reference="10"), samples("14", "16"))
    assert [verdict.score for verdict in verdicts] == [1.0, 0.0]


CASES: list[tuple[str, str | None, str | None, bool | None]] = [
    ("exact", "1,000", "1000", True),
    ("exact", "7", "8", False),
    ("exact", None, "8", False),
    ("exact", "8", None, None),
    ("exact", None, None, None),
    ("numeric", "1.0000001", "1", True),
    ("numeric", "1.1", "1", False),
    ("numeric", None, "1", False),
    ("numeric", "1", "one", None),
    ("math", "2/4", "0.5", True),
    ("math", None, "1", False),
    ("math", "1", None, None),
]


@pytest.mark.parametrize(("compare", "answer", "reference", "expected"), CASES)
async def test_correct(compare: Any, answer: str | None, reference: str | None, expected: bool | None) -> None:
    correctness = Correctness(AnswerSpec(compare=compare))
    try:
        assert await correctness.correct(answer, reference) is expected
    finally:
        await correctness.close()


@pytest.mark.parametrize(("compare", "answer", "reference", "expected"), [case for case in CASES if case[0] != "math"])
def test_compare(compare: Any, answer: str | None, reference: str | None, expected: bool | None) -> None:
    assert make_compare(AnswerSpec(compare=compare))(answer, reference) is bool(expected)


def test_compare_refuses_what_would_block() -> None:
    with pytest.raises(SpecError, match=r"answer\.compare: 'math'"):
        make_compare(AnswerSpec(compare="math"))
